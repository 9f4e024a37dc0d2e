"""A tuned model on new data: the score of the sweep, beside the untouched model, and the items that it gets wrong."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TONES, Ran, TinySweep
from fakes import inputs_in, make_sweep

from autotune.data.schema import DataSpec
from autotune.data.scored import load_scored
from autotune.errors import Exit, UsageError
from autotune.pipeline.graph import Graph
from autotune.pipeline.shipped import task_of
from autotune.results.folder import read_outcomes, read_results
from autotune.results.rows import Trial
from autotune.shipping.task import Task, read_task

pytestmark = pytest.mark.usefixtures("keeps_workers")


def write_new(file: Path, count: int = 40, start: int = 500) -> Path:
    lines = ["text,tone", *(f"{n} I felt {TONES[n % 4]} today,{TONES[n % 4]}" for n in range(start, start + count))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def best_of(sweep: TinySweep) -> Trial:
    name = json.loads((sweep.out / "best" / "candidate.json").read_text(encoding="utf-8"))["candidate"]
    return next(row for row in read_results(sweep.out) if row.candidate == name)


def test_the_sweeps_own_validation_data_gives_the_sweeps_own_score(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran]
) -> None:
    row = best_of(tiny_sweep)
    done = autotune("score", tiny_sweep.out, "--data", tiny_sweep.file.parent / "validation.jsonl", "--json")
    assert done.code == Exit.OK, done.err
    found = json.loads(done.out)
    assert [found[name] for name in ("value", "low", "high")] == pytest.approx(
        [row[name] for name in ("accuracy", "accuracy_low", "accuracy_high")], abs=1e-6
    )
    base = next(row for row in read_results(tiny_sweep.out) if row.trial == 0)
    assert found["untouched"]["value"] == pytest.approx(base["accuracy"], abs=1e-6)
    assert found["difference"]["value"] == pytest.approx(row["accuracy"] - base["accuracy"], abs=1e-5)
    recorded = read_outcomes(tiny_sweep.out, row.candidate, "validation")
    assert recorded is not None
    wrong = {i for i, p, g in zip(recorded["ids"], recorded["predicted"], recorded["gold"], strict=True) if p != g}
    with Path(found["wrong_items"]).open(encoding="utf-8", newline="") as stream:
        told = list(csv.DictReader(stream))
    assert {line["id"] for line in told} == wrong
    assert found["wrong"] == len(wrong)
    assert all(line["answer"] != line["right"] and line["prompt"] and line["row"] for line in told)


def test_an_export_moved_away_scores_as_its_results_folder(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    new = write_new(tmp_path / "new.csv")
    assert autotune("export", tiny_sweep.out, "--to", "x", "--items", 0).code == Exit.OK
    shutil.move(tmp_path / "x", tmp_path / "away")
    told = [
        json.loads(autotune("score", place, "--data", new, "--json").out)
        for place in ("away", tiny_sweep.out, tiny_sweep.out / "best")
    ]
    for one in told:
        assert one["difference"] is not None, one["why_no_untouched"]
        assert one["items"] == 40
    assert len({(one["value"], one["untouched"]["value"], one["difference"]["low"]) for one in told}) == 1
    done = autotune("score", "away", "--data", new, "--no-base", "--wrong", "mine.csv", "--max-items", 10)
    assert done.code == Exit.OK
    assert "of 10 items (higher is better)" in done.out
    assert "not compared with the untouched model: --no-base" in done.out
    assert (tmp_path / "mine.csv").is_file()


def test_prompts_that_do_not_fit_are_counted(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    new = write_new(tmp_path / "new.csv", 8)
    with new.open("a", encoding="utf-8") as stream:
        stream.write("".join(f"{'word ' * 2000}{n},joy\n" for n in range(2)))
    done = autotune("score", tiny_sweep.out, "--data", new, "--no-base")
    assert done.code == Exit.OK, done.err
    assert "note: 2 of 10 prompts do not fit into the " in done.out
    assert "were scored without their beginning" in done.out


def test_an_export_whose_base_model_is_elsewhere_says_so(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    assert autotune("export", tiny_sweep.out, "--to", "x", "--items", 0).code == Exit.OK
    about = json.loads((tmp_path / "x" / "candidate.json").read_text(encoding="utf-8"))
    (tmp_path / "x" / "candidate.json").write_text(json.dumps(about | {"model": "gone"}), encoding="utf-8")
    done = autotune("score", "x", "--data", write_new(tmp_path / "new.csv"))
    assert done.code == Exit.OK
    assert "not compared with the untouched model: " in done.out
    del about["task"]
    (tmp_path / "x" / "candidate.json").write_text(json.dumps(about), encoding="utf-8")
    done = autotune("score", "x", "--data", "new.csv")
    assert (done.code, "does not say how the model's prompts are written" in done.err) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "the file must exist"),
        ("phrase,tone\na,joy\n", "the column must be in"),
        ("text,tone\na,anger\n", "none of the model's labels"),
        ("text,tone\n", "must have rows"),
    ],
)
def test_data_that_cannot_be_scored_is_said(
    tiny_sweep: TinySweep, autotune: Callable[..., Ran], tmp_path: Path, lines: str | None, said: str
) -> None:
    if lines is not None:
        (tmp_path / "new.csv").write_text(lines, encoding="utf-8")
    done = autotune("score", tiny_sweep.out, "--data", "new.csv")
    assert done.code == Exit.USAGE
    assert said in done.err
    assert "data.train" not in done.err, "nobody wrote that key"
    assert "Traceback" not in done.err


def test_rows_whose_label_the_model_does_not_know_are_counted_out(tmp_path: Path) -> None:
    file = write_new(tmp_path / "new.csv", 4)
    file.write_text(file.read_text(encoding="utf-8") + "new one,anger\nother,anger\n", encoding="utf-8")
    spec = DataSpec(train=str(file), prompt="{text}", completion=" {tone}")
    found = load_scored(spec, [f" {tone}" for tone in TONES])
    assert len(found.items) == 4
    (left,) = found.left_out
    assert (left.rows, left.reason) == (2, "' anger' is none of the model's labels")
    with pytest.raises(UsageError, match="must have rows to score"):
        load_scored(spec, [" other", " labels"])


def test_generated_answers_and_references(tmp_path: Path) -> None:
    file = tmp_path / "qa.csv"
    file.write_text("q,a\none,1\none,I\ntwo,2\n", encoding="utf-8")
    found = load_scored(DataSpec(train=str(file), prompt="{q}", completion=" {a}", metric="exact_match"), ())
    assert [(item.completion, item.references) for item in found.items] == [(" 1", (" I",)), (" 2", ())]


WHERE = {"language": "de"}


def test_rows_are_taken_as_the_sweep_takes_them(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    lines = [f"{n},joy,{('de', 'en')[n % 2]}" for n in range(6)]
    file.write_text("\n".join(["text,tone,language", *lines]) + "\n", encoding="utf-8")
    spec = Task(metric="choice", prompt="{text}:", completion=" {tone}", max_length=64, where=WHERE).data(str(file))
    found = load_scored(spec, [" joy"])
    assert [item.prompt for item in found.items] == ["0:", "2:", "4:"]
    assert "new.csv: 3 of 6 rows are those of data.where" in found.notes
    with pytest.raises(UsageError, match=r"none of the 6 rows of .*new.csv has this in 'language'"):
        load_scored(spec.model_copy(update={"where": {"language": "fr"}}), [" joy"])
    file.write_text("\n".join(["text,tone", *(line.rpartition(",")[0] for line in lines)]) + "\n", encoding="utf-8")
    found = load_scored(spec, [" joy"])
    assert len(found.items) == 6
    assert any("it has no column 'language', so all of its rows are scored" in note for note in found.notes)


def test_an_export_knows_which_rows_its_sweep_took(tmp_path: Path) -> None:
    sweep = make_sweep()
    where = {"language": ("de", "fr"), "stars": 5}
    changed = sweep.model_copy(update={"data": sweep.data.model_copy(update={"where": where})})
    for one, rows in ((sweep, None), (changed, where)):
        about = json.loads(json.dumps({"task": task_of(Graph(one, inputs_in(tmp_path))).plain()}))
        assert read_task(about, "candidate.json").data("new.csv").where == rows
