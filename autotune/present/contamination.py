"""Counts the scored items that the sweep has used before: a score on those says little about new text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from autotune.shipping.facts import read_json


def count_used_before(results: Path | None, cache: Path, ids: Collection[str], trained: bool) -> dict[str, int]:
    """Return how many of the items are in each of the sweep's splits; splits whose items are not known here are left out.

    `trained`: whether the model has an adapter, which learned from the training items.
    """
    if results is None:
        return {}
    digest = str(read_json(results / "inputs.json").get("train") or "")
    known = {"validation": _ids(results / "outcomes" / "items.validation.json")}
    if trained and digest.isalnum():
        known = {"train": _ids(cache / "items" / f"{digest}.json")} | known
    return {split: count for split, own in known.items() if (count := sum(one in own for one in ids))}


def contamination_notes(counts: Mapping[str, int], items: int) -> list[str]:
    """Return notes that say what the counts mean for the score."""
    words = {
        "train": "in the training data: a score on what a model has learned says nothing about new text",
        "validation": "in the validation data, by which this candidate was chosen: on new text expect a little less",
    }  # fmt: skip
    return [
        f"{count} of {items} items {'was' if count == 1 else 'were'} {what}"
        for split, what in words.items()
        if (count := counts.get(split, 0))
    ]


def _ids(file: Path) -> set[str]:
    """Return the ids in a file of items or of ids; empty if the file is missing or damaged."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    if not isinstance(found, list):
        return set()
    return {str(one.get("id") if isinstance(one, dict) else one) for one in found}
