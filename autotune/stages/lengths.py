"""Measures the lengths of the data's prompts and completions, for workloads whose lengths are `data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autotune.stages.preparation_jobs import LengthsJob
from autotune.stages.protocol import Result
from autotune.stages.score import label_tokens
from autotune.stages.text import context_length, encode, load_tokenizer, read_items

DRAWN = 8
"""Lengths that are drawn: at the middles of eight parts of equal weight."""
LEAST_NEW = 2
"""The fewest new tokens of a sequence: with fewer there is no time between tokens."""


def quantiles(lengths: list[int]) -> list[int]:
    """Return DRAWN of the lengths, the shortest first, each one that is there."""
    places = (np.arange(DRAWN) + 0.5) / DRAWN
    return [int(length) for length in np.quantile(lengths, places, method="inverted_cdf")]


def lengths(job: LengthsJob, out: Path) -> Result:
    """Result: `prompt_tokens` and `new_tokens`, DRAWN of each, ascending; `context` of the model, or None.

    Prompts are as they are scored: in the chat template, and cut to `max_length`. Raises StageError (`failed`).
    """
    del out
    tokenizer = load_tokenizer(job.base_dir, job.encoding)
    longest = max(map(len, label_tokens(tokenizer, job.labels)), default=0)
    items, _ = encode(tokenizer, read_items(job.data_file), job.max_length, longest)
    return {
        "prompt_tokens": quantiles([len(item.prompt) for item in items]),
        "new_tokens": [max(LEAST_NEW, n) for n in quantiles([len(item.completion) for item in items])],
        "context": context_length(job.base_dir),
    }
