"""Rows to items, and items to splits.

The idea: where a row goes depends on what it says, never on where it stands. Membership of a split, duplicates and
the rows kept under a cap are all decided by hashes of content, so that a file may be reordered or extended without
moving a row from train to test.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from autotune.data.schema import SPLITS, DataSpec, Item, Message, Split
from autotune.data.sources import SourceTable
from autotune.data.templates import RowError, cell_text, render

# Changing a salt moves rows between splits: results made before and after could not be compared.
_SPLIT_SALT = "autotune/split/1"
_CAP_SALT = "autotune/max_items/1"


class Row(NamedTuple):
    item: Item
    key: str  # the normalised prompt: rows with the same key are the same question
    place: str


Splits = dict[Split, list[Row]]
LeftOutPlaces = defaultdict[tuple[Split, str], list[str]]  # (split, reason) -> places


def normalise(prompt: str | Sequence[Message]) -> str:
    """Return the prompt with its case folded and runs of white space made one: what makes two prompts the same."""
    if isinstance(prompt, str):
        return " ".join(prompt.split()).casefold()
    return "\0".join(f"{message.role}\0{normalise(message.content)}" for message in prompt)


def make_item(prompt: str | tuple[Message, ...], completion: str) -> Item:
    """Return the item with its id filled in."""
    plain = prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
    text = json.dumps({"completion": completion, "prompt": plain}, sort_keys=True, separators=(",", ":"))
    return Item(id=hashlib.sha256(text.encode()).hexdigest()[:16], prompt=prompt, completion=completion)


def item_of(spec: DataSpec, cells: Mapping[str, object]) -> Item:
    match spec.messages:
        case None:
            assert spec.prompt is not None
            assert spec.completion is not None
            return make_item(render(spec.prompt, cells), render(spec.completion, cells))
        case str() as column:
            *before, last = conversation_of(cells.get(column))
        case templates:
            *before, last = (Message(role=one.role, content=render(one.content, cells)) for one in templates)
    return make_item(tuple(before), last.content)


def conversation_of(value: object) -> list[Message]:
    if value is None:
        raise RowError("empty value")
    if not isinstance(value, list) or len(value) < 2:
        raise RowError("not messages")
    messages: list[Message] = []
    for position, turn in enumerate(value, start=1):
        match turn:
            case {"role": "system" | "user" | "assistant" as role, "content": str() as content}:
                if position == len(value) and not content.strip():
                    raise RowError("empty completion")
                messages.append(Message(role=role, content=cell_text(content)))
            case _:
                raise RowError("not messages")
    if messages[-1].role != "assistant":
        raise RowError("not messages")
    return messages


def countable(text: str) -> bool:
    """Whether ROUGE-L finds something to count in a text: a letter, a digit, or a symbol beyond ASCII (an emoji)."""
    return any(c.isalnum() if c.isascii() else unicodedata.category(c)[0] in "LNS" for c in text)


def clean(spec: DataSpec, split: Split, table: SourceTable, left_out: LeftOutPlaces) -> list[Row]:
    """Return the usable rows, each prompt once; a prompt with two answers teaches and tests nothing, so it goes."""
    rows: list[Row] = []
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for place, cells in table.rows:
        try:
            item = item_of(spec, cells)
            if spec.metric == "rouge_l" and not countable(item.completion):
                raise RowError("a completion without letters or digits, in which rouge_l has nothing to count")
        except RowError as error:
            left_out[split, str(error)].append(place)
            continue
        row = Row(item, normalise(item.prompt), place)
        answers[row.key].add(item.completion)
        rows.append(row)
    kept: dict[str, Row] = {}
    for row in rows:
        if len(answers[row.key]) > 1:
            left_out[split, "conflicting labels"].append(row.place)
        elif row.key in kept:
            left_out[split, "duplicate"].append(row.place)
        else:
            kept[row.key] = row
    return list(kept.values())


def _fraction(salt: str, text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    # 53 bits: what a float holds exactly, so that 1 is never reached by rounding.
    return (int.from_bytes(hashlib.sha256(f"{salt}\n{text}".encode()).digest()[:8]) >> 11) / 2**53


def hold_out(spec: DataSpec, splits: Splits) -> None:
    """Move rows of train by content: the low end of the hash to validation, the high end to test.

    So adding or changing one share moves no row of the other.
    """
    low, high = spec.holdout or 0.0, 1 - (spec.test_holdout or 0.0)
    rest: list[Row] = []
    for row in splits["train"]:
        place = _fraction(_SPLIT_SALT, row.key)
        part = splits["validation"] if place < low else splits["test"] if place >= high else rest
        part.append(row)
    splits["train"] = rest


def separate(splits: Splits, left_out: LeftOutPlaces) -> None:
    """Take out of validation what test has, and out of train what either has."""
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
    for split in SPLITS:
        limit = getattr(spec.max_items, split)
        if limit is None or len(splits[split]) <= limit:
            continue
        drawn = sorted(splits[split], key=lambda row: _fraction(_CAP_SALT, row.item.id))
        chosen = {row.item.id for row in drawn[:limit]}
        left_out[split, "over max_items"] += [row.place for row in splits[split] if row.item.id not in chosen]
        splits[split] = [row for row in splits[split] if row.item.id in chosen]
