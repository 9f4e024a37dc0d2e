"""Real sweeps against the clock: strategies in turns on this machine, the same sweep file and the same wall-clock.

python -m benchmarks.search.live FOLDER                        # frontier and tpe, three pairs in turns, half an hour each
python -m benchmarks.search.live FOLDER --hours 0.1 --pairs 1 --sweep my.yaml
python -m benchmarks.search.live FOLDER --sweep benchmarks/search/live_wide.yaml --strategy frontier two-stages --hours 0.67

A strategy is one of the tool's, or a rival of `rivals.WHOLE`, which runs in the place of the sweep's strategy (`live_rival.py`).
Each sweep has a cache of its own, so that none profits from another; its results stay in FOLDER, and the same command
goes on with what is missing. When all are done, every candidate that was on a front at some moment is scored on the test
items, which no search saw, and the hypervolume of each front is followed over time: the candidates are those that were
on the front as measured then, noise and all, their accuracy is that on test, their latency the median over all sweeps of
the same graph. Reference: the untouched model's accuracy on test, 1.1 times the slowest latency, the largest size.
Writes live.md, live.csv and, with matplotlib, live.png into FOLDER (`--report FOLDER` puts copies elsewhere).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autotune.analysis.pareto import front, hypervolume
from autotune.artifacts.store import Cache
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.metrics import Direction
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.prepare import prepare
from autotune.results.judge import candidate_of, front_of
from autotune.results.rows import CommandRun, Trial
from autotune.results.table import read_table
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import STRATEGIES
from benchmarks.search.rivals import WHOLE

SWEEP = Path(__file__).parent / "live.yaml"
SHARES = (0.5, 0.8, 0.9, 0.95)
SCORES = "test.json"
"""Beside a sweep's results: by candidate its score on test."""


@dataclass(frozen=True)
class Turn:
    """One sweep of the comparison."""

    strategy: str
    pair: int
    folder: Path

    @property
    def settings(self) -> tuple[str, ...]:
        """What its sweep file is changed by."""
        known = self.strategy in STRATEGIES
        return *([f"strategy={self.strategy}"] if known else []), f"seed={self.pair}"

    @property
    def command(self) -> list[str]:
        """The command `autotune`, with the turn's strategy where it is a rival."""
        if self.strategy in STRATEGIES:
            return [sys.executable, "-m", "autotune"]
        return [sys.executable, "-m", "benchmarks.search.live_rival", self.strategy]

    @property
    def cache(self) -> Path:
        """Its cache."""
        return self.folder.with_name("cache")


@dataclass(frozen=True)
class Moment:
    """From when on, in seconds since the sweep began, a front of rows was the one to recommend."""

    seconds: float
    rows: list[Trial]
    untouched: list[Trial]
    """The untouched model's row, once it is fully measured."""


def turns(folder: Path, strategies: Sequence[str], pairs: int) -> list[Turn]:
    """Return the sweeps in their order; who is first changes from pair to pair."""
    found = []
    for pair in range(pairs):
        ordered = strategies if pair % 2 == 0 else strategies[::-1]
        # Each by itself: a sweep learns from those in the folders beside its own.
        found += [Turn(name, pair, folder / f"{name}-{pair}" / "results") for name in ordered]
    return found


def sweep(turn: Turn, file: Path, hours: float) -> None:
    """Run one sweep to its end, if it has none yet. Raises SystemExit where it fails."""
    if (turn.folder / "finalists.csv").exists():
        return
    command = [*turn.command, "run", str(file), "--out", str(turn.folder), "--hours", str(hours)]
    for setting in turn.settings:
        command += ["--set", setting]
    ended = subprocess.run(command, env=os.environ | {"AUTOTUNE_CACHE": str(turn.cache)}, check=False)
    if ended.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}; the same command goes on")


def moments(rows: Sequence[Trial], runs: Sequence[CommandRun], objectives: Mapping[str, Direction]) -> Iterator[Moment]:
    """Yield the front after each row of a sweep; `runs`: when it ran (runs.csv). What was between them does not count."""
    starts = [datetime.fromisoformat(str(one.started)) for one in runs]
    last: dict[str, Trial] = {}
    for row in rows:
        last[row.candidate] = row
        untouched = [one for one in last.values() if one.kind == "base" and not one.trial and one.status == "ok"]
        ended = datetime.fromisoformat(str(row.ended))
        run = max((number for number, start in enumerate(starts) if start <= ended), default=0)
        before = sum(one.wall_s or 0.0 for one in runs[:run])
        seconds = before + (ended - starts[run]).total_seconds()
        yield Moment(seconds, front_of(last.values(), objectives), untouched)


def score(turn: Turn, file: Path, rows: Sequence[Trial]) -> dict[str, float]:
    """Return by candidate its score on test, measured now where it is not known yet; `file`: the sweep's."""
    scores = turn.folder / SCORES
    known: dict[str, float] = json.loads(scores.read_text(encoding="utf-8")) if scores.exists() else {}
    missing = {row.candidate: row for row in rows if row.candidate not in known}
    if not missing:
        return known
    wanted = load_sweep(str(file), turn.settings)
    with tempfile.TemporaryDirectory() as scratch, LocalEngine(True, wanted.workers.memory_mb) as engine:
        cache = Cache(turn.cache)
        stages = Stages(cache, engine, lambda: Path(scratch) / "log", wanted.model)
        with closing(stages):
            resolved, _, inputs = prepare(wanted, stages, cache.root)
            stages.settle(inputs.files, inputs.model_mb, inputs.places)
            pipeline = Pipeline(Graph(resolved, inputs), resolved.aims, stages)
            for name, row in missing.items():
                measured = pipeline.measure(candidate_of(row, turn.folder / "results.csv"), "test", timed=False)
                if measured.status != "ok":
                    raise SystemExit(f"{turn.folder}: {name} could not be scored on test: {measured.error}")
                known[name] = float(measured.cells[resolved.score] or 0)
                scores.write_text(json.dumps(known, indent=1), encoding="utf-8")
                print(f"{turn.folder.parent.name}: {name} on test: {known[name]:.4f}", flush=True)
            pipeline.tidy()
    return known


def volumes(
    followed: Mapping[Turn, Sequence[Moment]],
    scores: Mapping[Turn, Mapping[str, float]],
    metric: str,
    objectives: Mapping[str, Direction],
) -> dict[Turn, list[tuple[float, float]]]:
    """Return of each sweep, from moment to moment, the hypervolume as a share of that of all sweeps' candidates together."""
    timings: dict[tuple[str, str], list[float]] = {}
    for known in followed.values():
        for row in {row.candidate: row for moment in known for row in moment.rows}.values():
            for name in objectives:
                if name != metric:
                    timings.setdefault((str(row.graph), name), []).append(row.number(name) or 0.0)
    middle = {key: statistics.median(values) for key, values in timings.items()}

    def point(turn: Turn, row: Trial) -> list[float]:
        own = scores[turn][row.candidate]
        return [own if name == metric else middle[str(row.graph), name] for name in objectives]

    points = {turn: [[point(turn, row) for row in moment.rows] for moment in known] for turn, known in followed.items()}
    directions = list(objectives.values())
    everything = [one for known in points.values() for rows in known for one in rows]
    base = [
        scores[turn][row.candidate]
        for turn, known in followed.items() for row in known[-1].untouched
    ]  # fmt: skip
    reference = []
    for place, (name, direction) in enumerate(objectives.items()):
        column = [one[place] for one in everything]
        if name == metric:
            reference.append(statistics.fmean(base))
        elif name == "size_mb":
            reference.append(max(column))
        else:
            reference.append(1.1 * max(column) if direction == "minimize" else 0.9 * min(column))
    whole = hypervolume([everything[n] for n in front(everything, directions)], reference, directions)
    if not whole:
        raise SystemExit("no candidate is better than the untouched model on test: there is nothing to compare")
    return {
        turn: [
            (moment.seconds, hypervolume(rows, reference, directions) / whole)
            for moment, rows in zip(followed[turn], points[turn], strict=True)
        ]
        for turn in followed
    }


def reached(curve: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return when a share was reached for good, seconds; None where it never was."""
    when = None
    for seconds, volume in curve:
        if volume < share:
            when = None
        elif when is None:
            when = seconds
    return when


def report(curves: Mapping[Turn, Sequence[tuple[float, float]]]) -> str:
    """Return the markdown of what came of it."""
    lines = [
        "# Live: the same wall-clock for each strategy",
        "",
        "Made by `python -m benchmarks.search.live`: hypervolume on test items, as a share of that of all sweeps together;",
        "minutes until a share was reached for good.",
        "",
        "| pair | strategy | at the end | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |",
        "|--:|---|--:|" + "--:|" * len(SHARES),
    ]
    for turn, curve in sorted(curves.items(), key=lambda one: (one[0].pair, one[0].strategy)):
        times = [reached(curve, share) for share in SHARES]
        cells = " | ".join("-" if seconds is None else f"{seconds / 60:.1f}" for seconds in times)
        lines.append(f"| {turn.pair} | {turn.strategy} | {curve[-1][1]:.3f} | {cells} |")
    if len({turn.strategy for turn in curves}) > 1:
        lines += ["", *overtaken(curves)]
    return "\n".join(lines) + "\n"


def overtaken(curves: Mapping[Turn, Sequence[tuple[float, float]]]) -> Iterator[str]:
    """Yield the lines of a table: when the first strategy had for good what each other one of its pair had in the end."""
    first = next(iter(curves)).strategy
    own = {turn.pair: curve for turn, curve in curves.items() if turn.strategy == first}
    yield "What the other had in the end, and minutes until each of both had that for good:"
    yield ""
    yield f"| pair | the other | had in the end | after | `{first}` after | times sooner |"
    yield "|--:|---|--:|--:|--:|--:|"
    for turn, curve in curves.items():
        if turn.strategy == first or turn.pair not in own:
            continue
        volume = curve[-1][1]
        theirs, when = reached(curve, volume), reached(own[turn.pair], volume)
        assert theirs is not None  # it has what it has in the end
        cells = f"{when / 60:.1f} | {theirs / when:.1f}" if when else "- | -"
        yield f"| {turn.pair} | {turn.strategy} | {volume:.3f} | {theirs / 60:.1f} | {cells} |"


def draw(curves: Mapping[Turn, Sequence[tuple[float, float]]], file: Path) -> None:
    """Draw hypervolume over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, place = plt.subplots(figsize=(7, 4.5))
    colours = {name: f"C{n}" for n, name in enumerate(sorted({turn.strategy for turn in curves}))}
    last = max(curve[-1][0] for curve in curves.values())
    for turn, curve in curves.items():
        minutes = [0.0, *(seconds / 60 for seconds, _ in curve), last / 60]
        shares = [0.0, *(volume for _, volume in curve), curve[-1][1]]
        label = turn.strategy if turn.pair == 0 else None
        place.step(minutes, shares, where="post", color=colours[turn.strategy], alpha=0.8, label=label)
    place.set(
        xlabel="minutes of wall-clock", ylabel="hypervolume on test, share of all sweeps' together", ylim=(0, 1.02)
    )
    place.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, score, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--hours", type=float, default=0.5, help="wall-clock of each sweep")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--strategy", nargs="+", choices=[*STRATEGIES, *WHOLE], default=["frontier", "tpe"])
    parser.add_argument("--report", type=Path, help="a folder for copies of live.md, live.csv and live.png")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    wanted = load_sweep(str(given.sweep))
    todo = turns(given.folder.resolve(), given.strategy, given.pairs)
    for turn in todo:
        sweep(turn, given.sweep, given.hours)
    followed: dict[Turn, list[Moment]] = {}
    for turn in todo:
        rows = read_table(turn.folder / "results.csv", Trial)
        followed[turn] = list(moments(rows, read_table(turn.folder / "runs.csv", CommandRun), wanted.objectives))
    scores = {}
    for turn, known in followed.items():
        ever = {row.candidate: row for moment in known for row in (*moment.rows, *moment.untouched)}
        scores[turn] = score(turn, given.sweep, list(ever.values()))
    curves = volumes(followed, scores, wanted.score, wanted.objectives)
    text = report(curves)
    print(text, end="")
    for folder in filter(None, (given.folder, given.report)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "live.md").write_text(text, encoding="utf-8")
        with (folder / "live.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["strategy", "pair", "seconds", "hypervolume"])
            for turn, curve in curves.items():
                writer.writerows([turn.strategy, turn.pair, f"{s:.0f}", f"{volume:.4f}"] for s, volume in curve)
        if importlib.util.find_spec("matplotlib") is not None:
            draw(curves, folder / "live.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
