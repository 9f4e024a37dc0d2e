"""A task of lm-evaluation-harness as the score: found here and read as text, run in a worker (`stages/lm_task.py`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from autotune.errors import Problem, UsageError, did_you_mean
from autotune.metrics import Direction, task_of
from autotune.usercode import Code

_KEY = "data.metric"
_SUFFIXES = (".yaml", ".yml")
_LOCAL = {"json", "csv", "parquet", "text", "arrow", "pandas"}
"""The kinds of local files that the datasets library reads: any other `dataset_path` is a name on the hub."""

_LOWER = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score", "likelihood"}
"""Metrics of the harness that are better when lower, where a task file does not state a direction."""

_NAMES = re.compile(r"""^(task|group|tag):[ \t]*["']?([^\s"'#\[]+)["']?[ \t]*$""", re.MULTILINE)


class _Loader(yaml.SafeLoader):
    """Reads a task file without running anything: `!function x` is the text `x`."""


_Loader.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))


def find_task(metric: str, root: Path) -> Code:
    """Find the task of `lm-eval:<name>` or `lm-eval:<file>`; a file's path starts at the working directory or at `root`.

    The digest covers the task's file, its includes, the Python files beside it, and local data. A name is looked up only where
    lm-eval is installed; else it has no files. Raises UsageError.
    """
    name = task_of(metric)[0]
    if name.endswith(_SUFFIXES):
        file = next((p.absolute() for p in (Path(name), root / name) if p.is_file()), None)
        if file is None:
            near = [path.name for suffix in _SUFFIXES for path in (root / name).parent.glob(f"*{suffix}")]
            remedy = did_you_mean(Path(name).name, sorted(near)) if near else "check the path"
            raise UsageError(Problem("there is no such task file", _KEY, value=metric, remedy=remedy))
    elif (harness := find_spec("lm_eval")) is None:
        return Code(Path(name), None, hashlib.sha256(metric.encode()).hexdigest(), ())
    else:
        file = _shipped_file(name, Path(str(harness.origin)).parent / "tasks")
    config = read_task(file)
    files = [*_parts(file), *data_files(config, file)]
    content = sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)
    return Code(
        file, None, hashlib.sha256(repr((metric.partition("@")[2], content)).encode()).hexdigest(), tuple(files)
    )


@cache
def shipped(folder: Path) -> tuple[dict[str, Path], frozenset[str]]:
    """Return the task files of the harness by the task's name, and the names of groups.

    Only the lines with names are read, because the harness's own index parses every file, which takes tens of seconds.
    """
    tasks: dict[str, Path] = {}
    groups: set[str] = set()
    for file in sorted(folder.rglob("*.yaml")):
        for key, name in _NAMES.findall(file.read_text(encoding="utf-8", errors="replace")):
            if key == "task":
                tasks.setdefault(name, file)
            else:
                groups.add(name)
    return tasks, frozenset(groups)


def _shipped_file(name: str, folder: Path) -> Path:
    """Return the file of a task of the harness. Raises UsageError for an unknown task."""
    tasks, groups = shipped(folder)
    if name in tasks:
        return tasks[name]
    if name in groups:
        remedy = "name one of its tasks"
        raise UsageError(Problem("this is a group of tasks of lm-eval", _KEY, value=name, remedy=remedy))
    near = did_you_mean(name, list(tasks))
    remedy = near if near.startswith("did you mean") else "`lm-eval ls tasks` lists them; a file's name ends in .yaml"
    raise UsageError(Problem("lm-eval has no such task", _KEY, value=name, remedy=remedy))


def direction_of(metric: str, root: Path) -> Direction:
    """Return the direction of a task's metric, by its task file; `maximize` where there is no local file. Raises UsageError."""
    code = find_task(metric, root)
    listed = read_task(code.file).get("metric_list") if code.files else None
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and task_of(metric)[1] in ("", one.get("metric")):
            higher = one.get("higher_is_better", one.get("metric") not in _LOWER)
            return "maximize" if higher else "minimize"
    return "maximize"


def on_the_hub(code: Code) -> bool:
    """Whether a task's data has to be fetched."""
    return not code.files or read_task(code.file).get("dataset_path") not in _LOCAL


def read_task(file: Path, depth: int = 0) -> dict[str, Any]:
    """Return a task file as plain data, with what it includes. Raises UsageError."""
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        said = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        at = None if line is None else line + 1
        raise UsageError(Problem(f"cannot be read as a task file ({said})", _KEY, str(file), at)) from None
    if not isinstance(config, dict):
        raise UsageError(Problem("a task file is a mapping", _KEY, str(file), remedy="see lm-eval's task guide"))
    included = config.pop("include", None)
    for name in [included] if isinstance(included, str) else included or []:
        part = file.parent / str(name)
        if depth > 10 or not part.is_file():
            rule = "includes itself" if depth > 10 else f"includes {name}, which is not there"
            raise UsageError(Problem(rule, _KEY, str(file), remedy="correct include"))
        config = {**read_task(part, depth + 1), **config}
    if depth == 0 and not isinstance(config.get("task"), str):
        rule = "a task file names one task" + (", and this is a group" if "group" in config else "")
        raise UsageError(Problem(rule, _KEY, str(file), remedy="write task: <name>"))
    return config


def _parts(file: Path) -> list[Path]:
    """Return the task file, the files that it includes, and the Python files beside it."""
    beside = [path for path in sorted(file.parent.iterdir()) if path.suffix in (*_SUFFIXES, ".py") and path.is_file()]
    named = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    included = named.get("include") or []
    more = [file.parent / str(name) for name in ([included] if isinstance(included, str) else included)]
    python = [path for path in beside if path.suffix == ".py"]
    return list(dict.fromkeys([file, *(path for path in more if path.is_file()), *python]))


def data_files(config: dict[str, Any], file: Path) -> list[Path]:
    """Return the local data files of a task: from the working directory, as in the harness, or beside the task file.

    Raises UsageError where one is missing.
    """
    if config.get("dataset_path") not in _LOCAL:
        return []
    named = (config.get("dataset_kwargs") or {}).get("data_files")
    found: list[Path] = []
    for text in _texts(named):
        if "://" in text or "*" in text:
            continue
        path = next((p for p in (Path(text), file.parent / text) if p.is_file()), None)
        if path is None:
            rule = f"its data file {text} is not there"
            raise UsageError(Problem(rule, _KEY, str(file), remedy="name it from the task file's folder"))
        found.append(path.absolute())
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
