"""Print or write a page: the last step of every script here."""

from __future__ import annotations

from pathlib import Path


def put(text: str, page: Path, write: bool) -> None:
    """Write a page, or print it."""
    if write:
        page.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
