"""Strategies on made-up worlds, over many seeds, on simulated time: how good is the front of each at each moment?

python -m benchmarks.search.worlds --seeds 12 --runs runs.jsonl                      # all default worlds, all strategies
python -m benchmarks.search.worlds --worlds 'grid-low-*' wide-bad-3 --strategies frontier two-stages
python -m benchmarks.search.worlds --runs runs.jsonl --jobs 0                        # only report what is there
python -m benchmarks.search.worlds --runs new.jsonl --beside old.jsonl               # and our replays of earlier code
python -m benchmarks.search.worlds --workers 1 4 16 --runs runs.jsonl                # with several workers
python -m benchmarks.search.worlds --list                                            # the worlds, and what they are like

`kinds.py` defines the worlds, `landscape.py` how settings become scores, `rivals.py` the rivals of `frontier`. The file of
`--runs` keeps the replays, one a line, so that the command can be stopped and continued; replays by other code are done again
(for a strategy of the tool, if `autotune/strategies` has changed; for a rival, if its own modules have).

All strategies pay the tool's costs: a first look at the untouched model, checks of builds, timings in five processes. With
`--charge loop` a rival pays those of a hand-written loop: no look, no checks, and timings in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from benchmarks.search import anytime
from benchmarks.search.anytime import Curve
from benchmarks.search.kinds import DEFAULT, KINDS, world_of
from benchmarks.search.made_replay import OWN, Task, made_by, run
from benchmarks.search.peers import PEERS
from benchmarks.search.rivals import RIVALS

STRATEGIES = ("frontier", "frontier-without-prior", *RIVALS, "random")
ON_TABLES = ("halving", "in-turn", "optuna-tpe", "optuna-tpe-warm", "optuna-tpe-cache-warm")
"""Peers that look at every adapter beforehand, or that share no stages."""
KNOWN = (*(name for name in dict.fromkeys((*STRATEGIES, *PEERS, "tpe", "nsga2", "gp")) if name not in ON_TABLES),)
CHARGES = ("tool", "loop")


def kept(file: Path, stale: bool = False) -> dict[Task, Curve]:
    """Return the replays of a file that were made by today's code (`stale`: by any); a half-written last line is none."""
    found: dict[Task, Curve] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        with contextlib.suppress(json.JSONDecodeError, ValueError):
            row = json.loads(line)
            task = Task(**row["task"])
            if stale or row["made_by"] == made_by(task.world, task.strategy):
                found[task] = Curve(**row["run"])
    return found


def done(tasks: Sequence[Task], jobs: int, file: Path | None) -> Iterator[tuple[Task, Curve]]:
    """Do replays, or take them from a file of earlier ones, to which new ones are appended. `jobs` 0: take only."""
    known = kept(file) if file is not None else {}
    yield from ((task, known[task]) for task in tasks if task in known)
    left = [task for task in tasks if task not in known] if jobs else []
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(file.open("a", encoding="utf-8")) if file is not None and left else None
        if stream is not None and stream.tell():
            stream.write("\n")  # the last line may be half a one
        results: Iterable[Curve] = map(run, left)
        if jobs > 1:
            pool = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
            results = pool.map(run, left, chunksize=1)
        for number, (task, one) in enumerate(zip(left, results, strict=True), 1):
            if stream is not None:
                row = {"task": asdict(task), "made_by": made_by(task.world, task.strategy), "run": one.plain()}
                stream.write(json.dumps(row) + "\n")
                stream.flush()
                sys.stderr.write(f"{number}/{len(left)} {task.world} {task.strategy} {task.seed}\n")
            yield task, Curve(**one.plain())  # as it is kept


def worlds_of(named: Sequence[str] | None) -> list[str]:
    """Return the worlds that names and patterns mean; patterns are looked up among the default ones. Raises ValueError."""
    found: list[str] = []
    for name in named or DEFAULT:
        if any(letter in name for letter in "*?["):
            matching = fnmatch.filter(DEFAULT, name)
            if not matching:
                raise ValueError(f"no default world matches {name}")
            found += matching
        else:
            found.append(world_of(name).name)
    return list(dict.fromkeys(found))


def main(arguments: list[str] | None = None) -> int:
    """Replay, and print markdown."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--worlds", nargs="+", help="names or patterns; default: all of --list")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), help=f"default: {', '.join(STRATEGIES)}")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1], help="numbers of workers, each with its own report"
    )
    parser.add_argument("--charge", choices=CHARGES, default=CHARGES[0], help="what rivals pay")
    parser.add_argument("--jobs", type=int, default=1, help="processes; 0: only report what --runs has")
    parser.add_argument("--runs", type=Path, help="a file in which replays are kept, and taken from")
    parser.add_argument(
        "--settings", action="store_true", help="judge by the truth of settings, without the luck of models"
    )
    parser.add_argument(
        "--beside", type=Path, nargs="+", default=[],
        help="files of earlier replays of ours, by any code: shown as one more strategy each, named by the file",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the default worlds, and end")
    parser.add_argument("--out", type=Path, help="a file for the markdown")
    given = parser.parse_args(arguments)
    if given.list:
        for name in DEFAULT:
            world = world_of(name)
            print(f"{name}: {KINDS[world.kind]}; {world.items} items, {world.budget_s / 60:g} minutes")
        return 0
    if given.jobs == 0 and given.runs is None:
        parser.error("--jobs 0 reports what --runs has, and needs it")
    try:
        worlds = worlds_of(given.worlds)
    except ValueError as error:
        parser.error(str(error))
    for name in given.strategies:
        if name not in KNOWN:
            parser.error(f"strategy {name}: the strategies are {', '.join(KNOWN)}")
    text = "\n".join(_reports(given, worlds))
    print(text, end="")
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 0


def _reports(given: argparse.Namespace, worlds: Sequence[str]) -> Iterator[str]:
    """Yield the report of each number of workers."""
    tasks = [
        Task(world, name, seed, "tool" if name.startswith(OWN) else given.charge, workers)
        for seed in range(given.seeds)
        for workers in given.workers
        for world in worlds
        for name in given.strategies
    ]
    found = dict(done(tasks, given.jobs, given.runs))
    for workers in given.workers:
        runs: dict[str, dict[str, dict[int, Curve]]] = {}
        for task in tasks:
            if task in found and task.workers == workers:
                runs.setdefault(task.world, {}).setdefault(task.strategy, {})[task.seed] = found[task]
        for file in given.beside:
            for task, one in kept(file, stale=True).items():
                if task.strategy.startswith(OWN) and task.world in worlds and task.workers == workers:
                    name = f"{task.strategy} ({file.stem})"
                    runs.setdefault(task.world, {}).setdefault(name, {})[task.seed] = one
        if given.settings:
            runs = {
                world: {name: {seed: one.by_settings() for seed, one in seeds.items()} for name, seeds in each.items()}
                for world, each in runs.items()
            }
        budgets = {world: world_of(world).budget_s for world in runs}
        kinds = {world: (world_of(world).shape, world_of(world).kind) for world in runs}
        title = f"Made-up worlds, {workers} worker{'s' * (workers > 1)}"
        yield "\n".join(anytime.report(title, runs, budgets, kinds, OWN)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
