"""The sweep file that an Olive configuration becomes: plain data, and of each value where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.sweepfile.olive.ledger import Ledger, Path, text_of
from autotune.sweepfile.olive.sections import Node, Section, searchable

DEFAULT_VALUE, SEARCHABLE_VALUES = "DEFAULT_VALUE", "SEARCHABLE_VALUES"
"""What Olive writes for a parameter's default, and for its own list of values to search."""
SINGLE_POINT = "the single point of the file"
"""Where the bound of one candidate comes from."""


@dataclass
class Draft:
    """A sweep file in the making."""

    ledger: Ledger
    searching: bool = False
    """Whether Olive's own `search_strategy` is on."""
    sweep: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """By key of the sweep, where its value came from: a key of the file, or a reason."""
    notes: list[str] = field(default_factory=list)
    """What the user is told besides what the ledger tells."""
    evaluators: list[Node] = field(default_factory=list)
    """The evaluators that passes name."""
    joined: bool = False
    """Whether Olive would join the rows that are trained on into blocks."""
    foreign: Path = ()
    """The key that says that the model is none of those that are taken, so that nothing else of the file matters."""
    vaults: list[Node] = field(default_factory=list)
    """The key vaults that are named for a token of the hub."""

    def put(self, key: str, value: Any, node: Node, why: str = "", tell: bool = False) -> None:
        """Set a key of the sweep from a value of the file."""
        self._set(key, value, text_of(node.path) + (f"; {why}" if why else ""))
        self.ledger.map(node.path, key, why, tell)

    def default(self, key: str, value: Any, why: str) -> None:
        """Set a key of the sweep that the file leaves open, unless it is set."""
        if self.get(key) is None:
            self._set(key, value, why)

    def drop(self, key: str, why: str) -> None:
        """Leave a key of the sweep out after all."""
        *parents, last = key.split(".")
        here = self.get(".".join(parents)) if parents else self.sweep
        if isinstance(here, dict) and here.pop(last, None) is not None:
            self.origins.pop(key, None)
            self.ledger.dropped(key, why)
            if not here and parents and self.origins.get(".".join(parents)) is None:
                self.drop(".".join(parents), why)

    def get(self, key: str) -> Any:
        """Return what a key of the sweep has; None where it is not set."""
        here: Any = self.sweep
        for name in key.split("."):
            here = here.get(name) if isinstance(here, Mapping) else None
        return here

    def _set(self, key: str, value: Any, origin: str) -> None:
        here = self.sweep
        *parents, last = key.split(".")
        for name in parents:
            here = here.setdefault(name, {})
        here[last] = value
        self.origins[key] = origin


Check = Callable[[Any], tuple[Any, str]]
"""Returns a value as the sweep has it, or the rule that it breaks."""


def chosen(
    draft: Draft, section: Section, name: str, check: Check, searched: list[Any] | None = None
) -> tuple[Node, list[Any]] | None:
    """Take a parameter that may be searched out of a section. Returns where it stood and its values; None: not there.

    `searched`: the values that Olive searches where it is told to search this one. What is wrong is refused.
    """
    node = section.take(name)
    if node is None:
        return None
    if node.value == DEFAULT_VALUE:
        draft.ledger.unneeded(node.path, "it asks for the default")
        return None
    if isinstance(node.value, Mapping) and str(node.value.get("type", "")).lower().startswith("conditional"):
        rule = "depends on another parameter (Conditional), and every parameter is searched on its own"
        draft.ledger.refuse(node.path, rule, "write Categorical with its values")
        return None
    values = searched if node.value == SEARCHABLE_VALUES else searchable(node)
    for other in node.value if values is not None and isinstance(node.value, Mapping) else ():
        if other not in ("olive_parameter_type", "type", "support"):
            remedy = "write type and support"
            draft.ledger.refuse((*node.path, str(other)), "a searched parameter has no such key", remedy)
    if node.value == SEARCHABLE_VALUES and searched is None:
        draft.ledger.refuse(node.path, f"there are no values that Olive would search for {name}", "list the values")
        return None
    if values is not None:
        if not values:
            draft.ledger.refuse(node.path, "has no values", "list at least one")
            return None
        if len(values) > 1 and not draft.searching:
            remedy = "keep one value, or let search_strategy be true"
            draft.ledger.refuse(node.path, "has several values, and search_strategy is off", remedy)
            return None
    good = []
    for value in [node.value] if values is None else values:
        made, rule = check(value)
        if rule:
            draft.ledger.refuse(node.path, rule, f"correct {name}")
            return None
        if made not in good:
            good.append(made)
    return node, good


def one_or_choice(values: list[Any]) -> Any:
    """Return values as a LoRA parameter of a sweep file: one fixed, several as a choice."""
    return values[0] if len(values) == 1 else {"choice": values}
