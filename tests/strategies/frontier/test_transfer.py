"""What earlier sweeps say: which are found beside a sweep, and what they teach."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes import Sweeping, make_sweep

from autotune.candidate import Lora
from autotune.results.record import Record
from autotune.results.rows import Trial
from autotune.strategies.frontier.priors import prior_mean
from autotune.strategies.frontier.transfer import (
    KEPT,
    EarlierSweep,
    TransferPrior,
    _from_plain,
    _plain,
    earlier_sweeps,
    sweeps_for,
)

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
    taught = TransferPrior(SPACE, [])
    assert [taught(lora) for lora in LORAS] == [prior_mean(lora) for lora in LORAS]


def taught_by(best: float, level: float = 0.6) -> TransferPrior:
    """Return what a sweep teaches in which a rate of `best` was the best, and each factor of three costs 0.06."""
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    loras = [lora for lora in LORAS if lora.r == 8]
    away = [abs(rates.index(lora.learning_rate) - rates.index(best)) for lora in loras]
    return TransferPrior(
        SPACE, [EarlierSweep("one", [(lora, level - 0.06 * n, 1000) for lora, n in zip(loras, away, strict=True)])]
    )


def at(rate: float, r: int = 16) -> Lora:
    return next(lora for lora in LORAS if (lora.learning_rate, lora.r) == (rate, r))


@pytest.mark.parametrize("rate", [1e-4, 1e-2])
def test_a_rate_that_was_best_there_is_thought_better_of(rate: float) -> None:
    taught = taught_by(rate)
    assert taught(at(rate)) - prior_mean(at(rate)) > 0.01
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
    taught = TransferPrior(SPACE, earlier_sweeps(beside / "mine", "m"))
    assert all(-1 < taught(lora) < 1 for lora in LORAS)


# --- a sweep that goes on --------------------------------------------------------------------------------------------

ROW = Trial({"candidate": "a", "trial": 1, "attempt": 1, "kind": "pair", "status": "ok"})


def goes_on(folder: Path, rows: bool = True) -> tuple[list[EarlierSweep], list[str]]:
    """Return what a run of the command in a folder goes by, and what it says; `rows`: whether it then writes one."""
    said: list[str] = []
    with Record(folder, make_sweep(LORA)) as record:
        record.check_inputs({"model": "m"})
        found = sweeps_for(record, "m", said.append)
        if rows:
            record.results.append(ROW)
    return found, said


def settings(sweeps: list[EarlierSweep]) -> list[Any]:
    return [(one.name, list(one.adapters)) for one in sweeps]


def change(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-3]), encoding="utf-8")


def lose(file: Path) -> None:
    shutil.rmtree(file.parent)


def nothing(file: Path) -> None:
    del file


def test_what_was_used_is_noted(beside: Path) -> None:
    found, said = goes_on(beside / "mine")
    noted = json.loads((beside / "mine" / "inputs.json").read_text(encoding="utf-8"))
    sha256 = hashlib.sha256((beside / "one" / "results.csv").read_bytes()).hexdigest()
    assert noted == {
        "model": "m",
        "earlier_sweeps": [{"name": "one", "sha256": sha256, "adapters": len(found[0].adapters)}],
    }
    assert said == ["earlier sweeps of this model say where to begin: one (`earlier_sweeps: false` leaves them out)"]


@pytest.mark.parametrize(
    ("became", "words"), [(nothing, None), (change, "one has changed since"), (lose, "one is gone since")]
)
def test_a_sweep_that_goes_on_is_taught_what_it_was_taught(beside: Path, became: Any, words: str | None) -> None:
    first, _ = goes_on(beside / "mine")
    became(beside / "one" / "results.csv")
    again, said = goes_on(beside / "mine")
    assert settings(again) == settings(first)
    taught, before = TransferPrior(SPACE, again), TransferPrior(SPACE, first)
    assert [taught(lora) for lora in LORAS] == [before(lora) for lora in LORAS]  # to the last bit
    assert [line for line in said if "this one began" in line] == ([] if words is None else [
        f"the earlier sweep {words} this one began: its kept adapters are used"
    ])  # fmt: skip


def test_a_sweep_that_came_later_says_nothing(beside: Path) -> None:
    first, _ = goes_on(beside / "mine")
    shutil.copytree(beside / "one", beside / "later")
    again, said = goes_on(beside / "mine")
    assert settings(again) == settings(first)
    assert len(said) == 1
    alone = beside / "elsewhere" / "mine"
    assert goes_on(alone)[0] == []
    shutil.copytree(beside / "one", beside / "elsewhere" / "later")
    assert goes_on(alone) == ([], [])


def test_before_the_first_row_it_begins_with_what_is_there_now(beside: Path) -> None:
    assert len(goes_on(beside / "mine", rows=False)[0]) == 1
    lose(beside / "one" / "results.csv")
    assert goes_on(beside / "mine") == ([], [])


def test_a_sweep_of_an_earlier_version_notes_it_when_it_goes_on(beside: Path) -> None:
    goes_on(beside / "mine")
    (beside / "mine" / KEPT).unlink()
    (beside / "mine" / "inputs.json").write_text('{"model": "m"}', encoding="utf-8")
    found, _ = goes_on(beside / "mine")
    lose(beside / "one" / "results.csv")
    assert settings(goes_on(beside / "mine")[0]) == settings(found) != []


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "[3]", '[{"name": "one"}]', '[{"name":"one","sha256":"SHA","shared":{},"adapters":[[{},0.5,100]]}]'])  # fmt: skip
def test_where_the_copy_is_damaged_an_unchanged_table_is_read_again(beside: Path, text: str | None) -> None:
    first, _ = goes_on(beside / "mine")
    kept = beside / "mine" / KEPT
    kept.unlink() if text is None else kept.write_text(text.replace("SHA", first[0].sha256), encoding="utf-8")
    assert settings(goes_on(beside / "mine")[0]) == settings(first)
    change(beside / "one" / "results.csv")
    found, said = goes_on(beside / "mine")
    assert found == []
    assert said == [f"the earlier sweep one is no longer used: its copy in {KEPT} is lost, and its table has changed"]


@pytest.mark.parametrize("noted", [[3], [{}], [{"name": "../one", "sha256": "x"}], [{"name": "one"}], [None]])
def test_a_damaged_note_leads_nowhere(beside: Path, noted: Any) -> None:
    goes_on(beside / "mine")
    inputs = {"model": "m", "earlier_sweeps": noted}
    (beside / "mine" / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    found, said = goes_on(beside / "mine")
    assert found == []
    assert len(said) == 1


def test_the_copy_is_compact_and_exact(beside: Path) -> None:
    (one,) = earlier_sweeps(beside / "mine", "m")
    text = json.dumps(_plain(one))
    assert _from_plain(json.loads(text)) == EarlierSweep(one.name, [*one.adapters], one.sha256)
    assert len(text) < 300 + 120 * len(one.adapters)
