"""How messages name rows, labels and tensors: some of them, and how many more there are."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.data.schema import Dataset
from autotune.errors import shown

SHOWN = 4
"""Tensors, tokens or rows that a message names."""


def place_of(dataset: Dataset, split: str, item: str) -> str:
    return dataset.places.get(item, f"an item of {split}")


def exact(label: str) -> str:
    """Return a label as text, with its characters spelled out where it is not plain ASCII: two may look alike."""
    spelled = label.encode("ascii", "backslashreplace").decode("ascii")
    return shown(label) if spelled == label else f"{shown(label)} ({spelled.strip()})"


def counted(names: Sequence[object], what: str) -> str:
    return f"{len(names)} {what}" + ("s" if len(names) != 1 else "")


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def named(names: Sequence[str]) -> str:
    return listed([shown(name) for name in names])
