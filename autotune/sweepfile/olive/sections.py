"""Parts of an Olive configuration in one spelling: older nesting made flat, older names made today's.

Olive of the published guide nests (`config`, `params`, `hf_config`) and says `lora_r`; today's is flat and says `r`. A
`Section` has today's names alone, and of each value where it stands in the file. What reads a section takes keys out of
it; the rest is refused, with the nearest right name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.errors import did_you_mean, shown
from autotune.sweepfile.olive.ledger import Ledger, Path, text_of

_LISTED = 12
"""The most names that a remedy lists where none is like the one that is given."""


@dataclass(frozen=True)
class Node:
    """A value of the file, and where it stands there."""

    path: Path
    value: Any


class Section:
    """A mapping of the file under today's names."""

    def __init__(
        self, ledger: Ledger, node: Node, nested: Sequence[str] = (), names: Mapping[str, str] | None = None
    ) -> None:
        """`nested`: keys whose mappings belong to this one; `names`: today's name by an older one."""
        self.ledger, self.path = ledger, node.path
        self.nodes: dict[str, Node] = {}
        self.known: dict[str, None] = {}
        """The names that were asked for."""
        self._names = names or {}
        if isinstance(node.value, Mapping):
            self._fill(node, nested)
        else:
            ledger.refuse(node.path, f"must be a mapping, got {shown(node.value)[:60]}", "write { ... }")

    def _fill(self, node: Node, nested: Sequence[str]) -> None:
        for name, value in node.value.items():
            here = Node((*node.path, str(name)), value)
            if name in nested and isinstance(value, Mapping):
                if not value:
                    self.ledger.unneeded(here.path, "it is empty")
                self._fill(here, nested)
            elif name in nested and value is None:
                self.ledger.unneeded(here.path, "it is empty")
            elif name in nested:
                self.ledger.refuse(here.path, f"must be a mapping, got {shown(value)[:60]}", "write { ... }")
            else:
                self._put(self._names.get(str(name), str(name)), here)

    def _put(self, name: str, node: Node) -> None:
        before = self.nodes.get(name)
        if before is None:
            self.nodes[name] = node
        elif before.value == node.value:
            self.ledger.unneeded(node.path, f"it says the same as {before.path[-1]}")
        else:
            self.ledger.refuse(node.path, f"{name} is given twice, with different values", "keep one of them")

    def offer(self, name: str, node: Node) -> None:
        """Add a key under its name of today; one that is there already counts before it."""
        to = self._names.get(name, name)
        if to in self.nodes:
            before = text_of(self.nodes[to].path)
            self.ledger.pass_over(node.path, node.value, f"{before} takes its place")
        else:
            self.nodes[to] = node

    def rename(self, names: Mapping[str, str]) -> None:
        """Give keys with older names today's."""
        nodes, self.nodes = self.nodes, {}
        for name, node in nodes.items():
            self._put(names.get(name, name), node)

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def take(self, name: str) -> Node | None:
        """Return a key's value, and take it out. A key that holds null is as if it were not there."""
        self.known[name] = None
        node = self.nodes.pop(name, None)
        if node is not None and node.value is None:
            self.ledger.unneeded(node.path, "it is null, as if it were not there")
            return None
        return node

    def _take(self, name: str, fits: bool, node: Node | None, what: str) -> Node | None:
        if node is not None and not fits:
            rule = f"must be {what}, got {shown(node.value)[:60]}"
            self.ledger.refuse(node.path, rule, f"give {name} {what}, or remove the key")
            return None
        return node

    def take_text(self, name: str) -> Node | None:
        """Return a key's value where it is a text that is not empty; refuse others."""
        node = self.take(name)
        return self._take(
            name, node is not None and isinstance(node.value, str) and bool(node.value.strip()), node, "a text"
        )

    def take_flag(self, name: str) -> Node | None:
        """Return a key's value where it is true or false; refuse others."""
        node = self.take(name)
        return self._take(name, node is not None and isinstance(node.value, bool), node, "true or false")

    def take_number(self, name: str, whole: bool = False) -> Node | None:
        """Return a key's value where it is a finite number; refuse others. `whole`: where it is a whole one."""
        node = self.take(name)
        fits = node is not None and is_number(node.value) and (not whole or node.value == int(node.value))
        return self._take(name, fits, node, "a whole number" if whole else "a number")

    def take_texts(self, name: str) -> Node | None:
        """Return a key's value as a list of texts: a text alone is a list of one; refuse others."""
        node = self.take(name)
        if node is not None and isinstance(node.value, str):
            node = Node(node.path, [node.value])
        fits = node is not None and isinstance(node.value, list) and bool(node.value)
        fits = fits and node is not None and all(isinstance(one, str) and one for one in node.value)
        return self._take(name, fits, node, "a list of texts")

    def take_section(
        self, name: str, nested: Sequence[str] = (), names: Mapping[str, str] | None = None
    ) -> Section | None:
        """Return a key's value as a section; None where it is not there."""
        node = self.take(name)
        if node is not None and isinstance(node.value, Mapping) and not node.value:
            self.ledger.unneeded(node.path, "it is empty")
        return None if node is None else Section(self.ledger, node, nested, names)

    def unneeded(self, reasons: Mapping[str, str], tell: bool = False) -> None:
        """Take out the keys that are not needed, by name with the reason."""
        for name, why in reasons.items():
            self.known[name] = None
            node = self.nodes.pop(name, None)
            if node is not None:
                self.ledger.unneeded(node.path, why, tell)

    def no_token(self, name: str) -> None:
        """Take out a key for the hub's token: true asks for the login of this machine, anything else is a token in the file."""
        node = self.nodes.get(name)
        if node is not None and node.value is True:
            self.unneeded({name: "the hub's login on this machine, or HF_TOKEN, is used"})
        remedy = "remove it, and log in: huggingface-cli login, or HF_TOKEN"
        self.refuse({name: ("a token is never read from a file", remedy)})

    def refuse(self, reasons: Mapping[str, tuple[str, str]]) -> None:
        """Take out the keys that have no equal here, by name with the rule and the remedy.

        One that holds null, false, an empty text or an empty list asks for nothing.
        """
        for name, (rule, remedy) in reasons.items():
            self.known[name] = None
            node = self.nodes.pop(name, None)
            if node is None:
                continue
            if node.value in (None, False, "", [], {}):
                self.ledger.unneeded(node.path, "it asks for nothing")
            else:
                self.ledger.refuse(node.path, rule, remedy)

    def rest(self) -> Iterator[Node]:
        """Yield what was not taken out."""
        yield from self.nodes.values()

    def close(self, what: str, meant: Mapping[str, str] | None = None) -> None:
        """Refuse what was not taken out: `what` has no such key. `meant`: the remedy, by what others call a key."""
        for name, node in self.nodes.items():
            plain = name.strip().lower().replace("-", "_")
            near = did_you_mean(name, list(self.known))
            unlike = len(self.known) > _LISTED and not near.startswith("did you mean")
            remedy = (meant or {}).get(plain) or (f"remove it: {what} has nothing like it here" if unlike else near)
            self.ledger.refuse(node.path, f"{what} has no key '{name}' that is read here", remedy)
        self.nodes.clear()


def is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300 and math.isfinite(value)
    )


def searchable(node: Node) -> list[Any] | None:
    """Return the values that a node lets a search choose among, or None where it is one value.

    Olive writes them as a list, as `Categorical` with its `support`, or as `Boolean`.
    """
    value = node.value
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping) and (value.get("olive_parameter_type") == "SearchParameter" or "support" in value):
        kind = str(value.get("type", "Categorical")).lower()
        if kind == "boolean":
            return [True, False]
        support = value.get("support")
        return support if kind == "categorical" and isinstance(support, list) else []
    return None
