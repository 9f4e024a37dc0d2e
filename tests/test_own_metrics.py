"""Whole sweeps whose score is the user's own: a function beside the sweep file."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import TONES

from autotune.cli import main
from autotune.errors import Exit

OWN = """\
from helpers import WEIGHT


def share(prediction, reference, item):
    \"\"\"Share of the reference's letters that are in the prediction.\"\"\"
    print("asked about", item["id"])
    return WEIGHT * sum(letter in prediction for letter in reference) / len(reference)
"""


def rows(count: int, start: int) -> list[dict[str, str]]:
    return [{"text": f"{n} I felt {TONES[n % 4]} today", "tone": TONES[n % 4]} for n in range(start, start + count)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for split, start, count in (("train", 0, 24), ("validation", 100, 12), ("test", 200, 8)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, start))
        (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "scoring.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "helpers.py").write_text("WEIGHT = 0.5\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def write(place: Path, tiny_llama: Path) -> Callable[..., Path]:
    def make(name: str, metric: str, data: dict[str, Any] | None = None, **changes: Any) -> Path:
        spec = {
            "train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl",
            "prompt": "Text: {text}\nTone:", "completion": " {tone}", "metric": metric,
        }  # fmt: skip
        sweep = {
            "name": name, "model": str(tiny_llama), "data": spec | (data or {}), "train": {"max_length": 64},
            "target": {"threads": 1, "workload": {"prompt_tokens": 4, "new_tokens": 5}, "timing": {"processes": 2, "most": 2, "repeats": 0}},
            "space": {
                "lora": {"r": {"choice": [2, 4]}, "learning_rate": 1e-2, "steps": 3, "batch_size": 4},
                "build": [{"precision": "int4"}],
            },
            "strategy": "tpe", "budget": {"trials": 2},
        }  # fmt: skip
        file = place / f"{name}.yaml"
        file.write_text(yaml.safe_dump(sweep | changes), encoding="utf-8")
        return file

    return make


@pytest.fixture
def autotune(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run a command in this process: `code, out, err = autotune("run", file)`."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        seen = capfd.readouterr()
        return code, seen.out, seen.err

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_sweep_by_a_function_of_ones_own(
    write: Callable[..., Path], place: Path, autotune: Callable[..., tuple[int, str, str]]
) -> None:
    objectives = {"custom": "minimize", "size_mb": "minimize"}
    file, out = write("own", "scoring:share", objectives=objectives, limits=["custom <= 0.9"]), place / "own"
    code, said, err = autotune("run", file, "--out", out)
    assert code == Exit.OK, err
    found = pd.read_csv(out / "results.csv", dtype={"candidate": str})
    assert set(found["status"]) == {"ok"}
    assert set(found["custom_n"]) == {12}
    assert (found["custom"].between(found["custom_low"], found["custom_high"])).all()
    assert set(found["score_name"]) == {"scoring:share"}
    assert set(found["score_direction"]) == {"minimize"}
    assert found[["accuracy", "exact_match"]].isna().all().all()
    for candidate, value in zip(found["candidate"], found["custom"], strict=True):
        kept = json.loads((out / "outcomes" / f"{candidate}.json").read_text(encoding="utf-8"))
        assert len(kept["values"]) == len(kept["predicted"]) == 12
        assert sum(kept["values"]) / 12 == pytest.approx(value, rel=1e-5)
    assert "asked about" in (out / "logs" / f"{found['candidate'][1]}.log").read_text(encoding="utf-8")
    finalists = pd.read_csv(out / "finalists.csv")
    assert set(finalists["custom_n"]) == {8}
    assert "winner on test: custom " in said

    # From the table alone, the direction is that of the sweep.
    chosen = json.loads(autotune("select", out, "--json")[1])
    assert (chosen["objectives"], chosen["paired"]) == (objectives, True)
    lone = json.loads(autotune("select", out / "results.csv", "--json")[1])
    assert lone["objectives"]["custom"] == "minimize"
    best = json.loads(autotune("select", out / "results.csv", "--prefer", "custom", "--json")[1])
    assert best["objectives"]["custom"] == "minimize"

    # Running it again scores nothing anew; with the function's code changed, it is refused by name.
    before = (out / "results.csv").read_bytes()
    assert autotune("run", file, "--out", out)[0] == Exit.OK
    (place / "helpers.py").write_text("WEIGHT = 1.0\n", encoding="utf-8")
    code, _, err = autotune("run", file, "--out", out)
    assert code == Exit.USAGE
    assert "the content of scoring.py has changed since the rows in this folder were measured" in err
    assert "another --out" in err
    assert (out / "results.csv").read_bytes() == before
    code, _, err = autotune("run", file, "--out", place / "anew")
    assert code == Exit.OK, err
    anew = pd.read_csv(place / "anew" / "results.csv")
    assert anew["custom"].to_numpy() == pytest.approx(2 * found["custom"].to_numpy(), rel=1e-5)
    assert anew["cached"].str.contains("train").sum() == 2, "nothing else is done again"


@pytest.mark.slow
def test_an_exception_in_it_costs_one_row(
    write: Callable[..., Path], place: Path, autotune: Callable[..., tuple[int, str, str]]
) -> None:
    # The untouched model is asked first; of the trials after it the second meets the mistake.
    text = OWN.replace("    print(", "    count = len(list(__import__('pathlib').Path(__file__).parent.glob('asked*')))\n"
                       "    (__import__('pathlib').Path(__file__).parent / f'asked{count}').touch()\n"
                       "    if 24 <= count < 30:\n        return 1 // (reference == '')\n    print(")  # fmt: skip
    (place / "scoring.py").write_text(text, encoding="utf-8")
    out = place / "raising"
    code, _, err = autotune("run", write("raising", "scoring:share"), "--out", out)
    assert code == Exit.OK, err
    found = pd.read_csv(out / "results.csv", dtype={"candidate": str})
    assert found["status"].tolist() == ["ok", "ok", "failed"]
    item = json.loads((out / "outcomes" / "items.validation.json").read_text(encoding="utf-8"))[0]
    assert (
        found["error"][2]
        == f"score: scoring:share raised ZeroDivisionError: integer division or modulo by zero on item {item}"
    )
    log = (out / "logs" / f"{found['candidate'][2]}.log").read_text(encoding="utf-8")
    assert "return 1 // (reference == '')" in log


def test_a_module_that_cannot_be_imported_is_refused_before_anything_is_trained(
    write: Callable[..., Path], place: Path, autotune: Callable[..., tuple[int, str, str]]
) -> None:
    (place / "helpers.py").unlink()
    file, out = write("broken", "scoring:share"), place / "broken"
    assert autotune("plan", file)[0] == Exit.OK, "a plan runs nothing of it"
    code, _, err = autotune("run", file, "--out", out)
    assert code == Exit.USAGE
    assert "data.metric: scoring:share: " in err
    assert "cannot be imported: ModuleNotFoundError: No module named 'helpers'; logs/prepare.log" in err
    assert "Traceback" not in err
    assert "Traceback" in (out / "logs" / "prepare.log").read_text(encoding="utf-8")
    assert len((out / "results.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_a_plan_never_runs_it(
    write: Callable[..., Path], place: Path, autotune: Callable[..., tuple[int, str, str]]
) -> None:
    (place / "scoring.py").write_text("open('ran', 'w').close()\n" + OWN, encoding="utf-8")
    (place / "helpers.py").write_text("open('ran', 'w').close()\nWEIGHT = 1\n", encoding="utf-8")
    code, out, _ = autotune("plan", write("planned", "scoring:share"))
    assert code == Exit.OK
    assert "12 validation" in out
    assert not list(place.glob("**/ran"))
    assert not Path("ran").exists()
    shutil.rmtree(place / "__pycache__", ignore_errors=True)


# --- A task of lm-evaluation-harness --------------------------------------------------------------------------------

TASK = """\
task: my_tones
dataset_path: json
dataset_kwargs: { data_files: { validation: validation.jsonl, test: test.jsonl } }
validation_split: validation
test_split: test
output_type: multiple_choice
doc_to_text: "Text: {{text}}\\nTone:"
doc_to_choice: [fear, joy, sadness, surprise]
doc_to_target: tone
metric_list:
  - { metric: acc, aggregation: mean, higher_is_better: true }
"""
BY_TASK: dict[str, Any] = {"validation": None, "test": None, "max_items": {"validation": 10}}


@pytest.mark.slow
def test_a_sweep_by_an_lm_eval_task_in_a_local_file(
    write: Callable[..., Path], place: Path, autotune: Callable[..., tuple[int, str, str]]
) -> None:
    (place / "tones.yaml").write_text(TASK, encoding="utf-8")
    file, out = write("task", "lm-eval:tones.yaml", BY_TASK), place / "task"
    code, said, err = autotune("plan", file)
    assert code == Exit.OK, err
    assert "data: 24 train; scored on lm-eval:tones.yaml" in said
    code, said, err = autotune("run", file, "--out", out)
    assert code == Exit.OK, err
    found = pd.read_csv(out / "results.csv", dtype={"candidate": str})
    assert set(found["status"]) == {"ok"}
    assert set(found["lm_eval_n"]) == {10}
    assert set(found["score_name"]) == {"lm-eval:tones.yaml"}
    assert set(found["score_direction"]) == {"maximize"}
    for candidate, value in zip(found["candidate"], found["lm_eval"], strict=True):
        kept = json.loads((out / "outcomes" / f"{candidate}.json").read_text(encoding="utf-8"))
        assert sum(kept["values"]) / 10 == pytest.approx(value)
    assert set(pd.read_csv(out / "finalists.csv")["lm_eval_n"]) == {8}
    assert "winner on test: lm_eval " in said
    chosen = json.loads(autotune("select", out, "--limit", "lm_eval >= 0", "--json")[1])
    assert chosen["paired"] is True

    # Another task under the same name, or the same one turned round, is refused by name.
    (place / "tones.yaml").write_text(TASK.replace("Text:", "Words:"), encoding="utf-8")
    code, _, err = autotune("run", file, "--out", out)
    assert code == Exit.USAGE
    assert "the content of test, validation and tones.yaml has changed" in err
    turned = write("turned", "lm-eval:tones.yaml", BY_TASK, objectives={"lm_eval": "minimize"})
    code, _, err = autotune("run", turned, "--out", place / "turned")
    assert code == Exit.USAGE
    assert "objectives.lm_eval: acc of this task is maximized, by its meaning, got 'minimize'" in err
