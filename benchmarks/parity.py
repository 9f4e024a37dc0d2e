"""Are the scores those of the model? PyTorch against fp32 ONNX, and batched against one by one, on every test item.

    python -m benchmarks.parity results/phrase-tone-cpu

Takes the adapter of the sweep's winner, builds it in every recipe of the sweep (from the cache where it is there), and
scores the test split: once in PyTorch with the adapter unmerged, and on the built model batched and item by item.
Prints a table; where predictions differ, the margin (nats between the best two labels) of each such item.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from autotune.artifacts.store import Cache, Stored, default_root
from autotune.candidate import Candidate
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.pipeline.graph import Graph, base_candidate
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.prepare import prepare
from autotune.results.folder import read_results
from autotune.results.judge import candidate_of
from autotune.results.rows import Finalist
from autotune.results.table import read_table
from autotune.sweepfile.resolve import load_sweep


def outcomes(stored: Stored) -> dict[str, Any]:
    """Return what a score stage wrote."""
    found: dict[str, Any] = json.loads((stored.path / "outcomes.json").read_text(encoding="utf-8"))
    return found


def compare(name: str, one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return a row: items, differing predictions, their margins, and the largest difference of margins."""
    differing = [i for i, (a, b) in enumerate(zip(one["predicted"], other["predicted"], strict=True)) if a != b]
    margins = ", ".join(f"{one['ids'][i]}: {one['margin'][i]:.1e} / {other['margin'][i]:.1e}" for i in differing)
    drift = max(abs(a - b) for a, b in zip(one["margin"], other["margin"], strict=True))
    return f"| {name} | {len(one['ids'])} | {len(differing)} | {margins or '-'} | {drift:.1e} |"


def main(folder: Path) -> int:
    """Print the table. Returns 0 where no prediction differs."""
    sweep = load_sweep(folder / "sweep.yaml")
    winner = next(row for row in read_table(folder / "finalists.csv", Finalist) if row.role == "winner")
    row = next(row for row in read_results(folder) if row.candidate == winner.candidate)
    chosen = candidate_of(row, folder / "results.csv")
    cache = Cache(default_root())
    log = default_root() / "logs" / "parity.log"
    rows = [
        "| comparison | items | differing | item: margins (nats) | largest margin drift (nats) |",
        "|---|---|---|---|---|",
    ]
    bad = False
    with LocalEngine() as engine:
        stages = Stages(cache, engine, lambda: log, sweep.model)
        sweep, _, inputs = prepare(sweep, stages, cache.root)
        pipeline = Pipeline(Graph(sweep, inputs), sweep.aims, stages)
        adapter = stages(pipeline.graph.finetune_job(chosen))
        torch_job = pipeline.graph.score_job(Candidate(lora=chosen.lora), "test")
        where: dict[str, Path] = {"model_dir": inputs.base_dir, "adapter_dir": adapter.path}
        reference = outcomes(stages(torch_job.model_copy(update=where)))
        recipes = dict.fromkeys([base_candidate(sweep.space.recipes, sweep.provider).recipe, *sweep.space.recipes])
        for recipe in recipes:
            candidate = Candidate(lora=chosen.lora, recipe=recipe)
            measured = pipeline.measure(candidate, "test")
            if measured.status != "ok" or measured.outcomes is None:
                print(f"{recipe}: {measured.error}", file=sys.stderr)
                bad = True
                continue
            if recipe is not None and recipe.precision == "fp32":
                rows.append(compare("PyTorch with the adapter / fp32 ONNX", reference, measured.outcomes))
                bad |= reference["predicted"] != measured.outcomes["predicted"]
            assert measured.build is not None
            one_by_one: dict[str, Any] = {"batched": False, "model_dir": measured.build.path}
            single_job = pipeline.graph.score_job(candidate, "test").model_copy(update=one_by_one)
            single = outcomes(stages(single_job))
            rows.append(compare(f"{recipe}: batched / one by one", measured.outcomes, single))
            bad |= single["predicted"] != measured.outcomes["predicted"]
    print("\n".join(rows))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
