"""The target of a sweep, and several targets: these are parsed as one sweep for each, which differ in target, limits and recipes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autotune.errors import Problem, UsageError
from autotune.metrics import WORKLOAD, is_task
from autotune.paths import NOT_PORTABLE, is_portable
from autotune.providers import Provider
from autotune.space.sessions import check_served, spell_options
from autotune.sweepfile.schema import Sweep, Target

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""The names of targets: they name folders, and are cells of results.csv."""


def parse_target(raw: Any, provider: Provider, metric: str, problems: list[Problem]) -> Target:
    """Return the target, or a default one where it is refused. Mistakes in keys that depend on one another go to `problems`."""
    key = "target.provider_options"
    options = given(raw, "provider_options", dict, None)
    if options is not None and check_served("provider_options", provider, key, problems):
        rule = spell_options(options)[1]
        if rule:
            remedy = "see the provider's options in ONNX Runtime's documentation"
            problems.append(Problem(rule, key, remedy=remedy))
    if given(raw, "device", int, None) is not None and not (provider.plugged or provider.device_options[0]):
        rule = f"device means something on providers with devices to choose from, and {provider.name} has none"
        problems.append(Problem(rule, "target.device", value=given(raw, "device", int, None), remedy="remove it"))
    workloads = given(raw, "workloads", dict, None)
    if workloads is not None:
        key = "target.workloads"
        if "workload" in raw:
            remedy = "keep one: what was workload may be the first of workloads"
            problems.append(Problem("workload and workloads exclude one another", key, remedy=remedy))
        if not workloads:
            problems.append(Problem("needs at least one workload", key, remedy=f"write {key}: {{ long: {{ ... }} }}"))
        problems.extend(
            Problem("must be a-z, 0-9, '_' and '-', 32 at most: it names columns", f"{key}.{name}", remedy="rename it")
            for name in workloads
            if not WORKLOAD.fullmatch(str(name))
        )
    try:
        target = Target.model_validate(raw if isinstance(raw, dict) else {})
    except ValidationError:  # told by the check of the whole document
        return Target()
    if is_task(metric) and any(workload.drawn for workload in target.timed.values()):
        rule = f"no lengths can be drawn from the data: {metric} brings its own items"
        key = "target.workloads" if target.workloads else "target.workload"
        problems.append(Problem(rule, key, remedy="write prompt_tokens and new_tokens as numbers"))
    return target


def given(data: Any, key: str, kind: type[T], otherwise: T) -> T:
    """Return the value of a key in a mapping, or `otherwise` where there is none of that type."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, kind) else otherwise


@dataclass(frozen=True)
class Source:
    """The file that a sweep was read from, and what the command line replaces of its budget."""

    shown: str = ""
    """The name of the file in messages."""
    root: Path = Path()
    """The folder of the file: relative paths may start there."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """The line of each key in the file."""
    trials: int | None = None
    hours: float | None = None


def parse_targets(
    data: Mapping[str, Any], source: Source, parse: Callable[[Mapping[str, Any], Source, str], Sweep]
) -> Sweep:
    """Return a sweep whose `targets` are the sweeps for each target; `parse` checks each. Raises UsageError with all problems."""
    shown, lines = source.shown, source.lines
    raw = data["targets"]
    problems = [replace(problem, file=shown, line=lines.get("targets")) for problem in _wrong(data, raw)]
    if problems:
        raise UsageError(problems)
    shared = list(data.get("limits") or []) if isinstance(data.get("limits"), list) else []
    found: dict[str, Sweep] = {}
    for name, target in raw.items():
        rest = {key: value for key, value in target.items() if key != "limits"}
        own = target.get("limits", [])
        whole = {key: value for key, value in data.items() if key != "targets"}
        whole |= {"target": rest, "limits": [*shared, *own] if isinstance(own, list) else own}
        here = f"targets.{name}"
        moved = {key.replace(here, "target", 1): line for key, line in lines.items() if key.startswith(here)}
        try:
            found[name] = parse(whole, replace(source, lines={**lines, **moved}), name)
        except UsageError as error:
            problems += [_named(problem, here, len(shared)) for problem in error.problems]
    if problems:
        raise UsageError(list(dict.fromkeys(problems)))
    first = next(iter(found.values()))
    if first.budget.trials is not None and first.budget.trials < len(found):
        rule = f"must be at least {len(found)}: it counts rows, and there are so many targets"
        raise UsageError(Problem(rule, "budget.trials", shown, value=first.budget.trials, remedy="raise it"))
    written = {"targets": dict(raw), "build": (data.get("space") or {}).get("build"), "limits": shared}
    return first.model_copy(update={"targets": found, "written": written})


def _wrong(data: Mapping[str, Any], raw: Any) -> list[Problem]:
    """Return the problems of the map of targets itself."""
    if "target" in data:
        remedy = "keep one: what is target may be the first of targets"
        return [Problem("target and targets exclude one another", "targets", remedy=remedy)]
    if not isinstance(raw, Mapping) or not raw:
        remedy = "write targets: { laptop: { provider: cpu }, gpu: { provider: webgpu } }"
        return [Problem("must be a map of names to targets", "targets", value=raw, remedy=remedy)]
    found = [
        Problem("must be a-z, 0-9, '_' and '-', 32 at most: it names a folder", f"targets.{name}", remedy="rename it")
        for name in raw
        if not NAME.fullmatch(str(name))
    ]
    found += [
        Problem(NOT_PORTABLE, f"targets.{name}", remedy="rename it") for name in raw if not is_portable(str(name))
    ]
    found += [
        Problem("must be a mapping", f"targets.{name}", value=target, remedy="e.g. { provider: cpu }")
        for name, target in raw.items()
        if not isinstance(target, Mapping)
    ]
    return found


def _named(problem: Problem, here: str, shared: int) -> Problem:
    """Return a problem of one target's sweep with the key of the file. `shared`: the number of limits of the whole sweep."""
    key = problem.key
    if key == "target" or key.startswith("target."):
        key = here + key.removeprefix("target")
    elif (index := re.fullmatch(r"limits\[(\d+)\]", key)) and int(index[1]) >= shared:
        key = f"{here}.limits[{int(index[1]) - shared}]"
    return replace(problem, key=key)
