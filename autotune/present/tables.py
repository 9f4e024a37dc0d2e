"""Formats rows for people: short names for candidates, aligned columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.candidate import Session
from autotune.errors import printable
from autotune.metrics import PRECISION
from autotune.results.columns import Cell
from autotune.results.rows import Finalist, Measured, Trial

_UNITS = {"itl_ms_p50": "ms/token", "size_mb": "MB", "ttft_ms_p50": "ms to first", "peak_memory_mb": "MB memory",
          "gpu_memory_mb": "MB on the GPU"}  # fmt: skip


def duration(seconds: float) -> str:
    """Return a duration in its largest fitting unit, as in `12.3 minutes`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: Any) -> str:
    """Return a number with about three significant digits; an empty text if it is missing or not finite."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return printable(str(value))
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    if size >= 1:
        return f"{value:.3g}"
    return f"{value:.3f}" if size >= 0.001 else f"{value:.2g}"


def settings(cells: Mapping[str, Cell]) -> str:
    """Return a candidate's settings in a few words: the adapter's most searched ones, the recipe and the session."""
    parts = []
    if cells.get("lora_r") is not None:
        alpha, rate, modules = (cells.get(f"lora_{name}") for name in ("alpha", "learning_rate", "target_modules"))
        parts.append(f"r{cells['lora_r']} a{number(alpha)} lr {number(rate)} {number(modules)}".strip())
        if cells.get("lora_quantized_base") not in (None, "none"):
            parts.append(str(cells["lora_quantized_base"]))
        parts += [name for name in ("dora", "rslora") if cells.get(f"lora_{name}")]
    recipe = recipe_name(cells)
    if recipe:
        parts.append(("| " if parts else "") + recipe)
    served: dict[str, Any] = {name: cells.get(f"session_{name}") for name in Session.model_fields}
    session = Session.model_construct(**served)
    if str(session):
        parts.append(("| " if parts else "") + str(session))
    return printable(" ".join(parts))


def recipe_name(cells: Mapping[str, Cell]) -> str:
    """Return a recipe in a few words; empty where nothing was built."""
    if cells.get("build_precision") is None:
        return ""
    words = [str(cells["build_precision"])]
    algorithm = cells.get("build_algorithm")
    if algorithm not in (None, "default"):
        words.append(str(algorithm))
    if cells.get("build_block_size") is not None:
        words.append(f"b{cells['build_block_size']}")
    known = ("precision", "algorithm", "block_size", "accuracy_level", "symmetric")
    if cells.get("build_symmetric") is False:
        words.append("asymmetric")
    if cells.get("build_accuracy_level") not in (None, 4, 0):
        words.append(f"level {cells['build_accuracy_level']}")
    for name, value in cells.items():
        short = name.removeprefix("build_")
        if name.startswith("build_") and short not in known and value is not None:
            switch = short if value else f"no {short}"
            words.append(
                switch if isinstance(value, bool) else str(value) if isinstance(value, str) else f"{short} {value}"
            )
    return " ".join(words)


def table(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return lines of cells under their headings as aligned text. Columns of numbers stand to the right."""
    texts = [[number(cell) for cell in line] for line in lines]
    widths = [max(len(head), *(len(line[i]) for line in texts), 0) for i, head in enumerate(heads)]
    right = [all(isinstance(line[i], int | float | None) for line in lines) for i in range(len(heads))]
    shown = []
    for line in [heads, *texts]:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        shown.append("  ".join(parts).rstrip())
    shown.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(shown)


def candidates(rows: Sequence[Trial], objectives: Sequence[str], winner: str | None = None) -> str:
    """Return candidates with their settings and objectives as aligned text; the winner is starred."""
    heads = ["", "candidate", "trial", "settings", *objectives]
    with_status = any(row.status != "ok" for row in rows)
    lines: list[list[object]] = []
    for row in rows:
        star = "*" if row.candidate == winner else ""
        about = [star, row.candidate[:8], row.trial, settings(row.settings) or "the untouched model"]
        lines.append([*about, *(row[name] for name in objectives), *([row.status] if with_status else [])])
    return table([*heads, *(["status"] if with_status else [])], lines)


def ratio_text(value: float, low: float, high: float) -> str:
    """Return a finalist's ratio of times between tokens with its interval, and whether that is wide."""
    wide = "" if high - low <= 2 * PRECISION * value else f" (wider than {PRECISION:.0%})"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]{wide}"


def score_text(row: Measured, name: str) -> str:
    """Return a metric with its interval, where it has one."""
    value, interval = row[name], row.interval(name)
    if value is None:
        return f"{name} not measured"
    unit = _UNITS.get(name.partition("@")[0])
    text = f"{name} {number(value)}" + (f" {unit}" if unit else "")
    if interval is not None:
        text += f" [{number(interval.low)}, {number(interval.high)}]"
    return text


def verified_lines(winner: Finalist | None) -> list[str]:
    """Return a line on whether the model in `best/` answers as recorded; nothing if it was not tested."""
    if winner is None:
        return []
    match winner.verified:
        case True:
            return [
                f"verified: best/, loaded by onnxruntime-genai alone from the text of prompts, answers {winner.verified_items} items as recorded"
            ]
        case False:
            return [
                "NOT VERIFIED: best/, loaded by onnxruntime-genai alone from the text of prompts, does not answer as recorded "
                f"({winner.verify_error})"
            ]
    return []


PACE_MOVED = 1.25
"""How many times as long the winner's tokens take in turns as in the search, or the other way round, before a reader is told.
The report tells it from the same number (`PACE_MOVED` in summary.js)."""


def finalist_lines(rows: Sequence[Finalist], score: str, searched: Trial | None = None) -> list[str]:
    """Return lines with the finalists' scores, and with the winner's speed compared with the untouched model.

    `searched`: the winner's row of results.csv; if the machine's pace has changed since, a line says so.
    """
    lines = [
        f"{row.role} on {row.split}: {score_text(row, score)} of {row.behind(score)} items"
        for row in rows
        if row[score] is not None
    ]
    winner = rows[0] if rows else None
    if winner is not None and winner.itl_ratio is not None:
        ratio = ratio_text(winner.itl_ratio, winner.itl_ratio_low or 0.0, winner.itl_ratio_high or math.inf)
        lines.append(
            f"timed in turns, {winner.rounds} rounds: time between tokens, winner / untouched model: {ratio}; "
            f"noise floor {winner.noise_floor or 0.0:.1%}"
        )
        lines += pace_lines(winner, searched)
    return lines


def pace_lines(winner: Finalist, searched: Trial | None) -> list[str]:
    """Return a line if the machine's pace was another in the winner's timing in turns than in the search; else nothing."""
    then, now = (row.values.get("itl_ms_p50") if row is not None else None for row in (searched, winner))
    if not then or not now or max(now / then, then / now) < PACE_MOVED:
        return []
    slower = "slower" if now > then else "faster"
    return [
        f"the machine was {slower} in these turns: {number(now)} ms/token for the winner, {number(then)} in the search; "
        "to compare two models, use times taken in turns"
    ]
