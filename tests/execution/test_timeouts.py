"""How long a stage may take: learned, or as the sweep says."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.candidate import Lora, Recipe
from autotune.costs.model import CostModel
from autotune.costs.work import Subject
from autotune.execution.timeouts import FIRST_S, LEAST_S, TIMES, Timeouts
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, ScoreJob, TimeJob, TurnsJob
from autotune.stages.preparation_jobs import DevicesJob, TinyJob
from autotune.stages.protocol import Job, Result

HERE = Path()
LORA = Lora(
    r=8, alpha=16, dropout=0.0, target_modules="all-linear", learning_rate=1e-3, schedule="linear", warmup=0.1,
    batch_size=8, accumulation=2, gradient_checkpointing=False, max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.999,
    weight_decay=0.0, dtype="auto", max_length=256, steps=100,
)  # fmt: skip
TRAIN = FinetuneJob(base="b", data="d", lora=LORA, seed=0, device="cpu", base_dir=HERE, data_file=HERE)
EPOCHS = TRAIN.model_copy(update={"lora": LORA.model_copy(update={"steps": None, "epochs": 1.0})})
BUILD = BuildJob(source="s", recipe=Recipe(precision="int8"), provider="cpu", source_dir=HERE)
SCORE = ScoreJob(source="s", data="d", metric="choice", max_length=64, model_dir=HERE, data_file=HERE, items=1000)


def learned(job: Job, result: Result, *seconds: float) -> Timeouts:
    costs = CostModel()
    for place, taken in enumerate(seconds):
        costs.learn(job, result, taken, first=not place)
    return Timeouts(costs)


def between(low: float, value: float, high: float) -> None:
    assert low <= value <= high


@pytest.mark.parametrize("job", [TRAIN, BUILD, SCORE, TinyJob()])
def test_a_stage_of_which_nothing_is_known(job: Job) -> None:
    assert Timeouts(CostModel()).of(job) == FIRST_S


def test_a_stage_of_which_nothing_is_known_may_take_longer_where_its_size_says_so() -> None:
    long = SCORE.model_copy(update={"items": 10_000})
    small, large = (Timeouts(CostModel(Subject("m", parameters))) for parameters in (1e5, 7e9))
    assert small.of(long) == FIRST_S
    assert large.of(long) > TIMES * FIRST_S


def test_a_build_is_compared_with_builds_of_its_recipe() -> None:
    between(TIMES * 20, learned(BUILD, {}, 10, 35, 20).of(BUILD), TIMES * 70)
    assert learned(BUILD, {}, 1, 1).of(BUILD) == LEAST_S


def test_a_check_is_compared_with_checks() -> None:
    check = CheckJob(
        source="s", recipe=Recipe(precision="int8"), provider="cpu", data="d", max_length=64,
        model_dir=HERE, source_dir=HERE, data_file=HERE,
    )  # fmt: skip
    between(TIMES * 25, learned(check, {"texts": 8}, 30, 30, 30).of(check), TIMES * 60)


def test_a_score_is_measured_by_its_items() -> None:
    costs = CostModel(Subject("m", 1e8))
    for items in (200, 400, 200, 400, 200, 400):
        costs.learn(SCORE, {"items": items}, 0.1 * items)
    between(0.8 * TIMES * 0.1 * 1000, Timeouts(costs).of(SCORE), 2 * TIMES * 0.1 * 1000)


def test_a_training_is_measured_by_its_sequences() -> None:
    timeouts = learned(TRAIN, {"step": 50}, *[160.0] * 8)  # 0.2 s a sequence
    between(TIMES * 0.2 * 100 * 16, timeouts.of(TRAIN), 2 * TIMES * 0.2 * 100 * 16)
    ten = timeouts.of(TRAIN.model_copy(update={"stop_at": 10}))
    between(TIMES * 0.2 * 10 * 16, ten, 2 * TIMES * 0.2 * 10 * 16)
    assert timeouts.of(EPOCHS) == FIRST_S  # only the stage knows its steps


@pytest.mark.parametrize("limit", [7200.0, 90.0])
@pytest.mark.parametrize("settings", [{"steps": None, "epochs": 3.0}, {"steps": 100_000}])
def test_a_training_of_which_nothing_is_known_may_take_what_the_sweep_says(
    settings: dict[str, object], limit: float
) -> None:
    job = TRAIN.model_copy(update={"lora": LORA.model_copy(update=settings), "time_limit_s": limit})
    assert Timeouts(CostModel()).of(job) == limit + LEAST_S
    if settings["steps"] is None:  # epochs: its pace may be known, but not its steps
        assert learned(TRAIN, {"step": 50}, 160.0).of(job) == limit + LEAST_S


def test_short_texts_say_nothing_about_long_ones() -> None:
    known = learned(TRAIN, {"step": 50}, 16.0)
    for other in (
        TRAIN.model_copy(update={"data": "long texts"}),
        TRAIN.model_copy(update={"lora": LORA.model_copy(update={"max_length": 4096})}),
    ):
        assert known.of(other.model_copy(update={"time_limit_s": 9000.0})) == 9000.0 + LEAST_S
    assert learned(SCORE, {"items": 200}, 1.0).of(SCORE.model_copy(update={"data": "long texts"})) == FIRST_S


def test_a_timing_is_measured_by_its_processes_and_its_tokens() -> None:
    short = TimeJob(graph="g", provider="cpu", prompt_tokens=24, new_tokens=16, machine="m", model_dir=HERE)
    fast, slow = (learned(short, {"processes": [{}] * 5}, *[5 * each] * 8) for each in (10.0, 100.0))
    assert fast.of(short) == LEAST_S, "of one process"
    between(TIMES * 100, slow.of(short), 2 * TIMES * 100)
    turns = TurnsJob(graphs=(short, short))
    assert slow.of(turns) == slow.of(short), "of one process, too"


def test_the_sweep_has_the_last_word() -> None:
    costs = CostModel()
    costs.learn(BUILD, {}, 100.0)
    assert Timeouts(costs, {"build": 7.0}).of(BUILD) == 7.0


def test_what_a_sweep_says_of_the_questions_to_a_device_is_heard() -> None:
    """Whoever asks a device waits minutes; a slow driver may need more, and a test less."""
    asking, build = DevicesJob(provider="webgpu"), BUILD
    assert Timeouts(CostModel()).limit(asking, 180) == 180
    for seconds in (5.0, 900.0):
        assert Timeouts(CostModel(), {"devices": seconds}).limit(asking, 180) == seconds
        assert Timeouts(CostModel(), {"build": seconds}).limit(build, 180) == min(seconds, 180)
    assert Timeouts(CostModel()).limit(build) == Timeouts(CostModel()).of(build)
