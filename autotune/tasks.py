"""A task of lm-evaluation-harness, or a group of them, as the score: found here and read as text, run in a worker
(`stages/lm_task.py`).

A group has a score where its file says how those of its tasks are put together (`aggregate_metric_list`).
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from autotune.distribution import pip_install
from autotune.errors import Problem, UsageError, did_you_mean
from autotune.metrics import TASK, Direction, task_of
from autotune.usercode import Code

_KEY = "data.metric"
_SUFFIXES = (".yaml", ".yml")
_LOCAL = {"json", "csv", "parquet", "text", "arrow", "pandas"}
"""The kinds of local files that the datasets library reads: any other `dataset_path` is a name on the hub."""

_LOWER = {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "brier_score", "likelihood"}
"""Metrics of the harness that are better when lower, where a task file does not state a direction."""

_NAMES = re.compile(
    r"""^["']?(task|group|class|include)["']?[ \t]*:[ \t]*(?:!function )?["']?([^\s"'#\[]+)["']?[ \t]*$""", re.MULTILINE
)
_TAGS = re.compile(r"^[\"']?tag[\"']?[ \t]*:(.*(?:\n[ \t]*-[ \t].*)*)", re.MULTILINE)
_TAG = re.compile(r"""[^\s"'\[\],-][^\s"'\[\],]*""")


_OF_A_GROUP = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "include"}
"""Keys of a group's file that are its own; others change its tasks."""


class Shipped(NamedTuple):
    """What comes with the harness, by name."""

    tasks: dict[str, Path]
    groups: dict[str, Path]
    tags: dict[str, tuple[str, ...]]
    """The tasks that carry a tag."""


class Member(NamedTuple):
    """A task of a group."""

    config: dict[str, Any]
    """Its file as plain data, with what the group changes."""
    file: Path
    """Its file, or that of the group which describes it."""


class Group(NamedTuple):
    """A group of tasks whose file says how their scores are put together."""

    name: str
    metric: str
    weighted: bool
    """Whether a task counts by its number of items; False: each task counts the same."""
    filters: tuple[str, ...]
    """The harness's filters of answers whose scores are meant; empty: those that the tasks have."""
    members: tuple[Member, ...]
    files: tuple[Path, ...]
    """The file of the group, those of groups in it, and those of its tasks."""


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
    if (group := group_of(metric, file)) is not None:
        files = [part for one in group.files for part in _parts(one)]
        files += [part for member in group.members for part in data_files(member.config, member.file)]
        files = list(dict.fromkeys(files))
    else:
        files = [*_parts(file), *data_files(read_task(file), file)]
    content = sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files)
    return Code(
        file, None, hashlib.sha256(repr((metric.partition("@")[2], content)).encode()).hexdigest(), tuple(files)
    )


@cache
def shipped(folder: Path) -> Shipped:
    """Return the tasks, groups and tags of the harness by name.

    Only the lines with names are read, because the harness's own index parses every file, which takes tens of seconds.
    """
    tasks: dict[str, Path] = {}
    groups: dict[str, Path] = {}
    tags: dict[str, list[str]] = {}
    inherited: dict[Path, list[str]] = {}
    for file in sorted(folder.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8", errors="replace")
        found = dict(reversed(_NAMES.findall(text)))
        if "group" in found and "class" not in found:
            groups.setdefault(found["group"], file)
        elif "task" in found and tasks.setdefault(found["task"], file) == file:
            for tag in _tags(text, file.parent, inherited):
                tags.setdefault(tag, []).append(found["task"])
    return Shipped(tasks, groups, {tag: tuple(sorted(names)) for tag, names in tags.items()})


def _tags(text: str, folder: Path, known: dict[Path, list[str]]) -> list[str]:
    """Return the tags of a task file, else those of the file that it includes; `known`: of files that were read before."""
    if (found := _TAGS.search(text)) is not None:
        return _TAG.findall(re.sub(r"(?:^|\s)#.*", "", found[1]))
    included = dict(reversed(_NAMES.findall(text))).get("include")
    part = folder / included if included else None
    if part is None or not part.is_file():
        return []
    if part not in known:
        known[part] = []  # where it includes itself
        known[part] = _tags(part.read_text(encoding="utf-8", errors="replace"), part.parent, known)
    return known[part]


def _shipped_file(name: str, folder: Path) -> Path:
    """Return the file of a task or group of the harness. Raises UsageError for an unknown one."""
    known = shipped(folder)
    if name in known.tasks or name in known.groups:
        return known.tasks.get(name) or known.groups[name]
    if name in known.tags:
        remedy = f"name one of them, e.g. {TASK}{known.tags[name][0]}, or a group file that says how their scores are put together"
        raise UsageError(
            Problem("this is a tag of several tasks of lm-eval, and has no score", _KEY, value=name, remedy=remedy)
        )
    near = did_you_mean(name, [*known.tasks, *known.groups])
    remedy = near if near.startswith("did you mean") else "`lm-eval ls tasks` lists them; a file's name ends in .yaml"
    raise UsageError(Problem("lm-eval has no such task", _KEY, value=name, remedy=remedy))


def group_of(metric: str, file: Path) -> Group | None:
    """Return the group that `file` describes; None where it describes a task. Raises UsageError.

    Its tasks are those of the harness, and those whose files lie beside it.
    """
    config = _read(file)
    if "class" in config:  # it may name a group for its task
        return None
    if not isinstance(config.get("group"), str):
        return None
    name, wanted = config["group"], task_of(metric)[1]
    listed = config.get("aggregate_metric_list") or []
    listed = [
        one for one in (listed if isinstance(listed, list) else [listed]) if isinstance(one, dict) and one.get("metric")
    ]
    metrics = [str(one["metric"]) for one in listed]
    harness = find_spec("lm_eval")
    known = shipped(Path(str(harness.origin)).parent / "tasks") if harness is not None else Shipped({}, {}, {})
    if file.parent not in {path.parent for path in known.groups.values()}:
        known = _with_those_beside(known, file.parent)
    members, files = _members(config, file, known, (file,), {})
    if not members:
        raise UsageError(Problem(f"the group {name} has no tasks", _KEY, str(file), remedy="write task: [<name>, ...]"))
    if not listed:
        rule = f"the group {name} has no score: its file has no aggregate_metric_list"
        remedy = f"name one of its tasks, e.g. {TASK}{members[0].config['task']}, or a group file of yours that has it"
        raise UsageError(Problem(rule, _KEY, str(file), remedy=remedy))
    if wanted and wanted not in metrics:
        rule = f"the group {name} has no metric {wanted}"
        raise UsageError(Problem(rule, _KEY, str(file), value=metric, remedy=did_you_mean(wanted, metrics)))
    chosen = listed[metrics.index(wanted) if wanted else 0]
    if chosen.get("aggregation", "mean") != "mean":
        rule = f"the scores of a group's tasks are put together by their mean, not by {chosen['aggregation']}"
        raise UsageError(Problem(rule, _KEY, str(file), remedy="write aggregation: mean, or name one of its tasks"))
    filters = chosen.get("filter_list") or ()
    return Group(
        name,
        str(chosen["metric"]),
        bool(chosen.get("weight_by_size", True)),
        (filters,) if isinstance(filters, str) else tuple(map(str, filters)),
        tuple(members),
        tuple(dict.fromkeys([file, *files])),
    )


def _with_those_beside(known: Shipped, folder: Path) -> Shipped:
    """Return what comes with the harness, and what the files of a folder describe; these come first."""
    tasks, groups = dict(known.tasks), dict(known.groups)
    for file in sorted(path for path in folder.glob("*.yaml") if path.is_file()):
        found = dict(reversed(_NAMES.findall(file.read_text(encoding="utf-8", errors="replace"))))
        if "group" in found and "class" not in found:
            groups[found["group"]] = file
        elif "task" in found:
            tasks[found["task"]] = file
    return known._replace(tasks=tasks, groups=groups)


def _members(
    config: dict[str, Any], file: Path, known: Shipped, above: tuple[Path, ...], changes: dict[str, Any]
) -> tuple[list[Member], list[Path]]:
    """Return the tasks of a group, those of groups in it included, and the files that describe them. Raises UsageError.

    `above`: the files of the groups that it is in. `changes`: what those change of a task.
    """
    members: list[Member] = []
    files: list[Path] = []
    own = {**{key: value for key, value in config.items() if key not in _OF_A_GROUP}, **changes}
    listed = config.get("task")
    for one in listed if isinstance(listed, list) else []:
        part = one if isinstance(one, dict) else {}
        name = one if isinstance(one, str) else part.get("group") or part.get("task")
        if not isinstance(name, str):
            rule = "each part of a group is a name, or a mapping with task or group"
            raise UsageError(Problem(rule, _KEY, str(file), value=one, remedy="correct task"))
        changed = {**own, **{key: value for key, value in part.items() if key not in ("task", "group")}}
        if "group" in part and name not in known.groups:
            inside = _members(part, file, known, above, own)
        elif name in known.tags and "group" not in part and name not in known.tasks and name not in known.groups:
            found = [known.tasks[task] for task in known.tags[name]]
            inside = [Member({**read_task(task), **changed}, task) for task in found], found
        elif name in known.tasks and "group" not in part:
            task = known.tasks[name]
            inside = [Member({**read_task(task), **changed}, task)], [task]
        elif name in known.groups:
            inner = known.groups[name]
            if inner in above:
                raise UsageError(Problem(f"the group {name} is in itself", _KEY, str(file), remedy="correct task"))
            below, paths = _members(_read(inner), inner, known, (*above, inner), changed)
            inside = below, [inner, *paths]
        elif part:  # a task that the group describes itself
            inside = [Member({**changed, "task": name}, file)], []
        else:
            remedy = did_you_mean(name, [*known.tasks, *known.groups, *known.tags])
            rule = f"the group has a task {name}, which neither lm-eval nor a file beside it describes"
            if find_spec("lm_eval") is None:
                rule, remedy = (
                    f"the group's task {name} is not known without the package lm-eval",
                    pip_install("lm-eval"),
                )
            raise UsageError(Problem(rule, _KEY, str(file), remedy=remedy))
        members += inside[0]
        files += inside[1]
    return members, files


def direction_of(metric: str, root: Path) -> Direction:
    """Return the direction of a task's metric, by its task file; `maximize` where there is no local file. Raises UsageError."""
    code = find_task(metric, root)
    if not code.files:
        return "maximize"
    group = group_of(metric, code.file)
    wanted = group.metric if group is not None else task_of(metric)[1]
    for config in [member.config for member in group.members] if group is not None else [read_task(code.file)]:
        listed = config.get("metric_list")
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict) and wanted in ("", one.get("metric")):
                higher = one.get("higher_is_better", one.get("metric") not in _LOWER)
                return "maximize" if higher else "minimize"
    return "maximize"


def on_the_hub(code: Code) -> bool:
    """Whether the data of a task, or of one of a group, has to be fetched."""
    return not code.files or any(config.get("dataset_path") not in _LOCAL for config in configs_of("", code.file))


def is_group(metric: str, root: Path) -> bool:
    """Whether `lm-eval:<name or file>` names a group of tasks; False where lm-eval, or the file, is not there."""
    with suppress(UsageError):
        code = find_task(metric, root)
        return bool(code.files) and group_of(metric, code.file) is not None
    return False


def configs_of(metric: str, file: Path) -> list[dict[str, Any]]:
    """Return the tasks that a file describes, as plain data: one, or those of a group. Raises UsageError."""
    group = group_of(metric, file)
    return [read_task(file)] if group is None else [member.config for member in group.members]


def read_task(file: Path) -> dict[str, Any]:
    """Return a task file as plain data, with what it includes. Raises UsageError."""
    config = _read(file)
    if not isinstance(config.get("task"), str):
        raise UsageError(Problem("a task file names one task", _KEY, str(file), remedy="write task: <name>"))
    return config


def _parsed(file: Path) -> Any:
    """Return a YAML file as plain data. Raises OSError, UnicodeDecodeError, YAMLError, ValueError, RecursionError."""
    about = file.stat()
    return copy.deepcopy(_parse(file, about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=1024)
def _parse(file: Path, changed_ns: int, size: int) -> Any:
    """Parse a file as it was at this time of its last change: the files of a group are asked for again and again."""
    del changed_ns, size
    return yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader


def _read(file: Path, depth: int = 0) -> dict[str, Any]:
    """Return the file of a task or group as plain data, with what it includes. Raises UsageError."""
    try:
        config = _parsed(file)
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
        config = {**_read(part, depth + 1), **config}
    return config


def _parts(file: Path) -> list[Path]:
    """Return the task file, the files that it includes, and the Python files beside it."""
    beside = [path for path in sorted(file.parent.iterdir()) if path.suffix in (*_SUFFIXES, ".py") and path.is_file()]
    included = _parsed(file).get("include") or []
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
