"""Is the winner the same when only the timings are made anew? One sweep several times, some beside another job.

`python -m benchmarks.repeat_sweep SWEEP.yaml --work FOLDER --out benchmarks/measured/repeat_sweep.md` runs the sweep
`--runs` times. Adapters, builds and scores come from one cache (`AUTOTUNE_CACHE`, which `--fill` fills with one run more,
not counted; what is missing then is made in each run, and said); timings do not: each run sees a copy of the cache without them. While the runs of `--disturbed`
go on, `--jobs` other processes compute in bursts of two seconds on average, half of the time. What the runs left is in
`--work`, and a run that is done there is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.artifacts.store import default_root
from autotune.machine import hardware
from autotune.present.select import Selection, select
from autotune.present.tables import settings
from autotune.results.folder import read_timings
from autotune.results.rows import Trial
from autotune.results.table import read_table
from benchmarks.timing import disturbing

TIMED = ("time", "turns", "pace", "pins")
"""What a run does not take from the cache: timings, what is known of the machine's pace, and who needs what."""
DONE = "repeat.json"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def copied(cache: Path, to: Path) -> None:
    """Copy a cache without its timings; files are linked where the disk can."""
    shutil.rmtree(to, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    skipped = shutil.ignore_patterns("*.lock", "*.use", "*.new")

    def left_out(folder: str, names: list[str]) -> set[str]:
        found = set(skipped(folder, names))
        return found | set(TIMED) if Path(folder) == cache else found

    shutil.copytree(cache, to, copy_function=_link, ignore=left_out)


def run(sweep: Path, number: int, jobs: int, work: Path, sets: Sequence[str]) -> None:
    """Do one run; `jobs`: how many other processes compute meanwhile, in bursts. Run 0 fills the cache. Raises
    CalledProcessError.
    """
    folder, cache = work / f"run-{number}", work / "cache" if number else default_root()
    if (folder / DONE).is_file():
        return
    if number:
        copied(default_root(), cache)
    command = [sys.executable, "-m", "autotune", "run", str(sweep), "--out", str(folder)]
    command += [part for text in sets for part in ("--set", text)]
    began = time.perf_counter()
    with disturbing(1000 * number, jobs) if jobs else contextlib.nullcontext():
        done = subprocess.run(command, env={**os.environ, "AUTOTUNE_CACHE": str(cache)}, stdout=sys.stderr, check=False)
    if done.returncode not in (0, 4):
        raise subprocess.CalledProcessError(done.returncode, command)
    if number:
        shutil.rmtree(cache)
    found = {"jobs": jobs, "wall_s": time.perf_counter() - began}
    (folder / DONE).write_text(json.dumps(found), encoding="utf-8")


def described(folder: Path) -> dict[str, Any]:
    """Return what a run came to."""
    about: dict[str, Any] = json.loads((folder / DONE).read_text(encoding="utf-8"))
    chosen = select(folder)
    rows = read_table(folder / "results.csv", Trial)
    timings = read_timings(folder)
    last = {row.candidate: row for row in rows if row.trial}
    winner = chosen.choice.winner
    about |= {
        "winner": winner.id if winner else None,
        "ties": [name for step in chosen.choice.steps for name in step.tied],
        "how": _how(chosen),
        "label": settings(chosen.row(winner.id).settings).replace(" | ", ", ") if winner else "none keeps the limits",
        "candidates": sorted(last),
        "made": sum(row.cost_s(stage) is not None for row in rows for stage in ("train", "build")),
        "timed": len(timings), "again": sum(timing["again"] > 0 for timing in timings),
        "itl": [last[winner.id]["itl_ms_p50"]] if winner else [],
    }  # fmt: skip
    foreign = [
        process["foreign_cpu"] for timing in timings for process in timing["processes"] if "foreign_cpu" in process
    ]
    about["foreign"] = statistics.fmean(foreign) if foreign else None
    return about


def _how(chosen: Selection) -> str:
    """Return in words how the winner came about, objective by objective."""
    words = []
    for step in chosen.choice.steps:
        verdict = f"{len(step.tied) + 1} tie" if step.tied else "one is ahead"
        words.append(f"{step.metric}: {verdict}" + (f" ({step.method})" if step.method else ""))
    return "; ".join(words)


def report(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of the runs, and the verdict."""
    lines = ["| run | other jobs, in bursts | winner | its ms a token | how it was chosen | cores that others kept busy | "
             "timings, of them again | made besides timings | minutes |",
             "|--:|--:|---|--:|---|--:|--:|--:|--:|"]  # fmt: skip
    for number, one in enumerate(runs, start=1):
        itl = f"{one['itl'][0]:.2f}" if one["itl"] and one["itl"][0] is not None else ""
        foreign = "" if one["foreign"] is None else f"{one['foreign']:.2f}"
        lines.append(
            f"| {number} | {one['jobs'] or 'none'} | {str(one['winner'])[:8]} {one['label']} | {itl} | {one['how']} | "
            f"{foreign} | {one['timed']}, {one['again']} | {one['made']} | {one['wall_s'] / 60:.1f} |"
        )
    winners = [one["winner"] for one in runs]
    same = len({tuple(one["candidates"]) for one in runs}) == 1
    lines += ["", f"The same candidates in all runs: {'yes' if same else 'no'}."]
    if len(set(winners)) == 1:
        lines.append(f"The same winner in all {len(runs)} runs.")
    else:
        tied = all(set(winners) <= {one["winner"], *one["ties"]} for one in runs)
        counts = ", ".join(f"{str(name)[:8]} in {winners.count(name)}" for name in dict.fromkeys(winners))
        lines.append(
            f"Winners: {counts}; {'each run states that they tie' if tied else 'not all runs state that they tie'}."
        )
    return "\n".join(lines)


def main() -> int:
    """Run and report. Returns 1 where runs with the same candidates have other winners and do not say that they tie."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--disturbed", type=int, nargs="*", default=[2, 4], help="numbers of the runs beside other jobs"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many other jobs")
    parser.add_argument("--fill", action="store_true", help="run once before, with the cache itself, to fill it")
    parser.add_argument("--work", type=Path, default=Path("results/repeat"))
    parser.add_argument("--out", type=Path, help="file to write the table to, too")
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help="as of autotune run"
    )
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for number in range(0 if arguments.fill else 1, arguments.runs + 1):
        jobs = arguments.jobs if number in arguments.disturbed else 0
        run(arguments.sweep, number, jobs, work, arguments.sets)
    runs = [described(work / f"run-{number}") for number in range(1, arguments.runs + 1)]
    machine = hardware()
    head = f"`python -m benchmarks.repeat_sweep {arguments.sweep}`; {machine['processor']}, {machine['cores']} cores"
    text = f"{head}\n\n{report(runs)}\n"
    sys.stdout.write(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return int("not all runs" in text)


if __name__ == "__main__":
    sys.exit(main())
