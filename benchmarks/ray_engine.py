"""Sweeps on a real cluster of Ray whose nodes share this machine: equal rows, kills, overlap of timings, scaling, the driver's cost.

python -m benchmarks.ray_engine all                      # writes benchmarks/measured/ray.md
python -m benchmarks.ray_engine rows --keep FOLDER       # one part (kills, stopped, alone, targets, scaling, cost), kept in a folder
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
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from autotune.artifacts.store import Cache, Stored
from autotune.execution.cluster import Needs, Node, Reply
from autotune.execution.cluster_stages import ClusterStages
from autotune.execution.node import Answer, Order
from autotune.execution.ray_cluster import RayCluster
from autotune.execution.remote import RemoteExecutor
from autotune.execution.runs import run_folder
from autotune.machine import machine_digest
from autotune.results.rows import StageSpan, Trial
from autotune.results.table import read_table
from autotune.stages.jobs import Call, TinyJob
from benchmarks.ray_nodes import NODES, Nodes, driver, kill_tree, nodes_in
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
            found, expected = rows_of(self.there.folder, name), self.expected(candidates)
            equal += found == expected
            print(*(set(found) ^ set(expected)), sep="\n")
            sweeps += 1
            print(f"{name}: {dict(self.counts)}", flush=True)
        lines = [(f"kills of {what}", str(count)) for what, count in sorted(self.counts.items())]
        lines += [("exit codes of the drivers whose head was killed", ", ".join(sorted(self.ends)) or "-")]
        lines += [("sweeps, and how many ended with the rows of one that nobody disturbed", f"{sweeps}, {equal}")]
        lines += [("results finished", str(finished)), ("of them begun again after they were finished", str(again))]
        return [*lines, ("candidates that are not ok", str(lost))]

    def expected(self, candidates: int) -> list[tuple[Any, ...]]:
        """Return the rows of a sweep that nobody disturbs."""
        if not (self.there.folder / "calm" / "results.csv").exists():
            process = driver(self.there.folder, "calm", candidates, "grid", self.there.address)
            assert process.wait(timeout=300) == 0, (self.there.folder / "calm.log").read_text(encoding="utf-8")
        return rows_of(self.there.folder, "calm")

    def _sweep(self, name: str, candidates: int, kills: int) -> None:
        self.expected(candidates)
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
            self.ends[f"{process.wait(timeout=120)}"] += 1
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
    """Stop all processes of a node (SIGSTOP) until the others have done its jobs, then let them go on."""
    late, names = 0, []
    for n in range(times):
        name = f"stopped{n}"
        process = driver(there.folder, name, candidates, "grid", there.address)
        own = there.node_of_driver(name)
        time.sleep(8.0)
        node = next(
            node for node in there.workers if node.node_id != own
        )  # Ray ends with the node that it is joined by
        below = [p for infos in node.all_processes.values() for info in infos for p in family(info.process.pid)]
        for one in below:
            with contextlib.suppress(psutil.Error):
                one.suspend()
        assert process.wait(timeout=400) == 0, (there.folder / f"{name}.log").read_text(encoding="utf-8")
        before = {file: file.stat().st_mtime_ns for file in (there.folder / f"cache-{name}").glob("*/*/manifest.json")}
        for one in below:
            with contextlib.suppress(psutil.Error):
                one.resume()
        time.sleep(8.0)
        after = {file: file.stat().st_mtime_ns for file in (there.folder / f"cache-{name}").glob("*/*/manifest.json")}
        late += sum(before.get(file) != stamp for file, stamp in after.items())
        names.append(rows_of(there.folder, name))
        there.kill_node(node)
        there.add()
    return [
        ("nodes stopped until the sweep had ended, then let go on", str(times)),
        ("sweeps with the rows of one that nobody disturbed", str(sum(one == names[0] for one in names))),
        ("results that a stopped node changed when it went on", str(late)),
    ]


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
    """Run a sweep over two targets, each of whose labels one node has; then another, and kill one of the two nodes on the way."""
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


class Simulated:
    """A cluster of nodes that have done an order at once; what its files cost is taken off the time."""

    def __init__(self, nodes: int) -> None:
        self._nodes = [Node(str(n), f"host-{n}", machine_digest(), 4.0) for n in range(nodes)]
        self._replies: deque[Reply] = deque()
        self.own_s = 0.0

    def nodes(self) -> Sequence[Node]:
        """As of a cluster."""
        return self._nodes

    def send(self, order: int, text: str, needs: Needs) -> None:
        """Do the order."""
        began = time.perf_counter()
        del needs
        asked = Order.model_validate_json(text)
        folder = Path(asked.cache) / "tiny" / asked.key
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}", encoding="utf-8")
        answer = Answer(kind="done", host="host", result={"step": 1}, seconds=1.0, made=1.0, log="done\n")
        self._replies.append(Reply(order, answer.model_dump_json()))
        self.own_s += time.perf_counter() - began

    def foreign_cpu(self, nodes: Sequence[str]) -> float:
        """As of a cluster."""
        del nodes
        return 0.0

    def reply(self, patience_s: float) -> Reply | None:
        """As of a cluster."""
        del patience_s  # everything is done already
        return self._replies.popleft() if self._replies else None


def cost(nodes: int = 1000, jobs: int = 100_000) -> list[tuple[str, str]]:
    """Send jobs to a simulated cluster. Returns what the driver needs for each, and how its memory grows."""
    with tempfile.TemporaryDirectory(prefix="ray-cost-", ignore_cleanup_errors=True) as folder:
        cluster = Simulated(nodes)
        cache = Cache(Path(folder) / "cache")
        executor = RemoteExecutor(cluster, ClusterStages(cache), run_folder(cache))
        began, marks, futures = time.process_time(), [], list[Future[Stored]]()
        for seed in range(jobs):
            futures.append(executor.submit(Call(TinyJob(seed=seed)), Path(folder) / "logs" / "x.log"))
            if len(futures) >= nodes:
                executor.wait(futures[:1])
                futures = [future for future in futures if not future.done()]
                executor.artifacts.let_go()
            if seed % (jobs // 10) == jobs // 10 - 1:
                marks.append(psutil.Process().memory_info().rss / 1e6)
        while futures:
            executor.wait(futures)
            futures = [future for future in futures if not future.done()]
        spent = time.process_time() - began - cluster.own_s
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return [
        (
            f"{jobs:,} jobs, {nodes:,} workers: processor time of the driver",
            f"{spent:.0f} s, {spent / jobs * 1e3:.2f} ms a job",
        ),
        (
            "its memory after a tenth of the jobs, after all, and at most",
            f"{marks[0]:.0f} MB, {marks[-1]:.0f} MB, {most:.0f} MB",
        ),
    ]


# --- the page --------------------------------------------------------------------------------------------------------


def page(parts: dict[str, list[tuple[str, str]]]) -> str:
    """Return the page of what was measured."""
    import ray

    lines = [
        "# Sweeps on Ray", "",
        f"Ray {ray.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores; all nodes on one machine, stages sleep",
        "(`benchmarks/sleeping.py`). Written by `python -m benchmarks.ray_engine all`.", "",
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("all", "rows", "kills", "kills2", "stopped", "alone", "targets", "scaling", "cost", "page")
    )
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="where what was found is kept, a file for each part"
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=100_000)
    asked = parser.parse_args(arguments)

    def on_nodes(
        do: Callable[[Nodes], list[tuple[str, str]]],
        scale: float = 0.01,
        apart: bool = False,
        labels: Sequence[str] = (),
    ) -> list[tuple[str, str]]:
        with nodes_in(NODES, scale=scale, apart=apart, labels=labels) as there:
            return do(there)

    parts: dict[str, Callable[[], list[tuple[str, str]]]] = {
        "rows": lambda: on_nodes(rows),
        "kills": lambda: on_nodes(lambda there: Kills(there, 0).run(asked.kills, asked.candidates), 0.1),
        "kills2": lambda: on_nodes(lambda there: Kills(there, 1).run(asked.kills, asked.candidates), 0.1),
        "stopped": lambda: on_nodes(stopped, 0.2, apart=True),
        "alone": lambda: on_nodes(alone),
        "targets": lambda: on_nodes(targets, 0.05, labels=("left", "right")),
        "scaling": scaling,
        "cost": lambda: cost(jobs=asked.jobs),
    }
    titles = {
        "rows": "The same rows as locally", "kills": "Kills at random moments", "kills2": "Kills at random moments, drawn anew", "stopped": "A node that is stopped and goes on",
        "alone": "Timings alone on the host", "targets": "Two targets on two nodes", "scaling": "Scaling", "cost": "The driver's own cost",
    }  # fmt: skip
    done: dict[str, list[tuple[str, str]]] = {}
    for what in parts if asked.what in ("all", "page") else (asked.what,):
        kept = asked.keep / f"{what}.json" if asked.keep is not None else None
        if asked.what == "page" and kept is not None:
            found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
        else:
            found = parts[what]()
            if kept is not None:
                kept.write_text(json.dumps(found), encoding="utf-8")
        if found:
            done[titles[what]] = found
        print(json.dumps({titles[what]: found}, indent=1), flush=True)
    if asked.what in ("all", "page"):
        PAGE.write_text(page(done), encoding="utf-8")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
