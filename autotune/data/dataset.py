"""Labelled text in, three splits out: `load_dataset` reads, cleans, splits and checks, and reports every problem at once.

The steps, in this order:

    read -> render templates -> drop duplicates and conflicts -> hold out by content
         -> drop from train what validation or test has -> collect and check labels -> cap by content
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from autotune.data.duplicates import clean, merge_references
from autotune.data.formats import foreign_format, format_notes
from autotune.data.items import LeftOutPlaces, Splits
from autotune.data.labels import label_notes, label_rows, wrong_labels
from autotune.data.schema import SPLITS, Dataset, DataSpec, HubDataset, LeftOut, Remote, Split, Where, chat_templates
from autotune.data.sources import Needed, SourceTable, columns_needed, load_table, locate, part_of, some_of
from autotune.data.splits import cap, hold_out, separate
from autotune.data.templates import template_columns
from autotune.errors import Problem, UsageError
from autotune.metrics import LABELLED, REFERENCED, SCORES

_SHOWN_PLACES = 3
_SHOWN_REASONS = 5
# The remedy for rows that were left out, by the beginning of the reason.
_REMEDIES = {
    "not text, but a list of messages": "name the columns of messages in data.messages: [COLUMN, COLUMN]",
    "the last message has": "write it into the content as the model's template has it, or take the key out",
    "the messages in": "name that column alone in data.messages",
    "a message with a part": "take out the rows with pictures or sound",
    "the last message is marked": "end these conversations with a message that is to be learned",
    "empty value": "fill these cells, or write {column?} where one may be empty",
    "empty prompt": "fill these cells",
    "conflicting labels": "keep one label for a prompt, or use a metric that generates text, such as exact_match",
    "also in": "name other rows: a prompt is in one split only",
    "duplicate": "add other rows",
    "not text": "name a column of texts",
    "tools": "leave tools out of the data",
    "a message that calls a tool": "leave out the calls and the tools' messages",
    "a NUL character": "take the NUL characters out of the file",
    "messages": "write the messages as JSON",
    "a message that is no object": "write each message as {role: ..., content: ...}",
    "a message without": "write each message as {role: ..., content: ...}",
    "a message of the role": "name the roles system, user and assistant",
    "the last message is not": "end these conversations with the assistant's message, or leave its last turn out",
    "fewer than two messages": "write the question and the answer into each conversation",
    "not text, but a list": "write one text in each cell: join the list's texts, or keep one",
    "not text, but an object": "write the object's fields into columns of their own",
    "not text, but bytes": "write the column as text",
    "not text, but a number of": "write these numbers with fewer digits",
    "not text, but half": "write these characters whole: the text was cut within one",
}


def _reasons(left_out: LeftOutPlaces, owners: Collection[Split]) -> tuple[str, str]:
    """Return the reasons why rows of these splits were left out, the most frequent first, and the remedy for that one."""
    found = sorted(
        ((r, places) for (where, r), places in left_out.items() if where in owners), key=lambda f: -len(f[1])
    )
    told = [f"; {len(places)} left out: {reason} ({', '.join(places[:_SHOWN_PLACES])})" for reason, places in found]
    first = found[0][0] if found else ""
    begins = [begin for begin in _REMEDIES if first.startswith(begin)]
    remedy = _REMEDIES[max(begins, key=len)] if begins else ""
    return "".join(told[:_SHOWN_REASONS]), remedy or ("correct these rows" if found else "add rows")


def _no_rows(left_out: LeftOutPlaces, split: Split) -> Problem:
    told, remedy = _reasons(left_out, (split,))
    return Problem(f"{split} must have rows, but none remain{told}", f"data.{split}", remedy=remedy)


def _empty_splits(spec: DataSpec, splits: Splits, left_out: LeftOutPlaces) -> Iterator[Problem]:
    """Yield a problem for each split that has no rows after shares were held out."""
    shares: dict[Split, tuple[str, float | None]] = {
        "train": ("train", None),
        "validation": ("holdout", spec.holdout),
        "test": ("test_holdout", spec.test_holdout),
    }
    for split, (key, share) in shares.items():
        if splits[split] or (share is None and getattr(spec, split) is None):
            continue
        if share is None and not (split == "train" and (spec.holdout or spec.test_holdout)):
            yield _no_rows(left_out, split)
            continue
        told, remedy = _reasons(left_out, (split, "train"))
        usable = sum(len(splits[one]) for one in SPLITS if one == "train" or shares[one][1])
        rows = f"{usable} usable row{'s' * (usable != 1)} in train{told}"
        rule = f"{split} must have rows, but none remain of {rows}"
        if usable > 1 and len({row.key for members in splits.values() for row in members}) == 1:
            rule = (
                f"{split} must have rows, but all {usable} usable rows have the same prompt, which is in one split only"
            )
            remedy = "name a column in it whose texts differ, or add rows with other prompts"
            yield Problem(rule, f"data.{split if share is None else key}", value=share, remedy=remedy)
            continue
        lost = sum(len(places) for (where, _), places in left_out.items() if where in (split, "train"))
        if (not usable and remedy == _REMEDIES["also in"]) or lost > usable:  # more rows are there, and are wrong
            yield Problem(rule, f"data.{split if share is None else key}", value=share, remedy=remedy)
            continue
        remedy = "lower the share that is held out, or add rows" if split == "train" else "raise the share, or add rows"
        yield Problem(rule, f"data.{split if share is None else key}", value=share, remedy=remedy)


def source_problems(
    sources: Mapping[Split, str | HubDataset], needed: Needed, root: Path, sweep_file: str, encoding: str | None = None
) -> list[Problem]:
    """Return the problems of files and columns for a sweep file that has other mistakes too, so that all are told at once."""
    return _tables(sources, needed, root, sweep_file, None, encoding)[1]


def _tables(
    sources: Mapping[Split, str | HubDataset],
    needed: Needed,
    root: Path,
    sweep_file: str,
    fetch: Callable[[Remote], Path] | None,
    encoding: str | None,
    where: Where | None = None,
) -> tuple[dict[Split, SourceTable], list[Problem]]:
    problems: list[Problem] = []
    tables: dict[Split, SourceTable] = {}
    for split, source in sources.items():
        key = f"data.{split}"
        try:
            source, part = part_of(source, root)
            tables[split] = load_table(needed, key, locate(source, root, fetch), sweep_file, encoding, part, where)
        except UsageError as error:
            problems += [replace(one, key=one.key or key, file=one.file or sweep_file) for one in error.problems]
    return tables, problems


def load_dataset(
    spec: DataSpec, root: Path, sweep_file: str = "", fetch: Callable[[Remote], Path] | None = None
) -> Dataset:
    """Read, clean, split and check the data of a sweep.

    Relative paths start at the working directory, or, if there is no such file, at `root` (the sweep file's folder).
    `fetch` turns a data set on the hub, or a file on Azure, into a local file. Labels are collected from all rows, also those
    over `max_items`: a cap saves time and does not change the task. Raises UsageError with every problem found.
    """
    sources = {split: source for split in SPLITS if (source := getattr(spec, split)) is not None}
    tables, problems = _tables(sources, columns_needed(spec), root, sweep_file, fetch, spec.encoding, spec.where)
    _raise_any(problems)
    _raise_any(
        {
            (one.key, one.rule): one for table in tables.values() for one in foreign_format(spec, table, sweep_file)
        }.values()
    )

    notes = [*template_notes(spec), *dict.fromkeys(note for table in tables.values() for note in table.notes)]
    left_out: LeftOutPlaces = defaultdict(list)
    splits = _split(spec, tables, sweep_file, left_out, notes)
    labels = _labels(spec, splits)
    rows = _rows_of_labels(spec, labels, splits, sweep_file, notes) if spec.metric in LABELLED else {}
    if spec.metric in REFERENCED and (merged := merge_references(splits)):
        notes.append(
            f"{merged} rows of validation and test are further references: a text is scored against the best of its own"
        )
    cap(spec, splits, left_out)

    items = {split: tuple(row.item for row in members) for split, members in splits.items()}
    return Dataset(
        train=items["train"],
        validation=items["validation"],
        test=items["test"],
        labels=labels,
        left_out=tuple(
            LeftOut(split=split, reason=reason, rows=len(places), examples=tuple(places[:_SHOWN_PLACES]))
            for (split, reason), places in left_out.items()
        ),
        files={str(getattr(spec, split)): table.sha256 for split, table in tables.items()},
        label_rows=rows,
        notes=tuple(notes),
        places={row.item.id: row.place for members in splits.values() for row in members},
    )


def _split(
    spec: DataSpec,
    tables: Mapping[Split, SourceTable],
    sweep_file: str,
    left_out: LeftOutPlaces,
    notes: list[str],
) -> Splits:
    """Return the cleaned rows of each split, which have no prompt in common. What is left out goes to `left_out`, what is
    worth a note to `notes`. Raises UsageError for a split without rows.
    """
    splits: Splits = {split: [] for split in SPLITS}
    for split, table in tables.items():
        notes += [f"{split}: {note}" for note in format_notes(spec, table)]
        splits[split] = clean(spec, split, table, left_out, notes)
    _raise_any(replace(_no_rows(left_out, split), file=sweep_file) for split in tables if not splits[split])
    hold_out(spec, splits)
    separate(splits, left_out)
    _raise_any(replace(problem, file=sweep_file) for problem in _empty_splits(spec, splits, left_out))
    return splits


def _rows_of_labels(
    spec: DataSpec, labels: tuple[str, ...], splits: Splits, sweep_file: str, notes: list[str]
) -> dict[str, dict[str, int]]:
    """Return how many rows of each split each label has. Notes go to `notes`. Raises UsageError for wrong labels."""
    _raise_any(replace(problem, file=sweep_file) for problem in wrong_labels(spec, labels, splits))
    rows = label_rows(labels, splits)
    notes += label_notes(rows)
    if unused := [label for label, counts in rows.items() if not sum(counts.values())]:
        notes.append(f"data.labels has {some_of(unused, 5)}, which no row has")
    return rows


def _labels(spec: DataSpec, splits: Splits) -> tuple[str, ...]:
    """Return the labels in order: those of the sweep file, or for a metric that needs them those of train."""
    if spec.metric in LABELLED and spec.labels is None:
        return tuple(sorted({row.item.completion for row in splits["train"]}))
    if spec.metric in SCORES and spec.metric not in LABELLED:
        return ()
    return tuple(sorted(spec.labels or ()))


_WRITTEN = re.compile(r"\\[nt]")
"""A backslash and a letter in a text, where a line end or a tab was probably meant."""


def template_notes(spec: DataSpec) -> list[str]:
    """Return warnings about templates that probably mean something else than was intended."""
    texts = {"data.prompt": spec.prompt, "data.completion": spec.completion, "data.text": spec.text}
    texts |= {f"data.messages[{place}].content": one.content for place, one in enumerate(chat_templates(spec.messages))}
    texts |= {f"data.stop[{place}]": text for place, text in enumerate(spec.stop or ())}
    notes = []
    if spec.prompt is not None and spec.prompt[-1:] in (" ", "\t"):
        notes.append(
            "data.prompt ends in a space, which tokenizers make part of the word after it: put it at the beginning of "
            "data.completion, and not here"
        )
    if (spec.prompt or "").endswith("\n") and (spec.completion or "").startswith(" "):
        notes.append(
            "data.prompt ends in a line end (YAML's | and > add one: |- and >- do not), and data.completion begins with a "
            "space: the model would have to begin a line with it; take one of them out"
        )
    for key, text in texts.items():
        if doubled := [
            name
            for name in template_columns(text or "")
            if re.search(rf"\{{\{{\s*{re.escape(name)}\s*\}}\}}", text or "")
        ]:
            notes.append(
                f"{key} holds '{{{{{doubled[0]}}}}}', which gives these letters in braces, and not the cell: write {{{doubled[0]}}}"
            )
        if found := re.search(r"\$\{([^{}?]+)[^{}]*\}|\{%-?\s", text or ""):
            notes.append(
                f"{key} holds {found[0]!r}: a template here knows {{column}} alone, and takes the rest as text"
            )
    return notes + [
        f"{key} holds a backslash and the letter {found[0][1]}, not a {'line end' if found[0][1] == 'n' else 'tab'}: in "
        "YAML only double quotes turn it into one"
        for key, text in texts.items()
        if (found := _WRITTEN.search(text or ""))
    ]


def _raise_any(problems: Iterable[Problem]) -> None:
    found = tuple(problems)
    if found:
        raise UsageError(found)
