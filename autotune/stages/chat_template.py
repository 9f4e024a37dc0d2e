"""What a chat template makes of a conversation: its text, what of the messages it leaves out, what changes with time."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any


def chat_text(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """Return a conversation as the chat template renders it. Raises TemplateError, TypeError, ValueError."""
    return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))


class _Then(datetime.datetime):
    """A clock that stands."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Then:
        return cls(2001, 2, 3, 4, 5, 6, tzinfo=tz)


def changing(tokenizer: Any, messages: Sequence[dict[str, str]], text: str) -> str:
    """Return what a chat template writes for the time of the day, or draws, with what stands beside it in `text`; empty where
    it always writes the same.
    """
    from transformers.utils import chat_template_utils as utils

    clock = utils.datetime
    utils.datetime = _Then
    try:
        then = chat_text(tokenizer, messages)
    finally:
        utils.datetime = clock
    other = then if then != text else chat_text(tokenizer, messages)
    at = next((k for k, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), None)
    return "" if at is None else text[max(0, at - 10) : at + 20]


def hidden_roles(messages: Sequence[dict[str, str]], text: str) -> list[str]:
    """Return the roles of messages whose content a rendered conversation does not hold, white space aside."""
    held = "".join(text.split())
    return [message["role"] for message in messages if "".join(message["content"].split()) not in held]


def first_difference(theirs: str, ours: str) -> str:
    at = next((k for k, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    start = max(0, at - 10)
    return f"{theirs[start : at + 20]!r} there, {ours[start : at + 20]!r} here"
