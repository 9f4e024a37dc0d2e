"""Assign items to splits by their content.

A hash of a row's content decides its split, and whether it is kept under a cap; its position in the file never does. So a file
may be reordered or extended without moving a row from train to test.
"""

from __future__ import annotations

import hashlib

from autotune.data.items import LeftOutPlaces, Row, Splits
from autotune.data.schema import SPLITS, DataSpec

# Changing a salt moves rows between splits: results made before and after could not be compared.
_SPLIT_SALT = "autotune/split/1"
_CAP_SALT = "autotune/max_items/1"


def _fraction(salt: str, text: str) -> float:
    """Return a number in [0, 1) that depends on salt and text alone."""
    # A float holds 53 bits exactly, so rounding never gives 1.
    return (int.from_bytes(hashlib.sha256(f"{salt}\n{text}".encode()).digest()[:8]) >> 11) / 2**53


def hold_out(spec: DataSpec, splits: Splits) -> None:
    """Move rows of train to validation and test by a hash of their content: low hashes to validation, high ones to test.

    So a change of one share moves no row of the other.
    """
    low, high = spec.holdout or 0.0, 1 - (spec.test_holdout or 0.0)
    rest: list[Row] = []
    for row in splits["train"]:
        place = _fraction(_SPLIT_SALT, row.key)
        part = splits["validation"] if place < low else splits["test"] if place >= high else rest
        part.append(row)
    splits["train"] = rest


def separate(splits: Splits, left_out: LeftOutPlaces) -> None:
    """Drop rows of validation that test has, and rows of train that either has."""
    seen: dict[str, str] = {}
    for split in reversed(SPLITS):
        kept: list[Row] = []
        for row in splits[split]:
            if other := seen.get(row.key):
                left_out[split, f"also in {other}"].append(row.place)
            else:
                kept.append(row)
        splits[split] = kept
        seen.update((row.key, split) for row in kept)


def cap(spec: DataSpec, splits: Splits, left_out: LeftOutPlaces) -> None:
    """Keep at most `max_items` rows of each split, chosen by a hash of their content."""
    for split in SPLITS:
        limit = getattr(spec.max_items, split)
        if limit is None or len(splits[split]) <= limit:
            continue
        drawn = sorted(splits[split], key=lambda row: _fraction(_CAP_SALT, row.item.id))
        chosen = {row.item.id for row in drawn[:limit]}
        left_out[split, "over max_items"] += [row.place for row in splits[split] if row.item.id not in chosen]
        splits[split] = [row for row in splits[split] if row.item.id in chosen]
