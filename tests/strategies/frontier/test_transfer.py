"""What earlier sweeps say: which are found beside a sweep, and what they teach."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes import Sweeping, make_sweep

from autotune.candidate import Lora
from autotune.strategies.frontier.priors import worth_of
from autotune.strategies.frontier.transfer import Earlier, Taught, earlier_sweeps

LORA: dict[str, Any] = {
    "r": {"choice": [4, 8, 16]},
    "learning_rate": {"choice": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]},
    "steps": 1000,
}
SPACE = make_sweep(LORA).space
LORAS = list(dict.fromkeys(candidate.lora for candidate in SPACE.grid() if candidate.lora is not None))


def swept(folder: Path, model: str = "m", **keys: Any) -> Path:
    """Return a results folder of a sweep that was run, below `folder`."""
    sweeping = Sweeping(folder, make_sweep(LORA, **{"strategy": "random", "budget": {"trials": 20}, **keys}))
    sweeping.run()
    (sweeping.out / "inputs.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    return sweeping.out


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """Return a folder of results in which one sweep has been."""
    results = tmp_path / "results"
    shutil.copytree(swept(tmp_path / "one"), results / "one")
    return results


def test_a_sweep_of_the_same_model_is_found(beside: Path) -> None:
    (found,) = earlier_sweeps(beside / "mine", "m")
    assert found.name == "one"
    scores = [score for _, score, _ in found.adapters]
    assert scores == sorted(scores, reverse=True)
    assert len({lora for lora, _, _ in found.adapters}) == len(found.adapters) >= 4
    assert all(items == 100 for _, _, items in found.adapters)


def test_its_own_results_another_model_and_what_cannot_be_read_are_left_out(beside: Path) -> None:
    assert earlier_sweeps(beside / "one", "m") == []
    assert earlier_sweeps(beside / "mine", "another") == []
    for name, text in (("table", "\x00\xff"), ("empty", ""), ("rows", "candidate,lora_r\na,b,c\n")):
        (beside / name).mkdir()
        (beside / name / "inputs.json").write_text('{"model": "m"}', encoding="utf-8")
        (beside / name / "results.csv").write_text(text, encoding="utf-8")
    for name, text in (("list", "[]"), ("broken", "{"), ("number", "3")):
        shutil.copytree(beside / "one", beside / name)
        (beside / name / "inputs.json").write_text(text, encoding="utf-8")
    (beside / "a file").write_text("x", encoding="utf-8")
    assert [sweep.name for sweep in earlier_sweeps(beside / "mine", "m")] == ["one"]
    assert earlier_sweeps(beside / "there is" / "no such folder", "m") == []


def test_a_table_that_has_lost_a_column_is_passed_over(beside: Path) -> None:
    shutil.copytree(beside / "one", beside / "trimmed")
    with (beside / "one" / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    place = rows[0].index("trial")
    with (beside / "trimmed" / "results.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([*row[:place], *row[place + 1 :]] for row in rows)
    assert [sweep.name for sweep in earlier_sweeps(beside / "mine", "m")] == ["one"]


def test_what_was_trained_in_part_says_nothing(beside: Path, tmp_path: Path) -> None:
    folder = swept(tmp_path / "climbed", strategy="frontier", budget={"trials": 30})
    shutil.copytree(folder, beside / "climbed")
    climbed = next(sweep for sweep in earlier_sweeps(beside / "mine", "m") if sweep.name == "climbed")
    # The fakes score a tenth of the steps lower than all of them.
    whole = {lora: score for lora, score, _ in climbed.adapters}
    assert min(whole.values()) > 0.5


def test_without_earlier_sweeps_it_is_what_is_commonly_found() -> None:
    taught = Taught(SPACE, [])
    assert [taught(lora) for lora in LORAS] == [worth_of(lora) for lora in LORAS]


def taught_by(best: float, level: float = 0.6) -> Taught:
    """Return what a sweep teaches in which a rate of `best` was the best, and each factor of three costs 0.06."""
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    loras = [lora for lora in LORAS if lora.r == 8]
    away = [abs(rates.index(lora.learning_rate) - rates.index(best)) for lora in loras]
    return Taught(
        SPACE, [Earlier("one", [(lora, level - 0.06 * n, 1000) for lora, n in zip(loras, away, strict=True)])]
    )


def at(rate: float, r: int = 16) -> Lora:
    return next(lora for lora in LORAS if (lora.learning_rate, lora.r) == (rate, r))


@pytest.mark.parametrize("rate", [1e-4, 1e-2])
def test_a_rate_that_was_best_there_is_thought_better_of(rate: float) -> None:
    taught = taught_by(rate)
    assert taught(at(rate)) - worth_of(at(rate)) > 0.01
    other = 1e-2 if rate == 1e-4 else 1e-4
    assert taught(at(rate)) > taught(at(other))


def test_how_easy_that_task_was_does_not_matter() -> None:
    easy, hard = taught_by(1e-2, level=0.9), taught_by(1e-2, level=0.5)
    gaps = [taught(at(1e-2)) - taught(at(1e-4)) for taught in (easy, hard)]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.25)
    assert all(abs(taught(at(1e-3))) < 0.2 for taught in (easy, hard))


def test_a_table_that_holds_settings_which_nobody_could_train_does_no_harm(beside: Path) -> None:
    file = beside / "one" / "results.csv"
    head, *lines = file.read_text(encoding="utf-8").splitlines()
    place = head.split(",").index("lora_learning_rate")
    cells = [line.split(",") for line in lines]
    for row in cells[1:4]:
        row[place] = "0.0"
    file.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n", encoding="utf-8")
    taught = Taught(SPACE, earlier_sweeps(beside / "mine", "m"))
    assert all(-1 < taught(lora) < 1 for lora in LORAS)
