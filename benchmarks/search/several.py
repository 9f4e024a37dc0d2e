"""Several targets in one search, against a search for each: replays on the tables of `compare`, on simulated time.

python -m benchmarks.search.several           # prints the table
python -m benchmarks.search.several --write   # writes benchmarks/measured/several_targets.md

Two targets take the same builds. On the first a recipe has the latency of the table; on the second the slowest recipe is the
fastest and the other way round, as on a device without kernels for few bits, so that the two have different fronts. What
was trained, merged and built for one of them costs the other nothing, in every way of searching:

- together: one search (`strategies.several`), as a sweep with `targets` does it;
- one after another: a search for each, and each has half of the time; the second is told what the first has found out about
  adapters;
- in turn: a search for each that knows its own rows only; the one that has had less time is asked next.

A value is the mean over the targets of the share of the oracle's hypervolume that their fronts have after so many minutes of
simulated time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from autotune.candidate import Candidate
from autotune.strategies.frontier.strategy import Frontier
from autotune.strategies.protocol import Proposal, Strategy, Told
from autotune.strategies.several import make_for_targets
from benchmarks.search.choices import table_of
from benchmarks.search.replay import Conditions, Truth, World
from benchmarks.search.table import OBJECTIVES, Table, drawn

FILE = Path(__file__).parents[1] / "measured" / "several_targets.md"
NAMES = ("first", "second")
TABLES = ("phrase_tone", "snips", "xed")
SEEDS = range(10)
MINUTES = (2.0, 3.0, 4.0, 6.0, 10.0, 20.0)


class Targets:
    """Two targets of one table: a world each, with one cache and one clock."""

    def __init__(self, table: Table, seed: int) -> None:
        slow, fast = float(table.latency_ms.max()), float(table.latency_ms.min())
        other = replace(
            table,
            latency_ms=slow * fast / table.latency_ms,
            processes_ms=tuple(slow * fast / one for one in table.processes_ms),
        )
        self.tables = {
            name: replace(one, space=replace(one.space, target=name, builds_for="cpu"))
            for name, one in zip(NAMES, (table, other), strict=True)
        }
        self.worlds = {name: World(one, Conditions(seed)) for name, one in self.tables.items()}
        first, second = self.worlds.values()
        second._reached, second._built = first._reached, first._built
        second._started = True
        for world in self.worlds.values():
            world.times_first = True
            world.workers = len(table.adapters)  # merged models are kept until the end
        self.truths = {name: Truth(one) for name, one in self.tables.items()}

    @property
    def seconds(self) -> float:
        """The simulated time so far."""
        return sum(world.clock for world in self.worlds.values())

    def begin(self, name: str, strategy: Strategy) -> None:
        """Measure the untouched model of a target, as a sweep does first."""
        untouched, told = self.worlds[name].measure_untouched(whole=False)
        strategy.replay(untouched.model_copy(update={"target": name}), told)

    def measure(self, proposal: Proposal) -> Told:
        """Do what a proposal asks for, on its target."""
        first, second = self.worlds.values()
        own = self.worlds[str(proposal.candidate.target)]
        own._merged = [*first._merged, *second._merged]
        return own.measure(proposal)

    def share(self) -> float:
        """Return the mean share of the oracle's hypervolume."""
        shares = [
            self.truths[name].volume(world.recommended()) / self.truths[name].best
            for name, world in self.worlds.items()
        ]
        return statistics.fmean(shares)

    def trainings(self) -> float:
        """Return the seconds that were spent on training."""
        return sum(world.spent["train"] for world in self.worlds.values())


Run = tuple[list[float], float]
"""The share at each of `MINUTES`, and the seconds of training in all."""


def _until(targets: Targets, seconds: float, ask: Callable[[], tuple[Strategy, Proposal] | None]) -> None:
    while targets.seconds < seconds and (found := ask()) is not None:
        strategy, proposal = found
        strategy.tell(proposal, targets.measure(proposal))


def together(table: Table, seed: int) -> Run:
    """One search."""
    targets = Targets(table, seed)
    spaces = [one.space for one in targets.tables.values()]
    strategy = make_for_targets("frontier", spaces, OBJECTIVES, seed, table.items)
    for name in NAMES:
        targets.begin(name, strategy)
    return _watched(targets, lambda: _asked(strategy))


def in_turn(table: Table, seed: int) -> Run:
    """A search for each, asked in turn."""
    targets = Targets(table, seed)
    strategies = {n: Frontier(one.space, OBJECTIVES, seed, one.items) for n, one in targets.tables.items()}
    for name, strategy in strategies.items():
        targets.begin(name, strategy)

    def ask() -> tuple[Strategy, Proposal] | None:
        order = sorted(NAMES, key=lambda name: targets.worlds[name].clock)
        return next((found for name in order if (found := _asked(strategies[name])) is not None), None)

    return _watched(targets, ask)


def one_after_another(table: Table, seed: int) -> Run:
    """A search for each, of half the time."""
    shares: list[float] = []
    for minutes in MINUTES:
        targets = Targets(table, seed)
        told: list[tuple[Candidate, Told]] = []
        for number, name in enumerate(NAMES, 1):
            strategy = Frontier(targets.tables[name].space, OBJECTIVES, seed, table.items)
            targets.begin(name, strategy)
            for candidate, one in told:
                adapter = Candidate(lora=candidate.lora, target=name)
                strategy.replay(adapter, replace(one, values=None, measured=_score(one), seconds={}, status="stopped"))

            def ask(strategy: Strategy = strategy) -> tuple[Strategy, Proposal] | None:
                return _asked(strategy)

            while targets.seconds < 60 * minutes * number / len(NAMES) and (found := ask()) is not None:
                one = targets.measure(found[1])
                strategy.tell(found[1], one)
                if _score(one):
                    told.append((found[1].candidate, one))
        shares.append(targets.share())
    return shares, targets.trainings()


def _score(told: Told) -> dict[str, float]:
    return {name: value for name, value in told.measured.items() if name == "accuracy"}


def _asked(strategy: Strategy) -> tuple[Strategy, Proposal] | None:
    found = strategy.ask(1, ())
    return (strategy, found[0]) if found else None


def _watched(targets: Targets, ask: Callable[[], tuple[Strategy, Proposal] | None]) -> Run:
    shares = []
    for minutes in MINUTES:
        _until(targets, 60 * minutes, ask)
        shares.append(targets.share())
    return shares, targets.trainings()


WAYS = {"together": together, "one after another": one_after_another, "in turn": in_turn}


def page(tables: Sequence[str] = TABLES, seeds: Sequence[int] = SEEDS) -> str:
    """Return the page: for each table and way of searching the mean share over seeds."""
    heads = [f"{minutes:g} min" for minutes in MINUTES]
    lines = [
        "# Several targets in one search", "",
        "Written by `python -m benchmarks.search.several --write`, whose docstring says what is compared. Mean share of the",
        f"oracle's hypervolume, over two targets and {len(seeds)} seeds; simulated time. The last column is the simulated time of",
        "training in all.", "",
        f"| table | search | {' | '.join(heads)} | training |", "|---|---|" + "---|" * (len(heads) + 1),
    ]  # fmt: skip
    for table in tables:
        for way, run in WAYS.items():
            runs = [run(drawn(table_of(table), seed), seed) for seed in seeds]
            shares = [statistics.fmean(one) for one in zip(*(one for one, _ in runs), strict=True)]
            minutes = statistics.fmean(training for _, training in runs) / 60
            lines.append(f"| {table} | {way} | {' | '.join(f'{one:.3f}' for one in shares)} | {minutes:.1f} min |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    given = parser.parse_args(arguments)
    text = page()
    if given.write:
        FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
