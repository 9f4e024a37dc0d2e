"""The properties of a sweep on which the seconds of its jobs depend: model, parameters, and the length of the texts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from autotune.costs.work import Subject
from autotune.data.schema import SPLITS, Dataset
from autotune.metrics import is_task

_LOOKED_AT = 500
"""The number of items of a split whose length is measured."""
_CHARACTERS = 4.0
"""Characters of a token, about; scripts without spaces have fewer, and the first measurement corrects that."""
_AROUND = 4.0
"""Tokens that a template or a tokenizer puts around a text, about."""


def subject_of(
    model: str, parameters: float, dataset: Dataset | None, digests: Mapping[str, str], metric: str, new: int | None
) -> Subject:
    """Return the subject of a sweep; `digests`: of the splits' items; `new`: the most tokens that the sweep generates for
    an item.
    """
    tokens: dict[str, float] = {}
    answers = [0.0]
    for split in SPLITS if dataset is not None else ():
        items = getattr(dataset, split)[:_LOOKED_AT]
        if items and split in digests and (split == "train" or not is_task(metric)):
            texts = [len(str(item.prompt)) + len(item.completion) for item in items]
            tokens[digests[split]] = statistics.fmean(texts) / _CHARACTERS + _AROUND
            answers.append(max(len(item.completion) for item in items) / _CHARACTERS + 1)
    return Subject(model, parameters, tokens, float(new or max(answers) or 16.0))
