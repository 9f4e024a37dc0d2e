"""A report is made of a folder whose lesser files are missing, damaged or odd: they only add to results.csv."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pages import data_of

from autotune.report.data import read_report
from autotune.report.page import page
from benchmarks.report_folders import Shape, make_folder

DEEP = "[" * 900 + "]" * 900
ODD = {
    "machine.json": ["[]", '{"hardware": NaN}', "{", '{"packages": 5, "hardware": {"a": [1, {"b": null}]}}', DEEP],
    "outcomes/turns.json": ["{}", DEEP, '{"anchor": 1}'],
    "outcomes/texts.json": ["[]", '{"labels": [1, null], "items": {"a": 5}}', DEEP],
    "outcomes/timings.jsonl": ['{"processes": [1, {"itl_ms_p50": "x", "foreign_cpu": NaN}]}\n', "x\n", DEEP],
    "outcomes/items.validation.json": ["{}", "[1, null]", ""],
    "finalists.csv": ["role\nwinner\n", "nonsense\n", "role,candidate,accuracy\nwinner,x,inf\n", ""],
    "curves.csv": ["adapter,step\n,x\n", "adapter,step,train_loss\na,1,inf\na,2,1\n"],
    "timeline.csv": ["stage,began,ended,alone\ntrain,nan,1,true\n", "stage,began,ended\ntrain,5,1\n"],
    "runs.csv": ["started,wall_s\nx,\n", "\x00"],
    "running.json": ["{}", '{"pid": 1, "host": "x", "started": 1}'],
}


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in ODD.items() for text in texts])
def test_odd_files_do_not_hinder_a_report(name: str, content: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made", Shape(8, items=12, failures=False))
    (folder / name).write_text(content, encoding="utf-8")
    (data,) = data_of(page([read_report(folder)]))
    assert data["rows"] == 8


@pytest.mark.parametrize(
    "change",
    [
        {"predicted": [0, 1], "gold": [0]},
        {"predicted": [-1, 10**30, None, "a", 1.5, True]},
        {"predicted": {"a": 1}},
        {"metric": None},
        {"predicted": ["\ud800", "\x1b[31m"], "gold": ["a", "b"], "metric": "exact_match"},
    ],
    ids=str,
)
def test_odd_outcomes_do_not_hinder_a_report(change: dict[str, object], tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made", Shape(8, items=12, failures=False))
    for file in (folder / "outcomes").glob("[0-9a-f]*.json"):
        kept = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(kept | change), encoding="utf-8")
    (data,) = data_of(page([read_report(folder)]))
    for answers in data["answers"].values():
        assert all(isinstance(one, str) or 0 <= one < 100_000 for one in answers["predicted"])
        assert answers["gold"] is None or len(answers["gold"]) == len(answers["predicted"])


def test_a_folder_with_a_header_alone_has_a_report(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "made", Shape(3, items=5))
    lines = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    (folder / "results.csv").write_text(lines[0] + "\n", encoding="utf-8")
    (data,) = data_of(page([read_report(folder)]))
    assert (data["rows"], data["entries"], data["base"]) == (0, [], None)
