"""Tokens with a meaning of their own that are written out in a text: the end of a text, the turns of a chat."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def found_in(text: str, tokens: Iterable[str]) -> tuple[str, ...]:
    """Return those of the tokens that a text holds, in their order."""
    return tuple(token for token in tokens if token and token in text)


def without_end(text: str, ends: Sequence[str]) -> str:
    """Return a completion without the end-of-text tokens that stand at its end: training and scoring add one themselves."""
    if not any(ends):
        return text
    one = "|".join(re.escape(end) for end in sorted(filter(None, ends), key=len, reverse=True))
    return re.sub(rf"(?:(?:{one})\s*)+\Z", "", text)
