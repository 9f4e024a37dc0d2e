"""Encodes the outcomes of items for the page, which compares candidates as `select` does, and shows the items on which two
of them differ.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.analysis.selection import Entry
from autotune.errors import printable_lines
from autotune.paths import is_file
from autotune.results.texts import read_texts
from autotune.secrets import redact

MOST_DETAILED, MOST_TEXT, MOST_LABELS = 40, 400, 100_000
"""The most candidates whose answers are in the page, characters of a text, and labels."""


def packed_outcomes(metric: str, entries: Sequence[Entry], folder: Path) -> dict[str, Any] | None:
    """Return the outcomes of one score: each different row once, and `of` each entry the index of its row, -1 for none.

    Rows of 0 and 1 are `bits` in base64, the first item in the highest bit; others are numbers, see `_numbers`. Returns None
    where no entry has outcomes of that score.
    """
    rows: list[NDArray[Any]] = []
    places: dict[bytes, int] = {}
    of = []
    for entry in entries:
        own = entry.outcomes.get(metric)
        if own is None:
            of.append(-1)
            continue
        key = own.tobytes()
        if key not in places:
            places[key] = len(rows)
            rows.append(own)
        of.append(places[key])
    if not rows:
        return None
    if len({row.size for row in rows}) == 1 and all(((row == 0) | (row == 1)).all() for row in rows):
        bits = [_base64(np.packbits(row.astype(np.uint8))) for row in rows]
        return {"items": int(rows[0].size), "bits": bits, "of": of}
    first = next(entry.id for entry in entries if metric in entry.outcomes)
    return {"items": None, **_numbers(rows, _tokens(folder, first)), "of": of}


def _numbers(rows: Sequence[NDArray[Any]], tokens: float) -> dict[str, Any]:
    """Return rows of numbers, encoded without loss in the smallest of three forms that can hold them.

    `planes`: integers, of which each number is a millionth divided by `divisor` (1 or `tokens`), as the score stage rounds
    them. Each row after the first is its difference from the first, zigzag encoded; all lowest bytes come first.
    `words`: a row's few different numbers, and `of` each item the index of its number. `values`: the numbers themselves.
    """
    if len({row.size for row in rows}) == 1:
        data = np.array(rows, dtype=np.float64)
        for divisor in dict.fromkeys((1.0, tokens)):
            whole = np.rint(data * divisor * 1e6)
            if np.abs(whole).max() < 2**29 and ((whole / 1e6) / divisor == data).all():
                apart = whole.astype(np.int32)
                apart[1:] -= apart[0]
                zigzag = ((apart << 1) ^ (apart >> 31)).astype("<u4")
                planes = zigzag.reshape(-1).view(np.uint8).reshape(-1, 4).T
                return {"planes": _base64(planes), "divisor": divisor, "width": int(data.shape[1])}
    found = []
    for row in rows:
        words, of = np.unique(row.astype(np.float64), return_inverse=True)
        few = 4 * words.size <= row.size
        found.append({"words": words.tolist(), "of": of.tolist()} if few else {"values": row.tolist()})
    return {"rows": found}


def _tokens(folder: Path, candidate: str) -> float:
    """Return the mean number of tokens of an item, by which the parts of a perplexity are divided; 1 for other scores."""
    kept = _json(folder / "outcomes" / f"{candidate}.json")
    tokens = kept.get("tokens") if isinstance(kept, Mapping) else None
    try:
        return float(np.array(tokens, np.float64).mean()) if tokens else 1.0
    except (TypeError, ValueError):
        return 1.0


def _base64(data: NDArray[Any]) -> str:
    return base64.b64encode(data.tobytes()).decode("ascii")


def details_of(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the answers to the validation items, by candidate, for the first `MOST_DETAILED`; damaged files are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name in list(dict.fromkeys(names))[:MOST_DETAILED]:
        kept = _json(folder / "outcomes" / f"{name}.json")
        predicted = kept.get("predicted") if isinstance(kept, Mapping) else None
        if isinstance(kept, Mapping) and isinstance(predicted, list):
            gold = kept.get("gold")
            if not isinstance(gold, list) or len(gold) != len(predicted):
                gold = None
            found[name] = {
                "predicted": [shown(answer) for answer in predicted],
                "gold": None if gold is None else [shown(answer) for answer in gold],
            }
    return found


def items_of(folder: Path) -> dict[str, Any]:
    """Return the validation items: their ids in order, and the labels' names and the prompts if the folder has them."""
    ids = _json(folder / "outcomes" / "items.validation.json")
    names = [str(name) for name in ids] if isinstance(ids, list) else []
    labels, texts = read_texts(folder)
    prompts = [texts.get(name) for name in names] if texts else []
    return {
        "ids": names,
        "labels": [shown(label) for label in labels],
        "prompts": [None if prompt is None else shown(prompt) for prompt in prompts],
    }


def shown(value: Any) -> int | str:
    """Return a label's number as it is, and anything else as a text without secrets, of at most `MOST_TEXT` characters."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_LABELS:
        return value
    text = printable_lines(redact(str(value)))
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 3] + "..."


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")) if is_file(file) else None
    except (OSError, ValueError, RecursionError):
        return None
