"""The `init` command: writes a first sweep file, guessed from a model and labelled rows, with a comment on each line."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autotune.data.guess import Guess, guess, with_rows_of
from autotune.data.readers import format_of
from autotune.durable import write_aside
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.machine import hardware, usable_processors
from autotune.metrics import METRICS, generates, score_column
from autotune.models import config_of, context_of
from autotune.paths import exists, is_file, is_folder, is_portable
from autotune.pipeline.prepare import read_data
from autotune.providers import PROVIDERS, Provider
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.syntax import read_file

_SPLITS = {"validation": ("validation", "valid", "val", "dev", "eval"), "test": ("test",)}
_ENOUGH = 300
"""With at least this many rows, a share is held out for test."""
_SCORED = 300
"""Enough validation items to tell candidates apart in a first sweep."""
_SHARE, _HALF = 0.2, 0.5
"""The share of train that is held out for validation, and that of a file with too few rows for it."""
_RARE = 15
"""With fewer rows, a label may be missing from a held-out share."""
_LONGEST = 2048
"""The longest context that is written for prompts; only answers, which are never cut, ask for more."""


@dataclass(frozen=True)
class Wanted:
    """The options of the command line."""

    model: str
    data: str
    validation: str | None = None
    test: str | None = None
    provider: str = "cpu"
    encoding: str | None = None
    out: Path | None = None
    force: bool = False


def write_sweep(wanted: Wanted) -> list[str]:
    """Write a sweep file that `plan` accepts. Returns a text with the guesses and the next steps. Raises UsageError."""
    if wanted.provider not in PROVIDERS:
        remedy = did_you_mean(wanted.provider, list(PROVIDERS))
        raise UsageError(Problem("no such execution provider", "--provider", value=wanted.provider, remedy=remedy))
    config = config_of(wanted.model, Path())
    try:
        found = guess(wanted.data, encoding=wanted.encoding)
    except UsageError as error:
        raise UsageError(
            [Problem(p.rule, p.key or "--data", p.file, p.line, p.value, p.remedy) for p in error.problems]
        ) from None
    given = {"train": wanted.data, "validation": wanted.validation, "test": wanted.test}
    beside = _beside(wanted.data, found)
    splits = {split: source or beside.get(split) for split, source in given.items()}
    name = _plain(wanted.out.stem) if wanted.out is not None else _name(wanted.data, wanted.provider)
    file = wanted.out or Path(f"{name}.yaml")
    if file.suffix.lower() not in (".yaml", ".yml"):
        rule = "a sweep file with comments is YAML, and its name must say so"
        remedy = (
            f"write --out {shlex.quote(str(file.with_name(f'{file.stem}.yaml') if file.name else Path('sweep.yaml')))}"
        )
        raise UsageError(Problem(rule, "--out", str(file), remedy=remedy))
    if is_folder(file):
        raise UsageError(Problem("is a folder, and a file is written", "--out", str(file), remedy="name a file in it"))
    if exists(file) and not wanted.force:
        raise UsageError(
            Problem("is there already", "--out", str(file), remedy="name another file, or replace it: --force")
        )
    context = context_of(config or {})
    for source in filter(None, (splits["validation"], splits["test"])):
        found = with_rows_of(found, source, wanted.encoding)
    text = ""
    rare = found.rarest < _RARE and found.way == "label"
    for listed, share in ((rare, _SHARE), (True, _SHARE), (True, _HALF)):
        text = _text(wanted, found, splits, file, context, name, listed, share)
        try:
            _check(text, file)
            break
        except UsageError as error:
            keys = {problem.key for problem in error.problems}
            again = keys & {"data.holdout", *(() if listed else ("data.train", "data.validation", "data.test"))}
            if share == _HALF or not again:
                raise UsageError([_unwritten(problem, str(file)) for problem in error.problems]) from None
    write_aside(file, text)
    lines = [f"{file}: {found.rows} rows", *(f"  {line}" for line in found.why)]
    lines += [f"  {split}: {source} lies beside it" for split, source in beside.items() if given[split] is None]
    lines += [f"  {said}" for said in (_too_long(found, context),) if said]
    return [*lines, f"Look at it, then: autotune plan {shlex.quote(str(file))}"]


def _unwritten(problem: Problem, file: str) -> Problem:
    """Return a problem of the sweep file that was not written: it has no line to look at."""
    if problem.file != file:
        return problem
    remedy = "add rows, or name other rows: --validation FILE" if "share" in problem.remedy else problem.remedy
    return replace(problem, file="", line=None, remedy=remedy)


def _check(text: str, file: Path) -> None:
    """Raise UsageError if `plan` would refuse the sweep or its data."""
    aside = file.with_name(f".{file.stem}.init.yaml")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        data, lines = read_file(aside, str(file))
        sweep = parse_sweep(data, lines, root=file.parent, shown=str(file))
        read_data(sweep)
    except OSError as error:
        raise UsageError(
            Problem(f"cannot be written ({error.strerror or error})", "--out", str(file), remedy="name another file")
        ) from None
    finally:
        aside.unlink(missing_ok=True)


def _name(data: str, provider: str) -> str:
    path = Path(data.replace("\\", "/"))
    stem = path.name.partition(".")[0]
    if stem.lower() in ("train", "training", "data", "a") and path.absolute().parent.name:
        stem = path.absolute().parent.name
    return f"{_plain(stem)}-{provider.lower()}"


def _plain(name: str) -> str:
    """Return a name for the sweep that every operating system takes as that of a folder."""
    plain = (
        "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name).strip("-")[:40].rstrip("-")
    )
    return plain if plain and is_portable(plain) else f"sweep-{plain}".rstrip("-")


def _beside(data: str, found: Guess) -> dict[str, str]:
    """Return files in the same folder that look like the other splits: same format, same columns."""
    path = Path(data)
    begin = path.name.partition(".")[0]
    if "train" not in begin.lower() or not is_file(path):
        return {}
    ours = {}
    for split, words in _SPLITS.items():
        for word in words:
            other = path.with_name(path.name.replace("train", word, 1))
            if other != path and is_file(other) and format_of(other) == format_of(path):
                try:
                    if set(found.columns) <= set(guess(str(other)).columns):
                        ours[split] = str(Path(data).with_name(other.name).as_posix())
                        break
                except UsageError:
                    continue
    return ours


# --- the file --------------------------------------------------------------------------------------------------------


def _text(
    wanted: Wanted,
    found: Guess,
    splits: dict[str, str | None],
    file: Path,
    context: int | None,
    name: str,
    listed: bool,
    share: float,
) -> str:
    score = score_column(found.metric)
    better = METRICS[score].direction
    sign = ">=" if better == "maximize" else "<="
    objectives = f"{score}: {better}, itl_ms_p50: minimize, size_mb: minimize"
    lines = [
        f"# Written by `autotune init` from {_one_line(Path(wanted.data.replace(chr(92), '/')).name)}: what stands here was guessed. Check the lines with",
        "# a question mark. `autotune plan` says what it would do and cost, `autotune run` does it.",
        f"name: {name}",
        f"model: {_quoted(_path(wanted.model, file) if is_folderish(wanted.model) else wanted.model)}",
        *_data_lines(wanted, found, splits, file, listed, share),
        *_target_lines(PROVIDERS[wanted.provider], found, context),
        *_space_lines(PROVIDERS[wanted.provider], found.rows),
        f"objectives: {{ {objectives} }}   # in this order: where candidates tie on the first, the next decides",
        f'limits: ["{score} {sign} base"]           # base: the untouched model. Add what you need: "size_mb <= 200", "itl_ms_p50 <= 20" (?)',
        "budget: { trials: 12, hours: 2 }        # whichever is first; run it again with more, and it goes on",
    ]
    return "\n".join(lines) + "\n"


def _data_lines(
    wanted: Wanted, found: Guess, splits: dict[str, str | None], file: Path, listed: bool, share: float
) -> Iterator[str]:
    """Yield the section data; `listed`: its labels are written out; `share`: what is held out of train."""
    yield "data:"
    yield f"  train: {_quoted(_path(wanted.data, file))}"
    if splits["validation"] is not None:
        yield f"  validation: {_quoted(_path(splits['validation'], file))}   # candidates are compared on it"
    else:
        yield f"  holdout: {share}                          # this share of train is validation: candidates are compared on it"
    if splits["test"] is not None:
        yield f"  test: {_quoted(_path(splits['test'], file))}   # only the finalists are scored on it, once"
    elif found.rows >= _ENOUGH:
        yield "  test_holdout: 0.1                     # only the finalists are scored on it, once"
    if wanted.encoding is not None:
        yield f"  encoding: {_quoted(wanted.encoding)}"
    for line in found.why:
        yield f"  # {_one_line(line)} (?)"
    yield from _templates(found)
    yield f"  metric: {found.metric:<30}  # {_metric_words(found.metric)} (?)"
    if found.way == "label" and listed:
        labels = ", ".join(_quoted(f" {label}") for label in found.labels)
        yield f"  labels: [{labels}]   # all that occur: some are too rare to be in every split"
    if found.rows > 5 * _SCORED:
        yield f"  max_items: {{ validation: {_SCORED}, test: {2 * _SCORED} }}   # more items show smaller differences and take longer"


def _target_lines(provider: Provider, found: Guess, context: int | None) -> Iterator[str]:
    """Yield the sections train and target; `context`: the most tokens that the model takes, where it is known."""
    longest = _length(found, context)
    cut = f"; the model's limit is {context}" if context is not None else ""
    cores = min(hardware()["cores"], usable_processors())
    served = f"{{ provider: {provider.name}" + (f", threads: {cores}" if provider.name == "cpu" else "")
    if said := _too_long(found, context):
        yield f"# {said} (?)"
    yield f"train: {{ batch_size: 8, max_length: {longest} }}   # max_length in tokens: 99 % of the rows have fewer, estimated from their characters{cut}"
    yield f"target: {served}, workload: {{ prompt_tokens: {_workload(found.prompt_tokens, longest)}, new_tokens: {_workload(found.answer_tokens, longest)} }} }}   # where it will run, and what it is timed on (?)"


def _space_lines(provider: Provider, rows: int) -> Iterator[str]:
    """Yield the section space; `rows`: of the training data."""
    steps = max(30, min(200, 3 * rows // 8 // 10 * 10))
    yield "space:"
    yield "  lora:                                 # without this section nothing is trained, and the untouched model is made small and fast"
    yield "    r: { choice: [8, 16] }"
    yield "    learning_rate: { loguniform: [3.0e-4, 4.0e-3] }"
    yield "    target_modules: { choice: [attention, all-linear] }"
    yield f"    steps: {steps:<30}  # about {steps * 8 / max(1, rows):.1g} passes over {rows} rows, at most 200 steps; more steps learn more and take longer"
    yield "  build:                                # each item is a recipe; lists inside it multiply"
    for recipe in _recipes(provider.precisions):
        yield f"    - {recipe}"


def is_folderish(model: str) -> bool:
    """Whether the text that names a model is an existing path."""
    return exists(Path(model).expanduser())


def _templates(found: Guess) -> list[str]:
    match found.way:
        case "messages":
            columns = ", ".join(_quoted(name) for name in (*found.asks, found.answer))
            columns = f"[{columns}]" if found.asks else columns
            return [f"  messages: {columns:<28}  # rendered by the model's own chat template"]
        case "text":
            return [f"  text: {_quoted('{' + found.answer + '}')}"]
    parts = []
    for place, name in enumerate(found.asks):
        line = "" if place == 0 else "\n"
        if name in found.may_be_empty:
            parts.append(f"{{{name}?{line}{_title(name)}: }}")
        else:
            parts.append(f"{line}{_title(name)}: {{{name}}}")
    prompt = "".join(parts) + f"\n{_title(found.answer)}:"
    return [
        f"  prompt: {_quoted(prompt)}   # what the model reads: say in it what you want (?)",
        f"  completion: {_quoted(' {' + found.answer + '}')}   # what it must answer; the space at the beginning is part of it",
    ]


def _title(name: str) -> str:
    text = name.replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]


def _metric_words(metric: str) -> str:
    words = {
        "choice": "the most likely label", "exact_match": "a generated answer counts if it is the right one, word by word",
        "rouge_l": "words that the answer shares with the right one", "perplexity": "how surprised it is by the right answer",
    }  # fmt: skip
    others = [name for name in words if name != metric]
    return f"{words[metric]}; others: {', '.join(others)}"


def _recipes(precisions: Sequence[str]) -> Iterable[str]:
    for precision in precisions:
        extra = ", block_size: [32, 128]" if precision == "int4" else ""
        yield f"{{ precision: {precision}{extra} }}"


def _length(found: Guess, context: int | None) -> int:
    """Return `train.max_length`: longest answers fit into it, and a prompt that is cut to it leaves room for a generated answer."""
    tokens = found.long_tokens + (found.answer_tokens if found.way != "text" else 0) + 16
    longest = 64
    while longest < max(min(tokens, _LONGEST), found.longest_answer + 2):
        longest *= 2
    if context is None:
        return longest
    if generates(found.metric) and found.longest_prompt + found.longest_answer >= context:
        longest = min(longest, max(context - found.longest_answer, found.longest_answer + 2))
    return min(longest, context)


def _too_long(found: Guess, context: int | None) -> str:
    """Return what `plan` may refuse because the model takes too few tokens; empty where all fits, as far as lengths are known."""
    if context is None or found.way == "text":
        return ""
    answer, room = found.longest_answer, context - 2
    if answer > room:
        return (
            f"the longest answer may have {answer} tokens, and the model takes {context}: `autotune plan` counts them, and refuses answers "
            "that do not fit; shorten those, or take their rows out"
        )
    if (
        generates(found.metric)
        and _length(found, context) + answer > context
        and found.longest_prompt + answer >= context
    ):
        return (
            f"the longest answer may have {answer} tokens, and the model takes {context} with the prompt: if `autotune plan` refuses that, "
            "shorten the longest answers, or take their rows out"
        )
    return ""


def _workload(tokens: int, longest: int) -> int:
    return max(4, min(longest, round(tokens / 4) * 4))


def _path(source: str, file: Path) -> str:
    """Return a source as the sweep file names it: paths start at the working directory, or at the file's own folder."""
    path = Path(source)
    if not exists(path) or path.is_absolute():
        return path.as_posix() if path.is_absolute() else source
    if file.parent == Path():
        return path.as_posix()
    return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100 - links stay what they are


def _quoted(text: str) -> str:
    """Return a text as a YAML scalar between double quotes, which takes any character."""
    return json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
