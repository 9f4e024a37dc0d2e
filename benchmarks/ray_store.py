"""Two clusters of Ray at once whose machines share an S3 store and no folder: one maker of each result, and the bytes that each
job moved, as the sweeps' own timelines report them.

The server is a local one (`benchmarks.s3_server`), and each node and each tuner has a cache of its own in front of it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from autotune.artifacts.shared_store import HERE
from autotune.artifacts.store import INPUTS
from autotune.results.rows import StageSpan, Trial
from autotune.results.table import read_table
from benchmarks.ray_nodes import Nodes, driver, nodes_in
from benchmarks.s3_server import BUCKET, serving

STORE = f"s3://{BUCKET}/cache"
SIZE = 0.1
"""How many times as large as of the model of `benchmarks.sleeping` results are."""
_PROCESSES = 2
"""Of one timing."""


def run_both(clusters: Sequence[Nodes], candidates: int, name: str = "shared") -> None:
    """Run the same sweep on each cluster, at once, to their ends; the cache is `STORE`."""
    processes = []
    for there in clusters:
        (there.folder / "base").mkdir(exist_ok=True)
        (there.folder / "base" / "weights.data").write_bytes(bytes(int(540e6 * SIZE)))
        environment = {"XDG_CACHE_HOME": str(there.folder / "home-tuner")}
        processes.append(driver(there.folder, name, candidates, "grid", there.address, (), STORE, environment))
    for there, process in zip(clusters, processes, strict=True):
        assert process.wait(timeout=900) == 0, (there.folder / f"{name}.log").read_text(encoding="utf-8")


def begun(journal: Path) -> Counter[tuple[str, str]]:
    """Return how often each job of a journal was begun, by stage and key; a timing counts once for its processes."""
    lines = (line.split() for line in journal.read_text(encoding="utf-8").splitlines())
    found = Counter((stage, key) for _, _, stage, key, what in lines if what == "began")
    return Counter({job: -(-times // _PROCESSES) if job[0] == "time" else times for job, times in found.items()})


def moved(files: Sequence[Path]) -> dict[tuple[str, str], list[float]]:
    """Return the sizes of the copies that timelines report, 10^6 bytes, by `send` or `fetch` and by the result."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for file in files:
        for span in read_table(file, StageSpan):
            if span.moved_mb is not None:
                found[span.stage, str(span.result)].append(span.moved_mb)
    return found


def in_store() -> dict[str, float]:
    """Return the size of the files of each result in the store, 10^6 bytes, without the manifests, by `STAGE/KEY`."""
    import fsspec

    sizes: Counter[str] = Counter()
    root = STORE.removeprefix("s3://") + "/"
    for path, said in fsspec.filesystem("s3", skip_instance_cache=True).find(root, detail=True).items():
        stage, key, *rest = path.removeprefix(root).split("/")
        if len(rest) > 1:  # below the token of the maker's turn
            sizes[f"{stage}/{key}"] += said["size"]
    return {name: size / 1e6 for name, size in sizes.items()}


def store(candidates: int = 8, scale: float = 0.1) -> list[tuple[str, str]]:
    """Run a sweep on two clusters at once. Returns who made what, and what was moved, in words."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving())
        os.environ["SLEEPING_SIZE"] = str(SIZE)  # until the server's environment goes
        clusters = [stack.enter_context(nodes_in(2, scale=scale, apart=True)) for _ in range(2)]
        run_both(clusters, candidates)
        journals = [begun(there.folder / "journal.txt") for there in clusters]
        copies = moved([there.folder / "shared" / "timeline.csv" for there in clusters])
        kept = in_store()
        rows = [read_table(there.folder / "shared" / "results.csv", Trial) for there in clusters]
    return [
        ("clusters, nodes of each; rows of each sweep; rows that are not ok", f"2, 2; {', '.join(str(len(table)) for table in rows)}; {sum(row.status != 'ok' for table in rows for row in table)}"),
        *makers(journals),
        *sizes(copies, kept, sum(len(each) for each in journals)),
    ]  # fmt: skip


def makers(journals: Sequence[Counter[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Return who made the results that the store keeps."""
    each = [{job: times for job, times in journal.items() if job[0] not in HERE} for journal in journals]
    both: Counter[tuple[str, str]] = Counter()
    for journal in each:
        both.update(journal)
    again = sum(times > 1 for (stage, _), times in both.items() if stage != "time")
    timings = {key: times for (stage, key), times in both.items() if stage == "time"}
    return [
        ("results that the store keeps; made by the first cluster, by the second", f"{len(both)}; {', '.join(str(len(one)) for one in each)}"),
        ("of them, timings aside, begun more than once", str(again)),
        ("timings; those that were made once more, to see whether what the other cluster timed holds", f"{len(timings)}; {sum(timings.values()) - len(timings)}"),
    ]  # fmt: skip


def sizes(copies: dict[tuple[str, str], list[float]], kept: dict[str, float], jobs: int) -> list[tuple[str, str]]:
    """Return what was moved, by stage and for each job; `kept`: what the store holds, `jobs`: how many were begun."""
    found = []
    sent, fetched = (
        {result: copy for (kind, result), copy in copies.items() if kind == what} for what in ("send", "fetch")
    )
    stages = dict.fromkeys(name.partition("/")[0] for name in [*sent, *fetched])
    for stage in sorted(stages, key=lambda one: (one != INPUTS, one)):
        there = [copy for result, copy in sent.items() if result.startswith(f"{stage}/")]
        back = [copy for result, copy in fetched.items() if result.startswith(f"{stage}/")]
        parts = [_copies("sent", there), _copies("copied to a machine", back)]
        found.append((f"{'model and items' if stage == INPUTS else stage}: bytes moved", "; ".join(parts)))
    total = sum(map(sum, copies.values()))
    twice = sum(len(copy) > 1 for copy in sent.values())
    differ = sum(abs(kept.get(name, 0.0) - sum(copy[:1])) > 1e-6 for name, copy in sent.items())
    return [
        *found,
        ("moved in all, for each job that was begun", f"{total:.1f} MB, {total / jobs:.2f} MB"),
        ("results and inputs sent more than once; whose bytes in the store are not those that were reported", f"{twice}; {differ}"),
    ]  # fmt: skip


def _copies(what: str, each: Sequence[Sequence[float]]) -> str:
    count, size = sum(map(len, each)), sum(map(sum, each))
    return f"{what} {count} times, {size:.2f} MB, {size / count:.3f} MB each" if count else f"{what} 0 times"
