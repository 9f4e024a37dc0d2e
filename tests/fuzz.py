"""Inputs that nobody writes on purpose, thrown at everything that reads one: each is taken, or refused in plain words.

A target is a strategy of inputs and the function that meets them. An input may end in a result, in a `UsageError` or
in a `MachineError`, whose messages are one printable line each; anything else, and more than `MOST_S` seconds of
processor time, is a failure. `test_fuzz.py` throws a few thousand; `python tests/fuzz.py` throws all and prints the table.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import gzip
import io
import json
import math
import sys
import tempfile
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from bad_inputs import CONFIG, ROWS, SWEEP, call, write_demo, write_model
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from autotune.data.dataset import load_dataset
from autotune.data.schema import DataSpec
from autotune.errors import AutotuneError, Exit, MachineError, UsageError, printable
from autotune.models import config_of, context_of, parameters_of, shape_of
from autotune.present.explained import explain
from autotune.present.select import as_json, select
from autotune.present.status import as_text, read_status
from autotune.results.folder import read_results
from autotune.results.rows import CurvePoint, Finalist, Trial
from autotune.results.table import read_table
from autotune.sweepfile.resolve import load_sweep

MOST_S = 5.0
"""Seconds of processor time that one input may take: what takes more would hang a command."""
TOTAL = 102_000


# --- What is hostile -----------------------------------------------------------------------------------------------

DIGITS = "9" * 5000
TOKENS = (
    "", " ", "\n", "\r\n", "\r", "\t", "\0", "\x1b[2J\x1b[31m", "\x7f", "\x9b31m", "\ufeff", "\u2028", "\u202e", "\ud800", "\U0001f600",
    "{", "}", "[", "]", "{{", "}}", "{text}", "{tone}", "{text!r}", "{0}", "{text.__class__}", ",", ":", ": ", "- ", "=", "#", "&a ",
    "*a", "<<: *a", "!!int ", "!!python/object:os.system ", "!!binary ", "!!timestamp x", "? ", "|", ">", "%", "@", "`", "'", '"', '"""',
    "\\", "\\u0000", "\\ud800", "\\x1b", "null", "true", "nan", "NaN", ".inf", "Infinity", "-", "-1", "0", "1e999999", "-1e-999999",
    "0x" + "f" * 5000, DIGITS, "1" + "0" * 400, "1_000", "1:30", "2001-01-01", "1979-05-27T07:32:00Z", "[" * 300, "{a: " * 200, "(" * 3000,
    "a" * 3000, "a." * 2000, "../" * 500, "~", "~/x", "~nobody/x", "/dev/zero", "/dev/null", "/", ".", "..", "CON", "owner/name:train", "owner/name",
    "=cmd|' /C calc'!A0", "accuracy >= base", "size_mb <= 1e400", "a,b,c", '"open', "text", "tone", "model", "data", "train.csv",
    "validation", "messages", "role", "content", "choice", "loguniform", "int4", "precision", "accuracy", "candidate", "status", "ok",
)  # fmt: skip
BYTES = (
    b"",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\x80",
    b"\xed\xa0\x80",
    b"\0" * 40,
    b"PAR1",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\r",
    b"\n\n",
)
_HEX = int("f" * 5000, 16)
DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 8, 10**400, -(10**400), 10**4299, 2**31, 2**63, 2**64, 0.0, -0.0, 0.5, 1e-320, 1e308, 1e400, -1e400,
    math.nan, "", " ", [], {}, [[]], [{}], [None], {"a": 1}, {"": None}, [1, 2, 3], ["a", "b"], [0.1, 0.2], [2, 1], DEEP, {"choice": []},
    {"choice": [1, "a", None]}, {"choice": [4, 8]}, {"uniform": [0, 1]}, {"loguniform": [0, 1]}, {"int": [1, 10**400]}, {"logint": [1.5, 3]},
    {"uniform": [math.nan, math.inf]}, ["a"] * 3000, {str(n): n for n in range(1000)}, "x" * 20_000, *TOKENS,
)  # fmt: skip
KEYS = (
    "model", "data", "space", "lora", "build", "train", "target", "objectives", "limits", "budget", "name", "seed", "train", "validation", "test",
    "holdout", "test_holdout", "prompt", "completion", "messages", "labels", "max_items", "dataset", "split", "role", "content", "r", "alpha",
    "alpha_over_r", "target_modules", "precision", "block_size", "algorithm", "mixed_precision", "nodes_to_exclude", "choice", "uniform", "steps",
    "epochs", "max_length", "threads", "workload", "trust_remote_code", "hidden_size", "head_dim", "architectures", "auto_map", "text", "tone",
)  # fmt: skip

numbers = st.integers(0, 2**16)
odd_values = st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=12)
odd_keys = st.sampled_from(KEYS) | st.sampled_from(TOKENS) | st.text(max_size=6)


def with_surrogates(text: str) -> bytes:
    """Return a text as bytes; half a character stays half a character."""
    return text.encode("utf-8", "surrogatepass")


@st.composite
def mangled(draw: st.DrawFn, documents: Sequence[bytes]) -> bytes:
    """A document with pieces deleted, doubled, replaced, put in, cut off, or taken from another one."""
    content = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        operation, place, length, token = draw(st.tuples(st.integers(0, 7), numbers, numbers, numbers))
        start = place % (len(content) + 1)
        end = min(len(content), start + length % 24)
        tokens = [with_surrogates(TOKENS[token % len(TOKENS)]), BYTES[token % len(BYTES)]]
        if operation == 0:
            content = content[:start] + content[end:]
        elif operation == 1:
            content = content[:end] + content[start:end] * (token % 5) + content[end:]
        elif operation == 2:
            content = content[:start] if token % 4 == 0 else content
        elif operation == 3:
            other = documents[token % len(documents)]
            content = content[:start] + other[length % (len(other) + 1) :]
        elif operation == 4:
            content = content[:start] + bytes([token % 256]) + content[start:]
        elif operation == 5:  # a whole line or cell
            start = content.rfind((b"\n", b",", b":")[token % 3], 0, start) + 1
            content = content[:start] + tokens[0] + content[end:]
        else:
            content = content[:start] + tokens[operation == 7] + content[end:]
    return content


noise = st.binary(max_size=80) | st.text(max_size=60).map(with_surrogates)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value of a tree."""
    for step in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield (*path, step)
        yield from places(tree[step], (*path, step))


@st.composite
def spoilt(draw: st.DrawFn, trees: Sequence[Any]) -> Any:
    """Plain data with one to three of its values replaced, removed, doubled, or added to."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(tree))
        if not found:
            break
        *path, last = found[draw(numbers) % len(found)]
        here = tree
        for step in path:
            here = here[step]
        operation = draw(st.integers(0, 5))
        if operation == 0:
            del here[last]
        elif operation == 1 and isinstance(here, dict):
            here[draw(odd_keys)] = here.pop(last)
        elif operation == 2 and isinstance(here, dict):
            here[draw(odd_keys)] = copy.deepcopy(draw(odd_values))
        elif operation == 2:
            here.insert(last, copy.deepcopy(draw(odd_values)))
        else:
            here[last] = copy.deepcopy(draw(odd_values))
    return tree


def as_json_file(tree: Any) -> bytes:
    """Return plain data as JSON, with NaN and numbers that no float holds written as they are."""
    return with_surrogates(json.dumps(tree, ensure_ascii=False).replace("Infinity", "1e999999"))


def as_toml(value: Any, top: bool = True) -> str:
    """Return plain data as TOML; what it cannot say is left to the parser to refuse."""
    if isinstance(value, dict):
        pairs = [f"{json.dumps(key)} = {as_toml(part, top=False)}" for key, part in value.items()]
        return "\n".join(pairs) if top else "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(part, top=False) for part in value) + "]"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else str(value)
    return json.dumps(value, ensure_ascii=False) if value is not None else '""'


# --- What is right, before it is spoilt -----------------------------------------------------------------------------

SHORT = """\
model: model
data: { train: train.csv, holdout: 0.3, prompt: "T: {text}", completion: " {tone}", metric: choice }
space:
  lora: { r: { choice: [4, 8] }, alpha: 16 }
  build: [{ precision: int8 }]
limits: ["size_mb <= 100"]
"""
MESSAGES = """\
model: model
data:
  train: train.csv
  validation: validation.csv
  messages: [{ role: system, content: Be brief }, { role: user, content: "{text}" }, { role: assistant, content: "{tone}" }]
  max_items: { validation: 3 }
space: &s { lora: {} }
"""
DEMO: dict[str, Any] = yaml.safe_load(SWEEP) | {
    "space": {"lora": {"r": {"choice": [4, 8]}, "steps": 30}, "build": [{"precision": "int8"}]}
}
SWEEPS: tuple[Any, ...] = (DEMO, *map(yaml.safe_load, (SHORT, MESSAGES)))
DATA_ROWS: tuple[list[dict[str, Any]], ...] = (
    [{"text": text, "tone": tone} for text, tone in ROWS],
    [{"text": n, "tone": n % 2, "extra": [n]} for n in range(4)],
    [{"chat": [{"role": "user", "content": text}, {"role": "assistant", "content": tone}]} for text, tone in ROWS[:6]],
)
SPECS: tuple[dict[str, Any], ...] = (
    {"prompt": "T: {text}", "completion": " {tone}", "holdout": 0.3},
    {"prompt": "{text}{{}}", "completion": "{tone}", "holdout": 0.3, "test_holdout": 0.2, "metric": "exact_match"},
    {
        "prompt": "{text}",
        "completion": "{tone}",
        "holdout": 0.5,
        "metric": "f1",
        "labels": ["joy", "fear"],
        "max_items": {"train": 2},
    },
    {"messages": "chat", "holdout": 0.5, "metric": "perplexity"},
    {"messages": ["text?", "tone"], "holdout": 0.5, "metric": "exact_match"},
    {"prompt": "{text?Text: }", "completion": "{tone}", "metric": "rouge_l"},
)
RESULTS = """\
candidate,trial,attempt,kind,status,error,lora_r,lora_alpha,lora_learning_rate,lora_target_modules,build_precision,accuracy,accuracy_low,accuracy_high,accuracy_n,itl_ms_p50,itl_ms_p50_low,itl_ms_p50_high,graph,size_mb
b0,0,1,base,ok,,,,,,fp32,0.5,0.3,0.7,4,9.5,9,10,g0,500
aa,1,1,pair,ok,,8,16,0.001,attention,int4,0.75,0.5,0.9,4,4.5,4,5,g1,90
bb,2,1,pair,ok,,4,8,0.01,q_proj+v_proj,int8,0.5,0.3,0.7,4,6,5,7,g2,150
cc,3,1,pair,failed,it broke,4,8,0.01,mlp,int8,,,,,,,,,
"""
KEPT = {"metric": "choice", "split": "validation", "predicted": [0, 1, 1, 0], "gold": [0, 1, 1, 1]}
LOSSES = {"metric": "perplexity", "split": "validation", "nll": [1.0, 2.0, 0.5, 3.0], "tokens": [1, 2, 1, 1]}
RESOLVED = """\
name: demo
model: model
objectives: { accuracy: maximize, size_mb: minimize }
limits: ["size_mb <= 400"]
budget: { trials: 4 }
"""
RUNNING = {"pid": 1, "host": "elsewhere", "started": 0.0, "stage": "finetune", "since": 1.0, "trial": 2}
CONFIGS = (
    CONFIG | {"max_position_embeddings": 128},
    CONFIG | {"model_type": "llama", "auto_map": {"AutoModel": "own.Model"}, "head_dim": 16},
)
INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    scratch = tempfile.TemporaryDirectory(prefix="autotune-fuzz-", ignore_cleanup_errors=True)
    atexit.register(scratch.cleanup)
    return scratch


@cache
def desk() -> Path:
    """A folder for the inputs: the demo's model and data, and one folder of results."""
    folder = Path(_scratch().name)
    write_demo(folder)
    write_model(folder / "sharded")
    (folder / "sharded" / "model.safetensors").rename(folder / "sharded" / INDEX["weight_map"]["a"])
    (folder / "results" / "outcomes").mkdir(parents=True)
    (folder / "results.csv").write_text(RESULTS, encoding="utf-8")
    return folder


# --- What meets them ------------------------------------------------------------------------------------------------


def meet_sweep(suffix: str) -> Callable[[bytes], None]:
    """Load a sweep file with that content; what is taken must read the same again."""

    def meet(content: bytes) -> None:
        file = desk() / f"sweep{suffix}"
        file.write_bytes(content)
        sweep = load_sweep(file)
        plain = sweep.resolved()
        again = desk() / "resolved.json"
        again.write_text(json.dumps(plain), encoding="utf-8")
        assert load_sweep(again).resolved() == plain

    return meet


def meet_assignment(assignments: list[str]) -> None:
    """Change a right sweep by `--set`."""
    file = desk() / "right.json"
    if not file.exists():
        file.write_bytes(as_json_file(DEMO))
    load_sweep(file, assignments)


def meet_limit(limit: tuple[str, str | None]) -> None:
    """Select under a limit and a preference."""
    selection = select(desk() / "results.csv", [limit[0]], limit[1])
    assert_plain(explain(selection))


def meet_data(suffix: str) -> Callable[[tuple[bytes, dict[str, Any]]], None]:
    """Read and split a data file with that content."""

    def meet(given: tuple[bytes, dict[str, Any]]) -> None:
        content, spec = given
        file = desk() / f"data{suffix}"
        file.write_bytes(content)
        dataset = load_dataset(DataSpec(train=str(file), **spec), desk(), "sweep.yaml")
        for note in dataset.notes:
            assert_plain(printable(note))
        assert len({item.id for split in (dataset.train, dataset.validation, dataset.test) for item in split}) == sum(
            map(len, (dataset.train, dataset.validation, dataset.test))
        )

    return meet


def meet_spec(data: dict[str, Any]) -> None:
    """Load a sweep whose `data` says that: templates, messages, splits, labels."""
    file = desk() / "spec.json"
    file.write_bytes(as_json_file(DEMO | {"data": data}))
    load_sweep(file)


def meet_table(content: bytes) -> None:
    """Read a table, and select from it."""
    file = desk() / "table.csv"
    file.write_bytes(content)
    for kind in (Trial, Finalist, CurvePoint):
        with contextlib.suppress(UsageError):
            read_table(file, kind)
    read_results(file)
    selection = select(file)
    assert_plain(explain(selection))
    json.loads(as_json(selection))


def meet_folder(files: dict[str, bytes]) -> None:
    """Select from a results folder with such files in it, and tell its status."""
    folder = desk() / "results"
    whole = {
        "results.csv": RESULTS.encode(),
        "sweep.yaml": RESOLVED.encode(),
        "running.json": as_json_file(RUNNING),
        "outcomes/aa.json": as_json_file(KEPT),
        "outcomes/bb.json": as_json_file(KEPT),
        "finalists.csv": b"role,candidate,split\n",
    }
    for name, content in (whole | files).items():
        (folder / name).write_bytes(content)
    read_table(folder / "finalists.csv", Finalist)
    assert_plain(as_text(read_status(folder)))
    selection = select(folder)
    assert_plain(explain(selection))
    json.loads(as_json(selection))


def meet_model(files: dict[str, bytes]) -> None:
    """Look at a model folder with such a config.json or index."""
    for name, content in files.items():
        folder = desk() / ("sharded" if "index" in name else "model_of_fuzz")
        if not folder.exists():
            write_model(folder)
        (folder / name).write_bytes(content)
        shape_of(folder.name, desk())
        config = config_of(folder.name, desk())
        assert config is not None
        assert parameters_of(config) >= 0
        context_of(config)


def meet_command(argv: list[str]) -> None:
    """Run a command line in this process: a plain message and one of the exit codes."""
    with contextlib.chdir(desk()):
        code, text = call(argv)
    assert code in {Exit.OK, Exit.USAGE, Exit.MACHINE, Exit.NO_FEASIBLE, Exit.NO_RESULT}, code
    assert "Traceback" not in text
    assert_plain(text)
    if code == Exit.USAGE:
        raise UsageError(())


# --- What is thrown -------------------------------------------------------------------------------------------------

sweeps = spoilt(SWEEPS)
yamls = mangled(
    [
        text.encode()
        for text in (SHORT, MESSAGES, SHORT.replace("\n", "\r\n"), SHORT + "other: *a\n", "a: &a [1]\n" + SHORT)
    ]
)
specs = st.sampled_from(SPECS)
rows = spoilt(DATA_ROWS)


def lines_of(tree: Any) -> bytes:
    """Return rows as JSON lines."""
    return b"\n".join(map(as_json_file, tree)) if isinstance(tree, list) else as_json_file(tree)


def cells_of(delimiter: str) -> Callable[[Any], bytes]:
    """Return rows as a table whose cells are quoted, or not."""

    def write(tree: Any) -> bytes:
        found = [row for row in tree if isinstance(row, dict)]
        names = list(dict.fromkeys(name for row in found for name in row))
        body = [[str(row.get(name, ""))[:200] for name in names] for row in found]
        quoted = [
            [cell if len(cell) % 3 else '"' + cell.replace('"', '""') + '"' for cell in line] for line in [names, *body]
        ]
        return with_surrogates("\n".join(delimiter.join(line) for line in quoted))

    return write


def as_parquet(tree: Any) -> bytes:
    """Return rows as parquet; what arrow has no type for becomes text."""
    found = [row for row in tree if isinstance(row, dict)] or [{"text": "a"}]
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in found for name in row):
        cells = [row.get(name) for row in found]
        try:
            columns[name.encode("utf-8", "replace").decode()] = pyarrow.array(cells)
        except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
            columns[name.encode("utf-8", "replace").decode()] = pyarrow.array(
                [str(type(cell)) for cell in cells], pyarrow.string()
            )
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def data_inputs(write: Callable[[Any], bytes]) -> st.SearchStrategy[Any]:
    """Files of rows: spoilt as rows, as bytes, and noise."""
    whole = [write(tree) for tree in DATA_ROWS]
    return st.tuples(rows.map(write) | mangled(whole) | mangled(whole) | noise, specs)


MORE = "".join(f"phrase {n};{('joy', 'fear')[n % 2]}\n" for n in range(12)).encode()
QUOTED = b'"text";"tone"\n"say ""a""\nb";joy\nc "d";fear\n' + MORE
RAW = b'text\ttone\n"open\tjoy\nclosed"\tfear\nb\tjoy\n'
ESCAPED = b'sep=;\r\ntext;tone\r\n"say \\"a\\"";joy\r\n"b; c";fear\r\n'
exports = st.tuples(mangled([QUOTED, RAW, ESCAPED, QUOTED.replace(b"\n", b"\r\n")]), specs)
encoded = st.tuples(
    st.tuples(
        mangled([QUOTED, RAW, ESCAPED]),
        st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "utf-8-sig"]),
    ).map(lambda pair: pair[0].decode("latin-1").encode(pair[1], "replace"))
    | mangled([QUOTED.decode().encode("utf-16"), RAW.decode().encode("utf-16-le")]),
    specs.flatmap(lambda spec: st.sampled_from([spec, spec | {"encoding": "cp1252"}, spec | {"encoding": "utf-16"}])),
)
packed = st.tuples(
    mangled([QUOTED]).map(lambda content: gzip.compress(content, mtime=0)) | mangled([gzip.compress(QUOTED, mtime=0)]),
    specs,
)
TALKS: tuple[list[dict[str, Any]], ...] = (
    [{"chat": [{"from": "human", "value": text}, {"from": "gpt", "value": tone}]} for text, tone in ROWS[:6]],
    [{"chat": [{"role": "user", "content": [{"type": "text", "text": text}]}, {"role": "assistant", "content": tone, "tool_calls": None}],
      "tools": []} for text, tone in ROWS[:6]],
    [{"chat": json.dumps([{"role": "user", "content": text}, {"role": "assistant", "content": tone}])} for text, tone in ROWS[:6]],
)  # fmt: skip
talks = st.tuples(spoilt(TALKS).map(lines_of), st.sampled_from([SPECS[3], SPECS[3] | {"metric": "exact_match"}]))


def some_file(**files: st.SearchStrategy[bytes]) -> st.SearchStrategy[dict[str, bytes]]:
    """One of the files, damaged."""
    return st.one_of([content.map(lambda given, name=name: {name: given}) for name, content in files.items()])  # type: ignore[misc]


@st.composite
def edited(draw: st.DrawFn, whole: Sequence[str]) -> str:
    """A text that is right, or has one piece of it replaced."""
    text = draw(st.sampled_from(whole))
    start, length, edit = draw(st.tuples(numbers, st.integers(0, 6), st.integers(0, 3)))
    start %= len(text) + 1
    return text if edit == 0 else text[:start] + draw(texts) + text[start + length :]


texts = st.sampled_from(TOKENS) | st.text(max_size=12)
ASSIGNMENTS = (
    "seed=3", "budget.trials=5", "budget={hours: 1.5}", "space.lora.r={choice: [4, 8]}", "space.lora.learning_rate={loguniform: [1e-4, 1e-2]}",
    "limits=['size_mb <= 3']", "train.max_length=64", "target.threads=2", "data.holdout=0.2", "name=other", "strategy=random", "model=model",
    "space.build=[{precision: int4, block_size: [32, 64]}]", "objectives={accuracy: maximize}", "data.max_items={train: 4}",
)  # fmt: skip
LIMITS = (
    "accuracy >= base + 0.2", "accuracy>=base", "accuracy >= 0.5", "size_mb <= 100", "size_mb <= base * 0.5", "itl_ms_p50 <= 0.9*base",
    "itl_ms_p50 <= 1e1", " accuracy  >= base-0.05", "size_mb>=.5",
)  # fmt: skip
assignments = edited(ASSIGNMENTS)
limits = edited(LIMITS) | edited(LIMITS) | st.text(max_size=20)
metrics = st.sampled_from([None, None, None, "accuracy", "size_mb", "itl_ms_p50", "f1"]) | texts
arguments = st.sampled_from([
    "sweep_right.yaml", "results", "results.csv", "train.csv", "model", "gone", "--json", "--limit", "size_mb<=100", "--prefer", "size_mb",
    "--set", "budget.trials=3", "--trials", "--hours", "--threads", "--batch", "3", "--out", "--help", "--version", "-", "--", "-x",
]) | texts  # fmt: skip
commands = st.tuples(
    st.sampled_from([["plan"], ["plan", "sweep_right.yaml"], ["select"], ["select", "results.csv"], ["status"], ["status", "results"],
                     ["run", "gone.yaml"], ["bench", "gone"], []]),
    st.lists(arguments, max_size=4),
).map(lambda parts: [*parts[0], *parts[1]])  # fmt: skip
outcome = spoilt([KEPT, LOSSES]).map(as_json_file) | mangled([as_json_file(KEPT), as_json_file(LOSSES)])


CELLS = ("", "0", "1", "-1", "0.999999999999999999", "5e-324", "1e300", "-1e300", "9223372036854775807", "9223372036854775808", "true", "b0", "aa",
         "ok", "over_limit", "base", "pair", "fp32")  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A results table with cells replaced, or its bytes mangled."""
    lines = [line.split(",") for line in RESULTS.splitlines()]
    for _ in range(draw(st.integers(1, 4))):
        row, column, token = draw(st.tuples(numbers, numbers, texts | st.sampled_from(CELLS)))
        lines[row % len(lines)][column % len(lines[0])] = '"' + token.replace('"', '""') + '"' if row % 3 else token
    return with_surrogates("\n".join(map(",".join, lines)) + "\n")


@dataclass(frozen=True)
class Target:
    """What reads inputs: the strategy that makes them, the function that meets them, how many of a hundred."""

    name: str
    inputs: st.SearchStrategy[Any]
    meet: Callable[[Any], None]
    percent: float


TARGETS = (
    Target("sweep file, YAML", yamls | yamls | sweeps.map(as_json_file) | noise, meet_sweep(".yaml"), 9),
    Target("sweep file, TOML", sweeps.map(as_toml).map(with_surrogates) | mangled([as_toml(tree).encode() for tree in SWEEPS]) | noise,
           meet_sweep(".toml"), 9),
    Target("sweep file, JSON", sweeps.map(as_json_file) | mangled([as_json_file(tree) for tree in SWEEPS]) | noise, meet_sweep(".json"), 10),
    Target("--set", st.lists(assignments, min_size=1, max_size=2), meet_assignment, 8),
    Target("limits, --limit and --prefer", st.tuples(limits, metrics), meet_limit, 8),
    Target("data: templates, messages, splits", spoilt([tree["data"] for tree in SWEEPS]), meet_spec, 8),
    Target("data file, JSON lines", data_inputs(lines_of), meet_data(".jsonl"), 5),
    Target("data file, JSON", data_inputs(as_json_file), meet_data(".json"), 4),
    Target("data file, CSV", data_inputs(cells_of(",")), meet_data(".csv"), 4),
    Target("data file, exports", exports, meet_data(".csv"), 2),
    Target("data file, encodings", encoded, meet_data(".csv"), 2),
    Target("data file, gzip", packed, meet_data(".csv.gz"), 1),
    Target("data file, conversations", talks, meet_data(".jsonl"), 2),
    Target("data file, TSV", data_inputs(cells_of("\t")), meet_data(".tsv"), 3),
    Target("data file, parquet", data_inputs(as_parquet), meet_data(".parquet"), 4),
    Target("results.csv alone", tables() | mangled([RESULTS.encode(), RESULTS.replace("\n", "\r\n").encode()]) | noise, meet_table, 8),
    Target("results folder", some_file(**{
        "results.csv": tables(),
        "sweep.yaml": mangled([RESOLVED.encode()]) | spoilt([yaml.safe_load(RESOLVED)]).map(as_json_file),
        "running.json": spoilt([RUNNING]).map(as_json_file) | mangled([as_json_file(RUNNING)]),
        "outcomes/aa.json": outcome,
        "finalists.csv": mangled([b"role,candidate,split,accuracy\nwinner,aa,test,0.5\n"]),
    }), meet_folder, 5),
    Target("model folder", some_file(**{
        "config.json": spoilt(CONFIGS).map(as_json_file) | mangled([as_json_file(config) for config in CONFIGS]) | noise,
        "model.safetensors.index.json": spoilt([INDEX]).map(as_json_file) | mangled([as_json_file(INDEX)]),
    }), meet_model, 6),
    Target("command line", commands, meet_command, 2),
)  # fmt: skip


# --- Counting -------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of the inputs of a target; seconds are of processor time."""

    target: str
    taken: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.taken + self.refused


def assert_plain(text: str) -> None:
    """A message may not hold what a terminal would obey, nor anything that cannot be written."""
    odd = [
        c
        for c in text
        if c != "\n" and (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202e\u2066\u200f\ufeff")
    ]
    assert not odd, f"unprintable: {odd[:5]!r}"


def assert_clear(error: AutotuneError) -> None:
    """Every problem says on one printable line of bearable length what is wrong."""
    messages = [str(problem) for problem in error.problems] if isinstance(error, UsageError) else [str(error)]
    for message in messages:
        assert message
        assert "\n" not in message
        assert len(message) < 4000
        assert_plain(message)
    assert all(problem.rule for problem in getattr(error, "problems", ()))


def throw(target: Target, count: int, number: int = 0) -> Tally:
    """Throw at least `count` inputs at a target. Raises AssertionError, or whatever an input brought about."""
    tally = Tally(target.name)
    (desk() / "sweep_right.yaml").write_text(SWEEP, encoding="utf-8")

    def check(value: Any) -> None:
        began = time.process_time()
        try:
            target.meet(value)
            tally.taken += 1
        except (UsageError, MachineError) as error:
            tally.refused += 1
            assert_clear(error)
        finally:
            spent = time.process_time() - began
            tally.seconds += spent
            tally.slowest = max(tally.slowest, spent)
        assert spent < MOST_S, f"{spent:.1f} s of processor time"

    while tally.inputs < count:
        number += 1
        lacking = max(20, count - tally.inputs)
        thrown = given(target.inputs)(check)
        thrown = settings(
            max_examples=lacking, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck), print_blob=False,
        )(seed(number)(thrown))  # fmt: skip
        thrown()
    return tally


def throw_all(total: int = TOTAL, say: Callable[[str], object] = lambda line: None) -> list[Tally]:
    """Throw at least `total` inputs, shared out over the targets."""
    tallies = []
    for target in TARGETS:
        tallies.append(throw(target, math.ceil(total * target.percent / 100)))
        say(row_of(tallies[-1]))
    return tallies


HEAD = "| target | inputs | taken | refused | processor s | slowest ms |\n|---|--:|--:|--:|--:|--:|"


def row_of(tally: Tally) -> str:
    """Return a tally as a row of the table."""
    numbers = (
        f"{tally.inputs:,} | {tally.taken:,} | {tally.refused:,} | {tally.seconds:.0f} | {1000 * tally.slowest:.0f}"
    )
    return f"| {tally.target} | {numbers} |"


def total_of(tallies: Sequence[Tally]) -> Tally:
    """Return the sum of tallies."""
    parts = zip(*((t.taken, t.refused, t.seconds) for t in tallies), strict=True)
    return Tally("all", *map(sum, parts), max(t.slowest for t in tallies))


def main(total: int = TOTAL) -> None:
    """Throw all, and print the table."""

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    warnings.simplefilter("error")
    say(HEAD)
    say(row_of(total_of(throw_all(total, say))))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
