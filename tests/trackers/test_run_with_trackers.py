"""`report_to` and `--optuna-storage` through the command, on a real sweep of the tiny model."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import Ran, TinySweep

from autotune.errors import Exit
from autotune.results.folder import read_results
from autotune.results.schema import VERSION, json_schema
from autotune.trackers import clients
from autotune.trackers.to_optuna import open_storage

pytestmark = pytest.mark.usefixtures("keeps_workers", "lasting_pace")

Run = Callable[..., Ran]


def test_a_sweep_that_is_resumed_is_shown_whole_in_each_tracker(
    autotune: Run, tiny_sweep: TinySweep, tmp_path: Path
) -> None:
    """The folder was made without trackers: whatever is in it is logged, and then what is new."""
    pytest.importorskip("tensorboard")
    out, storage = tmp_path / "out", f"sqlite:///{tmp_path / 'study.db'}"
    shutil.copytree(tiny_sweep.out, out)
    for _ in range(2):
        done = autotune(
            "run", tiny_sweep.file, "--out", out, "--set", "report_to=[tensorboard]", "--optuna-storage", storage
        )
        assert done.code == Exit.OK, done.err
        assert "goes on without it" not in done.err
    rows = [row for row in read_results(out) if row.trial]
    candidates = out / "trackers" / "tensorboard" / "candidates"
    assert {path.name for path in candidates.iterdir()} == {row.candidate for row in rows}
    assert len(rows) == 6
    study = optuna.load_study(study_name="tiny", storage=open_storage(storage))
    assert sorted(str(trial.user_attrs["candidate"]) for trial in study.trials) == sorted(row.candidate for row in rows)
    assert {tuple(sorted(trial.params)) for trial in study.trials} == {("quantized_base", "recipe")}
    assert study.trials[0].distributions["quantized_base"] == optuna.distributions.CategoricalDistribution(
        ("none", "nf4")
    )
    assert {trial.params["recipe"].split()[0] for trial in study.trials} == {"fp32", "int8", "int4"}
    assert (out / "pareto.svg").is_file()
    assert json.loads((out / "inputs.json").read_text(encoding="utf-8"))["results_schema"] == VERSION
    header = (out / "results.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == json_schema("results")["x-columns"]
    assert yaml.safe_load((out / "sweep.yaml").read_text(encoding="utf-8"))["report_to"] == ["tensorboard"]


def test_a_client_that_is_missing_ends_the_command_before_it_begins(
    autotune: Run, tiny_sweep: TinySweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(clients.CLIENTS, "wandb", ("no-such-distribution",))
    done = autotune("run", tiny_sweep.file, "--out", tmp_path / "out", "--set", "report_to=[wandb]")
    assert done.code == Exit.MACHINE
    assert done.err.strip().splitlines() == [
        "autotune: report_to: wandb is not installed; pip install wandb, or take wandb out of report_to"
    ]
    assert not (tmp_path / "out").exists()


def test_a_storage_that_cannot_be_opened_ends_the_command_before_it_begins(
    autotune: Run, tiny_sweep: TinySweep, tmp_path: Path
) -> None:
    done = autotune("run", tiny_sweep.file, "--out", tmp_path / "out", "--optuna-storage", "nonsense://me:secret99@x")
    assert done.code == Exit.USAGE
    assert len(done.err.strip().splitlines()) == 2
    assert "--optuna-storage: the storage cannot be opened" in done.err
    assert "secret99" not in done.err
    assert not list((tmp_path / "out").glob("outcomes/*.json"))


def test_mistakes_in_report_to_are_told_with_the_line(autotune: Run, tiny_sweep: TinySweep, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    text = tiny_sweep.file.read_text(encoding="utf-8")
    for split in ("train", "validation", "test"):
        shutil.copy(tiny_sweep.file.parent / f"{split}.jsonl", tmp_path)
    file.write_text(text + "report_to:\n- tensorbord\n", encoding="utf-8")
    done = autotune("plan", file)
    assert done.code == Exit.USAGE
    line = text.count("\n") + 2
    assert f"{file}:{line}: report_to[0]: no such tracker, got 'tensorbord'; did you mean 'tensorboard'?" in done.err


def test_no_tracker_is_loaded_where_none_is_asked_for() -> None:
    import subprocess

    code = (
        "import sys, autotune.run; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'mlflow', 'optuna', 'tensorboard', 'trackio', 'wandb'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['optuna']")
