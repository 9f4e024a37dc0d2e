"""The labels that a metric chooses among, and whether the splits fit them."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.data.schema import SPLITS, DataSpec
from autotune.data.sources import some_of
from autotune.data.splits import Splits
from autotune.errors import Problem, nearest

_SHOWN_LABELS = 5


def wrong_labels(spec: DataSpec, labels: tuple[str, ...], splits: Splits) -> Iterator[Problem]:
    if len(labels) < 2:
        remedy = "add rows with another completion to train, or use metric: exact_match"
        yield Problem(f"metric {spec.metric} needs two labels or more", "data.labels", value=labels, remedy=remedy)
    for split in SPLITS:
        unknown = sorted({row.item.completion for row in splits[split]}.difference(labels))
        if unknown and spec.labels is None:
            rule = f"every label of {split} must occur in train, which lacks {some_of(unknown, _SHOWN_LABELS)}"
            remedy = "add such rows to train, list all labels in data.labels, or use metric: exact_match"
            yield Problem(rule, f"data.{split if getattr(spec, split) else 'train'}", remedy=remedy)
        elif unknown:
            rule = f"labels must hold every completion exactly; {split} has {some_of(unknown, _SHOWN_LABELS)}"
            near = nearest(unknown[0], labels)
            remedy = f"write {unknown[0]!r} for {near!r}" if near else "add what is missing"
            yield Problem(rule, "data.labels", value=labels, remedy=remedy)
