"""Find rows that say the same: duplicates, prompts with two labels, and several answers to one prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from autotune.data.items import LeftOutPlaces, Row, Splits, countable, exact, item_of, make_item, normalise, question_of
from autotune.data.schema import SPLITS, DataSpec, Message, Split
from autotune.data.sources import SourceTable
from autotune.data.templates import RowError
from autotune.metrics import LABELLED


def clean(spec: DataSpec, split: Split, table: SourceTable, left_out: LeftOutPlaces, notes: list[str]) -> list[Row]:
    """Return the usable rows, each pair of prompt and answer once.

    A prompt with two labels is dropped; two prompts that differ in case only may have different labels. Where a metric has no
    labels, every answer to a prompt is kept as a reference. Rows that are dropped go into `left_out`, remarks into `notes`.
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
        row = Row(item, normalise(question_of(item)), place)
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
    """Yield (place, reason) for each row to leave out; the prompts of `members` differ in case and white space only."""
    if len({row.item.completion for row in members}) == 1 or not members[0].item.prompt:
        first = exact(question_of(members[0].item))
        for row in members[1:]:
            same = exact(question_of(row.item)) == first
            yield row.place, "duplicate" if same else "duplicate but for upper and lower case"
        return
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for row in members:
        answers[exact(row.item.prompt)].add(row.item.completion)
    seen: set[tuple[str, str]] = set()
    for row in members:
        pair = (exact(row.item.prompt) if labelled else str(row.item.prompt), row.item.completion)
        if labelled and len(answers[pair[0]]) > 1:
            yield row.place, "conflicting labels"
        elif pair in seen:
            yield row.place, "duplicate"
        seen.add(pair)


def merge_references(splits: Splits) -> int:
    """Merge rows of validation and of test that share a prompt into one item: its text is generated once and scored against
    every answer. Returns the number of rows that became references.
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
