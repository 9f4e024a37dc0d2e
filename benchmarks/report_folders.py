"""Results folders of any size, made by a seeded script: for the tests and the measurements of the report and of `select`.

Scores come from drawn outcomes of items, so that rows and outcomes agree as in a real sweep; candidates share items,
adapters share a quality, and recipes share a graph with its latency and size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.scores import summarise
from autotune.metrics import score_column
from autotune.results.rows import Trial
from autotune.results.table import write_table

RECIPES: tuple[dict[str, Any], ...] = (
    {"build_precision": "fp32"},
    {"build_precision": "int8", "build_algorithm": "default", "build_block_size": 32},
    {"build_precision": "int4", "build_algorithm": "default", "build_block_size": 32},
    {"build_precision": "int4", "build_algorithm": "default", "build_block_size": 128},
    {"build_precision": "int4", "build_algorithm": "k_quant", "build_block_size": 32},
)
_ITL, _SIZE = (16.0, 7.2, 4.25, 4.3, 5.8), (544.0, 271.0, 90.0, 83.8, 117.0)
_RANKS, _RATES = (4, 8, 16, 32), (1e-4, 3e-4, 1e-3, 3e-3)
LABELS = 4


@dataclass(frozen=True)
class Shape:
    """What a folder holds: how many rows, over how many items, scored by what (`data.metric`)."""

    rows: int
    items: int = 200
    metric: str = "choice"
    turns: bool = False
    outcomes: bool = True
    failures: bool = True
    seed: int = 0


def make_folder(folder: Path, shape: Shape) -> Path:
    """Write a results folder of that shape and return it. The same shape gives the same folder."""
    draw = np.random.default_rng(shape.seed)
    (folder / "outcomes").mkdir(parents=True)
    (folder / "logs").mkdir()
    score = score_column(shape.metric)
    hardness = draw.normal(size=shape.items)
    gold = draw.integers(LABELS, size=shape.items)
    tokens = draw.integers(1, 9, size=shape.items)
    rows: list[dict[str, Any]] = []
    quality: dict[str, float] = {}
    for trial in range(shape.rows):
        base = trial == 0
        adapter = int(draw.integers(max(2, shape.rows // 3)))
        kind = 0 if base else int(draw.integers(len(RECIPES)))
        name = name_of(shape, trial)
        row: dict[str, Any] = {
            "candidate": name, "trial": trial, "attempt": 1, "kind": "base" if base else "pair", "status": "ok",
            "started": _time(trial * 40), "ended": _time(trial * 40 + 35), **RECIPES[kind],
        }  # fmt: skip
        if not base:
            row |= {
                "lora_r": _RANKS[adapter % 4], "lora_alpha": 2.0 * _RANKS[adapter % 4], "lora_dropout": 0.0,
                "lora_learning_rate": _RATES[adapter // 4 % 4], "adapter": f"adapter{adapter}",
                "lora_target_modules": ("attention", "all-linear")[adapter % 2], "train_steps": 40,
            }  # fmt: skip
        if shape.failures and not base and draw.random() < 0.06:
            row |= {
                "status": "out_of_memory",
                "error": "the machine's memory did not suffice: 12,000 MB were asked for",
            }
            (folder / "logs" / f"{name}.log").write_text("train: step 1\nMemoryError\n", encoding="utf-8")
            rows.append(row)
            continue
        known = quality.setdefault(str(row.get("adapter")), float(draw.normal(0.9, 0.35)))
        level = (-0.6 if base else known) - 0.12 * (kind >= 2) + draw.normal(0, 0.05)
        outcomes = _outcomes(shape.metric, draw, hardness, gold, tokens, level)
        value, interval, n = summarise(shape.metric, outcomes, resamples=60 if shape.rows < 200 else 20)
        assert interval is not None
        row |= {score: value, f"{score}_low": interval.low, f"{score}_high": interval.high, f"{score}_n": n}
        if shape.outcomes:
            kept = {"metric": shape.metric, "split": "validation", **outcomes}
            text = json.dumps(kept, separators=(",", ":"))
            (folder / "outcomes" / f"{name}.json").write_text(text, encoding="utf-8")
        row |= _timing(kind)
        rows.append({key: _short(cell) for key, cell in row.items()})
    write_table(folder / "results.csv", Trial.columns, map(Trial, rows))
    (folder / "outcomes" / "items.validation.json").write_text(
        json.dumps([f"{i:016x}" for i in range(shape.items)]), encoding="utf-8"
    )
    if shape.turns:
        (folder / "outcomes" / "turns.json").write_text(json.dumps(_turns(draw)), encoding="utf-8")
    way = "minimize" if score == "perplexity" else "maximize"
    limit = f"{score} {'<= 0.95 * base' if way == 'minimize' else '>= base + 0.1'}"
    (folder / "sweep.yaml").write_text(
        f"name: made-{shape.metric.replace('_', '-')}-{shape.rows}\nmodel: smollm2-135m-instruct\n"
        f"objectives: {{{score}: {way}, itl_ms_p50: minimize, size_mb: minimize}}\n"
        f'limits: ["{limit}"]\nbudget: {{trials: {shape.rows}}}\nseed: {shape.seed}\n',
        encoding="utf-8",
    )
    return folder


def name_of(shape: Shape, trial: int) -> str:
    """Return the name of a candidate: a digest, as those of sweeps; trial 0 is the untouched model."""
    return hashlib.sha256(f"{shape.seed} {trial}".encode()).hexdigest()[:16]


def _outcomes(
    metric: str,
    draw: np.random.Generator,
    hardness: NDArray[np.float64],
    gold: NDArray[np.int64],
    tokens: NDArray[np.int64],
    level: float,
) -> Mapping[str, Any]:
    """Return the outcomes of one candidate, as the score stage writes them; harder items go wrong for most."""
    if metric == "perplexity":
        nll = np.exp(0.4 * hardness - 0.4 * level + draw.normal(0, 0.1, size=gold.size)) * tokens
        return {"nll": [round(float(x), 6) for x in nll], "tokens": tokens.tolist()}
    right = level + draw.normal(0, 0.8, size=gold.size) > hardness * 0.8
    if metric == "rouge_l":
        return {"values": [round(float(x), 6) for x in np.where(right, draw.uniform(0.5, 1, gold.size), 0.2)]}
    other = (gold + draw.integers(1, LABELS, size=gold.size)) % LABELS
    return {"predicted": np.where(right, gold, other).tolist(), "gold": gold.tolist()}


def _timing(kind: int) -> dict[str, Any]:
    """Return what a recipe was timed at: its graph's, whichever candidate it serves."""
    draw = np.random.default_rng(1000 + kind)
    itl = _ITL[kind] * float(draw.normal(1, 0.004))
    half = itl * 0.02
    return {
        "graph": f"graph{kind}", "itl_ms_p50": itl, "itl_ms_p50_low": itl - half, "itl_ms_p50_high": itl + half,
        "itl_ms_p90": itl * 1.1, "ttft_ms_p50": itl * 4, "ttft_ms_p50_low": itl * 3.9, "ttft_ms_p50_high": itl * 4.1,
        "decode_tps": 1000 / itl, "size_mb": _SIZE[kind], "peak_memory_mb": _SIZE[kind] + 200, "load_s": 0.4,
        "processes": 5, "foreign_cpu": 0.05, "load_avg": 1.1, "threads": 2, "pace": "made",
        "cost_build_s": 8.0, "cost_score_s": 6.0, "cost_time_s": 3.0, "cached": "train+merge", "wall_s": 35.0,
    }  # fmt: skip


def _turns(draw: np.random.Generator) -> dict[str, Any]:
    """Return turns of the two fastest recipes and the first, six rounds."""
    samples = {f"graph{k}": {"itl_ms_p50": (_ITL[k] * draw.normal(1, 0.01, 6)).tolist()} for k in (2, 3, 0)}
    return {
        "anchor": "graph2",
        "samples": samples,
        "again": {"itl_ms_p50": (_ITL[2] * draw.normal(1, 0.01, 6)).tolist()},
    }


def _short(cell: Any) -> Any:
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell


def _time(seconds: int) -> str:
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"2026-01-{1 + day % 28:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"
