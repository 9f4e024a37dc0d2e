"""The ledger of an Olive configuration: of every key, what became of it.

A key is mapped to a key of the sweep, not needed for a reason, or refused with what to do. Whoever reads a part of the
file writes entries; what has no entry at the end was not read by anybody, and is refused. So nothing is dropped silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from autotune.errors import Problem

Path = tuple[str | int, ...]
"""Where a key stands: names of mappings and places in lists, from the top."""
Fate = Literal["mapped", "unneeded", "refused"]


def text_of(path: Path) -> str:
    """Return a path as messages write it: `passes.lora.config.r`, `data_configs[0].name`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            plain = re.fullmatch(r"[^.\[\]'\"\s]+", step) is not None
            parts.append(f".{step}" if plain else f"[{step!r}]")
    return "".join(parts).removeprefix(".")


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every key without keys below it; a list without mappings or lists in it is one value."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from leaves(part, (*path, str(name)))
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for place, part in enumerate(value):
            yield from leaves(part, (*path, place))
    else:
        yield path


@dataclass(frozen=True)
class Entry:
    """What became of a key, and of those below it that have no entry of their own."""

    path: Path
    fate: Fate
    to: str = ""
    """The keys of the sweep that it became, joined by commas."""
    why: str = ""
    """What changed on the way, why it is not needed, or the rule that it breaks."""
    remedy: str = ""
    tell: bool = False
    """Whether the user is told of it in `plan` and `run`."""


class Ledger:
    """The entries of one configuration."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.entries: dict[Path, Entry] = {}

    def _add(self, entry: Entry) -> None:
        before = self.entries.get(entry.path)
        if before is not None and before.fate == "refused":  # one mistake is told once
            return
        if before is not None and before.fate == entry.fate == "mapped":
            why = "; ".join(dict.fromkeys(filter(None, [before.why, entry.why])))
            to = ", ".join(dict.fromkeys([*before.to.split(", "), *entry.to.split(", ")]))
            entry = Entry(entry.path, "mapped", to, why, tell=before.tell or entry.tell)
        self.entries[entry.path] = entry

    def map(self, path: Path, to: str, why: str = "", tell: bool = False) -> None:
        """Say that a key became a key of the sweep."""
        self._add(Entry(path, "mapped", to, why, tell=tell))

    def unneeded(self, path: Path, why: str, tell: bool = False) -> None:
        """Say why a key is not needed here."""
        self._add(Entry(path, "unneeded", why=why, tell=tell))

    def refuse(self, path: Path, rule: str, remedy: str) -> None:
        """Refuse a key: the rule that it breaks, and what to do."""
        self._add(Entry(path, "refused", why=rule, remedy=remedy))

    def pass_over(self, path: Path, value: Any, why: str) -> None:
        """Say of the keys below `path` that were not read why they are not needed."""
        for leaf in leaves(value, path):
            if self.entry_of(leaf) is None:
                self.unneeded(leaf, why)

    def dropped(self, key: str, why: str) -> None:
        """Say of what became a key of the sweep why it is not needed after all."""
        for path, entry in self.entries.items():
            keys = entry.to.split(", ")
            if entry.fate != "mapped" or key not in keys:
                continue
            left = ", ".join(one for one in keys if one != key)
            self.entries[path] = replace(entry, to=left) if left else Entry(path, "unneeded", why=why, tell=True)

    def moved(self, key: str, to: str) -> None:
        """Say that what became one key of the sweep became another."""
        for path, entry in self.entries.items():
            if entry.fate == "mapped" and key in entry.to.split(", "):
                keys = ", ".join(to if one == key else one for one in entry.to.split(", "))
                self.entries[path] = replace(entry, to=keys)

    def set_aside(self, why: str, keep: Callable[[Entry], bool]) -> None:
        """Say of every key but the refused ones that `keep` takes why it is not needed."""
        for path, entry in self.entries.items():
            if entry.fate != "refused" or not keep(entry):
                self.entries[path] = Entry(path, "unneeded", why=why)

    def entry_of(self, path: Path) -> Entry | None:
        """Return the entry of a key, or of the nearest key above it that has one; None where it was not read."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.entries:
                return self.entries[path[:length]]
        return self.entries.get(())

    def close(self) -> None:
        """Refuse every key that was not read."""
        for path in leaves(self.document):
            if path and self.entry_of(path) is None:
                self.refuse(path, "is not read here", "remove the key")

    def account(self) -> list[tuple[Path, Entry]]:
        """Return of every key in the order of the file what became of it. Call `close` before."""
        found = [(path, self.entry_of(path)) for path in leaves(self.document) if path]
        return [(path, entry) for path, entry in found if entry is not None]

    def problems(self, shown: str) -> list[Problem]:
        """Return what is refused, each with its place in the file `shown`. Values are left out: one may be a secret."""
        refused = (entry for entry in self.entries.values() if entry.fate == "refused")
        return [Problem(entry.why, text_of(entry.path), shown, remedy=entry.remedy) for entry in refused]
