"""A sweep for several targets, read as one sweep for each: the same in all but the target, its limits and what runs there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.errors import Problem, UsageError
from autotune.paths import NOT_PORTABLE, is_portable
from autotune.sweepfile.schema import Sweep

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""Of a target: it names a folder, and is a cell of results.csv."""


def parse_targets(
    data: Mapping[str, Any],
    lines: Mapping[str, int],
    root: Path,
    shown: str,
    trials: int | None,
    hours: float | None,
    parse: Callable[..., Sweep],
) -> Sweep:
    """Return a sweep whose `targets` are the sweeps for each target, read by `parse`. Raises UsageError with all problems."""
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
            found[name] = parse(whole, {**lines, **moved}, root, shown, trials, hours, name)
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
    """Return a problem of one target's sweep under the key that the file has it."""
    key = problem.key
    if key == "target" or key.startswith("target."):
        key = here + key.removeprefix("target")
    elif (index := re.fullmatch(r"limits\[(\d+)\]", key)) and int(index[1]) >= shared:
        key = f"{here}.limits[{int(index[1]) - shared}]"
    return replace(problem, key=key)
