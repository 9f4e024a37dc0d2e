"""Replays with several workers: one worker is today's replay, timings are alone, and nothing is made twice."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from autotune.strategies.protocol import Proposal, Told
from benchmarks.search import peers, synthetic, workers
from benchmarks.search.replay import Conditions, Truth, World, replay
from benchmarks.search.table import Table, from_rows


@pytest.fixture(scope="module")
def table() -> Table:
    return from_rows(synthetic.rows(items=200, test=100))


@pytest.fixture(scope="module")
def truth(table: Table) -> Truth:
    return Truth(table)


class Hearing:
    """What became of proposals, in the order in which they ended."""

    def __init__(self) -> None:
        self.told: list[tuple[Proposal, Told]] = []

    def __call__(self, proposal: Proposal, told: Told) -> None:
        self.told.append((proposal, told))

    @property
    def asked(self) -> list[tuple[str, float, int | None]]:
        return [(proposal.candidate.id, proposal.rung, proposal.items) for proposal, _ in self.told]


@pytest.mark.parametrize("name", ["frontier", "random"])
def test_one_worker_does_what_a_replay_does(table: Table, truth: Truth, name: str) -> None:
    budget_s = 0.3 * truth.everything_s()
    whole = replay(table, truth, peers.strategy(name), Conditions(1), budget_s)
    alone = workers.play(table, truth, peers.strategy(name), Conditions(1), 1, budget_s)
    assert alone.asked == whole.asked
    assert alone.at_s == pytest.approx(whole.at_s.tolist())
    assert alone.hv == pytest.approx(whole.hv.tolist())
    assert alone.busy == pytest.approx(1.0)
    assert alone.timed == 0.0
    assert alone.reached_s(0.5) == pytest.approx(whole.reached_s(0.5))
    assert alone.reached_s(1.01) == math.inf


@pytest.mark.parametrize("count", [2, 5, 16])
@pytest.mark.parametrize("name", ["frontier", "random"])
def test_timings_are_alone_on_the_host(
    table: Table, truth: Truth, name: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[tuple[float, float, str]] = []
    start, pay = workers.Host._start, workers.Host._pay

    def started(self: workers.Host, work: workers.Work) -> None:
        assert work.stage is not None
        start(self, work)
        ends = max(end for end, _, running in self._running if running is work)
        spans.append((self.world.clock, ends, work.stage.name))
        assert len(self._running) <= count

    def paid(self: workers.Host, work: workers.Work, seconds: dict[str, float]) -> None:
        if "time" in seconds:
            spans.append((self.world.clock, self.world.clock + seconds["time"], "time"))
        pay(self, work, seconds)

    monkeypatch.setattr(workers.Host, "_start", started)
    monkeypatch.setattr(workers.Host, "_pay", paid)
    workers.play(table, truth, peers.strategy(name), Conditions(0), count, 0.2 * truth.everything_s())
    timings = [span for span in spans if span[2] == "time"]
    assert len(timings) >= 3
    for began, ended, _ in timings:
        assert not [span for span in spans if span[0] < ended - 1e-9 and began < span[1] - 1e-9 and span[0] != began]
    both = [a for a in spans for b in spans if a is not b and a[0] < b[1] and b[0] < a[1]]
    assert both  # the others do run beside one another


@pytest.mark.parametrize("count", [4, 16])
def test_many_workers_make_nothing_twice_and_end_sooner(
    table: Table, truth: Truth, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds: list[World] = []
    made = World.__init__

    def remembered(self: World, table: Table, conditions: Conditions) -> None:
        made(self, table, conditions)
        worlds.append(self)

    monkeypatch.setattr(World, "__init__", remembered)
    heard = [Hearing(), Hearing()]
    for number, several in enumerate((1, count)):
        workers.play(table, truth, peers.strategy("random"), Conditions(3), several, math.inf, heard=heard[number])
    alone, together = worlds
    assert sorted(heard[0].asked) == sorted(heard[1].asked)
    # A proposal that waits for a training that diverges pays for none of its own.
    assert together.spent["train"] <= alone.spent["train"]
    for stage in ("build", "check", "time", "score"):
        assert together.spent[stage] == pytest.approx(alone.spent[stage]), stage
    assert together.spent["start"] == pytest.approx(count * table.costs.start_s)
    assert alone.clock / count < together.clock < alone.clock / (0.5 * count)
    assert sum(sum(told.seconds.values()) for _, told in heard[1].told) < count * together.clock


def test_frontier_uses_all_workers_and_asks_for_nothing_twice(table: Table, truth: Truth) -> None:
    heard = Hearing()
    one = workers.play(table, truth, peers.strategy("frontier"), Conditions(2), 8, math.inf, heard=heard)
    assert len(heard.asked) == len(set(heard.asked)) == one.asked
    looks = [(proposal.candidate.id, proposal.rung) for proposal, _ in heard.told if proposal.rung < 1]
    assert len(looks) == len(set(looks))
    assert one.busy > 0.6
    assert one.hv[-1] > 0.95


def test_the_bound_falls_with_the_workers_to_the_longest_chain(table: Table, truth: Truth) -> None:
    bounds = [workers.bound(table, truth, 0.95, count) for count in (1, 2, 4, 16, 64)]
    assert bounds == sorted(bounds, reverse=True)
    assert 0.8 * truth.clairvoyant(0.95) < bounds[0] <= truth.clairvoyant(0.95) + 1e-6
    assert bounds[-1] == bounds[-2] > min(table.costs.time_s) + 90 * min(table.costs.step_s.values())
    for count in (1, 4):
        one = workers.play(table, truth, peers.strategy("frontier"), Conditions(0), count, math.inf, until=0.95)
        assert one.reached_s(0.95) > workers.bound(table, truth, 0.95, count)


def test_the_command_prints_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--table", "synthetic", "--strategy", "frontier", "--seeds", "1", "--slow-seeds", "1"]
    assert workers.main([*arguments, "--workers", "1", "4", "--jobs", "1", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "workers.md").read_text(encoding="utf-8") == printed
    assert printed.count("| synthetic | frontier | 1 | ") == 2
    assert "| synthetic | bound | 1 | " in printed
    lines = (tmp_path / "workers.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("table,strategy,workers,seeds,min_to_95,min_to_98")
    assert len(lines) == 1 + 2 * 2


def test_a_loop_of_a_users_own_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        workers.main(["--strategy", "optuna-tpe"])
    assert "--strategy optuna-tpe: only strategies of the tool" in capsys.readouterr().err
