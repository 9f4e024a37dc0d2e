"""Rows of labelled text for the tests of `autotune.data`: made, written to files, loaded."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from autotune.data.dataset import load_dataset
from autotune.data.items import normalise
from autotune.data.schema import Dataset, DataSpec, Item
from autotune.errors import Problem, UsageError

PUBLIC = Path(os.environ.get("AUTOTUNE_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
TEMPLATES = {"prompt": "Text: {text}\nTone:", "completion": " {tone}"}
Rows = Sequence[dict[str, Any]]


def tones(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"phrase {n}", "tone": ("joy", "fear", "anger")[n % 3]} for n in range(start, start + count)]


def jsonl(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def spec(**parts: Any) -> DataSpec:
    return DataSpec.model_validate(({} if "messages" in parts else TEMPLATES) | parts)


def load(folder: Path, train: Rows, validation: Rows | None = None, test: Rows | None = None, **parts: Any) -> Dataset:
    for split, rows in (("train", train), ("validation", validation), ("test", test)):
        if rows is not None:
            parts[split] = jsonl(folder / f"{split}.jsonl", rows)
    return load_dataset(spec(**parts), folder)


def problems(call: Callable[[], object]) -> tuple[Problem, ...]:
    with pytest.raises(UsageError) as raised:
        call()
    assert str(raised.value)
    return raised.value.problems


def complaint(**parts: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        spec(**parts)
    return str(raised.value)


def left_out(dataset: Dataset) -> dict[tuple[str, str], tuple[int, tuple[str, ...]]]:
    return {(one.split, one.reason): (one.rows, one.examples) for one in dataset.left_out}


def keys(items: Sequence[Item]) -> set[str]:
    return {normalise(item.prompt) for item in items}


def write(path: Path, rows: Rows) -> str:
    columns = list(rows[0])
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            jsonl(path, rows)
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        case suffix:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
                writer.writerow(columns)
                writer.writerows([row[column] for column in columns] for row in rows)
    return str(path)


def talk(*turns: str) -> list[dict[str, str]]:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [{"role": names[turn[0]], "content": turn[2:]} for turn in turns]


def load_file(folder: Path, name: str, content: bytes, **parts: Any) -> Dataset:
    """Write a file of train, and load it; the default share is held out for validation."""
    (folder / name).write_bytes(content)
    return load_dataset(spec(train=name, **parts), folder)
