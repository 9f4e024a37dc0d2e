"""Replays with several workers: how much sooner does a strategy have the front, and what bounds that?

python -m benchmarks.search.workers                                  # frontier, tpe, random; 1 to 16 workers; all tables
python -m benchmarks.search.workers --strategy frontier --table xed --seeds 5
python -m benchmarks.search.workers --out benchmarks/measured        # writes workers.md and workers.csv there

The simulation goes from event to event. A worker does one stage at a time: it trains, merges, builds, checks or scores. Stages
of earlier proposals go first. A proposal that needs a result that another one is making waits for it. As many proposals are in
flight as there are workers. A timing is alone on the host: once one waits, no other stage begins and no proposal is asked for,
until the running stages have ended and all waiting timings are done, one after another.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from autotune.strategies.protocol import Proposal, Strategy, Told
from benchmarks.search.compare import sweep_of, tables_of
from benchmarks.search.peers import OUTSIDE, WITHOUT_CACHE, strategy
from benchmarks.search.replay import PROCESSES, Conditions, Key, Measured, Stage, Steps, Truth, Wait, World
from benchmarks.search.report import quantile
from benchmarks.search.table import Table

WORKERS = (1, 2, 4, 8, 16)
STRATEGIES = ("frontier", "tpe", "random")
SLOW = ("tpe", "nsga2", "gp")
SHARES = (0.95, 0.98)
_WHOLE = 0.9999
"""The share of the hypervolume at which a replay ends."""
BOUND = "bound"


@dataclass
class Work:
    """A proposal on its way through its stages."""

    proposal: Proposal
    steps: Steps[Measured]
    stage: Stage | None = None
    """The stage that it is at, or waits to begin."""
    seconds: dict[str, float] = field(default_factory=dict)
    seen: Measured | None = None
    """What was measured, once all stages have ended."""
    number: int = 0
    """Proposals in the order in which they were asked for."""


class Host:
    """The workers of one machine, what they are at, and what waits for them."""

    def __init__(self, world: World, workers: int) -> None:
        self.world, self.workers = world, workers
        world.workers = workers
        self.pending: list[Proposal] = []
        self.timing_s = self.drained_s = 0.0
        """Seconds of timings, and seconds of workers that were free meanwhile or because a timing was due."""
        self._ready: list[tuple[int, Work]] = []
        """A heap: what was asked for first goes first."""
        self._timings: deque[Work] = deque()
        self._waiting: dict[Key, list[Work]] = {}
        self._running: list[tuple[float, int, Work]] = []
        self._ended: list[Work] = []
        self._begun = self._asked = 0
        self._fresh = workers - 1
        """Workers that have done nothing yet, besides the one that has measured the untouched model."""

    @property
    def idle(self) -> int:
        """How many more proposals may be taken up: none while a timing waits, on whose result they may depend."""
        return 0 if self._timings else max(0, self.workers - len(self.pending))

    def begin(self, proposals: Sequence[Proposal]) -> None:
        """Take up proposals."""
        for proposal in proposals:
            self.pending.append(proposal)
            self._asked += 1
            self._go_on(Work(proposal, self.world.steps(proposal), number=self._asked))

    def advance(self) -> list[Work]:
        """Let time pass until a stage ends. Returns the proposals that have ended with it. Raises StopIteration where nothing
        is at work.
        """
        if not self._ended:
            while not self._timings and self._ready and len(self._running) < self.workers:
                self._start(heapq.heappop(self._ready)[1])
            if self._running:
                self._end_next()
            elif self._timings:
                self._time_all()
            else:
                raise StopIteration
        ended, self._ended = self._ended, []
        for work in ended:
            self.pending.remove(work.proposal)
        return ended

    def _start(self, work: Work) -> None:
        """Give a stage to a worker, which starts its process first if that is its first."""
        assert work.stage is not None
        seconds = {work.stage.name: work.stage.seconds}
        if self._fresh:
            self._fresh -= 1
            seconds["start"] = self.world.table.costs.start_s
        self._pay(work, seconds)
        self._begun += 1
        heapq.heappush(self._running, (self.world.clock + sum(seconds.values()), self._begun, work))

    def _end_next(self) -> None:
        began, due = self.world.clock, bool(self._timings)
        self.world.clock, _, work = heapq.heappop(self._running)
        if due:
            self.drained_s += (self.world.clock - began) * (self.workers - len(self._running) - 1)
        self._go_on(work)

    def _time_all(self) -> None:
        """Do the timings that wait, and those that these were waited for, before anything else begins."""
        while self._timings:
            work = self._timings.popleft()
            assert work.stage is not None
            seconds = work.stage.seconds
            self._pay(work, {"time": seconds})
            self.timing_s += seconds
            self.drained_s += seconds * (self.workers - 1)
            self.world.clock += seconds
            self._go_on(work)

    def _pay(self, work: Work, seconds: Mapping[str, float]) -> None:
        for stage, took in seconds.items():
            work.seconds[stage] = work.seconds.get(stage, 0.0) + took
        self.world.spent.update(seconds)

    def _go_on(self, work: Work) -> None:
        """Let a proposal go on to its next stage, and with it those that waited for what it has made."""
        making = set(self.world.making)
        try:
            step = next(work.steps)
        except StopIteration as end:
            work.seen = end.value
            self._ended.append(work)
        else:
            if isinstance(step, Wait):
                self._waiting.setdefault(step.key, []).append(work)
            else:
                work.stage = step
                if step.name == "time":
                    self._timings.append(work)
                else:
                    heapq.heappush(self._ready, (work.number, work))
        for key in making - self.world.making:
            for other in self._waiting.pop(key, []):
                self._go_on(other)


@dataclass
class Played:
    """One replay."""

    at_s: list[float]
    hv: list[float]
    """The share of the oracle's hypervolume from `at_s` on."""
    asked: int
    busy: float
    """The share of the workers' time that stages took."""
    timed: float
    """The share of the time that timings took, and the end of other stages before them."""
    decision_ms: float
    """The longest decision."""

    def reached_s(self, share: float) -> float:
        """Return from when on the hypervolume is at least `share` and stays so; inf where that never is."""
        below = [n for n, volume in enumerate(self.hv) if volume < share]
        after = below[-1] + 1 if below else 0
        return self.at_s[after] if after < len(self.hv) else math.inf


def play(
    table: Table, truth: Truth, make: Callable[[Table, int], Strategy], conditions: Conditions, workers: int,
    budget_s: float, until: float = math.inf,
    heard: Callable[[Proposal, Told], None] | None = None,
) -> Played:  # fmt: skip
    """Run a strategy of the tool on simulated time, with so many workers, until it has no more to ask, `budget_s` are over,
    or its front has this share of the oracle's hypervolume. `heard` is told what the strategy is told.
    """
    world, asking = World(table, conditions), make(table, conditions.seed)
    world.times_first = bool(asking.rungs)
    untouched, told = world.measure_untouched(whole=not world.times_first)
    if asking.rungs:
        asking.replay(untouched, told)
    host = Host(world, workers)
    at, volumes, asked, longest = [0.0], [0.0], 0, 0.0
    before: list[tuple[int | None, int]] = []
    began_s = world.clock
    while world.clock < budget_s and volumes[-1] < until:
        while host.idle:
            began = time.perf_counter()
            proposals = asking.ask(host.idle, tuple(host.pending))
            longest = max(longest, (time.perf_counter() - began) / max(1, len(proposals)))
            if not proposals:
                break
            asked += len(proposals)
            host.begin(proposals)
        try:
            ended = host.advance()
        except StopIteration:
            break
        for work in ended:
            assert work.seen is not None
            told = world.told(work.proposal, work.seen, work.seconds)
            if heard is not None:
                heard(work.proposal, told)
            began = time.perf_counter()
            asking.tell(work.proposal, told)
            longest = max(longest, time.perf_counter() - began)
            recommended = world.recommended() if told.values is not None else before
            if recommended != before:
                at.append(world.clock)
                volumes.append(truth.volume(recommended) / truth.best)
                before = recommended
    whole_s = max(1e-9, world.clock - began_s)
    spent_s = sum(world.spent.values()) - began_s
    return Played(
        at, volumes, asked, spent_s / whole_s / workers, host.drained_s / whole_s / max(1, workers), 1000 * longest
    )


def bound(table: Table, truth: Truth, share: float, workers: int) -> float:
    """Return a lower bound of the seconds to `share` of the oracle's hypervolume with so many workers, for one who knows the table.

    One or two adapters are trained to the end and measured in the recipes that count. Timings add up, because they are alone on
    the host. The rest takes at least as long as its longest chain of stages, and as its sum shared among the workers.
    """
    costs, recipes, least_s = table.costs, range(len(table.recipes)), math.inf
    alive = [adapter for adapter, seeds in enumerate(table.seeds) if seeds]
    groups = [(a,) for a in alive] + list(itertools.combinations(alive, 2))
    pair_s = [costs.build_s[r] + costs.load_s[r] + table.items * costs.item_s[r] for r in recipes]
    time_s = [min(1.0, PROCESSES / len(table.processes_ms[r])) * costs.time_s[r] for r in recipes]
    train_s = {a: costs.call_s + table.steps[-1] * costs.step_s[a] + costs.merge_s for a in alive}
    for count in range(1, len(table.recipes) + 1):
        for chosen in itertools.combinations(recipes, count):
            timed_s, built_s = sum(time_s[r] for r in chosen), sum(pair_s[r] for r in chosen)
            for group in groups:
                trained_s = [train_s[a] for a in group]
                chain_s = costs.start_s + min(trained_s) + min(pair_s[r] for r in chosen)
                if len(group) == 1:
                    chain_s = costs.start_s + trained_s[0] + max(pair_s[r] for r in chosen)
                whole_s = costs.start_s + sum(trained_s) + built_s
                seconds = timed_s + max(chain_s, max(trained_s) + costs.start_s, whole_s / workers)
                if seconds < least_s:
                    pairs = [(max(group, key=lambda a: table.truth[a, r]), r) for r in chosen]
                    if truth.volume(pairs) >= share * truth.best:
                        least_s = seconds
    return least_s


@dataclass(frozen=True)
class Task:
    """One replay to do; `strategy` None: the bounds."""

    table: str
    strategy: str | None
    seed: int
    workers: int


def run(task: Task) -> dict[str, float]:
    """Do one replay, or reckon a bound. Returns minutes to each of `SHARES`, and of a replay what else is in the table."""
    table, truth, _ = sweep_of(task.table, task.seed)
    if task.strategy is None:
        return {_name(share): bound(table, truth, share, task.workers) / 60 for share in SHARES}
    most_s = truth.everything_s() * (2 if task.workers == 1 else 1)
    one = play(table, truth, strategy(task.strategy), Conditions(task.seed), task.workers, most_s, until=_WHOLE)
    found = {_name(share): one.reached_s(share) / 60 for share in SHARES}
    return found | {"busy": one.busy, "timing": one.timed, "asked": one.asked, "decision_ms": one.decision_ms}


def _name(share: float) -> str:
    return f"min_to_{100 * share:g}"


def rows_of(tasks: Sequence[Task], jobs: int) -> list[dict[str, str | float]]:
    """Do all replays. Returns of each table, strategy and number of workers the medians over the seeds."""
    if jobs <= 1:
        results: Iterable[dict[str, float]] = map(run, tasks)
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(run, tasks, chunksize=4))
    groups: dict[tuple[str, str | None, int], list[dict[str, float]]] = {}
    for task, result in zip(tasks, results, strict=True):
        groups.setdefault((task.table, task.strategy, task.workers), []).append(result)
    rows: list[dict[str, str | float]] = []
    for (table, name, workers), each in groups.items():
        medians = {key: round(quantile(np.array([one[key] for one in each]), 0.5), 4) for key in each[0]}
        rows.append({"table": table, "strategy": name or BOUND, "workers": workers, "seeds": len(each), **medians})
    return rows


def report(rows: Sequence[Mapping[str, str | float]]) -> str:
    """Return markdown: minutes and speed-up by number of workers, beside ideal scaling and the bound."""
    lines = [
        "# With several workers",
        "",
        "Made by `python -m benchmarks.search.workers`, which says what is simulated.",
        "",
        "Minutes until the recommended set keeps a share of the oracle's hypervolume, medians over seeds; in brackets: times as",
        "soon as with one worker. Ideal scaling would be the number of workers. The bound is for one who knows the table: its",
        "timings one after another, and beside them the longest chain of stages, or all stages shared among the workers.",
        "`-`: most seeds never have it, on the sample of items that they see.",
        "",
    ]
    workers = sorted({int(row["workers"]) for row in rows})
    for share in SHARES:
        key = _name(share)
        heads = ["table", "strategy", "seeds", *(f"{count} worker{'s' * (count > 1)}" for count in workers)]
        cells = []
        for table, name in dict.fromkeys((str(row["table"]), str(row["strategy"])) for row in rows):
            own = {int(row["workers"]): row for row in rows if (row["table"], row["strategy"]) == (table, name)}
            first = float(own[min(own)][key])
            line = [table, name, str(own[min(own)]["seeds"])]
            for count in workers:
                value = float(own[count][key]) if count in own else math.nan
                times = f" ({first / value:.1f})" if math.isfinite(first) and math.isfinite(value) and count > 1 else ""
                line.append(f"{value:.1f}{times}" if math.isfinite(value) else "-")
            cells.append(line)
        lines += [f"## To {share:.0%}", "", *table_of(heads, cells), ""]
    heads = [
        "strategy",
        "workers",
        "workers' time in stages",
        "in timings and waiting for them",
        "longest decision, ms",
    ]
    cells = []
    for name, count in dict.fromkeys((str(row["strategy"]), int(row["workers"])) for row in rows):
        own_rows = [row for row in rows if (row["strategy"], row["workers"]) == (name, count) and "busy" in row]
        if own_rows:
            busy, timing = (float(np.mean([float(row[key]) for row in own_rows])) for key in ("busy", "timing"))
            longest = max(float(row["decision_ms"]) for row in own_rows)
            cells.append([name, str(count), f"{busy:.0%}", f"{timing:.0%}", f"{longest:.0f}"])
    return "\n".join([*lines, "## What the workers did, means over the tables", "", *table_of(heads, cells)]) + "\n"


def table_of(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def main(arguments: list[str] | None = None) -> int:
    """Replay, and print markdown."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow-seeds", type=int, default=6, help="seeds of tpe, whose replays take seconds each")
    parser.add_argument("--workers", type=int, nargs="+", default=list(WORKERS))
    parser.add_argument("--strategy", nargs="+", default=list(STRATEGIES), help="strategies of the tool")
    parser.add_argument("--table", nargs="+", help="default: every table in benchmarks/search/tables")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path, help="a folder for workers.md and workers.csv")
    given = parser.parse_args(arguments)
    if outside := [name for name in given.strategy if name in OUTSIDE or name in WITHOUT_CACHE]:
        parser.error(f"--strategy {outside[0]}: only strategies of the tool can be asked for several proposals")
    try:
        tables = tables_of(given.table)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    seeds = {name: given.slow_seeds if name in SLOW else given.seeds for name in (*given.strategy, None)}
    tasks = [
        Task(table, name, seed, workers)
        for table in tables
        for name, count in seeds.items()
        for workers in given.workers
        for seed in range(count)
    ]
    rows = rows_of(tasks, given.jobs)
    text = report(rows)
    print(text, end="")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "workers.md").write_text(text, encoding="utf-8")
        with (given.out / "workers.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
