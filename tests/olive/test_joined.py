"""Files whose rows Olive joins into blocks: a batch here takes as many rows as its blocks would hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import main
from autotune.sweepfile.resolve import load_sweep

TEXT = "{q} is answered by {a}"
FILE: dict[str, Any] = {
    "input_model": {"type": "HfModel", "model_path": "owner/m"},
    "data_configs": [
        {"name": "d", "type": "HuggingfaceContainer",
         "load_dataset_config": {"data_name": "json", "data_files": "rows.jsonl", "split": "train"},
         "pre_process_data_config": {"text_template": TEXT, "max_seq_len": 512}},
    ],
    "passes": {
        "l": {"type": "LoRA", "train_data_config": "d",
              "training_args": {"max_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}},
        "b": {"type": "ModelBuilder", "precision": "int4"},
    },
    "search_strategy": False,
}  # fmt: skip


def written(folder: Path, characters: int = 108, rows: int = 200, **shape: Any) -> Path:
    """Write a file of Olive's and rows whose texts have so many characters; returns the file."""
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"q": f"{n:0{characters - 17}d}", "a": "x" if n % 2 else "y"}) + "\n" for n in range(rows)),
        encoding="utf-8",
    )
    document = copy.deepcopy(FILE)
    processing = document["data_configs"][0]["pre_process_data_config"]
    processing |= shape
    document["data_configs"][0]["pre_process_data_config"] = {k: v for k, v in processing.items() if v is not None}
    file = folder / "olive.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def lora(file: Path, *sets: str) -> dict[str, Any]:
    (candidate,) = load_sweep(file, ["target.provider=cpu", *sets]).space.grid()
    assert candidate.lora is not None
    return candidate.lora.model_dump()


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"strategy": "join"},
        {"strategy": "join-sliding-window", "stride": 256},
        {"strategy": "join-random", "max_samples": 50, "random_seed": 1},
        {"text_template": None, "text_cols": ["q", "a"], "strategy": "join"},
        {"text_template": None, "text_cols": ["q"]},
    ],
    ids=["silent", "join", "window", "random", "columns", "plain text"],
)
def test_rows_that_are_joined_are_counted_into_the_batch(shape: dict[str, Any], tmp_path: Path) -> None:
    file = written(tmp_path, **shape)
    found = lora(file)
    tokens = len(file.with_name("rows.jsonl").read_text(encoding="utf-8").split('"')[3]) / 4 + 5
    assert found["batch_size"] * tokens == pytest.approx(2 * 512, rel=0.25), "as many tokens as two of Olive's blocks"
    assert (found["steps"], found["accumulation"]) == (5, 4)
    assert [note for note in load_sweep(file, ["target.provider=cpu"]).notes if "rows in place of 2" in note]


@pytest.mark.parametrize(
    "shape",
    [
        {"strategy": "line-by-line"},
        {"strategy": "line-by-line-random", "max_samples": 50, "random_seed": 1},
        {"text_template": None, "input_template": "{q}", "target_template": " {a}"},
        {"text_template": None, "input_cols": ["q"], "target_cols": ["a"]},
        {"max_seq_len": 32},
    ],
    ids=["line by line", "random lines", "pairs", "columns of pairs", "a row fills a block"],
)
def test_rows_that_stay_apart_are_the_files_own_batch(shape: dict[str, Any], tmp_path: Path) -> None:
    file = written(tmp_path, **shape)
    assert lora(file)["batch_size"] == 2
    assert not [note for note in load_sweep(file, ["target.provider=cpu"]).notes if "batch_size" in note]


def test_an_epoch_is_one_there_and_here(tmp_path: Path) -> None:
    file = written(tmp_path)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["passes"]["l"]["training_args"] = {"num_train_epochs": 3, "per_device_train_batch_size": 1}
    file.write_text(json.dumps(document), encoding="utf-8")
    (candidate,) = load_sweep(file, ["target.provider=cpu"]).space.grid()
    assert candidate.lora is not None
    blocks = 200 * (108 / 4 + 5) / 512
    assert candidate.lora.horizon(200) == pytest.approx(3 * blocks, abs=2), "steps of Olive's, not one for each row"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("space.lora.batch_size=7", 7),
        ("space.lora={r: 4, steps: 3, batch_size: 7}", 7),
        ("train.max_length=64", 4),
        ("space.lora.accumulation=1", 32),
    ],
)
def test_what_the_command_line_says_is_kept(change: str, expected: int, tmp_path: Path) -> None:
    assert lora(written(tmp_path), change)["batch_size"] == expected


def test_several_sizes_and_a_bound_on_blocks(tmp_path: Path) -> None:
    file = written(tmp_path, max_samples=3)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["search_strategy"] = True
    document["passes"]["l"]["training_args"]["per_device_train_batch_size"] = {
        "type": "Categorical", "support": [1, 2, 4096], "olive_parameter_type": "SearchParameter",
    }  # fmt: skip
    file.write_text(json.dumps(document), encoding="utf-8")
    sweep = load_sweep(file, ["target.provider=cpu"])
    assert sweep.space.lora is not None
    assert sweep.space.lora["batch_size"].values == (16, 32, 4096)
    assert sweep.data.max_items.train == 48, "three blocks"


def test_where_the_rows_are_not_at_hand_it_is_told(tmp_path: Path) -> None:
    file = written(tmp_path)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["data_configs"][0]["load_dataset_config"] = {"data_name": "owner/texts", "split": "train"}
    file.write_text(json.dumps(document), encoding="utf-8")
    assert lora(file)["batch_size"] == 2
    (note,) = [note for note in load_sweep(file, ["target.provider=cpu"]).notes if "batch_size" in note]
    assert "as many blocks of 512 tokens" in note
    assert "set it to the rows that such blocks would hold" in note


def test_an_import_says_where_the_batch_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-olive", str(written(tmp_path))]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("batch_size:")]
    assert "batch_size: 32" in line
    assert "per_device_train_batch_size" in line
    assert "would hold about 16 rows" in line


def test_a_bound_on_blocks_grows_where_the_batch_is_at_its_most_and_is_told_where_the_rows_are_elsewhere(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, max_samples=3)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["passes"]["l"]["training_args"]["per_device_train_batch_size"] = 4096
    file.write_text(json.dumps(document), encoding="utf-8")
    sweep = load_sweep(file, ["target.provider=cpu"])
    assert sweep.data.max_items.train == 3 * 16
    document["data_configs"][0]["load_dataset_config"] = {"data_name": "owner/rows", "split": "train"}
    file.write_text(json.dumps(document), encoding="utf-8")
    sweep = load_sweep(file, ["target.provider=cpu"])
    assert sweep.data.max_items.train == 3
    assert [
        note for note in sweep.notes if note.startswith("data.max_items.train: so many rows are trained on, and Olive")
    ]
