"""Read conversations as data sets store them: a list of turns in one column, or in several columns that follow one another.

OpenAI's `role` and `content`, ShareGPT's `from` and `value`, content as text or as a list of text parts, the list as
JSON text in a CSV cell; TRL's `prompt` and `completion`, each a list of messages; a system's message beside the turns.
A row with anything else (tools, images, other roles) is left out, and the reason is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from autotune.data.schema import Message, Role
from autotune.data.templates import RowError, cell_text, is_empty

_ROLE_KEYS = ("role", "from", "speaker")
_TEXT_KEYS = ("content", "value", "parts", "text", "utterance")
_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "chatbot": "assistant", "ai": "assistant", "claude": "assistant",
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
_REASONING = ("reasoning_content", "reasoning", "thinking")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns that hold the images, videos and audio of a conversation."""
_LONGEST = 30
"""The most characters of a name in a message to the user."""


def conversation_of(value: object) -> list[Message]:
    """Return the turns of a conversation, the last one the assistant's. Raises RowError with the reason why there is none."""
    return _conversation(_turns(value))


def conversation_in(cells: Mapping[str, object], columns: Sequence[str]) -> list[Message]:
    """Return the conversation in these columns, joined in their order; the last turn is the assistant's.

    A column whose name ends in `?` may be empty. A cell may hold a text instead of messages: it is then one turn, of the
    assistant in the last column, of the system in a column whose name begins with "system", else of the user. Raises RowError.
    """
    if len(columns) == 1:
        return conversation_of(cells.get(columns[0]))
    turns: list[object] = []
    for place, column in enumerate(columns):
        name = column.removesuffix("?")
        part = _part(cells.get(name), name, last=place == len(columns) - 1)
        if not part and not column.endswith("?"):
            raise RowError(f"empty value in '{name}'")
        if turns and part[: len(turns)] == turns:
            raise RowError(f"the messages in '{name}' begin with those of the columns before it")
        turns += part
    return _conversation(turns)


def _part(value: object, name: str, last: bool) -> list[object]:
    """Return the turns in one column of several."""
    if is_empty(value):
        return []
    if isinstance(value, str) and not re.match(r"\s*\[\s*\{", value):
        role = "assistant" if last else "system" if name.lower().startswith("system") else "user"
        return [{"role": role, "content": value}]
    try:
        return _turns(value)
    except RowError as error:
        raise RowError(f"{error} in '{name}'") from None


def holds_messages(value: object) -> bool:
    """Return whether a cell holds a list of messages, with any role at the end."""
    try:
        turns = _turns(value)
        return bool(turns) and all(isinstance(turn, Mapping) and _role(turn) is not None for turn in turns)
    except RowError:
        return False


def _turns(value: object) -> list[object]:
    if isinstance(value, str):
        value = _from_text(value)
    if value is None:
        raise RowError("empty value")
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if isinstance(value, Mapping):
        value = _by_key(value)
    if not isinstance(value, list):
        raise RowError("not a list of messages")
    return value


def _by_key(value: Mapping[str, object]) -> list[object] | None:
    """Return the turns of a single message, or of lists by key, as older data sets store them: {role: [...], content:
    [...]}.
    """
    role = _role(value)
    if not isinstance(role, list):
        return None if role is None else [value]
    lists = {key: part for key, part in value.items() if isinstance(part, list) and len(part) == len(role)}
    return [dict(zip(lists, parts, strict=True)) for parts in zip(*lists.values(), strict=True)]


def _conversation(turns: Sequence[object]) -> list[Message]:
    turns = [part for turn in turns for part in _pair(turn)]
    messages = [_message(turn) for turn in turns]
    if len(turns) < 2:
        raise RowError("fewer than two messages")
    if messages[-1].role != "assistant":
        raise RowError(f"the last message is not the assistant's, but the {messages[-1].role}'s")
    if not messages[-1].content.strip():
        raise RowError("empty completion")
    if any(not message.content.strip() for message in messages):
        raise RowError("an empty message")
    if isinstance(last := turns[-1], Mapping):
        _check_answer(last)
    return messages


def _pair(turn: object) -> list[object]:
    """Return one message for each key of an object whose keys are roles, {human: ..., assistant: ...}; else the turn itself."""
    if not isinstance(turn, Mapping) or len(turn) < 2 or _role(turn) is not None:
        return [turn]
    names = [str(key).strip().lower() for key in turn]
    roles = [_ROLES.get(name) for name in names]
    if (
        None in roles
        or roles != sorted(roles, key=("system", "user", "assistant").index)
        or len(set(roles)) < len(roles)
    ):
        return [turn]
    return [
        {"role": name, "content": text} for name, text in zip(names, turn.values(), strict=True) if not is_empty(text)
    ]


def _check_answer(turn: Mapping[str, object]) -> None:
    """Raise RowError where the data says that the last message, or a part of it, must not be learned."""
    for key in _REASONING:
        if isinstance(text := turn.get(key), str) and text.strip():
            raise RowError(f"the last message has '{key}' beside its content, which no prompt or completion would hold")
    if turn.get("weight") in (0, "0") or turn.get("train") is False:
        key = "train" if turn.get("train") is False else "weight"
        raise RowError(f"the last message is marked not to be learned ('{key}')")


def _role(turn: Mapping[str, object]) -> object:
    return next((turn[key] for key in _ROLE_KEYS if turn.get(key) is not None), None)


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
        raise RowError(f"a message that is no object, but {type(turn).__name__}")
    role = _role(turn)
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
    """Return the text of a message; several parts are joined by line ends, as in vLLM."""
    if content is None:
        return ""
    if isinstance(content, bool | int | float):  # a label that is a number
        return cell_text(content, "content")
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
