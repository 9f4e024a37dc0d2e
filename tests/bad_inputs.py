"""Mistakes that people make, and what `autotune` says to them.

Each is one change to a sweep that is right (`write_demo`), or a command of its own. `test_bad_input.py` runs them all;
`python -m tests.bad_inputs` prints the table of exit codes and messages.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors.numpy import save_file

from autotune.cli import main
from autotune.errors import Exit

PLAN = "plan sweep.yaml"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 256,
    "tie_word_embeddings": True,
}
ROWS = [(f"phrase number {n}", ("joy", "fear")[n % 2]) for n in range(12)]
SWEEP = """\
name: demo
model: model
data:
  train: train.csv
  validation: validation.csv
  prompt: "Text: {text}\\nTone:"
  completion: " {tone}"
train: { batch_size: 4 }
target: { provider: cpu, threads: 2 }
space:
  lora:
    r: 8
    alpha: 16
    learning_rate: { loguniform: [1e-4, 1e-2] }
    steps: 30
  build:
    - { precision: int8 }
    - { precision: int4, block_size: 32 }
objectives: { accuracy: maximize, size_mb: minimize }
limits: ["size_mb <= 100"]
strategy: tpe
budget: { trials: 4 }
"""
OWN = """\
# A metric of one's own; this line must never run before a worker does: the word below is not defined.
def score(prediction, reference, item):
    return float(prediction == reference)
undefined_word
"""
OLIVE = {"input_model": {"type": "HfModel"}, "passes": {"conversion": {"type": "OnnxConversion"}}}


def write_csv(file: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Write labelled rows with the columns text and tone."""
    file.write_text("text,tone\n" + "".join(f"{text},{tone}\n" for text, tone in rows), encoding="utf-8")


def write_model(folder: Path, **changes: Any) -> None:
    """Write a model folder with all its files, and no weights in them."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_file({"empty": np.zeros(0, np.float32)}, folder / "model.safetensors")


def write_demo(folder: Path, sweep: str = SWEEP) -> None:
    """Write a sweep with nothing wrong in it: model, data and sweep.yaml."""
    write_model(folder / "model")
    write_csv(folder / "train.csv", ROWS[:8])
    write_csv(folder / "validation.csv", ROWS[8:])
    (folder / "sweep.yaml").write_text(sweep, encoding="utf-8")


Files = Mapping[str, str | bytes | None]
Around = Callable[[Path], AbstractContextManager[object] | None]


@dataclass(frozen=True)
class Mistake:
    """One mistake: how it is made, the command that meets it, and what that must answer."""

    name: str
    command: str
    says: tuple[str, ...]
    swap: tuple[str, str] = ("", "")
    """A piece of the sweep file, and what stands there instead."""
    files: Files = field(default_factory=dict)
    """Files to write, or (None) to remove."""
    around: Around | None = None
    """Does the rest, and may return what is held while the command runs."""
    code: int = Exit.USAGE
    plan_only: bool = False
    """Whether the test leaves out `run`, which meets it in the same function as `plan`."""

    @property
    def argv(self) -> list[str]:
        """The command line without `autotune`."""
        return shlex.split(self.command)

    def make(self, folder: Path) -> AbstractContextManager[object]:
        """Make the mistake in an empty folder; run the command there, inside of what this returns."""
        old, new = self.swap
        assert not old or SWEEP.count(old) == 1, f"{old!r} must be in the sweep file once"
        write_demo(folder, SWEEP.replace(old, new) if old else SWEEP)
        for name, content in self.files.items():
            file = folder / name
            if content is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return (self.around(folder) if self.around else None) or nullcontext()


def changed(name: str, old: str, new: str, *says: str, command: str = PLAN, files: Files | None = None) -> Mistake:
    """Return a mistake in the sweep file: `new` where `old` should stand."""
    return Mistake(name, command, says, (old, new), files or {})


def given(
    name: str,
    command: str,
    *says: str,
    files: Files | None = None,
    around: Around | None = None,
    code: int = Exit.USAGE,
) -> Mistake:
    """Return a mistake outside of it: in other files, or on the command line."""
    return Mistake(name, command, says, ("", ""), files or {}, around, code)


def slips(old: str, cases: Mapping[str, tuple[str, ...]]) -> Iterator[Mistake]:
    """Yield mistakes in one place of the sweep file: by name what stands there instead, and what is said."""
    for name, (new, *says) in cases.items():
        yield replace(changed(name, old, new, *says), plan_only=True)


def tables(cases: Mapping[str, tuple[str | bytes, ...]]) -> Iterator[Mistake]:
    """Yield mistakes in the file of train: by name its name, its content, and what is said."""
    for name, (file, content, *says) in cases.items():
        if says[-1] == "cp1252":  # written so, and not said
            content = str(content).encode(str(says.pop()))
        swap = ("  train: train.csv", f"  train: {file!s}")
        yield Mistake(f"{name} as data", PLAN, tuple(map(str, says)), swap, {str(file): content}, plan_only=True)


def chat(name: str, turns: object, said: str, **beside: object) -> Mistake:
    """Return a mistake in a conversation, the only one of a file."""
    sweep = SWEEP.replace(
        '  prompt: "Text: {text}\\nTone:"\n  completion: " {tone}"', "  messages: chat\n  metric: exact_match"
    )
    sweep = (
        sweep.replace("train.csv", "train.jsonl")
        .replace("  validation: validation.csv\n", "")
        .replace("{ accuracy:", "{ exact_match:")
    )
    files = {"sweep.yaml": sweep, "train.jsonl": json.dumps({"chat": turns, **beside}) + "\n"}
    says = ("sweep.yaml:4: data.train: train must have rows, but none remain; 1 left out", f"{said} (train.jsonl:1)")
    return Mistake(f"a conversation with {name}", PLAN, says, files=files, plan_only=True)


def chats(cases: Mapping[str, tuple[object, str]]) -> Iterator[Mistake]:
    """Yield mistakes in the content of a message."""
    for name, (content, said) in cases.items():
        yield chat(name, [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}], said)


def _model(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write_model(folder / "model", **changes)


def _pickled(folder: Path) -> None:
    (folder / "model" / "model.safetensors").rename(folder / "model" / "pytorch_model.bin")


def _rows(train: Sequence[tuple[str, str]] = ROWS[:8], validation: Sequence[tuple[str, str]] = ROWS[8:]) -> Any:
    def write(folder: Path) -> None:
        write_csv(folder / "train.csv", train)
        write_csv(folder / "validation.csv", validation)

    return write


def _another_sweep(folder: Path) -> None:
    """Leave the results of a sweep with another seed."""
    results = folder / "results" / "demo"
    results.mkdir(parents=True)
    (results / "sweep.yaml").write_text("name: demo\nmodel: other\nseed: 7\n", encoding="utf-8")
    (results / "results.csv").write_text(_RESULTS + _ROW, encoding="utf-8")


def _second_process(folder: Path) -> AbstractContextManager[object]:
    results = folder / "results" / "demo"
    results.mkdir(parents=True)
    running = {"pid": os.getpid(), "host": "elsewhere", "started": 0.0, "stage": "finetune"}
    (results / "running.json").write_text(json.dumps(running), encoding="utf-8")
    return FileLock(str(results / ".lock"))


def _three(folder: Path) -> None:
    swaps = {"alpha: 16": "alpa: 16", "{ loguniform: [1e-4, 1e-2] }": "fast", "limits:": "trai: {}\nlimits:"}
    text = SWEEP
    for old, new in swaps.items():
        text = text.replace(old, new)
    (folder / "sweep.yaml").write_text(text, encoding="utf-8")


_LORA = "    r: 8\n"
_INT4 = "{ precision: int4, block_size: 32 }"
_BUILD = "    - { precision: int8 }\n    - { precision: int4, block_size: 32 }\n"
_RESULTS = "candidate,trial,attempt,kind,status,error,lora_r,build_precision,accuracy,accuracy_n,size_mb\n"
_ROW = "aa,1,1,pair,ok,,8,int4,0.8,100,90\n"

MISTAKES: tuple[Mistake, ...] = (
    # --- keys
    changed("unknown key at the top", "strategy: tpe", "stategy: tpe",
            "sweep.yaml:21: stategy: unknown key", "did you mean 'strategy'?"),
    changed("unknown key in train", "batch_size: 4", "batchsize: 4",
            "sweep.yaml:8: train.batchsize: unknown key", "did you mean 'batch_size'?"),
    changed("unknown key in data", "  completion:", "  completions:",
            "sweep.yaml:7: data.completions: unknown key", "did you mean 'completion'?"),
    changed("unknown key in target.workload", "threads: 2", "workload: { prompt_token: 8 }",
            "sweep.yaml:9: target.workload.prompt_token: unknown key", "did you mean 'prompt_tokens'?"),
    changed("unknown key in space", "  build:\n", "  recipes:\n",
            "sweep.yaml:16: space.recipes: unknown key", "did you mean 'build'?"),
    changed("unknown key in lora", "    r: 8", "    rank: 8",
            "sweep.yaml:12: space.lora.rank: unknown key", "did you mean 'r'?"),
    changed("unknown key in a recipe", "block_size: 32", "blocksize: 32",
            "sweep.yaml:18: space.build[1].blocksize: unknown key", "did you mean 'block_size'?"),
    changed("a key called str", "budget:", "str: 1\nbudget:",
            "sweep.yaml:22: str: unknown key", "use one of: name, model"),
    changed("duplicate key", _LORA, _LORA + "    r: 16\n",
            "sweep.yaml:13: space.lora.r: written twice, first in line 12", "keep one"),
    changed("model is missing", "model: model\n", "", "sweep.yaml: model: is missing", "add it"),
    changed("data is empty", SWEEP[SWEEP.index("data:") : SWEEP.index("train: {")], "data:\n",
            "sweep.yaml:3: data: has no value, and must be a mapping"),
    changed("train is empty", "train: { batch_size: 4 }", "train:",
            "sweep.yaml:8: train: has no value, and must be a mapping", "or remove the key"),
    changed("space is empty", SWEEP[SWEEP.index("space:") : SWEEP.index("objectives")], "space: {}\n",
            "sweep.yaml:10: space: needs lora, build or both"),
    changed("unknown key in a session", _BUILD, _BUILD + "  session:\n    - { thread: 2 }\n",
            "sweep.yaml:20: space.session[0].thread: unknown key", "did you mean 'threads'?"),
    changed("unknown key in a workload with a name", "threads: 2", "workloads: { long: { prompt: 8 } }",
            "sweep.yaml:9: target.workloads.long.prompt: unknown key", "did you mean 'prompt_tokens'?"),
    changed("workload and workloads", "threads: 2", "workload: { batch: 2 }, workloads: { long: {} }",
            "sweep.yaml:9: target.workloads: workload and workloads exclude one another", "keep one"),
    # --- values
    changed("no thread in a session", _BUILD, _BUILD + "  session:\n    - { threads: 0 }\n",
            "sweep.yaml:20: space.session[0].threads: must be between 1 and 1024, got 0"),
    changed("options of the CPU", "threads: 2", "provider_options: { use_tf32: true }",
            "sweep.yaml:9: target.provider_options: provider_options means something on cuda", "remove it for cpu"),
    changed("an objective of no workload", "size_mb: minimize", "itl_ms_p50@long: minimize",
            "sweep.yaml:19: objectives.itl_ms_p50@long: itl_ms_p50@long is not measured", "did you mean 'itl_ms_p50'?"),
    changed("text for a number", "batch_size: 4", "batch_size: four",
            "sweep.yaml:8: train.batch_size: must be a whole number, got 'four'"),
    changed("true for a number", "threads: 2", "threads: true",
            "sweep.yaml:9: target.threads: must be a whole number, got True"),
    changed("list for a mapping", "target: { provider: cpu, threads: 2 }", "target: [cpu]",
            "sweep.yaml:9: target: must be a mapping, got ['cpu']"),
    changed("negative rank", "    r: 8", "    r: -8",
            "sweep.yaml:12: space.lora.r: must be between 1 and 1024, got -8", "rank of the adapter"),
    changed("rank zero", "    r: 8", "    r: 0", "space.lora.r: must be between 1 and 1024, got 0"),
    changed("half a rank", "    r: 8", "    r: 8.5", "space.lora.r: must be a whole number, got 8.5"),
    changed("no value after a key", "    r: 8", "    r:", "sweep.yaml:12: space.lora.r: has no value"),
    changed("zero batch", "batch_size: 4", "batch_size: 0",
            "sweep.yaml:8: train.batch_size: must be at least 1, got 0"),
    changed("negative budget", "trials: 4", "trials: -4", "sweep.yaml:22: budget.trials: must be at least 1, got -4"),
    changed("endless budget", "trials: 4", "hours: 1e999", "sweep.yaml:22: budget.hours: must be a finite number"),
    changed("no budget for a range", "{ trials: 4 }", "{}",
            "sweep.yaml:22: budget: learning_rate is a range, so that the sweep would never end",
            "set budget.trials or budget.hours"),
    changed("a name that is no folder name", "name: demo", "name: my/sweep",
            "sweep.yaml:1: name: must be letters, digits", "got 'my/sweep'"),
    # --- the search space
    changed("plain list in lora", "    r: 8", "    r: [8, 16]",
            "sweep.yaml:12: space.lora.r: a list is not searched by itself", "write r: { choice: [8, 16] }"),
    changed("empty choice", "    r: 8", "    r: { choice: [] }",
            "sweep.yaml:12: space.lora.r.choice: choice needs a list with at least one value, got []"),
    changed("two kinds of search", "    r: 8", "    r: { choice: [8], int: [4, 8] }",
            "sweep.yaml:12: space.lora.r: a searched parameter has exactly one of choice, uniform"),
    changed("unknown kind of search", "    r: 8", "    r: { choices: [8, 16] }",
            "sweep.yaml:12: space.lora.r: a searched parameter has exactly one of", "write r: { choice: [8, 16] }"),
    changed("low above high", "[1e-4, 1e-2]", "[1e-2, 1e-4]",
            "sweep.yaml:14: space.lora.learning_rate.loguniform: `low < high` must hold, got [0.01, 0.0001]"),
    changed("three bounds", "[1e-4, 1e-2]", "[1e-4, 1e-3, 1e-2]",
            "sweep.yaml:14: space.lora.learning_rate.loguniform: loguniform needs two numbers", "write [low, high]"),
    changed("loguniform from 0", "{ loguniform: [1e-4, 1e-2] }\n", "1e-3\n    dropout: { loguniform: [0, 0.2] }\n",
            "sweep.yaml:15: space.lora.dropout.loguniform: loguniform needs low > 0, got 0", "use uniform"),
    changed("whole numbers from a half", "    steps: 30\n", "    epochs: { int: [0.5, 3] }\n",
            "sweep.yaml:15: space.lora.epochs.int: int needs whole numbers, got 0.5"),
    changed("range of a text", _LORA, _LORA + "    schedule: { uniform: [0, 1] }\n",
            "sweep.yaml:13: space.lora.schedule: uniform is for numbers", "use choice: [...]"),
    changed("unknown target modules", _LORA, _LORA + "    target_modules: atention\n",
            "sweep.yaml:13: space.lora.target_modules: must be one of all-linear, attention, mlp", "got 'atention'"),
    changed("alpha with alpha_over_r", "    alpha: 16\n", "    alpha: 16\n    alpha_over_r: 2\n",
            "sweep.yaml:14: space.lora.alpha_over_r: alpha and alpha_over_r exclude one another", "keep one"),
    changed("steps with epochs", "    steps: 30\n", "    steps: 30\n    epochs: 2\n",
            "sweep.yaml:16: space.lora.epochs: steps and epochs exclude one another", "keep one"),
    changed("fp16 training on the CPU", _LORA, _LORA + "    dtype: { choice: [fp32, fp16] }\n",
            "sweep.yaml:13: space.lora.dtype: fp16 does not train on a CPU", "use fp32 or bf16",
            command="plan sweep.yaml --set train.device=cpu"),
    changed("grid over a range", "strategy: tpe", "strategy: grid",
            "sweep.yaml:14: space.lora.learning_rate: strategy grid needs choices",
            "learning_rate: { choice: [...] }"),
    # --- recipes
    changed("unknown precision", "precision: int8", "precision: int3",
            "sweep.yaml:17: space.build[0].precision: must be one of fp32, fp16, bf16, int8, int4, got 'int3'"),
    changed("fp16 on the CPU", "precision: int8", "precision: fp16",
            "sweep.yaml:17: space.build[0].precision: fp16 does not run on the cpu provider",
            "use one of fp32, int8, int4"),
    changed("no precision", "precision: int8", "block_size: 32",
            "sweep.yaml:17: space.build[0]: a recipe needs a precision", "one of fp32, int8, int4"),
    changed("block 48", "block_size: 32", "block_size: 48",
            "sweep.yaml:18: space.build[1].block_size: must be one of 16, 32, 64, 128, 256, got 48"),
    changed("a range in a recipe", "block_size: 32", "block_size: { int: [16, 128] }",
            "sweep.yaml:18: space.build[1].block_size: a recipe takes values and lists of them, not ranges"),
    changed("a recipe that is no mapping", "{ precision: int8 }", "int8",
            "sweep.yaml:17: space.build[0]: a recipe is a mapping, got 'int8'", "write - { precision: int4 }"),
    changed("no recipes", "  build:\n" + _BUILD, "  build: []\n",
            "sweep.yaml:16: space.build: needs at least one recipe, got []"),
    changed("a CUDA option on the CPU", "precision: int8", "precision: int8, enable_cuda_graph: true",
            "sweep.yaml:17: space.build[0].enable_cuda_graph:", "cuda and NvTensorRtRtx only", "remove it for cpu"),
    changed("k_quant that never fits", _BUILD, "    - { precision: int4, algorithm: k_quant, block_size: [64, 128] }\n",
            "sweep.yaml:16: space.build: no recipe can run here", "64 in blocks of 64 gives 1", "change or add one"),
    changed("mixed precision of no group", _INT4, '{ precision: int4, mixed_precision: "lm_head:int8" }',
            "sweep.yaml:18: space.build[1].mixed_precision: must be group:precision",
            "last_matmul, mixed_layers, linear_attn", "got 'lm_head:int8'"),
    changed("no such provider", "provider: cpu", "provider: gpu",
            "sweep.yaml:9: target.provider: no such execution provider, got 'gpu'", "did you mean 'cuda'?"),
    # --- aims
    changed("wrong direction", "size_mb: minimize", "size_mb: maximize",
            "sweep.yaml:19: objectives.size_mb: size_mb is minimized", "write minimize"),
    changed("no direction", "size_mb: minimize", "size_mb: down",
            "sweep.yaml:19: objectives.size_mb: must be 'maximize' or 'minimize', got 'down'"),
    changed("objectives as a list", "{ accuracy: maximize, size_mb: minimize }", "[accuracy, size_mb]",
            "sweep.yaml:19: objectives: must be a mapping, got ['accuracy', 'size_mb']"),
    changed("unknown objective", "size_mb: minimize", "latency: minimize",
            "sweep.yaml:19: objectives.latency: no such metric", "did you mean 'itl_ms_p50'?"),
    changed("objective not measured", "accuracy: maximize", "f1: maximize",
            "sweep.yaml:19: objectives.f1: f1 is not measured in this sweep", "data.metric gives accuracy"),
    changed("size without a build", "  build:\n" + _BUILD, "",
            "sweep.yaml:16: objectives.size_mb: size_mb is not measured", "sweep.yaml:17: limits[0]:",
            "add space.build"),
    changed("limit without a bound", "size_mb <= 100", "size_mb small",
            "sweep.yaml:20: limits[0]: a limit must be a metric, <= or >=, and a bound, got 'size_mb small'"),
    changed("limit with <", "size_mb <= 100", "size_mb < 100",
            "sweep.yaml:20: limits[0]: a limit must compare with <= or >=", "write <="),
    changed("limit in per cent", "size_mb <= 100", "accuracy >= 90%",
            "sweep.yaml:20: limits[0]: the bound of a limit must be a finite number", "got 'accuracy >= 90%'"),
    changed("limit on an unknown metric", "size_mb <= 100", "size <= 100",
            "sweep.yaml:20: limits[0]: unknown metric 'size' in a limit", "did you mean 'size_mb'?"),
    changed("limits as a text", '["size_mb <= 100"]', '"size_mb <= 100"',
            "sweep.yaml:20: limits: must be a list, got 'size_mb <= 100'"),
    changed("unknown strategy", "strategy: tpe", "strategy: bayes",
            "sweep.yaml:21: strategy: no such strategy, got 'bayes'", "use one of: frontier, tpe, nsga2, gp, random, grid"),
    given("three mistakes at once", PLAN,
            "autotune: 3 problems:", "sweep.yaml:13: space.lora.alpa:", "sweep.yaml:14: space.lora.learning_rate:",
            "sweep.yaml:20: trai: unknown key", around=_three),
    # --- the sweep file itself
    changed("broken YAML", "    r: 8", "    r: {8",
            "sweep.yaml:13: is not valid YAML:", "begins in line 12", "close the bracket"),
    changed("a tab in YAML", "    r: 8", "\tr: 8",
            "sweep.yaml:12: is not valid YAML: found character '\\t'", "indent with spaces"),
    given("empty sweep file", PLAN,
            "sweep.yaml: a sweep file is a mapping with the keys model, data and space, and this one is empty",
            files={"sweep.yaml": ""}),
    given("a list for a sweep", PLAN,
            "sweep.yaml: a sweep file is a mapping", "see search_spaces/", files={"sweep.yaml": "- model: model\n"}),
    given("broken JSON", "plan sweep.json",
            "sweep.json:1: is not valid JSON:", "at column 19", files={"sweep.json": '{"model": "model",}'}),
    given("duplicate key in JSON", "plan sweep.json",
            "sweep.json: is not valid JSON: the key 'model' is written twice",
            files={"sweep.json": '{"model": "a", "model": "b"}'}),
    given("broken TOML", "plan sweep.toml",
            "sweep.toml:1: is not valid TOML: Invalid value at column 9", files={"sweep.toml": "model = model\n"}),
    given("sweep file in Latin-1", PLAN,
            "sweep.yaml:1: a sweep file is UTF-8 text (byte 0xe9 at offset 9 is not)", "save it as UTF-8",
            files={"sweep.yaml": "name: caf\u00e9\n".encode("latin-1")}),
    given("misspelt sweep file", "plan sweeps.yaml", "sweeps.yaml: no such sweep file", "did you mean 'sweep.yaml'?"),
    given("sweep file in no folder", "plan nowhere/sweep.yaml",
            "nowhere/sweep.yaml: no such sweep file", "check the path"),
    given("folder for a sweep file", "plan model", "model: a sweep file is YAML, TOML or JSON, and this is a folder"),
    given("wrong extension", "plan train.csv", "train.csv: a sweep file is YAML, TOML or JSON, got '.csv'"),
    given("Olive configuration", "plan olive.json",
            "the pass 'OnnxConversion' has no equal here; use ModelBuilder instead", files={"olive.json": json.dumps(OLIVE)}),
    # --- the model
    changed("no such model", "model: model", "model: modle",
            "sweep.yaml:2: model: no such model, got 'modle'", "did you mean 'model'?"),
    changed("misspelt built-in", "model: model", "model: smollm2-135m",
            "sweep.yaml:2: model: no such model", "did you mean 'smollm2-135m-instruct'?"),
    changed("home of nobody", "model: model", "model: ~nobody_here/model",
            "sweep.yaml:2: model: no such model, got '~nobody_here/model'",
            "name a local folder, owner/name on the hub"),
    given("model without config", PLAN,
            "sweep.yaml:2: model: a model folder needs a config.json", "as save_pretrained wrote it",
            files={"model/config.json": None}),
    given("model with broken config", PLAN,
            "sweep.yaml:2: model: config.json cannot be read", files={"model/config.json": "{"}),
    given("model with odd config", PLAN,
            "sweep.yaml:2: model: hidden_size in config.json must be a whole number, and is 'wide'",
            around=_model(hidden_size="wide")),
    given("model without weights", PLAN,
            "sweep.yaml:2: model: weights are read from safetensors only", "convert it with save_pretrained",
            files={"model/model.safetensors": None}),
    given("pickled checkpoint", PLAN,
            "weights are read from safetensors only, and this folder holds pytorch_model.bin", "convert it",
            around=_pickled),
    given("model without tokenizer", PLAN,
            "sweep.yaml:2: model: a model folder needs its tokenizer", "tokenizer.save_pretrained",
            files={"model/tokenizer.json": None}),
    given("unsupported architecture", PLAN,
            "sweep.yaml:2: model: the model builder cannot export this architecture: BertForMaskedLM", "Llama",
            around=_model(architectures=["BertForMaskedLM"])),
    given("quantised checkpoint", PLAN,
            "sweep.yaml:2: model: the model is already quantised", "original precision",
            around=_model(quantization_config={"quant_method": "gptq"})),
    given("an adapter for a model", PLAN,
            "a model folder needs a config.json, and this one holds an adapter",
            files={"model/config.json": None, "model/adapter_config.json": "{}"}),
    # --- the data
    changed("misspelt data file", "  train: train.csv", "  train: trian.csv",
            "sweep.yaml:4: data.train: the file must exist, got 'trian.csv'", "did you mean 'train.csv'?"),
    changed("data file of no known kind", "  train: train.csv", "  train: train.xlsx",
            "train.xlsx: data.train: the file name must end in a known format", "save the sheet as 'CSV UTF-8'", files={"train.xlsx": "PK"}),
    changed("missing column", "{text}", "{txt}",
            "sweep.yaml:6: data.prompt: the column must be in train.csv, which has 'text', 'tone', got 'txt'",
            "did you mean 'text'?"),
    given("empty data file", PLAN, "train.csv: data.train: the file must have rows", files={"train.csv": ""}),
    given("data file with a header only", PLAN,
            "train.csv: data.train: the file must have rows", files={"train.csv": "text,tone\n"}),
    changed("malformed JSON line", "  train: train.csv", "  train: train.jsonl",
            "train.jsonl:2: data.train: each line must be a JSON object", "correct the line",
            files={"train.jsonl": '{"text": "a", "tone": "joy"}\n{"text": "b"\n'}),
    given("data in Latin-1", PLAN,
            "train.csv:2: data.train: the file must be UTF-8 text", "save it as UTF-8",
            files={"train.csv": "text,tone\ncaf\u00e9,joy\n".encode("latin-1")}),
    given("label in validation only", PLAN,
            "sweep.yaml:5: data.validation: every label of validation must occur in train, which lacks ' awe'",
            around=_rows(validation=[("something new", "awe"), *ROWS[8:]])),
    given("one label only", PLAN,
            "sweep.yaml:3: data.labels: metric choice needs two labels or more",
            around=_rows([(t, "joy") for t, _ in ROWS[:8]], [(t, "joy") for t, _ in ROWS[8:]])),
    changed("holdout and validation", "  prompt:", "  holdout: 0.2\n  prompt:",
            "sweep.yaml:3: data: validation and holdout exclude each other; keep one of them"),
    changed("completion without a column", '" {tone}"', '" tone"',
            "sweep.yaml:7: data.completion: a template must name at least one column", "like {text}"),
    changed("brace left open", '" {tone}"', '" {tone"',
            "sweep.yaml:7: data.completion: '{' at character 2 is never closed"),
    changed("unknown metric", "  validation:", "  metric: acuracy\n  validation:",
            "sweep.yaml:5: data.metric: metric must be a known score", "choice, exact_match"),
    changed("metric in no module", "  validation:", "  metric: my_tasks:score\n  validation:",
            "sweep.yaml:5: data.metric: there is no module my_tasks beside the sweep file, nor among the installed",
            "got 'my_tasks:score'", "write my_tasks.py beside the sweep file"),
    changed("misspelt module of a metric", "  validation:", "  metric: tonse:score\n  validation:",
            "sweep.yaml:5: data.metric: there is no module tonse", "did you mean 'tones'?", files={"tones.py": OWN}),
    changed("metric module in no package", "  validation:", "  metric: tones.deep:score\n  validation:",
            "sweep.yaml:5: data.metric: there is no module tones.deep", files={"tones.py": OWN}),
    changed("misspelt function of a metric", "  validation:", "  metric: tones:scor\n  validation:",
            "tones.py: data.metric: defines no function scor, got 'tones:scor'", "did you mean 'score'?",
            files={"tones.py": OWN}),
    changed("metric of two arguments", "  validation:", "  metric: tones:score\n  validation:",
            "tones.py:2: data.metric: score must take prediction, reference, item", "write def metric(prediction: str",
            files={"tones.py": OWN.replace(", item", "")}),
    changed("metric that is no Python", "  validation:", "  metric: tones:score\n  validation:",
            "tones.py:2: data.metric: is not valid Python: '(' was never closed", "mend the syntax",
            files={"tones.py": OWN.replace("item):", "item:")}),
    changed("metric in a binary file", "  validation:", "  metric: tones:score\n  validation:",
            "tones.py: data.metric: ", files={"tones.py": b"\x00\xff"}),
    changed("lm-eval task file that is not there", "  validation:", "  metric: lm-eval:tonse.yaml\n  validation:",
            "sweep.yaml:5: data.metric: there is no such task file, got 'lm-eval:tonse.yaml'", "did you mean 'tones.yaml'?",
            files={"tones.yaml": "task: tones\n"}),
    changed("misspelt lm-eval task", "  validation: validation.csv", "  metric: lm-eval:helaswag",
            "sweep.yaml:5: data.metric: lm-eval has no such task, got 'helaswag'", "did you mean 'hellaswag'?"),
    changed("tag of lm-eval tasks", "  validation: validation.csv", "  metric: lm-eval:ai2_arc",
            "sweep.yaml:5: data.metric: this is a tag of several tasks of lm-eval, and has no score, got 'ai2_arc'",
            "name one of them, e.g. lm-eval:arc_challenge, or a group file"),
    changed("group of lm-eval tasks without a score", "  validation: validation.csv", "  metric: lm-eval:basque_bench",
            "data.metric: the group basque_bench has no score: its file has no aggregate_metric_list", "name one of its tasks, e.g."),
    changed("lm-eval task file that is broken", "  validation:", "  metric: lm-eval:tones.yaml\n  validation:",
            "tones.yaml:2: data.metric: cannot be read as a task file", files={"tones.yaml": "task: [\n"}),
    changed("lm-eval task and validation", "  validation:", "  metric: lm-eval:arc_easy\n  validation:",
            "sweep.yaml:3: data: lm-eval:arc_easy brings its own items, and validation is not scored; remove it"),
    changed("lm-eval without a task", "  validation:", "  metric: 'lm-eval:'\n  validation:",
            "sweep.yaml:5: data.metric: metric must be a known score, module:function or lm-eval:task"),
    changed("stop with an lm-eval task", "  validation: validation.csv", '  metric: lm-eval:arc_easy\n  stop: ["."]',
            "sweep.yaml:3: data: stop is for metrics that generate text, which lm-eval:arc_easy does not"),
    changed("stop with a choice of labels", "  validation:", '  stop: ["."]\n  validation:',
            "sweep.yaml:3: data: stop is for metrics that generate text, which choice does not", "remove it"),
    changed("no tokens to generate", "  validation:", "  metric: exact_match\n  max_new_tokens: 0\n  validation:",
            "sweep.yaml:6: data.max_new_tokens: must be at least 1, got 0"),
    changed("stop as a text", "  validation:", '  metric: exact_match\n  stop: "."\n  validation:',
            "sweep.yaml:6: data.stop: must be a list, got '.'", "write data.stop: ['.']"),
    changed("empty stop", "  validation:", '  metric: exact_match\n  stop: [".", ""]\n  validation:',
            "sweep.yaml:6: data.stop[1]: must not be empty"),
    changed("no stops", "  validation:", "  metric: rouge_l\n  stop: []\n  validation:",
            "sweep.yaml:6: data.stop: "),
    changed("objective of another metric", "{ accuracy: maximize,", "{ custom: maximize,",
            "sweep.yaml:19: objectives.custom: custom is not measured in this sweep", "data.metric gives accuracy"),
    changed("mistakes in sweep and data", "    r: 8", "    r: -8",
            "autotune: 2 problems:", "sweep.yaml:12: space.lora.r:",
            "sweep.yaml:6: data.prompt: the column must be in train.csv", files={"train.csv": "txt,tone\na,joy\n"}),
    # --- slips in the text of a sweep file
    *slips("  train: train.csv", {
        "a Windows path in double quotes": (
            '  train: "C:\\data\\train.csv"',
            "sweep.yaml:4: is not valid YAML: a backslash in double quotes begins a sign, and \\d is none",
            "write it in single quotes, 'C:\\data\\train.csv', or with / between folders"),
        "a Windows path that begins like a number": (
            '  train: "C:\\Users\\me\\train.csv"', "sweep.yaml:4: is not valid YAML: a backslash in double quotes", "'C:\\Users\\me\\train.csv'"),
        "a UNC path in double quotes": (
            '  train: "\\\\server\\share\\train.csv"', "sweep.yaml:4: is not valid YAML: a backslash in double quotes", "or with / between folders"),
        "a Windows path whose backslashes are signs": (
            '  train: "data\\new\\train.csv"', "sweep.yaml:4: data.train: the file must exist, got 'data\\new\\train.csv'",
            "in double quotes \\n, \\t and their like stand for control characters: use single quotes, or /"),
        "a path with backslashes": (
            "  train: .\\train.csv", "sweep.yaml:4: data.train: the file must exist", "write / between folders: 'train.csv'"),
        "a variable in a path": (
            "  train: $HOME/train.csv", "sweep.yaml:4: data.train: the file must exist", "variables of the environment are not filled in"),
        "a Windows variable in a path": (
            "  train: '%USERPROFILE%/train.csv'", "sweep.yaml:4: data.train: the file must exist", "variables of the environment"),
        "an address for a file": (
            "  train: https://example.org/train.csv", "sweep.yaml:4: data.train: the file must exist", "download it and name the file"),
        "a bucket for a file": (
            "  train: s3://bucket/train.csv", "sweep.yaml:4: data.train: the file must exist", "download it and name the file"),
        "a pattern for files": (
            "  train: data/*.csv", "sweep.yaml:4: data.train: the file must exist", "name one file: patterns are not expanded"),
        "a list of files": (
            "  train: [a.csv, b.csv]", "sweep.yaml:4: data.train: must be a text or a mapping, got ['a.csv', 'b.csv']", "name one file"),
        "a data set without its split": (
            "  train: stanfordnlp/imdb", "sweep.yaml:4: data.train: the file must exist", "write stanfordnlp/imdb:train"),
        "smart quotes around a path": (
            "  train: “train.csv”", "sweep.yaml:4: data.train: the quotes “ and ” are part of the text", 'write plain quotes: "'),
        "a folder for data": (
            "  train: model", "sweep.yaml:4: data.train: a source must be a file, not a folder", "name a file of rows: this is the folder of a model"),
        "quotes within quotes": (
            "  train: \"'train.csv'\"", "sweep.yaml:4: data.train: the file must exist", "the quotes are part of the name"),
        "no space after a colon": (
            "  train:train.csv", "is not valid YAML", "write a space after the colon of train"),
        "two keys in a line": (
            "  train: train.csv validation: x.csv", "sweep.yaml:4: is not valid YAML: mapping values are not allowed here",
            "put the value of train in quotes"),
        "indented too far": (
            "  train: train.csv\n    test: x.csv", "sweep.yaml:5: is not valid YAML", "indent this line as those beside it"),
        "no-break spaces for indentation": (
            "\u00a0\u00a0train: train.csv", "sweep.yaml:4: ", "no-break space (U+00A0)", "plain spaces"),
        "a zero-width space in a key": (
            "  train\u200b: train.csv", "sweep.yaml:4: data.train", "the key holds zero width space (U+200B)"),
    }),
    *slips('  prompt: "Text: {text}\\nTone:"', {
        "a prompt that holds its answer": ('  prompt: "{text} {tone}"', "sweep.yaml:3: data: every prompt would hold its own answer: 'tone' stands in both", "take it out of prompt"),
        "a prompt in Jinja": ('  prompt: "{{ text }}"', "a template must name at least one column", "write {text} for {{ text }}"),
        "a prompt with a colon, unquoted": (
            "  prompt: Text: {text} Tone:", "sweep.yaml:6: is not valid YAML: mapping values are not allowed here",
            "put the value of prompt in quotes: a colon and a space in it begin another mapping"),
        "a prompt that begins with a brace, unquoted": (
            "  prompt: {text}", "sweep.yaml:6: data.prompt: a text that begins with { must stand in quotes, or it is a mapping", 'write prompt: "{text}"'),
        "a prompt that begins with a brace and goes on": (
            "  prompt: {text} Tone", "sweep.yaml:6: is not valid YAML", "put the value of prompt in quotes: a text may not begin with {"),
        "a prompt that # cuts": (
            "  prompt: Say {text} # Tone", "sweep.yaml:6: data.prompt: the text ends where # begins a comment, got 'Say {text}'",
            "put the whole text in quotes"),
        "a prompt that begins with #": (
            "  prompt: ### Text {text}", "sweep.yaml:6: data.prompt: the text is a comment, since it begins with #", "put the whole text in quotes"),
        "smart quotes around a prompt": (
            "  prompt: “Text: {text}”", "sweep.yaml:6: is not valid YAML", "write plain quotes for “"),
        "smart quotes that are taken": (
            "  prompt: “Say {text}”", "sweep.yaml:6: data.prompt: the quotes “ and ” are part of the text", "write plain quotes"),
        "a prompt that begins with an at sign": (
            "  prompt: @{text}", "sweep.yaml:6: is not valid YAML: found character '@' that cannot start any token", "put the value in quotes"),
        "a prompt that begins with a star": (
            "  prompt: *{text}*", "sweep.yaml:6: is not valid YAML", "put the value in quotes"),
        "a prompt that begins with a bar": ("  prompt: | {text}", "sweep.yaml:6: is not valid YAML", "put the value in quotes: | and > begin texts of several lines"),
        "a prompt that begins with a dash": ("  prompt: - {text}", "sweep.yaml:6: is not valid YAML: sequence entries", "put the value in quotes"),
        "a prompt that begins with a tag": ("  prompt: !note {text}", "sweep.yaml:6: is not valid YAML: the tag !note is not taken", "put the value in quotes"),
        "a prompt in brackets": ("  prompt: [INST] {text} [/INST]", "sweep.yaml:6: is not valid YAML", "put the value of prompt in quotes: a text may not begin with ["),
        "a prompt as a list": ("  prompt: [{text}]", "sweep.yaml:6: data.prompt: a text that begins with [ must stand in quotes, or it is a list", 'write prompt: "[{text}]"'),
        "a quote within single quotes": ("  prompt: 'What's {text}?'", "sweep.yaml:6: is not valid YAML", "put the whole value of prompt in one pair of quotes"),
        "text after a quoted prompt": (
            '  prompt: "{text}" Tone', "sweep.yaml:6: is not valid YAML", "put the whole value of prompt in one pair of quotes"),
        "a quote that stays open": (
            '  prompt: "Text: {text}', "sweep.yaml:6: is not valid YAML", "close the quote of prompt"),
        "a prompt without its column": (
            "  prompt: Text", "sweep.yaml:6: data.prompt: a template must name at least one column", "like {text}"),
        "a prompt of Python's": (
            '  prompt: "{text!r}"', "sweep.yaml:6: data.prompt: '{text!r}' at character 1 must be a plain column name"),
        "a prompt of Jinja's": (
            '  prompt: "{{ text }}"', "sweep.yaml:6: data.prompt: a template must name at least one column"),
        "a column name in another case": (
            '  prompt: "{TEXT}"', "sweep.yaml:6: data.prompt: the column must be in train.csv", "did you mean 'text'?"),
    }),
    *slips('  completion: " {tone}"', {
        "a completion that may be empty": (
            '  completion: " {tone?}"', "sweep.yaml:7: data.completion: a completion must name a column that is never empty"),
        "an optional column that is not there": (
            '  completion: "{tone}{note?}"', "sweep.yaml:7: data.completion: the column must be in train.csv", "got 'note'"),
        "a completion as a mapping": (
            "  completion: {tone}", "sweep.yaml:7: data.completion: a text that begins with {", 'write completion: "{tone}"'),
        "a missing file beside a completion without a column": (
            "  completion: tone\n  test: tets.csv", "autotune: 2 problems:", "sweep.yaml:7: data.completion: a template must name",
            "sweep.yaml:8: data.test: the file must exist, got 'tets.csv'"),
        "a missing column beside an unknown key": (
            '  completion: "{tune}"\n  shuffle: true', "autotune: 3 problems:", "sweep.yaml:8: data.shuffle: unknown key",
            "sweep.yaml:7: data.completion: the column must be in train.csv", "did you mean 'tone'?"),
        "messages beside prompt": (
            '  completion: " {tone}"\n  messages: chat', "sweep.yaml:3: data: exactly one of prompt with completion, or messages, or text, must be given"),
        "an encoding that nobody knows": (
            '  completion: " {tone}"\n  encoding: utf-9', "sweep.yaml:8: data.encoding: encoding must be one that Python knows"),
        "an encoding that does not fit": (
            '  completion: " {tone}"\n  encoding: utf-16', "train.csv", "data.train: the file must have rows"),
    }),
    *slips("  validation: validation.csv", {
        "a share in per cent": ("  holdout: 20%", "sweep.yaml:5: data.holdout: must be a number, got '20%'", "write 0.2"),
        "a share of a hundred": ("  holdout: 20", "sweep.yaml:5: data.holdout: must be less than 1, got 20", "it is a share: write 0.2 for 20 %"),
        "a share with a comma": ("  holdout: 0,2", "sweep.yaml:5: data.holdout: must be a number, got '0,2'", "write 0.2"),
        "a share of rows": ("  holdout: 200", "sweep.yaml:5: data.holdout: must be less than 1, got 200"),
        "a share of nothing": ("  holdout: 0", "sweep.yaml:5: data.holdout: must be more than 0, got 0"),
        "shares of everything": ("  test_holdout: 0.9", "sweep.yaml:3: data: holdout + test_holdout < 1 must hold, and they are 0.2 and 0.9"),
        "a key of another tool": ("  val_size: 0.2", "sweep.yaml:5: data.val_size: unknown key", "did you mean 'holdout'?"),
        "validation that is train": (
            "  validation: train.csv", "sweep.yaml:4: data.train: train must have rows, but none remain",
            "8 left out: also in validation (train.csv:2, train.csv:3, train.csv:4)", "name other rows"),
        "a missing file beside a wrong share": (
            "  holdout: 20%\n  test: tets.csv", "autotune: 2 problems:", "sweep.yaml:5: data.holdout:", "sweep.yaml:6: data.test: the file must exist"),
        "a missing file beside a wrong space": (
            "  validation: validatoin.csv\n  stop: x", "data.stop", "data.validation: the file must exist, got 'validatoin.csv'",
            "did you mean 'validation.csv'?"),
    }),
    *slips("budget: { trials: 4 }", {
        "hours with a unit": ("budget: { hours: 8h }", "sweep.yaml:22: budget.hours: must be a number, got '8h'", "write 8"),
        "hours in minutes": ("budget: { hours: 90 min }", "sweep.yaml:22: budget.hours: must be a number, got '90 min'", "write 1.5"),
        "hours with a comma": ("budget: { hours: '1,5' }", "sweep.yaml:22: budget.hours: must be a number, got '1,5'", "write 1.5"),
        "hours in quotes": ("budget: { hours: '8' }", "sweep.yaml:22: budget.hours: must be a number, got '8'", "write it without quotes"),
        "trials without an end": ("budget: { trials: unlimited }", "sweep.yaml:22: budget.trials: must be a whole number", "remove the key for none"),
        "trials of thousands": ("budget: { trials: '1,000' }", "sweep.yaml:22: budget.trials: must be a whole number, got '1,000'", "write 1000"),
        "a key in capitals": ("Budget: { trials: 4 }", "sweep.yaml:22: Budget: unknown key", "did you mean 'budget'?"),
        "hours as a clock": ("budget: { hours: 8:30 }", "sweep.yaml:22: budget.hours: must be a number, got '8:30'", "write 8.5"),
        "hours and minutes": ("budget: { hours: 1h30m }", "sweep.yaml:22: budget.hours: must be a number, got '1h30m'", "write 1.5"),
        "no space in a flow mapping": ("budget: {trials:4}", "sweep.yaml:22: budget.trials:4: the key holds a colon, and has no value", "write a space after the colon"),
        "an equals sign for a colon": ("budget: { trials: 4 }\nseed = 1", "sweep.yaml:23: is not valid YAML", "write key: value, with a space after the colon"),
        "two documents": ("budget: { trials: 4 }\n---\nseed: 1", "is not valid YAML", "keep one document: --- begins another"),
        "a word for true": ("budget: { trials: 4 }\ntrust_remote_code: no", "sweep.yaml:23: trust_remote_code: must be true or false, got 'no'", "write false"),
        "a control character": ("budget: { trials: 4 }\nname: 'a\x07'", "sweep.yaml:23: is not valid YAML: the character", "remove the character"),
    }),
    *slips("train: { batch_size: 4 }", {
        "a batch in quotes": ("train: { batch_size: '4' }", "sweep.yaml:8: train.batch_size: must be a whole number, got '4'", "write it without quotes"),
        "a time limit with a unit": ("train: { time_limit_s: 30m }", "sweep.yaml:8: train.time_limit_s: must be a number, got '30m'", "write 1800"),
        "a key of the Trainer": (
            "train: { per_device_train_batch_size: 4 }", "sweep.yaml:8: train.per_device_train_batch_size: unknown key", "did you mean 'batch_size'?"),
        "a device by another name": ("train: { device: gpu }", "sweep.yaml:8: train.device: must be 'auto', 'cpu' or 'cuda', got 'gpu'", "did you mean 'cuda'?"),
        "a key with a hyphen": ("train: { batch-size: 4 }", "sweep.yaml:8: train.batch-size: unknown key", "did you mean 'batch_size'?"),
        "a bracket that stays open": ("train: { batch_size: 4", "is not valid YAML", "close the bracket, or write a comma between entries"),
        "memory with a unit": (
            "train: { batch_size: 4 }\nworkers: { memory_mb: 8GB }", "sweep.yaml:9: workers.memory_mb: must be a number, got '8GB'", "write 8000"),
    }),
    *slips("    r: 8", {
        "a rank in quotes": ("    r: '8'", "sweep.yaml:12: space.lora.r: must be a whole number, got '8'", "write it without quotes"),
        "dropout in per cent": ("    r: 8\n    dropout: 5%", "sweep.yaml:13: space.lora.dropout: must be a number, got '5%'", "write 0.05"),
        "dropout with a comma": ("    r: 8\n    dropout: 0,05", "sweep.yaml:13: space.lora.dropout: must be a number, got '0,05'", "write 0.05"),
        "a typographic minus": ("    r: 8\n    weight_decay: 1e−4", "space.lora.weight_decay: must be a number, got '1e−4'", "write 1e-4"),
        "a power of ten": ("    r: 8\n    weight_decay: 10^-4", "space.lora.weight_decay: must be a number, got '10^-4'", "write 1e-4"),
        "bounds in quotes": ("    r: { int: ['4', '8'] }", "sweep.yaml:12: space.lora.r.int: int needs two numbers, got ['4', '8']", "for '4' write it without quotes"),
        "bounds with commas": ("    r: 8\n    dropout: { uniform: [0,01, 0,1] }", "sweep.yaml:13: space.lora.dropout.uniform: uniform needs two numbers", "with points for commas within numbers"),
        "epochs by another name": ("    r: 8\n    num_train_epochs: 1", "sweep.yaml:13: space.lora.num_train_epochs: unknown key", "did you mean 'epochs'?"),
    }),
    *slips('limits: ["size_mb <= 100"]', {
        "a limit that nothing can keep": ('limits: ["size_mb <= 0"]', "limits[0]: size_mb is above 0, so that no candidate could keep the limit", "give a bound above 0"),
        "limits that exclude one another": ('limits: ["size_mb <= 10", "size_mb >= 20"]', "limits[1]: no candidate could keep this limit and 'size_mb <= 10'", "change or remove one of them"),
        "a limit that keeps what is worse": ('limits: ["accuracy <= 0.9"]', "limits[0]: accuracy is maximized, by its meaning", "write >="),
        "a limit with a typographic sign": ('limits: ["size_mb ≤ 100"]', "sweep.yaml:20: limits[0]: a limit must compare with <= or >=", "write <="),
        "a limit with an arrow": ('limits: ["accuracy => 0.9"]', "sweep.yaml:20: limits[0]: a limit must compare with <= or >=", "write >="),
        "a limit with a comma": ('limits: ["accuracy >= 0,9"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write 0.9"),
        "a limit in per cent with its remedy": ('limits: ["accuracy >= 90 %"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write 0.9"),
        "a limit of a hundred on a share": ('limits: ["accuracy >= 90"]', "sweep.yaml:20: limits[0]: accuracy is a share from 0 to 1", "write 0.9"),
        "a limit with a unit": ('limits: ["size_mb <= 1GB"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write 1000"),
        "a limit in milliseconds": ('limits: ["itl_ms_p50 <= 20ms"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write 20"),
        "a limit as a mapping": ("limits: { size_mb: 100 }", "sweep.yaml:20: limits: must be a list"),
        "a limit of base in per cent": ('limits: ["accuracy >= base - 2%"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write base - 0.02"),
        "a limit of base with a comma": ('limits: ["accuracy >= base + 0,02"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write base + 0.02"),
        "a limit in words": ('limits: ["accuracy >= 95% of base"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write 0.95 * base"),
        "two limits in one": ('limits: ["size_mb <= 100 and accuracy >= 0.9"]', "sweep.yaml:20: limits[0]: the bound of a limit must be", "write each limit as an entry of its own"),
        "a limit from both sides": ('limits: ["10 <= size_mb <= 100"]', "sweep.yaml:20: limits[0]: a limit must start with its metric", "write one limit for each bound"),
        "limits as mappings": ("limits: [{size_mb: 100}]", "sweep.yaml:20: limits[0]: must be a text, got {'size_mb': 100}", 'such as "size_mb <= 100"'),
        "a comment within limits": ("limits: [size_mb <= 100 # MB]", "sweep.yaml:20: is not valid YAML", "close the bracket before the comment"),
        "a limit the wrong way round": ('limits: ["100 >= size_mb"]', "sweep.yaml:20: limits[0]: a limit must start with its metric"),
    }),
    given("a sweep file of text", "plan sweep.txt", "sweep.txt: a sweep file is YAML, TOML or JSON, got '.txt'", "rename it to sweep.yaml",
          files={"sweep.txt": SWEEP}),
    given("a sweep file that Notepad named", "plan sweep.yaml.txt", "a sweep file is YAML, TOML or JSON, got '.txt'", "rename it to sweep.yaml",
          files={"sweep.yaml.txt": SWEEP}),
    given("half a character of UTF-16", PLAN, "sweep.yaml", "save it as UTF-8", files={"sweep.yaml": SWEEP.encode("utf-16")[:-1]}),
    *[
        given(f"JSON with {name}", "plan sweep.json", f"sweep.json:{line}: is not valid JSON:", remedy, files={"sweep.json": text})
        for name, line, text, remedy in (
            ("a comment", 2, '{\n // the model\n "model": "model"}', "remove the comment: JSON has none; a .yaml file has, after #"),
            ("a comment after a value", 1, '{"model": "model", # mine\n "seed": 1}', "remove the comment"),
            ("a comma too many", 1, '{"model": "model",}', "remove the comma before the bracket"),
            ("a comma too many in a list", 1, '{"limits": ["a",]}', "remove the comma before the bracket"),
            ("single quotes", 1, "{'model': 'model'}", "write double quotes"),
            ("a backslash", 1, '{"model": "C:\\models\\mine"}', "write \\\\ for a backslash, or / between folders"),
            ("True", 1, '{"trust_remote_code": True}', "write true for True"),
            ("None", 1, '{"seed": None}', "write null for None"),
            ("smart quotes", 1, "{“model”: 1}", "write plain quotes for “"),
            ("a line end in a text", 1, '{"model": "a\nb"}', "write \\n for a line end within a text"),
            ("no comma", 2, '{"model": "a"\n "seed": 1}', "write a comma between entries"),
            ("a key without quotes", 1, "{model: 1}", "write each key in double quotes"),
            ("two documents", 2, '{"model": "a"}\n{"seed": 1}', "keep one document in the file"),
        )
    ],
    given("JSON with NaN", "plan sweep.json", "sweep.json: is not valid JSON: NaN is no JSON number", "write null, or a number", files={"sweep.json": '{"seed": NaN}'}),
    *[
        given(f"TOML with {name}", "plan sweep.toml", f"sweep.toml:{line}: is not valid TOML:", remedy, files={"sweep.toml": text})
        for name, line, text, remedy in (
            ("backslashes", 1, 'model = "C:\\models\\mine"\n', "write it in single quotes, 'C:\\models\\mine', or with / between folders"),
            ("a user's folder", 1, 'model = "C:\\Users\\me"\n', "write it in single quotes"),
            ("a colon", 1, "model: model\n", "write key = value, or call the file .yaml"),
            ("a key twice", 2, 'model = "a"\nmodel = "b"\n', "keep one"),
            ("a text over two lines", 1, 'model = "a\nb"\n', "a text of several lines stands in three quotes"),
            ("a text without quotes", 1, "model = model\n", "put texts in quotes"),
            ("smart quotes", 1, "model = “model”\n", "write plain quotes"),
        )
    ],
    # --- data as people have it
    *tables({
        "an Excel workbook": ("train.xlsx", "PK", "the file name must end in a known format, got 'train.xlsx'", "save the sheet as 'CSV UTF-8'"),
        "a workbook by another name": ("t.csv", b"PK\x03\x04...", "its content is a zip archive or an Excel workbook", "save the sheet as 'CSV UTF-8'"),
        "parquet by another name": ("t.csv", b"PAR1....", "its content is parquet", "rename it to end in .parquet"),
        "a web page": ("t.csv", "<!DOCTYPE html><html>", "its content is a web page", "download the file itself"),
        "a Git LFS pointer": ("t.jsonl", "version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "run `git lfs pull`"),
        "a pickle": ("t.pkl", b"\x80\x04", "the file name must end in a known format", "a pickle can run code and is never read"),
        "an Arrow file": ("t.arrow", b"ARROW1", "the file name must end in a known format", "write it as parquet"),
        "text without a format": ("t.txt", "a\n", "the file name must end in a known format", "rename it for what it holds"),
        "a broken gzip": ("t.csv.gz", b"text,tone\n", "the file must be compressed with gzip", "compress it again, or unpack it"),
        "gzip by another name": ("t.csv", b"\x1f\x8b\x08", "its content is compressed with gzip", "rename it to end in .gz"),
        "Windows-1252": ("t.csv", "text,tone\n" + "Größe bitte ändern,joy\n" * 3, "the file must be UTF-8 text (byte 0xf6 at offset 12)",
                         "as cp1252 the line reads 'Größe bitte ändern,joy'", "write data.encoding: cp1252 if the line reads right", "cp1252"),
        "one bad byte": ("t.csv", b"text,tone\n" + "größe,joy\n".encode() * 9 + b"gr\xf6\xdfe,joy\n", "t.csv:11: data.train: the file must be UTF-8 text",
                         "correct that line: the rest of the file is UTF-8"),
        "half a UTF-16 file": ("t.csv", "text,tone\na,joy\n".encode("utf-16")[:-1], "the file cannot be read as utf-16", "save it as UTF-8"),
        "a column twice": ("t.csv", "text,tone,text\na,joy,b\n", "t.csv:1: data.train: column names must differ, and 'text' stands twice", "rename or drop one"),
        "a row too short": ("t.csv", "text,tone\na,joy\nb\n", "t.csv:3: data.train: each row must have 2 cells, as the header has, got 1", "complete the row"),
        "a row too long": ("t.csv", "text,tone\na,joy\nb,c,joy\n", "t.csv:3: data.train: each row must have 2 cells", "quote cells that hold a comma"),
        "a row too long between semicolons": ("t.csv", "text;tone\na;joy\nb;c;joy\n", "t.csv:3: data.train: each row must have 2 cells", "quote cells that hold a semicolon"),
        "a quote that stays open among quoted cells": ("t.csv", 'text,tone\n"a",joy\n"b,fear\n', "t.csv:3: data.train: the row cannot be read (a quote is opened and never closed)", "close the quote"),
        "text after a closing quote": ("t.csv", 'text,tone\n"a","joy"\n"b"c,"joy"\n', "t.csv:3: data.train: the row cannot be read (text follows a closing quote)", "written twice"),
        "a quote that swallows rows": ("t.tsv", 'text\ttone\na\tjoy\n"b\tfear\nc"\tjoy\nd\te\tf\n', "t.tsv:3: data.train: a quote opens a cell that ends 1 lines later, and the lines between look like rows", "write a quote that is text twice"),
        "semicolons and a misspelt column": ("t.csv", "texts;tone\na;joy\n", "data.prompt: the column must be in t.csv, which has 'texts', 'tone', got 'text'", "did you mean 'texts'?"),
        "a table without a header": ("t.csv", "1 what a day,joy\n2 oh no,fear\n", "which has '1 what a day', 'joy', got 'text'", "the first line of a table must name its columns"),
        "Python's notation": ("t.jsonl", "{'text': 'a', 'tone': 'joy'}\n", "t.jsonl:1: data.train: each line must be a JSON object", "write each row by json.dumps"),
        "a title above the header": ("t.csv", "Tickets of May\n\ntext,tone\na,joy\nb,fear\n", "t.csv:1: data.train: the first line must name the columns, and line 3 does", "remove what stands above line 3"),
        "a table in Markdown": ("t.csv", "| text | tone |\n|---|---|\n| a | joy |\n", "t.csv:1: data.train: the file must be a table of cells, and is Markdown", "write it as CSV"),
        "a file torn in zeros": ("t.csv", b"text,tone\na,joy\n" + b"\0" * 64, "t.csv:3: data.train: the file ends with 64 NUL characters", "write or copy it again"),
        "a torn last line": ("t.jsonl", '{"text": "a", "tone": "joy"}\n{"text": "b", "to', "t.jsonl:2: data.train: each line must be a JSON object", "the file ends within this line"),
        "a comma too many": ("t.jsonl", '{"text": "a", "tone": "joy",}\n', "t.jsonl:1: data.train: each line must be a JSON object", "remove the comma before the closing bracket"),
        "a comment": ("t.jsonl", '// mine\n{"text": "a", "tone": "joy"}\n', "t.jsonl:1: data.train: each line must be a JSON object", "JSON has no comments"),
        "a key that stands twice": ("t.jsonl", '{"text": "a", "tone": "joy", "tone": "fear"}\n', "(the key 'tone' is written twice)", "keep one of them"),
        "objects on one line": ("t.jsonl", '{"text": "a", "tone": "joy"}{"text": "b", "tone": "fear"}\n', "write each object on a line of its own"),
        "two encodings": ("t.csv", b"text,tone\n" + "größe,joy\n".encode() * 2 + b"gr\xf6\xdfe,joy\n" * 2, "t.csv:4: data.train: the file must be UTF-8 text", "save all parts of the file in UTF-8"),
        "a database": ("t.csv", b"SQLite format 3\0", "its content is a SQLite database", "export the table as CSV"),
        "text named parquet": ("t.parquet", "text,tone\na,joy\n", "the file must be parquet, and its content is text", "rename it for what it holds"),
        "an Avro file": ("t.avro", b"Obj\x01", "the file name must end in a known format", "write it as parquet or .jsonl"),
        "prompts and answers of messages": ("t.jsonl", '{"text": [{"role": "user", "content": "a"}], "tone": [{"role": "assistant", "content": "joy"}]}\n',
                                            "data.prompt: 'text' and 'tone' hold messages, and a template takes text", "write data.messages: [text, tone]"),
        "answers with a verdict": ("t.jsonl", '{"text": "a", "tone": "joy", "label": true}\n{"text": "b", "tone": "fear", "label": false}\n',
                                   "'label' is false in 1 of 2 rows (t.jsonl:2, ...)", "write data.where: {label: true}"),
        "objects over several lines": ("t.jsonl", '{\n"text": "a"\n}\n', "t.jsonl:1: data.train: each line must be a JSON object", "call the file .json"),
        "several lists in JSON": ("t.json", '{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "the file must hold one list of objects, got ['train', 'test']", "write the others to files of their own"),
        "cells of lists": ("t.jsonl", '{"text": ["a"], "tone": "joy"}\n', "1 left out: not text, but a list in 'text' (t.jsonl:1)", "write one text in each cell"),
        "empty cells": ("t.csv", "text,tone\n,joy\n,fear\n", "2 left out: empty value in 'text' (t.csv:2, t.csv:3)", "write {column?} where one may be empty"),
        "two labels for each prompt": ("t.csv", "text,tone\na,joy\na,fear\n", "2 left out: conflicting labels (t.csv:2, t.csv:3)", "keep one label for a prompt"),
        "labels with a space too many": ("t.csv", "text,tone\na,joy \nb,fear \n", "data.validation: every label of validation must occur in train, which lacks ' fear', ' joy'", "write ' fear ' for ' fear' if that is meant"),
    }),
    *chats({
        "an image": ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}], "a message with a part of type 'image_url': only text is taken"),
        "audio": ([{"type": "input_audio"}], "a message with a part of type 'input_audio': only text is taken"),
        "an object for its content": ({"a": 3}, "a message with a part of type 'text': only text is taken"),
    }),
    chat("a tool's answer", [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}, {"role": "assistant", "content": "c"}], "tools are not taken"),
    chat("a tool call", [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "tools are not taken"),
    chat("a function call of ShareGPT", [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}], "tools are not taken"),
    chat("a role that nobody knows", [{"role": "boss", "content": "a"}, {"role": "assistant", "content": "c"}], "a message of the role 'boss', not system, user or assistant"),
    chat("no roles", [{"who": "a", "text": "b"}, {"who": "b", "text": "c"}], "a message without 'role' or 'from', but with 'who', 'text'"),
    chat("no content", [{"role": "user", "words": "b"}, {"role": "assistant", "words": "c"}], "a message without 'content' or 'value', but with 'role', 'words'"),
    chat("the user's last word", [{"role": "assistant", "content": "a"}, {"role": "user", "content": "c"}], "the last message is not the assistant's, but the user's"),
    chat("one message", [{"role": "assistant", "content": "a"}], "fewer than two messages"),
    chat("texts for messages", ["a", "b"], "a message that is no object, but str"),
    chat("Python's notation", "[{'role': 'user'}]", "messages in Python's notation: write jsonl or parquet, or JSON into the cell"),
    chat("plain text", "hello", "not a list of messages, but text"),
    chat("an answer that is not to be learned", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c", "weight": 0}], "the last message is marked not to be learned ('weight')"),
    chat("reasoning beside the answer", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c", "reasoning_content": "hm"}], "the last message has 'reasoning_content' beside its content, which no prompt or completion would hold"),
    chat("pictures beside", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}], "a message with a part in 'images': only text is taken", images=["a.png"]),
    chat("tools beside", [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}], "tools are offered, and no tool is written into the prompt",
         tools=[{"name": "f"}]),
    # --- the command line
    given("no command", "", "usage: autotune", "the following arguments are required: COMMAND"),
    given("unknown command", "tune sweep.yaml", "invalid choice: 'tune'", "plan"),
    given("no sweep file", "plan", "the following arguments are required: SWEEP"),
    given("--set without a value", "plan sweep.yaml --set budget.trials",
            "--set takes KEY=VALUE, got 'budget.trials'", "e.g. --set budget.trials=4"),
    given("--set of an unknown key", "plan sweep.yaml --set budget.trial=3",
            "--set: budget.trial: unknown key", "did you mean 'trials'?"),
    given("--set to a wrong value", "plan sweep.yaml --set budget.trials=-3",
            "--set: budget.trials: must be at least 1, got -3"),
    given("--set below a value", "plan sweep.yaml --set model.name=x",
            "--set model.name: 'model' is not a mapping", "set model as a whole"),
    given("--set of fewer processes at most than at least", "plan sweep.yaml --set 'target.timing={processes: 6, most: 4}'",
            "--set: target.timing: most must be at least processes, 6, got 4"),
    given("--set to a timing by one process", "plan sweep.yaml --set target.timing.processes=1",
            "--set: target.timing.processes: must be at least 2, got 1; the default is 5"),
    given("--set far below a value", "plan sweep.yaml --set " + ".".join("a" * 600) + "=3", "nested deeper than 100 levels"),
    given("--set to broken YAML", "plan sweep.yaml --set 'model={'",
            "--set model: not a YAML value, got '{'", "quote it"),
    given("--set to a tag", "plan sweep.yaml --set 'seed=!!int x'", "--set seed: not a YAML value, got '!!int x'"),
    given("--trials 0", "run sweep.yaml --trials 0", "command line: --trials: must be a number above 0, got 0"),
    given("--trials many", "run sweep.yaml --trials many", "argument --trials: must be a whole number, got 'many'"),
    given("--hours 0", "run sweep.yaml --hours 0", "argument --hours: must be a number above 0, got '0'"),
    given("--hours soon", "run sweep.yaml --hours soon", "argument --hours: must be a number above 0, got 'soon'"),
    given("--hours inf", "run sweep.yaml --hours inf", "argument --hours: must be a number above 0, got 'inf'"),
    given("results folder is a file", "run sweep.yaml --out out",
            "out: the results folder cannot be written", "choose another --out", files={"out": ""}),
    given("results folder in a file", "run sweep.yaml --out out/demo",
            "the results folder cannot be written", "choose another --out", files={"out": ""}),
    given("results of another sweep", "run sweep.yaml",
            "sweep.yaml: seed: differs from the sweep whose results are in", "set seed back to 7", "another --out",
            around=_another_sweep),
    given("second process at work", "run sweep.yaml",
            "another process is at work in this folder: process", "on elsewhere", "choose another --out",
            around=_second_process),
    # --- select
    given("select in an empty folder", "select model", "results.csv: no results here", "name a results folder"),
    given("select in no folder", "select results/nothing", "nothing: no such file", "name a results folder"),
    given("select on a CSV of other data", "select train.csv",
            "train.csv: is not a results table: it has no column 'candidate'"),
    given("select on a CSV without results", "select other.csv",
            "other.csv: is not a results table: it has no column 'trial'",
            files={"other.csv": "candidate,votes\nann,3\n"}),
    given("select on an empty CSV", "select results.csv",
            "results.csv: is empty", "name a results folder", files={"results.csv": ""}),
    given("select on an image", "select plot.png",
            "plot.png: cannot be read as a results table", files={"plot.png": b"\x89PNG\r\n\x1a\n\x00\x00"}),
    given("select on a torn CSV", "select results.csv",
            "results.csv:2: a row has 3 cells, and the header 11",
            files={"results.csv": _RESULTS + "aa,1,1\n" + _ROW}),
    given("select on a number that is none", "select results.csv",
            "results.csv:2: accuracy: must be number from 0 to 1, got 'high'",
            files={"results.csv": _RESULTS + _ROW.replace("0.8", "high")}),
    given("unknown --prefer", "select results.csv --prefer size",
            "--prefer: no such metric, got 'size'", "did you mean 'size_mb'?", files={"results.csv": _RESULTS + _ROW}),
    given("--prefer what was not measured", "select results.csv --prefer f1",
            "--prefer: f1 was not measured in these results", "use one of: accuracy, size_mb",
            files={"results.csv": _RESULTS + _ROW}),
    given("malformed --limit", "select results.csv --limit size_mb=100",
            "--limit: a limit must compare with <= or >=, got 'size_mb=100'", files={"results.csv": _RESULTS + _ROW}),
    given("--limit on what was not measured", "select results.csv --limit 'load_s<=1'",
            "--limit: load_s was not measured in these results", files={"results.csv": _RESULTS + _ROW}),
    given("--limit on a base that is not there", "select results.csv --limit 'accuracy>=base'",
            "limit 'accuracy>=base' needs the untouched model", "give a limit with a plain number",
            files={"results.csv": _RESULTS + _ROW}),
    given("limits that nothing keeps", "select results.csv --limit 'size_mb<=1'",
            "No candidate keeps the limits.", "misses 'size_mb<=1' by 89", files={"results.csv": _RESULTS + _ROW},
            code=Exit.NO_FEASIBLE),
    given("nothing finished", "select results.csv",
            "No candidate finished.", files={"results.csv": _RESULTS + "aa,1,1,pair,failed,oh,8,int4,,,\n"},
            code=Exit.NO_RESULT),
    # --- status and bench
    given("status of an empty folder", "status model", "model: no results of a sweep here", "`autotune run` wrote"),
    given("status of a file", "status sweep.yaml", "sweep.yaml: no results of a sweep here"),
    given("status of a folder with a sweep file", "status here",
            "here: no results of a sweep here", files={"here/sweep.yaml": "model: x\n"}),
    given("bench on no built model", "bench model",
            "model: is no built model: it has no genai_config.json", "best/onnx"),
    given("bench with bad numbers", "bench onnx --new-tokens 1 --processes 0 --threads -1",
            "autotune: 3 problems:", "--new-tokens: must be at least 2, got 1",
            "--processes: must be at least 1, got 0", "--threads: must be at least 1, got -1",
            files={"onnx/genai_config.json": "{}"}),
    given("bench on no such provider", "bench onnx --provider gpu",
            "--provider: no such execution provider, got 'gpu'", "did you mean 'cuda'?",
            files={"onnx/genai_config.json": "{}"}),
    given("bench with a word", "bench onnx --batch two",
            "argument --batch: must be a whole number, got 'two'", files={"onnx/genai_config.json": "{}"}),
)  # fmt: skip


def call(argv: Sequence[str]) -> tuple[int, str]:
    """Run `autotune` in this process. Returns its exit code, and what it wrote: messages, then results."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv)
        except SystemExit as ended:  # of argparse
            code = int(ended.code or 0)
    return code, err.getvalue() + out.getvalue()


def first_line(text: str) -> str:
    """Return the line of a message that says what is wrong."""
    lines = [line.strip() for line in text.splitlines()]
    of_argparse = [line for line in lines if ": error: " in line]
    return (of_argparse or [line for line in lines if not line.startswith("autotune:")] or [""])[0]


def table() -> str:
    """Return mistakes, exit codes and messages as a Markdown table."""
    lines = ["| mistake | exit code | first line of message |", "|---|---|---|"]
    for mistake in MISTAKES:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="autotune-bad-"))
            stack.enter_context(mistake.make(Path(folder)))
            stack.enter_context(contextlib.chdir(folder))
            code, text = call(mistake.argv)
        message = first_line(text).replace(f"{Path(folder).resolve()}{os.sep}", "")
        lines.append(f"| {mistake.name} | {code} | {message} |".replace("\\", "\\\\"))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
