"""Which token a built model names for padding: one that never ends a prompt.

ONNX Runtime GenAI passes over tokens for padding at the end of a prompt when it takes the logits of its last token. Where a
prompt ends with that token (with the end-of-text token, or with "!", where the settings name 0 for padding), it goes on from
the middle of the prompt instead. Scoring does not, and neither does PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from itertools import chain
from pathlib import Path
from typing import Any

from autotune.stages.text import end_tokens


def padding(folder: Path, tokenizer: Any, rows: int, used: Collection[int], last: Collection[int]) -> int | None:
    """Return the token for padding that a build of the model in `folder` needs; None where that of its settings may stay.

    `rows`: of the embedding; `used`: tokens that the data uses; `last`: those that prompts end with.
    """
    ends = end_tokens(folder, tokenizer)
    special = {token for token, about in tokenizer.added_tokens_decoder.items() if about.special}
    apart = list(range(max(tokenizer.get_vocab().values()) + 1, rows))
    named = _named(folder, tokenizer, min(ends))
    if named not in last and (named in special or named in apart):
        return None
    taken = {*ends, *used, *last}
    free = chain((tokenizer.pad_token_id,), apart, sorted(special), range(rows - 1, -1, -1))
    return next((token for token in free if token is not None and token < rows and token not in taken), None)


def _named(folder: Path, tokenizer: Any, end: int) -> int:
    """Return the token that the model builder names: of the model's settings, or the tokenizer's, or an end of a text."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = json.loads((folder / name).read_text(encoding="utf-8")).get("pad_token_id")
            if value is not None:
                return value if isinstance(value, int) else -1
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else end
