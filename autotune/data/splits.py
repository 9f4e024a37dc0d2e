"""Rows to items, and items to splits.

The idea: where a row goes depends on what it says, never on where it stands. Membership of a split, duplicates and
the rows kept under a cap are all decided by hashes of content, so that a file may be reordered or extended without
moving a row from train to test.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from autotune.data.conversations import conversation_of
from autotune.data.schema import SPLITS, DataSpec, Item, Message, Split
from autotune.data.sources import TOOLS, SourceTable
from autotune.data.templates import RowError, render
from autotune.metrics import LABELLED

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
    """Return the prompt with its case folded and runs of white space made one: what makes two prompts alike.

    Prompts that are alike never stand in two splits.
    """
    if isinstance(prompt, str):
        return " ".join(prompt.split()).casefold()
    return "\0".join(f"{message.role}\0{normalise(message.content)}" for message in prompt)


def _exact(prompt: str | Sequence[Message]) -> str:
    """Return the prompt with runs of white space made one, its case kept."""
    if isinstance(prompt, str):
        return " ".join(prompt.split())
    return "\0".join(f"{message.role}\0{_exact(message.content)}" for message in prompt)


def make_item(prompt: str | tuple[Message, ...], completion: str, references: tuple[str, ...] = ()) -> Item:
    """Return the item with its id filled in."""
    plain = prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
    parts: dict[str, object] = {"completion": completion, "prompt": plain}
    if references:
        parts["references"] = references
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Item(id=name, prompt=prompt, completion=completion, references=references)


def item_of(spec: DataSpec, cells: Mapping[str, object]) -> Item:
    """Return the item that a row makes. Raises RowError with the reason why it makes none."""
    match spec.messages:
        case None:
            assert spec.prompt is not None
            assert spec.completion is not None
            prompt = render(spec.prompt, cells)
            if not prompt.strip():
                raise RowError("empty prompt")
            return make_item(prompt, render(spec.completion, cells))
        case str() as column:
            if any(cells.get(name) for name in TOOLS if name != column):
                raise RowError("tools are offered, and no tool is written into the prompt")
            *before, last = conversation_of(cells.get(column))
        case templates:
            turns = [Message(role=one.role, content=render(one.content, cells)) for one in templates]
            # A message of nothing but empty optional cells is no message: a system prompt that some rows have.
            *before, last = [turn for turn in turns if turn.content.strip()]
            if not before:
                raise RowError("empty prompt")
    return make_item(tuple(before), last.content)


def countable(text: str) -> bool:
    """Whether ROUGE-L finds something to count in a text: a letter, a digit, or a symbol beyond ASCII (an emoji)."""
    return any(c.isalnum() if c.isascii() else unicodedata.category(c)[0] in "LNS" for c in text)


def clean(spec: DataSpec, split: Split, table: SourceTable, left_out: LeftOutPlaces, notes: list[str]) -> list[Row]:
    """Return the usable rows, each prompt and answer once.

    A prompt with two labels teaches and tests nothing, so it goes; where the case of its letters tells the labels apart,
    it stays. Where there are no labels, every answer to a prompt stays: they are references.
    """
    rows: list[Row] = []
    alike: defaultdict[str, list[Row]] = defaultdict(list)
    for place, cells in table.rows:
        try:
            item = item_of(spec, cells)
            if spec.metric == "rouge_l" and not countable(item.completion):
                raise RowError("a completion without letters or digits, in which rouge_l has nothing to count")
        except RowError as error:
            left_out[split, str(error)].append(place)
            continue
        row = Row(item, normalise(item.prompt), place)
        alike[row.key].append(row)
        rows.append(row)
    if len(alike) == len(rows):
        return rows
    dropped: dict[str, str] = {}
    for members in alike.values():
        if len(members) > 1:
            dropped.update(_superfluous(members, spec.metric in LABELLED))
    kept = []
    for row in rows:
        if reason := dropped.get(row.place):
            left_out[split, reason].append(row.place)
        else:
            kept.append(row)
    prompts = Counter(row.key for row in kept)
    if several := sum(count for count in prompts.values() if count > 1):
        if spec.metric in LABELLED:
            notes.append(
                f"{several} rows of {split} have prompts that differ from another's in upper and lower case only, and "
                "have other labels: they are kept"
            )
        else:
            of = sum(count > 1 for count in prompts.values())
            notes.append(f"{several} rows of {split} are answers to {of} prompts that have several: all are kept")
    return kept


def _superfluous(members: Sequence[Row], labelled: bool) -> Iterator[tuple[str, str]]:
    """Yield (place, reason) of the rows to leave out among those whose prompts are alike but for case and white space."""
    if len({row.item.completion for row in members}) == 1:
        first = _exact(members[0].item.prompt)
        for row in members[1:]:
            same = _exact(row.item.prompt) == first
            yield row.place, "duplicate" if same else "duplicate but for upper and lower case"
        return
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for row in members:
        answers[_exact(row.item.prompt)].add(row.item.completion)
    seen: set[tuple[str, str]] = set()
    for row in members:
        pair = (_exact(row.item.prompt) if labelled else str(row.item.prompt), row.item.completion)
        if labelled and len(answers[pair[0]]) > 1:
            yield row.place, "conflicting labels"
        elif pair in seen:
            yield row.place, "duplicate"
        seen.add(pair)


def merge_references(splits: Splits) -> int:
    """Make one item of the rows of validation and of test that share a prompt: a text is generated once, and scored
    against every answer. Returns how many rows became references.
    """
    merged = 0
    for split in SPLITS[1:]:
        rows: dict[str | tuple[Message, ...], list[Row]] = {}
        for row in splits[split]:
            rows.setdefault(row.item.prompt, []).append(row)
        merged += len(splits[split]) - len(rows)
        splits[split] = [_with_references(members) for members in rows.values()]
    return merged


def _with_references(members: Sequence[Row]) -> Row:
    first, *others = members
    if not others:
        return first
    references = tuple(row.item.completion for row in others)
    return first._replace(item=make_item(first.item.prompt, first.item.completion, references))


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
