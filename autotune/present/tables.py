"""Rows as people read them: short names for candidates, aligned columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.candidate import Session
from autotune.errors import printable
from autotune.metrics import PRECISION, beside

_UNITS = {"itl_ms_p50": "ms/token", "size_mb": "MB", "ttft_ms_p50": "ms to first", "peak_memory_mb": "MB memory",
          "gpu_memory_mb": "MB on the GPU"}  # fmt: skip


def number(value: Any) -> str:
    """Return a number as short as it can be read; empty where it is missing."""
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


def settings(row: Mapping[str, Any]) -> str:
    """Return a candidate's settings in a few words: the adapter's that people search most, recipe and session."""
    parts = []
    if row.get("lora_r") is not None:
        alpha, rate, modules = (row.get(f"lora_{name}") for name in ("alpha", "learning_rate", "target_modules"))
        parts.append(f"r{row['lora_r']} a{number(alpha)} lr {number(rate)} {number(modules)}".strip())
        if row.get("lora_quantized_base") not in (None, "none"):
            parts.append(str(row["lora_quantized_base"]))
        parts += [name for name in ("dora", "rslora") if row.get(f"lora_{name}")]
    recipe = recipe_name(row)
    if recipe:
        parts.append(("| " if parts else "") + recipe)
    session = Session.model_construct(**{name: row.get(f"session_{name}") for name in Session.model_fields})
    if str(session):
        parts.append(("| " if parts else "") + str(session))
    return printable(" ".join(parts))


def recipe_name(row: Mapping[str, Any]) -> str:
    """Return a recipe in a few words; empty where nothing was built."""
    if row.get("build_precision") is None:
        return ""
    words = [str(row["build_precision"])]
    algorithm = row.get("build_algorithm")
    if algorithm not in (None, "default"):
        words.append(str(algorithm))
    if row.get("build_block_size") is not None:
        words.append(f"b{row['build_block_size']}")
    known = ("precision", "algorithm", "block_size", "accuracy_level", "symmetric")
    if row.get("build_symmetric") is False:
        words.append("asymmetric")
    if row.get("build_accuracy_level") not in (None, 4, 0):
        words.append(f"level {row['build_accuracy_level']}")
    for name, value in row.items():
        short = name.removeprefix("build_")
        if name.startswith("build_") and short not in known and value is not None:
            switch = short if value else f"no {short}"
            words.append(
                switch if isinstance(value, bool) else str(value) if isinstance(value, str) else f"{short} {value}"
            )
    return " ".join(words)


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return rows as aligned text; `columns` maps a key of the rows to its heading. Numbers stand to the right."""
    cells = [[number(row.get(key)) for key in columns] for row in rows]
    heads = list(columns.values())
    widths = [max(len(head), *(len(line[i]) for line in cells), 0) for i, head in enumerate(heads)]
    right = [all(isinstance(row.get(key), int | float | None) for row in rows) for key in columns]
    lines = []
    for line in [heads, *cells]:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        lines.append("  ".join(parts).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def candidates(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str], winner: str | None = None) -> str:
    """Return candidates with their settings and objectives as aligned text; the winner is starred."""
    shown = []
    for row in rows:
        star = "*" if row["candidate"] == winner else ""
        shown.append(
            {**row, "mark": star, "settings": settings(row) or "the untouched model", "id": str(row["candidate"])[:8]}
        )
    columns = {"mark": "", "id": "candidate", "trial": "trial", "settings": "settings"}
    columns |= {name: name for name in objectives}
    if any(row["status"] != "ok" for row in rows):
        columns["status"] = "status"
    return table(shown, columns)


def ratio_text(row: Mapping[str, Any]) -> str:
    """Return a finalist's ratio of times between tokens with its interval, and whether that is wide."""
    low, value, high = (float(row[f"itl_ratio{end}"]) for end in ("_low", "", "_high"))
    wide = "" if high - low <= 2 * PRECISION * value else f", not resolved to {PRECISION:.0%}"
    return f"{value:.3g} [{low:.3g}, {high:.3g}]{wide}"


def score_text(row: Mapping[str, Any], name: str) -> str:
    """Return a metric with its interval, where it has one."""
    value = row.get(name)
    if value is None:
        return f"{name} not measured"
    low, high = row.get(beside(name, "low")), row.get(beside(name, "high"))
    unit = _UNITS.get(name.partition("@")[0])
    text = f"{name} {number(value)}" + (f" {unit}" if unit else "")
    if low is not None and high is not None:
        text += f" [{number(low)}, {number(high)}]"
    return text


def verified_lines(winner: Mapping[str, Any]) -> list[str]:
    """Return whether the model in `best/` was found to do what is recorded; nothing where that was not tried."""
    items = winner.get("verified_items")
    match winner.get("verified"):
        case True:
            return [
                f"verified: best/, loaded by onnxruntime-genai alone from the text of prompts, answers {items} items as recorded"
            ]
        case False:
            return [
                "NOT VERIFIED: best/, loaded by onnxruntime-genai alone from the text of prompts, does not answer as recorded "
                f"({winner.get('verify_error')})"
            ]
    return []


def finalist_lines(rows: Sequence[Mapping[str, Any]], score: str) -> list[str]:
    """Return what the finalists scored, and how fast the winner is beside the untouched model."""
    lines = [
        f"{row['role']} on {row['split']}: {score_text(row, score)} of {row.get(score + '_n')} items"
        for row in rows
        if row.get(score) is not None
    ]
    winner = rows[0] if rows else {}
    if winner.get("itl_ratio") is not None:
        lines.append(
            f"timed in turns, {winner['rounds']} rounds: the winner takes {ratio_text(winner)} of the untouched model's time "
            f"between tokens; noise floor {float(winner['noise_floor'] or 0):.1%}"
        )
    return lines
