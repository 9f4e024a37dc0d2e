"""A target whose node is not there at the start, or goes: the others go on, and the search begins anew when such a node joins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import Inline, Watched, inputs_in
from test_targets import TwoMachines, rows_of, two

from autotune.errors import Exit, StageError
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.results.folder import read_results
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.results.table import read_table
from autotune.scheduler.events import Events
from autotune.scheduler.loop import Loop, Summary
from autotune.scheduler.search import Joined
from autotune.scheduler.shared import Shared
from autotune.scheduler.status_note import Running
from autotune.scheduler.targets import run_loops
from autotune.stages.protocol import Job
from autotune.strategies.several import make_for_targets
from autotune.sweepfile.schema import Sweep

WHY = "no node of the cluster has the resource phone"
STRATEGIES = ["grid", "random", "frontier"]


class Cluster(TwoMachines):
    """The node of the second target comes and goes with the number of jobs that were done for the first."""

    def __init__(self, root: Path, there: Callable[[int], bool]) -> None:
        super().__init__(root)
        self.there, self.before = there, 0
        self.trouble = self._look

    def _look(self, job: Job) -> None:
        on_box = getattr(job, "provider", "") == "openvino" and job.stage in ("check", "time", "score")
        if on_box and not self.there(self.before):
            raise StageError("lost", f"{job.stage}: {WHY}")
        self.before += not on_box

    def missing(self, target: str | None) -> str:
        return WHY if target == "box" and not self.there(self.before) else ""


def search(record: Record, sweep: Sweep, stages: Cluster, watched: Watched, folder: Path) -> Summary:
    """Prepare the sweep and search. Raises Joined."""
    inputs, executor = inputs_in(folder, test=True), Inline(stages)
    away = {name: why for name in sweep.by_target if (why := stages.missing(name))}
    spaces = [one.space for one in sweep.by_target.values()]
    strategy = make_for_targets(sweep.strategy, spaces, sweep.objectives, sweep.seed)

    def loop_of(name: str | None, own: Record, shared: Shared | None) -> Loop:
        assert shared is not None
        pipeline = Pipeline(
            Graph(sweep.by_target[name], inputs), sweep.by_target[name].aims, stages, None, shared.others
        )
        events = Events(watched, Running(record))
        return Loop(pipeline, sweep.budget, own, strategy, executor, events, shared=shared)

    given = list(sweep.by_target), record, executor, loop_of, strategy
    return run_loops(*given, missing=stages.missing, away=away)[0]


def run(folder: Path, sweep: Sweep, stages: Cluster) -> tuple[Summary, list[str], list[int]]:
    """Run the command. Returns the summary, the notes, and how many trials were done until each time that a node joined."""
    watched, joined = Watched(), list[int]()
    with Record(folder / "out", sweep) as record:
        while True:
            try:
                return search(record, sweep, stages, watched, folder), watched.notes, joined
            except Joined as one:
                joined.append(one.trials)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_target_without_a_node_waits_and_the_other_goes_on(tmp_path: Path, strategy: str) -> None:
    sweep, stages = two(strategy, budget={"trials": 16}), Cluster(tmp_path / "cache", lambda _: False)
    summary, notes, joined = run(tmp_path, sweep, stages)
    assert joined == []
    assert rows_of(tmp_path, "box") == []
    rows = [row for row in rows_of(tmp_path, "laptop") if row.trial]
    assert {row.status for row in rows} <= {"ok", "stopped"}
    assert sum(row.status == "ok" for row in rows) >= 6
    assert not any(row.status == "lost" for row in read_table(tmp_path / "out" / "results.csv", Trial))
    assert (summary.ended, summary.exit_code) == ("kept", Exit.NO_RESULT) or strategy == "frontier"
    assert summary.targets["laptop"].exit_code == Exit.OK
    (said,) = [line for line in notes if WHY in line]
    later = (
        "its candidates wait until such a node joins, or for the next run of the same command; the other targets go on"
    )
    assert said == f"target box: {WHY}; {later}"

    stages.there = lambda _: True  # the next run of the same command
    summary, notes, _ = run(tmp_path, sweep, stages)
    assert summary.exit_code == Exit.OK
    assert len([row for row in read_results(tmp_path / "out") if row.trial and row.status != "stopped"]) == 16
    assert (tmp_path / "out" / "best" / "box").is_dir()
    assert stages.merged == []
    assert {count for (stage, _), count in stages.keys.items() if stage != "merge"} == {
        1
    }  # nothing dear was made twice


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("after", [3, 12])
def test_a_node_that_joins_is_used_in_the_same_run(tmp_path: Path, strategy: str, after: int) -> None:
    sweep, stages = two(strategy, budget={"trials": 16}), Cluster(tmp_path / "cache", lambda jobs: jobs >= after)
    summary, _, joined = run(tmp_path, sweep, stages)
    assert len(joined) == 1
    assert summary.exit_code == Exit.OK
    rows = [row for row in read_results(tmp_path / "out") if row.trial and row.status != "stopped"]
    assert len(rows) == 16
    assert {row.status for row in rows} == {"ok"}
    assert len([row for row in rows if row.target == "box"]) >= 4
    assert joined[0] + summary.trials == 16
    assert {path.name for path in (tmp_path / "out" / "best").iterdir()} == {"laptop", "box"}
    assert {count for (stage, _), count in stages.keys.items() if stage != "merge"} == {1}
    assert stages.merged == []


def test_a_node_that_goes_and_comes_back_is_used_in_the_same_run(tmp_path: Path) -> None:
    sweep = two("grid", budget={"trials": 16})
    stages = Cluster(tmp_path / "cache", lambda jobs: not 6 <= jobs < 12)
    summary, notes, joined = run(tmp_path, sweep, stages)
    assert len(joined) == 1
    assert summary.exit_code == Exit.OK
    rows = [row for row in read_results(tmp_path / "out") if row.trial]
    assert len(rows) == 16
    assert {row.status for row in rows} == {"ok"}
    lost = [row for row in read_table(tmp_path / "out" / "results.csv", Trial) if row.status == "lost"]
    assert {row.target for row in lost} == {"box"}
    assert len({row.candidate for row in lost}) == 1
    assert len([line for line in notes if WHY in line]) == 1


def test_a_sweep_whose_targets_all_have_nodes_asks_for_nothing_more(tmp_path: Path) -> None:
    sweep, stages = two("grid", budget={"trials": 8}), Cluster(tmp_path / "cache", lambda _: True)
    summary, notes, joined = run(tmp_path, sweep, stages)
    assert (summary.ended, summary.exit_code, joined) == ("trials", Exit.OK, [])
    assert not any("wait until such a node joins" in line for line in notes)
