"""Describes the data of a sweep in lines, as `run` prints them."""

from __future__ import annotations

from autotune.data.schema import Dataset


def data_lines(dataset: Dataset) -> list[str]:
    """Return lines about the data: items of each split, labels, rows that were left out with the reason, notes."""
    splits = ("train", "validation", "test") if dataset.validation else ("train",)  # a task brings its own items
    counts = ", ".join(f"{len(getattr(dataset, split))} {split}" for split in splits)
    labels = f"; {len(dataset.labels)} labels" if dataset.labels else ""
    left_out = [f"{left.rows} rows of {left.split} left out: {left.reason}{left.places}" for left in dataset.left_out]
    return [f"data: {line}" for line in (counts + labels, *left_out, *dataset.notes)]
