"""Labelled text in, three splits out: `load_dataset` reads, cleans, splits and checks, and reports every problem at once.

Order of the work (each step sees what the one before it left):

    read -> render templates -> drop duplicates and conflicts -> hold out by content
         -> drop from train what validation or test has -> collect and check labels -> cap by content
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from autotune.data.labels import wrong_labels
from autotune.data.schema import SPLITS, Dataset, DataSpec, HubDataset, LeftOut, Split
from autotune.data.sources import SourceTable, load_table, locate
from autotune.data.splits import LeftOutPlaces, Splits, cap, clean, hold_out, separate
from autotune.errors import Problem, UsageError
from autotune.metrics import LABELLED, SCORES

_SHOWN_PLACES = 3


def _empty_splits(spec: DataSpec, splits: Splits, left_out: LeftOutPlaces) -> Iterator[Problem]:
    shares: dict[Split, tuple[str, float | None]] = {
        "train": ("train", None),
        "validation": ("holdout", spec.holdout),
        "test": ("test_holdout", spec.test_holdout),
    }
    for split, (key, share) in shares.items():
        if splits[split] or (share is None and getattr(spec, split) is None):
            continue
        # Rows lost before a share was held out were lost as rows of train.
        owners = (split,) if share is None else (split, "train")
        told = [
            f"; {len(places)} left out: {reason} ({', '.join(places[:_SHOWN_PLACES])})"
            for (where, reason), places in left_out.items()
            if where in owners
        ]
        rule = f"{split} must have rows, but none remain{''.join(told)}"
        remedy = "add rows" if share is None else "raise the share, or add rows"
        if split == "train" and (spec.holdout or spec.test_holdout):
            remedy = "lower the share that is held out, or add rows"
        yield Problem(rule, f"data.{split if share is None else key}", value=share, remedy=remedy)


def load_dataset(
    spec: DataSpec, root: Path, sweep_file: str = "", fetch: Callable[[HubDataset], Path] | None = None
) -> Dataset:
    """Read, clean, split and check the data of a sweep.

    Relative paths start at the working directory, or, if there is no such file, at `root` (the sweep file's folder).
    `fetch` turns a hub data set into a local file. Labels and their checks cover all rows, also those over
    `max_items`: a cap saves time and does not change the task. Raises UsageError with every problem found.
    """
    problems: list[Problem] = []
    tables: dict[Split, SourceTable] = {}
    for split in SPLITS:
        source, key = getattr(spec, split), f"data.{split}"
        if source is None:
            continue
        try:
            tables[split] = load_table(spec, key, locate(source, root, fetch), sweep_file)
        except UsageError as error:
            problems += [replace(one, key=one.key or key, file=one.file or sweep_file) for one in error.problems]
    _raise_any(problems)

    left_out: LeftOutPlaces = defaultdict(list)
    splits: Splits = {split: [] for split in SPLITS}
    for split, table in tables.items():
        splits[split] = clean(spec, split, table, left_out)
    hold_out(spec, splits)
    separate(splits, left_out)
    _raise_any(replace(problem, file=sweep_file) for problem in _empty_splits(spec, splits, left_out))

    labels = tuple(sorted(spec.labels or ()))
    if spec.metric in LABELLED:
        if spec.labels is None:
            labels = tuple(sorted({row.item.completion for row in splits["train"]}))
        _raise_any(replace(problem, file=sweep_file) for problem in wrong_labels(spec, labels, splits))
    elif spec.metric in SCORES:
        labels = ()
    cap(spec, splits, left_out)

    items = {split: tuple(row.item for row in rows) for split, rows in splits.items()}
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
    )


def _raise_any(problems: Iterable[Problem]) -> None:
    found = tuple(problems)
    if found:
        raise UsageError(found)
