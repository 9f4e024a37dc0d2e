"""Special tokens that are written out in a text, such as the end of a text or a turn of a chat, and texts at which one ends."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence


def found_in(text: str, tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the tokens that a text holds, in the order given."""
    return tuple(token for token in tokens if token and token in text)


def without_end(text: str, ends: Sequence[str]) -> str:
    """Return a completion without the end-of-text tokens at its end: training and scoring add one themselves."""
    if not any(ends):
        return text
    one = "|".join(re.escape(end) for end in sorted(filter(None, ends), key=len, reverse=True))
    return re.sub(rf"(?:(?:{one})\s*)+\Z", "", text)


def cut_at(text: str, stops: Collection[str]) -> str:
    """Return the text before the first of the `stops`."""
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]
