"""Sweeps on a real cluster of Ray whose nodes share this machine: equal rows, kills, overlap of timings, a shared store, scaling,
the driver's cost.

python -m benchmarks.ray_engine all                      # writes benchmarks/measured/ray.md
python -m benchmarks.ray_engine rows --keep FOLDER       # one part (kills, stopped, alone, targets, store, ...), kept in a folder
python -m benchmarks.ray_engine page --keep FOLDER       # writes the page of what was kept

Cluster, cache, record, pipeline, loop and the host's lock are the real ones; stages sleep and write what their followers
read (`benchmarks.sleeping`). A driver is a process of its own, so that it can be killed.

It is one module because each part is a few lines around the same cluster and drivers (`benchmarks.ray_nodes`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import psutil

from autotune.artifacts.makers import MAKER_S
from autotune.artifacts.store import Cache
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.ray_cluster import RayCluster
from autotune.execution.remote import RemoteExecutor
from autotune.execution.runs import run_folder
from autotune.results.rows import StageSpan, Trial
from autotune.results.table import read_table
from autotune.stages.protocol import Call
from benchmarks.ray_driver import candidates_cost, jobs_cost
from benchmarks.ray_nodes import NODES, Nodes, driver, kill_tree, nodes_in
from benchmarks.ray_store import store
from benchmarks.sleeping import SleepingMerge

PAGE = Path(__file__).parent / "measured" / "ray.md"
_ROW = (
    "candidate",
    "trial",
    "kind",
    "status",
    "accuracy",
    "size_mb",
    "graph",
    "lora_r",
    "lora_learning_rate",
    "build_precision",
)
"""Columns that depend on no clock, and not on the order in which candidates begin, as their numbers do."""


def rows_of(folder: Path, name: str) -> list[tuple[Any, ...]]:
    """Return what rows say that depends on no clock: the last row of each candidate."""
    last = {row.candidate: row for row in read_table(folder / name / "results.csv", Trial)}
    return sorted((tuple(row[column] for column in _ROW) for row in last.values()), key=repr)


def overlaps(files: Sequence[Path]) -> tuple[int, int]:
    """Return how many timings of these timelines overlap another stage on the same host, and how many there are."""
    spans = [span for file in files for span in read_table(file, StageSpan)]
    timings = [span for span in spans if span.alone]
    found = sum(
        one is not other and one.host == other.host
        and (one.began or 0) < (other.ended or 0) and (other.began or 0) < (one.ended or 0)
        for one in timings for other in spans
    )  # fmt: skip
    return found, len(timings)


# --- what is shown ---------------------------------------------------------------------------------------------------


def rows(there: Nodes, candidates: int = 8, strategies: Sequence[str] = ("random", "grid")) -> list[tuple[str, str]]:
    """Compare the rows of a cluster with those of this machine. Returns what was found, in words."""
    found = []
    for strategy in strategies:
        for name, address in ((f"local-{strategy}", None), (f"ray-{strategy}", there.address)):
            process = driver(there.folder, name, candidates, strategy, address)
            assert process.wait(timeout=500) == 0, (there.folder / f"{name}.log").read_text(encoding="utf-8")
        one, other = (rows_of(there.folder, f"{where}-{strategy}") for where in ("local", "ray"))
        found.append((f"{strategy}: rows, and how many are equal", f"{len(one)}, {sum(map(one.__contains__, other))}"))
        assert one == other
    return found


def calm(there: Nodes, candidates: int) -> list[tuple[Any, ...]]:
    """Return the rows of a sweep that nobody disturbs."""
    if not (there.folder / "calm" / "results.csv").exists():
        process = driver(there.folder, "calm", candidates, "grid", there.address)
        assert process.wait(timeout=300) == 0, (there.folder / "calm.log").read_text(encoding="utf-8")
    return rows_of(there.folder, "calm")


class Kills:
    """A sweep that goes on while nodes, the head and the driver are killed at random moments."""

    def __init__(self, there: Nodes, seed: int) -> None:
        self.there, self.draw = there, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        """Exit codes of drivers whose head was killed."""

    def run(self, kills: int, candidates: int) -> list[tuple[str, str]]:
        """Do so many kills over as many sweeps as it takes. Returns what was found, in words."""
        sweeps, finished, again, lost, equal = 0, 0, 0, 0, 0
        while sum(self.counts.values()) < kills:
            self.there.folder.joinpath("journal.txt").write_text("", encoding="utf-8")
            name = f"kill{sweeps}"
            self._sweep(name, candidates, kills)
            results = made_in(self.there.folder / f"cache-{name}")
            finished += len(results)
            again += begun_after_end(self.there.folder / "journal.txt", results)
            table = read_table(self.there.folder / name / "results.csv", Trial)
            last = {row.candidate: row for row in table}
            lost += sum(row.status != "ok" for row in last.values())
            found, expected = rows_of(self.there.folder, name), calm(self.there, candidates)
            equal += found == expected
            print(*(set(found) ^ set(expected)), sep="\n")
            sweeps += 1
            print(f"{name}: {dict(self.counts)}", flush=True)
        lines = [(f"kills of {what}", str(count)) for what, count in sorted(self.counts.items())]
        lines += [("exit codes of the drivers whose head was killed", ", ".join(sorted(self.ends)) or "-")]
        lines += [("sweeps, and how many ended with the rows of one that nobody disturbed", f"{sweeps}, {equal}")]
        lines += [("results finished", str(finished)), ("of them begun again after they were finished", str(again))]
        return [*lines, ("candidates that are not ok", str(lost))]

    def _sweep(self, name: str, candidates: int, kills: int) -> None:
        calm(self.there, candidates)
        process = driver(self.there.folder, name, candidates, "grid", self.there.address)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(timeout=self.draw.uniform(0.5, 6.0))
                    if code == 0:
                        return
                    process = driver(self.there.folder, name, candidates, "grid", self.there.address)
                    continue
                if sum(self.counts.values()) < kills:
                    process = self._kill(process, name, candidates)
        finally:
            kill_tree([process.pid])

    def _kill(self, process: subprocess.Popen[bytes], name: str, candidates: int) -> subprocess.Popen[bytes]:
        what = self.draw.choices(("node", "driver", "head"), (6, 5, 1))[0]
        self.counts[what] += 1
        if what == "node":
            self.there.kill_node(self.draw.choice(self.there.workers))
            self.there.add()
            return process
        if what == "head":  # the driver notices, and ends by itself
            self.there.kill_head()
            self.ends[f"{process.wait(timeout=300)}"] += 1
            self.there.start()
        kill_tree([process.pid])
        process.wait()
        return driver(self.there.folder, name, candidates, "grid", self.there.address)


def made_in(cache: Path) -> dict[str, float]:
    """Return when each result of a cache was made, by its key."""
    files = cache.glob("*/*/manifest.json")
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8"))["made"] for file in files}


def begun_after_end(journal: Path, made: dict[str, float]) -> int:
    """Return how many jobs of a journal were begun after their result was there."""
    lines = (line.split() for line in journal.read_text(encoding="utf-8").splitlines())
    return sum(
        float(when) > made.get(key, 1e18) + 0.01
        for when, _, stage, key, what in lines
        if what == "began" and stage != "time"
    )


def stopped(there: Nodes, times: int = 3, candidates: int = 8) -> list[tuple[str, str]]:
    """Stop (SIGSTOP) a node that does a job, once whole and once its processes for jobs alone, as often as said each; let it go
    on when the sweep has ended without it.
    """
    found, expected, draw = [], calm(there, candidates), random.Random(2)
    for whole in (True, False):
        counts: Counter[str] = Counter()
        seconds: list[float] = []
        for n in range(times):
            name = f"{'node' if whole else 'process'}{n}"
            once, after_s = _stopped_once(there, name, candidates, whole, draw.uniform(0.0, 6.0))
            counts, seconds = counts + once, [*seconds, after_s]
            counts["equal"] += rows_of(there.folder, name) == expected
            print(f"{name}: {dict(counts)}, {after_s:.0f} s", flush=True)
        what = "nodes stopped whole" if whole else "nodes whose processes for jobs were stopped, and the rest not,"
        found += [
            (f"{what} until the sweep had ended, then let go on", str(times)),
            ("seconds that each was stopped, at least; a maker's lease, seconds", "{away}, {lease}"),
            ("jobs that they were doing; sent to another node; brought to an end too late", "{under_way}, {again}, {late}"),
            ("sweeps with the rows of one that nobody disturbed", "{equal}"),
            ("results begun again after they were finished; changed, or begun, after the end", "{repeated}; {changed}, {after}"),
            ("seconds from the stop to the end of the sweep, each", ", ".join(f"{one:.0f}" for one in sorted(seconds))),
        ]  # fmt: skip
        names = ("under_way", "again", "late", "equal", "repeated", "changed", "after")
        said = {one: counts[one] for one in names} | {
            "away": round(max(1.25 * MAKER_S, min(seconds))),
            "lease": round(MAKER_S),
        }
        found[-5:] = [(what, value.format(**said)) for what, value in found[-5:]]
    return found


def _stopped_once(there: Nodes, name: str, candidates: int, whole: bool, later_s: float) -> tuple[Counter[str], float]:
    """Run a sweep one of whose nodes is stopped so many seconds after its first job has begun. Returns what was counted, and the
    seconds from the stop to the end of the sweep.
    """
    counts: Counter[str] = Counter()
    journal, cache, log = (there.folder / one for one in ("journal.txt", f"cache-{name}", f"{name}.log"))
    journal.write_text("", encoding="utf-8")
    process = driver(there.folder, name, candidates, "grid", there.address)
    own = there.node_of_driver(name)  # Ray ends a driver whose node has ended
    others = [node for node in there.workers if node.node_id != own]
    while not journal.read_text(encoding="utf-8"):
        time.sleep(0.1)
    time.sleep(later_s)
    open_: set[tuple[str, str]] = set()
    while not open_:  # the job may end just before it is stopped
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended before a node could be stopped")
        time.sleep(0.1)
        for node in others:
            raylets = [info.process.pid for infos in node.all_processes.values() for info in infos]
            if not jobs_under_way(journal, {str(one.pid) for pid in raylets for one in family(pid)}):
                continue
            stopped_now = _suspend(raylets, whole)
            pids = {str(one.pid) for one in stopped_now}
            if open_ := jobs_under_way(journal, pids):
                break
            _resume(stopped_now)
    counts["under_way"], since = len(open_), time.monotonic()
    assert process.wait(timeout=600) == 0, log.read_text(encoding="utf-8")
    after_s = time.monotonic() - since
    time.sleep(max(0.0, 1.25 * MAKER_S - after_s))  # it stays away for longer than a maker's lease lasts
    if any(one.is_running() and one.status() != psutil.STATUS_STOPPED for one in stopped_now):
        raise RuntimeError("somebody else let the node go on")
    made, ended = made_in(cache), time.time()
    counts["again"] = sum("is done again" in line for line in log.read_text(encoding="utf-8").splitlines())
    counts["repeated"] = begun_after_end(journal, made)
    _resume(stopped_now)
    patience = time.monotonic() + 20.0
    while jobs_under_way(journal, pids) and time.monotonic() < patience:
        time.sleep(0.2)
    time.sleep(5.0)  # what came too late would be put in place now
    counts["late"] = len(open_) - len(open_ & jobs_under_way(journal, pids))
    counts["changed"] = sum(made.get(key) != when for key, when in made_in(cache).items())
    lines = (line.split() for line in journal.read_text(encoding="utf-8").splitlines())
    counts["after"] = sum(what == "began" and float(when) > ended for when, *_, what in lines)
    there.kill_node(node)
    kill_tree([one.pid for one in stopped_now])
    there.add()
    return counts, after_s


def _suspend(raylets: Sequence[int], whole: bool) -> list[psutil.Process]:
    """Stop these processes and all below them; or only those that do jobs. Returns what was stopped."""
    found: dict[int, psutil.Process] = {}
    while True:  # until no new one has come meanwhile
        below = [one for pid in raylets for one in family(pid)]
        if not whole:
            below = [one for one in below if one.pid not in raylets and not _is_agent(one)]
        if not (new := [one for one in below if one.pid not in found]):
            return list(found.values())
        for one in new:
            found[one.pid] = one
            with contextlib.suppress(psutil.Error):
                one.suspend()


def _resume(processes: Sequence[psutil.Process]) -> None:
    for one in processes:
        with contextlib.suppress(psutil.Error):
            one.resume()


def _is_agent(process: psutil.Process) -> bool:
    """Whether it is one of Ray's own processes of a node, beside the raylet."""
    with contextlib.suppress(psutil.Error):
        return "Agent" in " ".join(process.cmdline())
    return True


def jobs_under_way(journal: Path, pids: Collection[str]) -> set[tuple[str, str]]:
    """Return the jobs, each with its process, that these processes have begun and not ended."""
    lines = [line.split() for line in journal.read_text(encoding="utf-8").splitlines()]
    began, ended = ({(pid, key) for _, pid, _, key, what in lines if what == word} for word in ("began", "ended"))
    return {one for one in began - ended if one[0] in pids}


def family(pid: int) -> list[psutil.Process]:
    """Return a process and those below it."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def alone(there: Nodes, sweeps: int = 4, candidates: int = 4) -> list[tuple[str, str]]:
    """Run sweeps side by side and count timings that overlap another stage."""
    names = [f"side{n}-x" for n in range(sweeps)]
    processes = [driver(there.folder, name, candidates, "random", there.address) for name in names]
    for name, process in zip(names, processes, strict=True):
        assert process.wait(timeout=500) == 0, (there.folder / f"{name}.log").read_text(encoding="utf-8")
    found, timings = overlaps([there.folder / name / "timeline.csv" for name in names])
    return [
        ("sweeps at once, timings in all", f"{sweeps}, {timings}"),
        ("timings that overlap another stage", str(found)),
    ]


def targets(there: Nodes, candidates: int = 8) -> list[tuple[str, str]]:
    """Run a sweep over two targets, each of whose labels one node has; then another, and kill one of the two nodes on the way;
    then one that begins without that node.
    """
    names, found = ("left", "right"), []

    def run(name: str) -> tuple[list[Trial], int]:
        """Run the command to its end. Returns the last row of each candidate, and how many trainings all its runs have begun."""
        process = driver(there.folder, name, candidates, "grid", there.address, names)
        if name == "gone" and not (there.folder / name / "results.csv").exists():
            there.node_of_driver(name)
            while not any(row.target == "right" for row in rows_in(name)):
                time.sleep(0.5)
            there.kill_node(there.with_label("right"))
        assert process.wait(timeout=200) == 0, (there.folder / f"{name}.log").read_text(encoding="utf-8")
        return rows_in(name), len(list((there.folder / f"cache-{name}" / "finetune").glob("*/manifest.json")))

    def rows_in(name: str) -> list[Trial]:
        file = there.folder / name / "results.csv"
        return list({row.candidate: row for row in read_table(file, Trial)}.values()) if file.exists() else []

    def pairs(rows: Sequence[Trial]) -> str:
        done = Counter(row.target for row in rows if row.kind == "pair" and row.status == "ok")
        return ", ".join(f"{name} {done[name]}" for name in names)

    def winners(name: str) -> str:
        return ", ".join(one for one in names if (there.folder / name / "best" / one).is_dir()) or "none"

    there.folder.joinpath("journal.txt").write_text("", encoding="utf-8")
    rows, trained = run("both")
    begun = there.folder.joinpath("journal.txt").read_text(encoding="utf-8")
    trainings = sum(line.split()[2:5:2] == ["finetune", "began"] for line in begun.splitlines())
    adapters = {row.adapter for row in rows if row.adapter}
    found += [("both nodes there: candidates measured of each target; winners", f"{pairs(rows)}; {winners('both')}")]
    found += [("adapters, and trainings that were begun", f"{len(adapters)}, {trainings}")]
    assert trained == len(adapters)
    rows, _ = run("gone")
    found += [("the node of right killed on the way: the same", f"{pairs(rows)}; {winners('gone')}")]
    there.add("right")
    rows, _ = run("gone")
    found += [("run again with such a node: the same", f"{pairs(rows)}; {winners('gone')}")]
    there.kill_node(there.with_label("right"))
    process = driver(there.folder, "late", 4 * candidates, "grid", there.address, names)
    there.node_of_driver("late")
    while not any(row.target == "left" and row.trial for row in rows_in("late")):
        assert process.poll() is None, (there.folder / "late.log").read_text(encoding="utf-8")
        time.sleep(0.5)
    before = pairs(rows_in("late"))
    there.add("right")
    assert process.wait(timeout=200) == 0, (there.folder / "late.log").read_text(encoding="utf-8")
    found += [("no node of right at the start: candidates measured when such a node was started", before)]
    found += [("the same run at its end; winners", f"{pairs(rows_in('late'))}; {winners('late')}")]
    return found


def scaling(workers: Sequence[int] = (1, 2, 4, 8), seconds: float = 5.0, each: int = 6) -> list[tuple[str, str]]:
    """Time jobs of known length on more and more workers. Returns the efficiency, in words."""
    found = []
    for count in workers:
        with nodes_in(count, scale=seconds / 0.5) as there, RayCluster(there.address) as cluster:
            cache = Cache(there.folder / "cache")
            executor = RemoteExecutor(cluster, ClusterStages(cache), run_folder(cache))
            (there.folder / "base").mkdir()
            executor.artifacts.places |= {"base": there.folder / "base"}

            def run(first: int, jobs: int, executor: RemoteExecutor = executor, folder: Path = there.folder) -> float:
                began = time.perf_counter()
                made = (SleepingMerge(adapter="base", base=f"{n}", base_dir=folder) for n in range(first, first + jobs))
                futures = [executor.submit(Call(job), folder / "logs" / "x.log") for job in made]
                while left := [future for future in futures if not future.done()]:
                    executor.wait(left)
                for future in futures:
                    future.result()
                return time.perf_counter() - began

            run(0, count)  # workers start
            took = run(count, count * each)
        found.append(
            (
                f"{count} workers: {count * each} jobs of {seconds:g} s",
                f"{took:.1f} s, efficiency {seconds * each / took:.1%}",
            )
        )
        print(found[-1], flush=True)
    return found


# --- the page --------------------------------------------------------------------------------------------------------


def page(parts: dict[str, list[tuple[str, str]]]) -> str:
    """Return the page of what was measured."""
    import ray

    lines = [
        "# Sweeps on Ray", "",
        f"Ray {ray.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores; all nodes on one machine, stages sleep",
        "(`benchmarks/sleeping.py`). Written by `python -m benchmarks.ray_engine all`, or by its part `page` of parts that were kept.", "",
    ]  # fmt: skip
    for title, found in parts.items():
        lines += [
            f"## {title}",
            "",
            "| what | measured |",
            "|---|---|",
            *(f"| {what} | {value} |" for what, value in found),
            "",
        ]
    return "\n".join(lines)


TITLES = {
    "rows": "The same rows as locally",
    "kills": "Kills at random moments",
    "kills2": "Kills at random moments, drawn anew",
    "stopped": "A node that is stopped and goes on",
    "alone": "Timings alone on the host",
    "targets": "Two targets on two nodes",
    "store": "Two clusters at once that share an S3 store",
    "scaling": "Scaling",
    "cost": "The driver's own cost",
    "sweep_cost": "The driver's own cost of a whole sweep",
}
"""The parts of the page, in order, each with its title."""


def on_nodes(
    do: Callable[[Nodes], list[tuple[str, str]]], scale: float = 0.01, apart: bool = False, labels: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Do a part on nodes of its own."""
    with nodes_in(NODES, scale=scale, apart=apart, labels=labels) as there:
        return do(there)


def part(what: str, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Do one part, and return what was found."""
    match what:
        case "rows":
            return on_nodes(rows)
        case "kills" | "kills2":
            seed = 0 if what == "kills" else 1
            return on_nodes(lambda there: Kills(there, seed).run(asked.kills, asked.candidates), 0.1)
        case "stopped":
            return on_nodes(stopped, 0.2, apart=True)
        case "alone":
            return on_nodes(alone)
        case "targets":
            return on_nodes(targets, 0.05, labels=("left", "right"))
        case "store":
            return store()
        case "scaling":
            return scaling()
        case "cost":
            return jobs_cost(jobs=asked.jobs)
        case _:
            return candidates_cost(candidates=asked.jobs // 50)


def found_in(what: str, asked: argparse.Namespace) -> list[tuple[str, str]]:
    """Return what a part finds: for `page` what was kept of it, else what is found now, which is kept."""
    if asked.keep is None:
        return part(what, asked)
    asked.keep.mkdir(parents=True, exist_ok=True)
    kept = asked.keep / f"{what}.json"
    found: list[tuple[str, str]]
    if asked.what == "page":
        found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        return found
    found = part(what, asked)
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", *TITLES, "page"))
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where what was found is kept, a file for each part"
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=100_000)
    asked = parser.parse_args(arguments)
    done: dict[str, list[tuple[str, str]]] = {}
    for what in TITLES if asked.what in ("all", "page") else (asked.what,):
        found = found_in(what, asked)
        if found:
            done[TITLES[what]] = found
        print(json.dumps({TITLES[what]: found}, indent=1), flush=True)
    if asked.what in ("all", "page"):
        PAGE.write_text(page(done), encoding="utf-8")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
