"""`--optuna-storage` shows a sweep as a study: names, values, parameters with distributions, constraints, states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from following import EXAMPLE, ROW, STUDY, Growing, followed, mirror
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from waiting import until

from autotune.errors import MachineError, UsageError
from autotune.results.rows import Trial
from autotune.results.table import Table, read_table
from autotune.trackers.to_optuna import open_storage


def study_in(storage: str, name: str = "phrase-tone-cpu") -> optuna.study.Study:
    return optuna.load_study(study_name=name, storage=open_storage(storage))


def by_candidate(study: optuna.study.Study) -> dict[str, FrozenTrial]:
    trials = {str(trial.user_attrs["candidate"]): trial for trial in study.trials}
    assert len(trials) == len(study.trials), "a trial is there twice"
    return trials


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}" if request.param == "sqlite" else str(tmp_path / "study.journal")


def test_a_study_has_all_that_a_dashboard_shows_and_a_resumed_sweep_goes_on_in_it(storage: str, tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    with followed(growing.folder, mirror(storage)) as trackers:
        growing.write(4, 0)
        trackers(ROW)
        until(lambda: len(study_in(storage).trials) == 2)
        before = {name: trial._trial_id for name, trial in by_candidate(study_in(storage)).items()}
    growing.write()
    for _ in range(2):
        with followed(growing.folder, mirror(storage)):
            pass

    study, rows = study_in(storage), [row for row in growing.rows if row.trial]
    assert study.metric_names == ["accuracy", "itl_ms_p50", "size_mb"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    trials = by_candidate(study)
    assert set(trials) == {row.candidate for row in rows}
    assert {name: trials[name]._trial_id for name in before} == before, "trials that were there stay"
    base = next(row for row in growing.rows if not row.trial)
    for row in rows:
        trial = trials[row.candidate]
        assert trial.state is TrialState.COMPLETE
        assert trial.values == [row["accuracy"], row["itl_ms_p50"], row["size_mb"]]
        assert trial.params["r"] == row["lora_r"]
        assert trial.params["learning_rate"] == row["lora_learning_rate"]
        assert str(row["build_precision"]) in trial.params["recipe"]
        gap = (base.number("accuracy") or 0) + 0.29 - (row.number("accuracy") or 0)
        assert trial.constraints["accuracy >= base + 0.29"] == pytest.approx(gap)
        assert trial.constraints["size_mb <= 200"] == pytest.approx((row.number("size_mb") or 0) - 200)
        # As optuna-dashboard reads them.
        assert trial.system_attrs["constraints"] == pytest.approx([gap, (row.number("size_mb") or 0) - 200])
        assert trial.user_attrs["title"].startswith(f"trial {row.trial}: r{row['lora_r']}")
    distributions = study.trials[0].distributions
    assert distributions["r"] == CategoricalDistribution((8, 16))
    assert distributions["learning_rate"] == FloatDistribution(1e-4, 5e-3, log=True)
    feasible = {str(trial.user_attrs["candidate"]) for trial in study.best_trials}
    assert feasible
    assert all((trials[name].constraints["size_mb <= 200"]) <= 0 for name in feasible)


def row_of(trial: int, status: str, **cells: Any) -> Trial:
    about = {"candidate": f"{trial:016x}", "trial": trial, "attempt": 1, "kind": "pair", "status": status}
    like = read_table(EXAMPLE / "results.csv", Trial)[1].settings
    recipe = {name: None for name in like if name.startswith("build_")} | {"build_precision": "fp32"}
    settings = like | recipe | {"lora_r": 8, "lora_alpha": 16.0, "lora_learning_rate": 1e-3}
    times = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z"}
    return Trial({**about, **settings, **times, **cells})


MEASURED = {"accuracy": 0.5, "itl_ms_p50": 5.0, "size_mb": 100.0}


def test_states_are_those_of_optuna(storage: str, tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    table = Table(growing.folder / "results.csv", Trial)
    states = {
        "ok": "COMPLETE", "stopped": "PRUNED", "over_limit": "PRUNED", "diverged": "FAIL", "out_of_memory": "FAIL", "timeout": "FAIL",
        "failed": "FAIL", "unsupported": "FAIL", "lost": "FAIL",
    }  # fmt: skip
    for trial, status in enumerate(states, start=1):
        table.append(row_of(trial, status, **(MEASURED if status == "ok" else {"error": "why"})))
    with followed(growing.folder, mirror(storage)):
        pass
    found = by_candidate(study_in(storage))
    assert {str(trial.user_attrs["status"]): trial.state.name for trial in found.values()} == states
    assert all(trial.params for trial in found.values())
    durations = {trial.duration for trial in found.values()}
    assert [duration.total_seconds() for duration in durations if duration is not None] == [60.0]


def test_the_last_attempt_at_a_candidate_counts(storage: str, tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    table = Table(growing.folder / "results.csv", Trial)
    table.append(row_of(1, "ok", **MEASURED))
    table.append(row_of(2, "stopped"))
    with followed(growing.folder, mirror(storage)) as trackers:
        until(lambda: len(study_in(storage).trials) == 2)
        table.append(row_of(1, "ok", **MEASURED | {"itl_ms_p50": 4.5}, attempt=2))
        table.append(row_of(2, "ok", **MEASURED, attempt=2))
        trackers(ROW)
    found = by_candidate(study_in(storage))
    assert [trial.state.name for trial in found.values()] == ["COMPLETE"] * 2
    assert found[f"{1:016x}"].values == [0.5, 4.5, 100.0]
    assert found[f"{2:016x}"].user_attrs["attempt"] == "2"


def test_a_space_that_has_changed_holds_what_was_searched_before(storage: str, tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    table = Table(growing.folder / "results.csv", Trial)
    table.append(row_of(1, "ok", **MEASURED))
    with followed(growing.folder, mirror(storage)):
        pass
    table.append(row_of(2, "ok", **MEASURED, lora_r=32, lora_alpha=64.0, lora_learning_rate=2e-2))
    domains = {
        "r": {"choices": [16, 32]},
        "learning_rate": {"low": 5e-3, "high": 5e-2, "log": True, "integer": False},
        "recipe": {"choices": ["int8", "fp32"]},
    }
    with followed(growing.folder, mirror(storage, [STUDY | {"domains": domains}])):
        pass
    found = by_candidate(study_in(storage))
    assert [trial.params["r"] for trial in found.values()] == [8, 32]
    assert {trial.distributions["r"] for trial in found.values()} == {CategoricalDistribution((16, 32, 8))}
    assert {trial.distributions["learning_rate"] for trial in found.values()} == {
        FloatDistribution(1e-3, 5e-2, log=True)
    }


def test_a_ratio_is_the_choice_that_was_written(storage: str, tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    Table(growing.folder / "results.csv", Trial).append(row_of(1, "ok", **MEASURED, lora_r=3, lora_alpha=3 * 0.1))
    domains = {"alpha_over_r": {"choices": [0.1, 2]}, "target_modules": {"choices": ["attention", "q_proj+v_proj"]}}
    with followed(growing.folder, mirror(storage, [STUDY | {"domains": domains}])):
        pass
    (trial,) = study_in(storage).trials
    assert trial.params["alpha_over_r"] == 0.1


def test_each_target_has_a_study_of_its_own(storage: str, tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    table = Table(growing.folder / "results.csv", Trial)
    table.append(row_of(1, "ok", **MEASURED, target="laptop"))
    table.append(row_of(1, "stopped", candidate="b" * 16, target="gpu"))
    studies = [STUDY | {"name": f"tones-{name}", "target": name} for name in ("laptop", "gpu")]
    with followed(growing.folder, mirror(storage, studies)):
        pass
    assert [trial.state.name for trial in study_in(storage, "tones-laptop").trials] == ["COMPLETE"]
    assert [trial.state.name for trial in study_in(storage, "tones-gpu").trials] == ["PRUNED"]


def test_two_folders_with_one_name_do_not_mix(storage: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        growing = Growing(tmp_path / name)
        growing.write(4, 0)
        with followed(growing.folder, mirror(storage)):
            pass
    names = [study.study_name for study in optuna.get_all_study_summaries(open_storage(storage))]
    assert len(names) == 2
    assert len(study_in(storage).trials) == 2


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        (
            "postgresql://me:hunter2hunter2@127.0.0.1:9/x",
            MachineError,
            r"needs the package psycopg",
        ),
        ("nonsense://x", UsageError, r"the storage cannot be opened \("),
        ("sqlite:////no/such/folder/study.db", UsageError, r"unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_told_before_anything_is_trained(
    url: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    growing = Growing(tmp_path / "out")
    with pytest.raises(error, match=words) as raised, followed(growing.folder, mirror(url)):
        raise AssertionError("it began")
    assert "--optuna-storage" in str(raised.value)
    assert "hunter2" not in str(raised.value)
