"""The beginnings of the validation items' texts, kept in a results folder so that people can read the prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.data.schema import Dataset, Item
from autotune.durable import write_aside
from autotune.paths import is_file
from autotune.secrets import redact

TEXTS = "texts.json"
MOST_ITEMS, MOST_LETTERS = 5000, 400
"""The most items that are kept, and the most characters of a text: it is for reading, not for scoring."""


def keep_texts(folder: Path, dataset: Dataset) -> None:
    """Write the labels and the texts of the validation items into `outcomes/`. Raises OSError."""
    items = {item.id: _shown(item) for item in dataset.validation[:MOST_ITEMS]}
    content = json.dumps({"labels": list(dataset.labels), "items": items}, ensure_ascii=False, separators=(",", ":"))
    write_aside(folder / "outcomes" / TEXTS, content)


def read_texts(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the labels in order, and the texts by item id; empty where the folder has none, or they are damaged."""
    file = folder / "outcomes" / TEXTS
    try:
        kept: Any = json.loads(file.read_text(encoding="utf-8")) if is_file(file) else {}
    except (OSError, ValueError, RecursionError):
        kept = {}
    labels = kept.get("labels") if isinstance(kept, Mapping) else None
    items = kept.get("items") if isinstance(kept, Mapping) else None
    return (
        [str(label) for label in labels] if isinstance(labels, list) else [],
        {str(name): str(text) for name, text in items.items()} if isinstance(items, dict) else {},
    )


def _shown(item: Item) -> str:
    """Return the prompt of an item; for a conversation the last message, with the number of earlier ones."""
    if isinstance(item.prompt, str):
        text = item.prompt
    else:
        before = len(item.prompt) - 1
        text = item.prompt[-1].content + (f" (after {before} message{'s'[: before - 1]})" if before else "")
    text = redact(text)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."
