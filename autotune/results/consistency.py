"""Whether the files of a results folder are of one sweep: settings, rows, and outcomes of items.

The settings with which rows were measured are noted in `inputs.json`. People change `sweep.yaml` later, or copy a table from
one folder to another, and a choice from both together would be wrong without a word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.errors import UsageError, shown
from autotune.metrics import METRICS, score_column
from autotune.results.judge import named_candidate
from autotune.results.outcomes import Parts
from autotune.results.rows import Trial

SETTINGS = "settings"
"""The key of `inputs.json` under which the settings of the rows stand."""
_TIMING = re.compile(r"target(s\.[^.]+)?\.timing\.")
"""The settings of timings, which may change between runs of a sweep."""
_SHOWN, _LONGEST = 3, 60
"""The most settings or candidates that are named, and the most characters of a value."""
_TOGETHER = 1000
"""Candidates whose outcomes are copied into one array at a time."""


def fixed_settings(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a resolved sweep that cannot change once there are rows, with dotted keys."""
    flat = _flat({key: sweep.get(key) for key in ("model", "data", "target", "objectives", "seed")})
    for name, named in (sweep.get("targets") or {}).items():
        flat |= _flat({key: value for key, value in named.items() if key != "limits"}, f"targets.{name}")
    target = sweep.get("target")
    workloads = target.get("workloads") if isinstance(target, Mapping) else None
    # The first of them fills the columns without a name, so their order counts.
    flat |= {"target.workloads": list(workloads)} if isinstance(workloads, Mapping) else {}
    # As they are read again from `inputs.json`; a YAML file may hold dates.
    plain: dict[str, Any] = json.loads(json.dumps(flat, default=str))
    return plain


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    if not isinstance(value, Mapping):
        return {key: list(value) if isinstance(value, tuple) else value}
    return {k: v for name, part in value.items() for k, v in _flat(part, f"{key}.{name}" if key else str(name)).items()}


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys of settings that differ, without those of timings, which may."""
    keys = dict.fromkeys([*then, *now])
    return [key for key in keys if then.get(key) != now.get(key) and not _TIMING.match(key)]


def recorded_settings(folder: Path) -> dict[str, Any]:
    """Return the settings with which the rows of a folder were measured; empty where they were not noted."""
    try:
        noted = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))[SETTINGS]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def changed_settings(folder: Path, sweep: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that `sweep`, the content of the folder's sweep.yaml, has otherwise than the rows: then and now."""
    then = recorded_settings(folder)
    try:
        now = fixed_settings(sweep)
    except AttributeError:  # a target that is no mapping
        return {}
    return {key: (then.get(key), now.get(key)) for key in differing(then, now)} if then else {}


def disagreements(
    folder: Path, sweep: Mapping[str, Any] | None, rows: Sequence[Trial], parts: Mapping[str, Parts]
) -> list[str]:
    """Return notes on what the folder's sweep.yaml, rows and outcomes contradict one another in, one line each.

    `parts`: the outcomes of measured rows, by candidate; only these rows are held to them.
    """
    notes = []
    if sweep is not None and rows:  # a sweep without rows may begin anew with other settings
        changed = changed_settings(folder, sweep)
        if changed:
            notes.append(
                f"sweep.yaml was changed since the rows were measured: {in_words(changed)}; the rows are of the earlier settings: "
                "restore sweep.yaml"
            )
        else:
            notes += _of_another_sweep(sweep, rows)
    measured = {row.candidate: row for row in rows if row.status == "ok"}
    return [*notes, *_unlike_outcomes(measured, parts)]


def renamed(rows: Sequence[Trial], file: Path) -> list[str]:
    """Return a note if the settings of rows are not those that the candidates were named by."""
    strange = []
    for row in rows:
        try:
            named_candidate(row, file)
        except UsageError:
            strange.append(row.candidate)
    if not strange:
        return []
    others = f", and so are those of {len(strange) - 1} more of the front" if len(strange) > 1 else ""
    return [
        f"candidate {strange[0][:8]}: its settings are not those that it was named by{others}: cells of results.csv were changed; "
        "restore the file"
    ]


def in_words(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return changed settings in words, the first of them with both values."""
    named = [f"{key} was {_brief(then)}, and is {_brief(now)}" for key, (then, now) in list(changed.items())[:_SHOWN]]
    more = len(changed) - _SHOWN
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def _brief(value: Any) -> str:
    text = shown(value) if value is not None else "not set"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _of_another_sweep(sweep: Mapping[str, Any], rows: Sequence[Trial]) -> list[str]:
    """Return a note if no measured row has the score of the sweep, or rows are of targets that it does not name."""
    measured = [row for row in rows if row.status == "ok"]
    data, several = sweep.get("data"), sweep.get("targets")
    metric = str(data.get("metric", "choice")) if isinstance(data, Mapping) else ""
    score = score_column(metric) if metric else ""
    notes = []
    if measured and score in METRICS and all(row.number(score) is None for row in measured):
        has = [
            name
            for name, one in METRICS.items()
            if one.kind == "score" and any(row.number(name) is not None for row in measured)
        ]
        of = f"have {' and '.join(has)}" if has else "have no score"
        notes.append(f"the sweep's metric is {metric}, and the rows of results.csv {of}: they are of another sweep")
    if isinstance(several, Mapping):
        strange = sorted({str(row.target) for row in rows if row.target and row.target not in several})
        if strange:
            notes.append(
                f"results.csv has rows of {' and '.join(strange[:_SHOWN])}, which sweep.yaml does not name as a target"
            )
    return notes


def _means(parts: Mapping[str, Parts]) -> dict[str, float]:
    """Return the mean over the items of each candidate. Candidates with as many items are taken together, for speed."""
    alike: dict[int, list[str]] = {}
    for name, one in parts.items():
        if one.items.size:
            alike.setdefault(one.items.size, []).append(name)
    found: dict[str, float] = {}
    for names in alike.values():
        for some in _batches(names, _TOGETHER):
            means = np.stack([parts[name].items for name in some]).mean(axis=1)
            found |= dict(zip(some, means.tolist(), strict=True))
    return found


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield the names in groups of at most `size`."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _unlike_outcomes(measured: Mapping[str, Trial], parts: Mapping[str, Parts]) -> list[str]:
    """Return a note if scores in the table are not those of the items' outcomes: somebody has changed or sorted cells."""
    unlike = []
    whole = {name: one for name, one in parts.items() if name in measured and not one.grouped}
    for name, found in _means(whole).items():
        one, row = whole[name], measured[name]
        value = row.number(one.column)
        if value is None or row.behind(one.column) != one.items.size:
            continue
        if one.column == "perplexity":
            found = math.exp(min(found, 700.0))
        if not math.isclose(found, value, rel_tol=1e-4, abs_tol=1e-6):
            unlike.append((name, one.column, value, found))
    if not unlike:
        return []
    name, column, value, found = unlike[0]
    count = f"{len(unlike)} candidates" if len(unlike) > 1 else "a candidate"
    return [
        f"{column} of {count} in results.csv is not that of its items ({name[:8]}: {value:.6g}, and its items say {found:.6g}): "
        "cells were changed or sorted, or the outcomes are of another run; restore results.csv"
    ]
