"""What jobs are expected to take: learned from what others took, the nearest first, and kept for later sweeps."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.artifacts.store import Cache
from autotune.candidate import Recipe
from autotune.costs.estimate import Estimate, Line
from autotune.costs.evidence import costs_of
from autotune.costs.history import KEPT, History, Took
from autotune.costs.imports import Imports
from autotune.costs.model import ALIKE, LATEST, MACHINE, MODEL, SIZE, CostModel
from autotune.costs.prior import parts_of
from autotune.costs.work import Subject, Work, work_of
from autotune.stages.jobs import BuildJob, ScoreJob, TimeJob, TurnsJob

HERE = Path()
SUBJECT = Subject("m", 1e8, {"d": 40.0})
BUILD = BuildJob(source="s", recipe=Recipe(precision="int8"), provider="cpu", source_dir=HERE)
SCORE = ScoreJob(source=BUILD.key, provider="cpu", data="d", metric="choice", max_length=64, items=300)
TIME = TimeJob(graph="g", provider="cpu", prompt_tokens=32, new_tokens=16, machine="m", build=BUILD.key)


def scored(items: float, kind: str = "k", **more: float) -> Work:
    return Work("score", kind, units=items, tokens=40, parameters=1e8, **more)  # type: ignore[arg-type]


def test_before_anything_is_measured_the_size_says_it() -> None:
    small, large = (CostModel(Subject("m", parameters)).expect(BUILD) for parameters in (1e6, 1e9))
    assert (small.evidence, small.measured) == (SIZE, 0)
    assert small.seconds < large.seconds
    assert large.low < large.seconds / 2 < 2 * large.seconds < large.high


def test_what_was_measured_counts_by_how_near_it_is(tmp_path: Path) -> None:
    costs = CostModel(Subject("other", 1e8), History(tmp_path, "machine"))
    by_size = costs.expect_work(scored(100)).seconds
    for _ in range(5):
        costs.learn_work(scored(100), 10 * by_size)
    costs.about(SUBJECT, None)
    machine = costs.expect_work(scored(100))
    assert machine.evidence == MACHINE
    assert machine.seconds > 3 * by_size
    for _ in range(5):
        costs.learn_work(scored(100), 2 * by_size)
    model = costs.expect_work(scored(100, "another kind"))
    alike = costs.expect_work(scored(100))
    assert (model.evidence, alike.evidence) == (MODEL, ALIKE)
    assert model.seconds == pytest.approx(2 * by_size, rel=0.25)
    assert alike.seconds == pytest.approx(2 * by_size, rel=0.15)
    assert alike.high / alike.low < model.high / model.low < machine.high / machine.low


def test_of_many_jobs_the_latest_are_kept_and_all_are_counted() -> None:
    costs, short = CostModel(SUBJECT), CostModel(SUBJECT)
    for _ in range(10 * LATEST):
        costs.learn_work(scored(100), 5.0)
    for model in (costs, short):
        for _ in range(3 * LATEST):
            model.learn_work(scored(100), 50.0)
    found = costs.expect_work(scored(100))
    assert found.measured == costs.measured("score") == 13 * LATEST
    assert found.seconds == pytest.approx(short.expect_work(scored(100)).seconds)
    assert max(map(len, costs._seen.values())) == LATEST


def test_what_every_job_takes_is_told_from_what_its_units_take() -> None:
    draw, costs = random.Random(1), CostModel(SUBJECT)
    for items in (38, 75, 150, 300, 300, 300):
        costs.learn_work(scored(items), (5 + 0.02 * items) * draw.lognormvariate(0, 0.05))
    assert costs.expect_work(scored(38)).seconds == pytest.approx(5.8, rel=0.15)
    assert costs.expect_work(scored(3000)).seconds == pytest.approx(65, rel=0.3)


def test_imports_are_told_from_the_work() -> None:
    costs = CostModel(SUBJECT)
    for first in (True, False, False, True, False):
        costs.learn(BUILD, {}, 20.0 if first else 3.0, first)
    assert costs.expect(BUILD, first=True).seconds == pytest.approx(20, rel=0.25)
    assert costs.expect(BUILD).seconds == pytest.approx(3, rel=0.25)


def test_stages_that_share_imports_pay_for_them_once_a_worker() -> None:
    imports = Imports(workers=2)
    stages = ["probe", "build", "score", "check", "finetune", "probe", "probe", "task"]
    assert [imports.first(stage) for stage in stages] == [True, True, True, False, False, True, False, True]


def test_one_that_was_disturbed_moves_little() -> None:
    costs = CostModel(SUBJECT)
    for seconds in (10.0, 10.0, 10.0, 10.0, 300.0, 10.0):
        costs.learn(BUILD, {}, seconds)
    assert costs.expect(BUILD).seconds == pytest.approx(10, rel=0.25)


def test_scores_and_timings_know_the_recipe_of_their_build() -> None:
    known = {BUILD.key: BUILD.recipe}
    assert "int8" in work_of(SCORE, SUBJECT, known).kind
    assert work_of(SCORE, SUBJECT, known).bits < work_of(SCORE, SUBJECT, {}).bits
    assert work_of(SCORE, SUBJECT, known).units == 300
    assert work_of(SCORE, SUBJECT, known, {"items": 40}).units == 40
    assert work_of(TIME, SUBJECT, known, {"processes": [{}] * 9, "begun": 5}).units == 4
    assert work_of(TIME, SUBJECT, known).units == 5 + 0.25 * 7
    turns = TurnsJob(graphs=(TIME, TIME))
    assert work_of(turns, SUBJECT, known, {"rounds": [[{}, {}], [{}, None]]}).units == 3


@settings(deadline=None)
@given(
    st.floats(0, 1e12), st.floats(1, 1e6), st.floats(1, 1e5), st.floats(0, 1e4), st.booleans(),
    st.sampled_from(["finetune", "merge", "build", "check", "score", "time", "turns", "verify", "own", "probe", "new"]),
)  # fmt: skip
def test_any_work_has_a_price(
    parameters: float, units: float, tokens: float, decoded: float, first: bool, stage: str
) -> None:
    work = Work(stage, "", units, tokens, decoded, parameters, first=first)
    assert all(part >= 0 and math.isfinite(part) for part in parts_of(work))
    expected = CostModel().expect_work(work)
    assert 0 < expected.low < expected.seconds < expected.high < math.inf
    more = CostModel().expect_work(Work(stage, "", 2 * units, tokens, decoded, parameters, first=first))
    assert more.seconds >= expected.seconds


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(1e-3, 1e5)), min_size=1, max_size=30))
def test_whatever_was_measured_an_expectation_is_a_number(measured: list[tuple[float, float]]) -> None:
    costs = CostModel(SUBJECT)
    for items, seconds in measured:
        costs.learn_work(scored(items), seconds)
    expected = costs.expect_work(scored(10))
    assert 0 < expected.low < expected.seconds < expected.high < math.inf
    assert expected.doubt <= expected.sd


def test_what_did_not_run_says_nothing() -> None:
    costs = CostModel(SUBJECT)
    for seconds in (0.0, math.nan, math.inf, -1.0):
        costs.learn(BUILD, {}, seconds)
    assert costs.expect(BUILD).evidence == SIZE


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_later_sweep_knows_what_an_earlier_one_measured(tmp_path: Path) -> None:
    first = CostModel(SUBJECT, History(tmp_path, "machine"))
    for _ in range(4):
        first.learn(BUILD, {}, 77.0)
    second = CostModel(SUBJECT, History(tmp_path, "machine"))
    assert second.expect(BUILD) == first.expect(BUILD)
    assert CostModel(SUBJECT, History(tmp_path, "another machine")).expect(BUILD).evidence == SIZE


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    history = History(tmp_path, "machine")
    history.add([Took("m", scored(10), 3.0)])
    good = history.file.read_text(encoding="utf-8")
    plain = json.loads(good)
    damaged = [
        "", "{", "[]", "null", good[:30], json.dumps(plain | {"seconds": "x"}), json.dumps(plain | {"seconds": -1}),
        json.dumps(plain | {"work": {}}), json.dumps(plain | {"work": plain["work"] | {"units": "many"}}),
        json.dumps(plain | {"work": plain["work"] | {"later": 1}}), "[" * 100_000, "\ufffd\x00",
    ]  # fmt: skip
    history.file.write_text("\n".join([*damaged, good]), encoding="utf-8")
    assert history.read() == [Took("m", scored(10), 3.0)]
    history.file.write_bytes(b"\xff\xfe\x00" + good.encode())
    history.add([Took("m", scored(11), 3.0)])
    assert Took("m", scored(11), 3.0) in history.read()


def test_a_long_file_is_shortened_and_a_full_disk_costs_the_evidence_alone(tmp_path: Path) -> None:
    history = History(tmp_path, "machine")
    history.add([Took("m", scored(n), 3.0) for n in range(1, 2 * KEPT + 2)])
    assert len(history.read()) == KEPT
    assert len(history.file.read_text(encoding="utf-8").splitlines()) == KEPT
    assert history.read()[-1].work.units == 2 * KEPT + 1
    blocked = History(tmp_path / "file", "machine")
    (tmp_path / "file").write_text("", encoding="utf-8")
    costs = CostModel(SUBJECT, blocked)
    costs.learn(BUILD, {}, 50.0)
    assert costs.expect(BUILD).evidence == ALIKE


def test_results_of_a_cache_without_a_history_count(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def make(out: Path) -> tuple[dict[str, object], float]:
        (out / "model.onnx").write_text("x", encoding="utf-8")
        return {}, 66.0

    cache.make(BUILD, make, "m")
    expected = costs_of(cache, SUBJECT).expect(BUILD)
    assert (expected.evidence, expected.measured) == (ALIKE, 1)
    assert costs_of(cache, Subject("another", 1e8)).expect(BUILD).evidence == SIZE


# --- estimates -----------------------------------------------------------------------------------------------------------


def test_a_bill_adds_up() -> None:
    costs = CostModel(SUBJECT)
    estimate = Estimate()
    for items in (100, 200):
        estimate.add("score", costs.expect_work(scored(items)), items)
    estimate.add("time", costs.expect(TIME), times=2)
    assert estimate.lines["score"].units == 300
    assert (estimate.lines["score"].times, estimate.lines["time"].times) == (2, 2)
    both = estimate.plus(estimate)
    assert both.seconds == pytest.approx(2 * estimate.seconds) == estimate.scaled(2).seconds
    assert estimate.wall_s() == pytest.approx(estimate.seconds)
    assert estimate.wall_s(2) == pytest.approx(estimate.seconds - estimate.lines["score"].seconds / 2)
    low, high = estimate.interval(estimate.seconds)
    assert 0 < low < estimate.seconds < high


def test_jobs_of_a_stage_err_together_and_their_noise_averages_out() -> None:
    costs = CostModel(SUBJECT)
    for _ in range(20):
        costs.learn(BUILD, {}, 10.0)
    expected = costs.expect(BUILD)
    one, many = Estimate(), Estimate()
    one.add("build", expected)
    many.add("build", expected, times=100)
    widths = [high / low for low, high in (one.interval(10), many.interval(10))]
    assert widths[1] < widths[0]
    assert math.log(widths[1]) > 2 * 1.28 * expected.doubt * 0.9
    assert Line().evidence == SIZE
