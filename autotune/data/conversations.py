"""Conversations as data sets write them: a list of turns in one column.

OpenAI's `role` and `content`, ShareGPT's `from` and `value`, content as text or as a list of text parts, the list as
JSON text in a CSV cell. What this tuner has no words for (tools, images, other roles) is named, and the row left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from autotune.data.schema import Message, Role
from autotune.data.templates import RowError, cell_text

_ROLE_KEYS = ("role", "from")
_TEXT_KEYS = ("content", "value")
_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant",
}  # fmt: skip
_TOOL_ROLES = {
    "tool",
    "function",
    "function_call",
    "function_response",
    "tool_call",
    "tool_response",
    "observation",
    "ipython",
}
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")
_TEXT_PARTS = ("text", "input_text", "output_text")
_LONGEST = 30
"""Characters of a name in a reason: reasons are few, and people read them."""


def conversation_of(value: object) -> list[Message]:
    """Return the turns of a conversation, the last the assistant's. Raises RowError with what is in the way."""
    if isinstance(value, str):
        value = _from_text(value)
    if value is None:
        raise RowError("empty value")
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if not isinstance(value, list):
        raise RowError("not a list of messages")
    if len(value) < 2:
        raise RowError("fewer than two messages")
    messages = [_message(turn) for turn in value]
    if messages[-1].role != "assistant":
        raise RowError(f"the last message is not the assistant's, but the {messages[-1].role}'s")
    if not messages[-1].content.strip():
        raise RowError("empty completion")
    if any(not message.content.strip() for message in messages):
        raise RowError("an empty message")
    return messages


def _from_text(text: str) -> object:
    """Return the list in a cell of a table, written as JSON."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if text.lstrip().startswith(("[{'", "{'")):
            raise RowError("messages in Python's notation: write jsonl or parquet, or JSON into the cell") from None
        raise RowError("not a list of messages, but text") from None


def _message(turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError("a message that is no object")
    role = next((turn[key] for key in _ROLE_KEYS if turn.get(key) is not None), None)
    if role is None:
        raise RowError(f"a message without 'role' or 'from'{_which(turn)}")
    name = role.strip().lower() if isinstance(role, str) else ""
    if name in _TOOL_ROLES or any(turn.get(key) for key in _TOOL_KEYS):
        raise RowError("a message that calls a tool or answers for one: tools are not taken")
    if name not in _ROLES:
        raise RowError(f"a message of the role {str(role)[:_LONGEST]!r}, not system, user or assistant")
    content = next((turn[key] for key in _TEXT_KEYS if turn.get(key) is not None), None)
    if content is None and not any(key in turn for key in _TEXT_KEYS):
        raise RowError(f"a message without 'content' or 'value'{_which(turn)}")
    text = _content(content)
    if text.strip():
        cell_text(text, "content")
    return Message(role=_ROLES[name], content=text)


def _which(turn: Mapping[str, object]) -> str:
    names = ", ".join(repr(str(name)[:_LONGEST]) for name in list(turn)[:4])
    return f", but with {names}" if names else ""


def _content(content: object) -> str:
    """Return the text of a message; parts of text are joined by line ends, as vLLM joins them."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list):
        raise RowError(f"a message whose content is not text, but {type(content).__name__}")
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        text = part.get("text") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS or not isinstance(text, str):
            raise RowError(f"a message with a part of type {str(kind)[:_LONGEST]!r}: only text is taken")
        texts.append(text)
    return "\n".join(texts)
