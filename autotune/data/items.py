"""From rows of a file to items: fill templates, read conversations, compare prompts."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from autotune.data.conversations import MEDIA, conversation_in
from autotune.data.schema import DataSpec, Item, Message, Split, chat_columns, chat_templates
from autotune.data.sources import TOOLS
from autotune.data.templates import RowError, is_empty, render


class Row(NamedTuple):
    item: Item
    key: str  # the normalised prompt: rows with the same key are the same question
    place: str


Splits = dict[Split, list[Row]]
LeftOutPlaces = defaultdict[tuple[Split, str], list[str]]  # (split, reason) -> places


def normalise(prompt: str | Sequence[Message]) -> str:
    """Return the prompt with its case folded and runs of white space made one. Prompts that are equal then are alike.

    Prompts that are alike never stand in two splits.
    """
    if isinstance(prompt, str):
        return " ".join(prompt.split()).casefold()
    return "\0".join(f"{message.role}\0{normalise(message.content)}" for message in prompt)


def question_of(item: Item) -> str | tuple[Message, ...]:
    """Return the text by which two items are compared: the prompt, or the completion where there is no prompt."""
    return item.prompt or item.completion


def exact(prompt: str | Sequence[Message]) -> str:
    """Return the prompt with runs of white space made one, its case kept."""
    if isinstance(prompt, str):
        return " ".join(prompt.split())
    return "\0".join(f"{message.role}\0{exact(message.content)}" for message in prompt)


def make_item(prompt: str | tuple[Message, ...], completion: str, references: tuple[str, ...] = ()) -> Item:
    """Return the item with its id filled in."""
    plain = prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
    parts: dict[str, object] = {"completion": completion, "prompt": plain}
    if references:
        parts["references"] = references
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Item(id=name, prompt=prompt, completion=completion, references=references)


def item_of(spec: DataSpec, cells: Mapping[str, object]) -> Item:
    """Return the item of a row. Raises RowError with the reason why the row cannot become one."""
    if spec.text is not None:
        text = render(spec.text, cells)
        if not text.strip():
            raise RowError("empty text")
        return make_item("", text)
    match spec.messages:
        case None:
            assert spec.prompt is not None
            assert spec.completion is not None
            prompt = render(spec.prompt, cells)
            if not prompt.strip():
                raise RowError("empty prompt")
            return make_item(prompt, render(spec.completion, cells))
        case messages if columns := chat_columns(messages):
            if any(_offered(cells.get(name)) for name in TOOLS if name not in columns):
                raise RowError("tools are offered, and no tool is written into the prompt")
            for name in MEDIA:
                if cells.get(name) and name not in columns:
                    raise RowError(f"a message with a part in '{name}': only text is taken")
            *before, last = conversation_in(cells, columns)
        case templates:
            turns = [Message(role=one.role, content=render(one.content, cells)) for one in chat_templates(templates)]
            # A message of empty optional cells alone is dropped: only some rows may have a system prompt.
            *before, last = [turn for turn in turns if turn.content.strip()]
            if not before:
                raise RowError("empty prompt")
    return make_item(tuple(before), last.content)


def _offered(tools: object) -> bool:
    """Return whether a cell offers tools: it may hold an empty list, also as text."""
    if is_empty(tools):
        return False
    return tools.strip() not in ("[]", "{}", "null", "None") if isinstance(tools, str) else bool(tools)


def countable(text: str) -> bool:
    """Whether ROUGE-L finds something to count in a text: a letter, a digit, or a symbol beyond ASCII (an emoji)."""
    return any(c.isalnum() if c.isascii() else unicodedata.category(c)[0] in "LNS" for c in text)
