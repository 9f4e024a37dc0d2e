"""Which signal, on how many items, at which rung, best predicts the best adapter?

python -m benchmarks.search.signals                      # every table but the one that nothing is chosen by
python -m benchmarks.search.signals --table synthetic    # the made-up one

For each rung and number of items, over draws of the items and of the training seeds, the table has: how well a signal ranks the
adapters (Spearman's correlation with their true accuracy, the mean over recipes); the loss of trusting it (the true accuracy of
the best adapter less that of the best of the signal's first three, in points); and its cost in seconds per adapter.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.choices import table_of
from benchmarks.search.compare import tables_of
from benchmarks.search.table import PART, Seen, Table

ITEMS = (100, 250, 500, 1000)
DRAWS = 200
HELD_OUT = "phrase_tone"
"""The table that nothing is chosen by: it is looked at only where it is named."""
FIRST = 3
"""Adapters that are taken up by their signal."""

Array = NDArray[np.float64]


def signals(seen: Seen, items: NDArray[np.intp]) -> dict[str, float]:
    """Return what an adapter's outcomes on some items say of it, each the larger the better."""
    right, loss, margin = seen.right[items], seen.loss[items], seen.margin[items]
    return {
        "accuracy": float(right.mean()),
        "cross-entropy": -float(loss.mean()),
        "probability": float(np.exp(-loss).mean()),
        "margin": float((np.where(right > 0, 1.0, -1.0) * margin).mean()),
        "accuracy and cross-entropy": float(right.mean() / right.std(ddof=1) if right.std() else 0.0)
        - float(loss.mean() / loss.std(ddof=1) if loss.std() else 0.0),
    }


def ranks(values: Array) -> Array:
    """Return ranks, those of equal values their mean."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    found[order] = np.arange(len(values), dtype=float)
    for value in np.unique(values):
        same = values == value
        found[same] = found[same].mean()
    return found


def correlation(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation; 0 where one of them does not vary."""
    first, second = ranks(a), ranks(b)
    if not first.std() or not second.std():
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def study(table: Table, draws: int = DRAWS) -> list[dict[str, float | str]]:
    """Return a row for each rung, number of items and signal: `correlation`, `lost` (points), `seconds`."""
    alive = [adapter for adapter, seeds in enumerate(table.seeds) if seeds]
    truth = table.truth[alive].mean(axis=1)
    costs = table.costs
    rows: list[dict[str, float | str]] = []
    rng = np.random.default_rng(0)
    for number, rung in enumerate(table.rungs):
        for count in sorted({min(items, table.items) for items in ITEMS}):
            found: dict[str, list[tuple[float, float]]] = {}
            for _ in range(draws):
                items = rng.integers(0, table.items, count)
                each: dict[str, list[float]] = {}
                for adapter in alive:
                    seed = int(rng.choice(table.seeds[adapter]))
                    last = number == len(table.rungs) - 1
                    seen = table.pair_seen[adapter, seed, 0] if last else table.rung_seen[adapter, seed, number]
                    for name, value in signals(seen, items).items():
                        each.setdefault(name, []).append(value)
                for name, values in each.items():
                    order = np.argsort(-np.array(values), kind="stable")
                    lost = 100 * float(truth.max() - truth[order[:FIRST]].max())
                    found.setdefault(name, []).append((correlation(np.array(values), truth), lost))
            step_s = float(np.mean([costs.step_s[adapter] for adapter in alive]))
            train_s = costs.call_s + table.steps[number] * step_s
            score_s = costs.merge_s + costs.build_s[0] + costs.load_s[0] + count * costs.item_s[0]
            for name, pairs in found.items():
                middle = np.mean(pairs, axis=0)
                rows.append({
                    "rung": rung, "items": count, "signal": name, "correlation": float(middle[0]),
                    "lost": float(middle[1]), "train_s": train_s, "score_s": score_s,
                })  # fmt: skip
    return rows


def report(name: str, table: Table, rows: Sequence[dict[str, float | str]], draws: int) -> str:
    """Return the markdown of one table."""
    names = list(dict.fromkeys(str(row["signal"]) for row in rows))
    alive = sum(map(bool, table.seeds))
    lines = [
        f"## {name}: {alive} adapters",
        "",
        f"Spearman's correlation with the truth; points lost by the best of the first {FIRST}; means of {draws} draws.",
        "",
        "| rung | items | " + " | ".join(names) + " | train, s | score, s |",
        "|--:|--:|" + "--:|" * (len(names) + 2),
    ]
    cells: dict[tuple[float, float], list[dict[str, float | str]]] = {}
    for row in rows:
        cells.setdefault((float(row["rung"]), float(row["items"])), []).append(row)
    for (rung, items), own in cells.items():
        values = " | ".join(f"{float(row['correlation']):.2f}; {float(row['lost']):.1f}" for row in own)
        costs = f"{float(own[0]['train_s']):.0f} | {float(own[0]['score_s']):.0f}"
        lines.append(f"| {rung:.2f} | {items:.0f} | {values} | {costs} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the study of each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="+", help=f"default: every table in benchmarks/search/tables but {HELD_OUT}")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--out", type=Path, help="a file for the markdown")
    given = parser.parse_args(arguments)
    parts = ["# Which signal ranks adapters", "", "Made by `python -m benchmarks.search.signals`.", ""]
    try:
        names = tables_of(
            given.table or [name for name in tables_of(None) if name != HELD_OUT and not name.endswith(PART)]
        )
    except ValueError as error:
        parser.error(str(error))
    for name in names:
        table = table_of(name)
        parts += [report(name, table, study(table, given.draws), given.draws), ""]
    text = "\n".join(parts).rstrip() + "\n"
    print(text, end="")
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
