"""Olive configurations from the command line: run to the end, planned, and written as sweep files."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TONES

from autotune.cli import main
from autotune.results.folder import read_results
from autotune.results.rows import Finalist
from autotune.results.table import read_table
from autotune.sweepfile.resolve import load_sweep
from benchmarks import olive_guide
from benchmarks.olive_files import FILES, PUBLIC, own

pytestmark = pytest.mark.usefixtures("keeps_workers")

ROOT = Path(__file__).parents[2]
GUIDE = PUBLIC / "phi3-local.json"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with phrases and their tones, and the file of the guide (or ours of its kind)."""
    rows = [{"phrase": f"{n} and on it goes, I felt {TONES[n % 4]} today", "tone": TONES[n % 4]} for n in range(60)]
    (tmp_path / "tones.json").write_text(json.dumps(rows), encoding="utf-8")
    shutil.copy(GUIDE if GUIDE.is_file() else FILES / "guide-local.json", tmp_path / "phi3-local.json")
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, place: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in the folder: exit code, stdout, stderr."""
    monkeypatch.chdir(place)

    def run(*arguments: object) -> tuple[int, str, str]:
        before = signal.getsignal(signal.SIGTERM)
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        return code, *capfd.readouterr()

    return run


def sets(model: Path, **more: object) -> list[str]:
    """The changes by which the guide's file runs on two CPU cores."""
    given: dict[str, object] = {
        "model": model, "data.train": "tones.json", "target.provider": "cpu", "train.max_length": 64,
        "target.workload": "{prompt_tokens: 4, new_tokens: 5}", "target.timing": "{processes: 2, most: 2, repeats: 0}", **more,
    }  # fmt: skip
    return [f"--set={key}={value}" for key, value in given.items()]


def best_is_verified(out: Path) -> None:
    """What lies in best/ was loaded by ONNX Runtime GenAI alone at the end, and does what is recorded."""
    (winner,) = [one for one in read_table(out / "finalists.csv", Finalist) if one["verified"] is not None]
    assert winner["verified"] is True, winner["verify_error"]
    assert winner["verified_items"] > 0
    assert (out / "best" / "onnx" / "model.onnx").is_file()


@pytest.mark.slow
def test_the_guides_file_runs_to_the_end_as_its_single_point(command: Any, place: Path, tiny_llama: Path) -> None:
    code, _, err = command("run", "phi3-local.json", "--out", "single", *sets(tiny_llama))
    assert code == 0, err
    rows = read_results(place / "single")
    (row,) = [row for row in rows if row["trial"]]
    assert (row["status"], row["lora_r"] in (16, 64), row["build_precision"]) == ("ok", True, "int4")
    assert row["lora_loss_on"] == "text"
    assert row["accuracy_n"] == 18 or row["accuracy_n"] > 8  # 30 % of 60, by content
    best_is_verified(place / "single")
    assert "trust_remote_code" in err
    assert "has no qkv_proj; its q_proj and k_proj and v_proj" in err


@pytest.mark.slow
def test_the_guides_file_is_searched(command: Any, place: Path, tiny_llama: Path) -> None:
    more = {"space.lora.steps": 2, "space.build": "[{precision: fp32}, {precision: int4}]"}
    code, _, err = command(
        "run", "phi3-local.json", "--search", "--trials", 3, "--out", "wide", *sets(tiny_llama, **more)
    )
    assert code == 0, err
    rows = [row for row in read_results(place / "wide") if row["status"] == "ok" and row["trial"]]
    assert len(rows) == 3
    assert len({row["lora_learning_rate"] for row in rows} | {row["build_precision"] for row in rows}) > 1


def test_plan_says_what_was_read_and_what_is_not_needed(command: Any, tiny_llama: Path) -> None:
    code, out, err = command("plan", "phi3-local.json", "--json", *sets(tiny_llama))
    assert code == 0, err
    plan = json.loads(out)
    assert plan["candidates"] == plan["trials"] == 1
    assert plan["metric"] == "choice"
    assert any("double_quant" in note for note in plan["notes"])
    assert any("has no qkv_proj" in note for note in plan["notes"])


def test_problems_of_the_sweep_name_the_key_of_the_olive_file(command: Any, tiny_llama: Path) -> None:
    code, _, err = command("plan", "phi3-local.json", *sets(tiny_llama)[1:])
    assert code == 2
    assert "model (from input_model.config.hf_config.model_name): no such model" in err
    code, _, err = command("plan", "phi3-local.json", *sets(tiny_llama, **{"data.train": "none.json"}))
    assert code == 2
    assert "the file must exist" in err


def test_what_is_refused_is_told_all_at_once(command: Any, place: Path) -> None:
    document = own()["build-only"]
    document["passes"]["g"] = {"type": "Gptq", "bits": 4}
    document["passes"]["w"] = {"type": "NoSuchPass"}
    document["engin"] = {}
    (place / "olive.json").write_text(json.dumps(document), encoding="utf-8")
    for arguments in (("run", "olive.json"), ("plan", "olive.json"), ("import-olive", "olive.json")):
        code, _, err = command(*arguments)
        assert code == 2
        assert "Traceback" not in err
        for said in ("passes.g.type: the pass 'Gptq' has no equal here; remove the pass", "NoSuchPass", "engin"):
            assert said in err, arguments


def test_an_import_is_written_once_and_is_the_same_sweep(command: Any, place: Path, tiny_llama: Path) -> None:
    code, out, err = command("import-olive", "phi3-local.json", "-o", "sweep.yaml")
    assert (code, out) == (0, ""), err
    assert "\n#   space.lora.batch_size: " in (place / "sweep.yaml").read_text(encoding="utf-8")
    given = [one.removeprefix("--set=") for one in sets(tiny_llama, **{"data.metric": "choice"})]
    one, other = (load_sweep(file, given).resolved() | {"name": ""} for file in ("phi3-local.json", "sweep.yaml"))
    for sweep in (one, other):
        del sweep["space"]["lora"][
            "batch_size"
        ]  # of the rows and their most tokens, which --set has changed for one of them
    assert one == other
    code, _, err = command("import-olive", "phi3-local.json", "-o", "sweep.yaml")
    assert code == 2
    assert "is there already" in err
    code, out, _ = command("import-olive", "phi3-local.json", "--search")
    assert code == 0
    assert "loguniform" in out
    code, _, err = command("import-olive", "sweep.yaml")
    assert code == 2
    assert "is no Olive configuration" in err
    code, _, err = command("plan", "sweep.yaml", "--search")
    assert code == 2
    assert "--search is for Olive configurations" in err


@pytest.mark.slow
@pytest.mark.marathon
@pytest.mark.timeout(1500)
def test_the_guides_file_runs_with_the_built_in_model_and_our_phrases(place: Path) -> None:
    out = place / "out"
    words = olive_guide.command(str(place / "phi3-local.json"), (), out)
    changes = ["data.max_items={validation: 40, test: 40}", "target.timing={processes: 3, most: 3, repeats: 0}"]
    words += [word for change in changes for word in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "-m", "autotune", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = [row for row in read_results(out) if row["trial"]]
    assert (row["status"], row["build_precision"], row["train_steps"]) == ("ok", "int4", 10)
    best_is_verified(out)
