"""What a decision of `frontier` costs.

python -m benchmarks.search.own_cost                                                      # 500 decisions, one at a time
python -m benchmarks.search.own_cost --in-flight 16                                       # each beside 16 in flight
python -m benchmarks.search.own_cost --in-flight 16 --candidates 5000 --decisions 100     # the last 100 of 5,000

The space holds more adapters than are thought of at once, the stages are answered by a formula, and each ask and tell is
timed; printed are the milliseconds of the first fifty decisions, of the last fifty, and of the slowest.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from autotune.candidate import Candidate
from autotune.strategies.frontier.constants import POOL
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.protocol import Proposal, Told
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep
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


def sweep_with(recipes: int) -> Sweep:
    """Return a sweep whose space holds at least so many recipes."""
    blocks, levels = [16, 32, 64, 128, 256], [1, 4]
    int4: dict[str, Any] = {"precision": "int4", "block_size": blocks[: max(3, math.ceil((recipes - 2) / 4))]}
    if recipes > len(SWEEP["space"]["build"]) + 2:
        int4 |= {"algorithm": ["default", "rtn"], "accuracy_level": levels}
    space = SWEEP["space"] | {"build": [{"precision": "fp32"}, {"precision": "int8"}, int4]}
    return parse_sweep(SWEEP | {"space": space})


def known_to(
    strategy: Frontier, footprints: dict[str, tuple[float, float]], count: int, rng: np.random.Generator
) -> None:
    """Tell a strategy of so many candidates, as a sweep does that goes on: adapters of its own in all recipes, one after another."""
    loras = [adapter.lora for adapter in strategy.observations.adapters.values()]
    pairs = itertools.product(loras, strategy.observations.space.recipes)
    for lora, recipe in itertools.islice(pairs, count):
        proposal = Proposal(Candidate(lora=lora, recipe=recipe))
        strategy.replay(proposal.candidate, answer(proposal, footprints, rng))


def main() -> int:
    """Ask and tell, and print what that takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=500, help="candidates that are known before or decided on")
    parser.add_argument("--decisions", type=int, help="of these are decided on; the others are known; default: all")
    parser.add_argument(
        "--in-flight", type=int, default=0, help="proposals that are pending while the next is decided on"
    )
    parser.add_argument("--out", type=Path, help="a file for the result, as markdown")
    given = parser.parse_args()
    known = given.candidates - (given.decisions or given.candidates)
    sweep = sweep_with(max(5, math.ceil(1.5 * given.candidates / POOL)))
    rng = np.random.default_rng(0)
    footprints = {str(r): (float(rng.uniform(5, 40)), float(rng.uniform(80, 540))) for r in sweep.space.recipes}
    strategy = Frontier(sweep.space, sweep.objectives, 0)
    known_to(strategy, footprints, known, rng)
    took: list[float] = []
    pending: list[Proposal] = strategy.ask(given.in_flight, ())
    while len(took) < given.candidates - known:
        began = time.perf_counter()
        proposals = strategy.ask(1, tuple(pending))
        asked = time.perf_counter() - began
        pending += proposals
        if not pending:
            break
        ended = pending.pop(0)
        told = answer(ended, footprints, rng)
        began = time.perf_counter()
        strategy.tell(ended, told)
        took.append(1000 * (asked + time.perf_counter() - began))
    first, last, most = np.mean(took[:50]), np.mean(took[-50:]), max(took)
    beside = f" with {given.in_flight} in flight" if given.in_flight else ""
    before = f" after {known} known candidates in {len(sweep.space.recipes)} recipes" if known else ""
    text = f"{len(took)} decisions{beside}{before}: first fifty {first:.0f} ms each, last fifty {last:.0f} ms, slowest {most:.0f} ms"
    print(text)
    if given.out is not None:
        given.out.write_text(f"Made by `python -m benchmarks.search.own_cost`.\n\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
