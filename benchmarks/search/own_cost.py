"""What a decision of `frontier` costs: `python -m benchmarks.search.own_cost [--candidates 500]`.

The space holds more adapters than are thought of at once, the stages are answered by a formula, and each ask and tell is
timed; printed are the milliseconds of the first fifty decisions, of the last fifty, and of the slowest.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.protocol import Proposal, Told
from autotune.sweepfile.resolve import parse_sweep
from benchmarks.search.table import OBJECTIVES

ITEMS = 1000
SWEEP: dict[str, Any] = {
    "name": "own-cost",
    "model": "smollm2-135m-instruct",
    "data": {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{text}", "completion": " {tone}"},
    "space": {
        "lora": {
            "r": {"choice": [2, 4, 8, 16, 32]},
            "learning_rate": {"loguniform": [1e-4, 1e-2]},
            "alpha_over_r": {"choice": [1, 2, 4]},
            "target_modules": {"choice": ["attention", "all-linear"]},
            "steps": 90,
        },
        "build": [{"precision": "fp32"}, {"precision": "int8"}, {"precision": "int4", "block_size": [32, 64, 128]}],
    },
    "objectives": OBJECTIVES,
}


def answer(proposal: Proposal, footprints: dict[str, tuple[float, float]], rng: np.random.Generator) -> Told:
    """Return what stages might say: better with a higher learning rate and rung, with noise."""
    lora, recipe = proposal.candidate.lora, proposal.candidate.recipe
    assert lora is not None
    items = ITEMS if proposal.items is None else proposal.items
    score = 0.6 + 0.05 * float(np.log10(lora.learning_rate / 1e-4)) * proposal.rung + float(rng.normal(0, 0.01))
    measured, seconds = {"accuracy": score}, {"train": 100.0 * proposal.rung, "score": 40.0 * items / ITEMS}
    values = None
    if recipe is not None:
        measured |= dict(zip(("itl_ms_p50", "size_mb"), footprints[str(recipe)], strict=True))
        seconds |= {"build": 10.0, "merge": 2.0}
        values = tuple(measured[name] for name in OBJECTIVES) if items == ITEMS else None
    return Told(values, {}, measured, None, seconds, proposal.rung, items)


def main() -> int:
    """Print the cost of decisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--out", type=Path, help="a file for what is printed")
    given = parser.parse_args()
    sweep = parse_sweep(SWEEP)
    rng = np.random.default_rng(0)
    footprints = {str(r): (float(rng.uniform(5, 40)), float(rng.uniform(80, 540))) for r in sweep.space.recipes}
    strategy = Frontier(sweep.space, sweep.objectives, 0)
    took = []
    for _ in range(given.candidates):
        began = time.perf_counter()
        proposals = strategy.ask(1, ())
        asked = time.perf_counter() - began
        if not proposals:
            break
        proposal = proposals[0]
        told = answer(proposal, footprints, rng)
        began = time.perf_counter()
        strategy.tell(proposal, told)
        took.append(1000 * (asked + time.perf_counter() - began))
    first, last, most = np.mean(took[:50]), np.mean(took[-50:]), max(took)
    text = f"{len(took)} decisions: first fifty {first:.0f} ms each, last fifty {last:.0f} ms, slowest {most:.0f} ms"
    print(text)
    if given.out is not None:
        given.out.write_text(f"Made by `python -m benchmarks.search.own_cost`.\n\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
