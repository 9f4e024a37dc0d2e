"""A results folder holds what the validation items ask, for people to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.data.items import make_item
from autotune.data.schema import Dataset, Message
from autotune.results.texts import MOST_LETTERS, TEXTS, keep_texts, read_texts


def test_texts_are_kept_by_the_items_ids_and_not_longer_than_people_read(tmp_path: Path) -> None:
    (tmp_path / "outcomes").mkdir()
    chat = (Message(role="system", content="Be brief."), Message(role="user", content="Hello \u00fc"))
    items = (make_item("short", " joy"), make_item("x" * 5000, " fear"), make_item(chat, "Hi"))
    dataset = Dataset(train=(), validation=items, test=(), labels=("joy", "fear"), left_out=(), files={})
    keep_texts(tmp_path, dataset)
    labels, texts = read_texts(tmp_path)
    assert labels == ["joy", "fear"]
    assert [texts[item.id] for item in items[::2]] == ["short", "Hello \u00fc (after 1 message)"]
    assert len(texts[items[1].id]) == MOST_LETTERS


@pytest.mark.parametrize("content", ["", "[]", '{"labels": 3, "items": [1]}', "{", "[" * 5000])
def test_damaged_texts_are_none(content: str, tmp_path: Path) -> None:
    assert read_texts(tmp_path) == ([], {})
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / TEXTS).write_text(content, encoding="utf-8")
    assert read_texts(tmp_path) == ([], {})
