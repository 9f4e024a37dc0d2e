"""Data configs as Olive wrote them until June 2024: `params_config` and `components` in place of a section for each component.

Each key becomes one of the section that today's Olive has for its component: what `component_kwargs` gives counts before
`params_config`, and that before the `params` of `components`, as it did there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autotune.errors import shown
from autotune.sweepfile.olive.sections import Node, Section

_COMPONENTS = {
    "load_dataset": "load_dataset_config", "pre_process_data": "pre_process_data_config",
    "post_process_data": "post_process_data_config", "dataloader": "dataloader_config",
}  # fmt: skip
LOADING = ("data_name", "subset", "split", "data_files", "data_dir", "col_filters", "revision", "streaming", "num_proc")
"""Keys that say which rows are meant."""
BATCHING = ("batch_size", "shuffle", "drop_last", "num_workers", "collate_fn")
"""Keys that say how rows are batched."""

Parts = dict[str, list[tuple[str, Node]]]
"""By section of today, its keys: what counts comes first."""


def older_parts(section: Section) -> Parts:
    """Take `params_config` and `components` out of a data config, and return their keys by section of today."""
    parts: Parts = {}
    flat = _mapping(section, section.take("params_config"))
    for name, node in flat:
        if name == "component_kwargs":
            for component, given in _mapping(section, node):
                parts.setdefault(_section_of(section, component, given), []).extend(_mapping(section, given))
    for name, node in flat:
        if name != "component_kwargs":
            to = "load_dataset_config" if name in LOADING else "dataloader_config" if name in BATCHING else ""
            parts.setdefault(to or "pre_process_data_config", []).append((name, node))
    for component, node in _mapping(section, section.take("components")):
        to = _section_of(section, component, node)
        for name, part in _mapping(section, node):
            found = _mapping(section, part) if name == "params" else [(name, part)]
            parts.setdefault(to, []).extend(found)
    parts.pop("", None)
    return parts


def _section_of(section: Section, component: str, node: Node) -> str:
    to = _COMPONENTS.get(component.removesuffix("_config"), "")
    if not to:
        remedy = f"use one of: {', '.join(_COMPONENTS)}"
        section.ledger.refuse(node.path, f"data has no component {shown(component)}", remedy)
    return to


def _mapping(section: Section, node: Node | None) -> list[tuple[str, Node]]:
    return list(_members(section, node)) if node is not None else []


def _members(section: Section, node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node.value, Mapping):
        for name, value in node.value.items():
            yield str(name), Node((*node.path, str(name)), value)
        if not node.value:
            section.ledger.unneeded(node.path, "it is empty")
    elif node.value is None:
        section.ledger.unneeded(node.path, "it is null, as if it were not there")
    else:
        section.ledger.refuse(node.path, f"must be a mapping, got {shown(node.value)[:60]}", "write { ... }")


def component(
    section: Section, name: str, parts: Parts, nested: Sequence[str], names: Mapping[str, str] | None = None
) -> Section | None:
    """Return the section of a component of a data config, with the keys that older spellings gave it; None: there is none.

    What is given twice counts once. `nested` and `names` as a `Section` has them.
    """
    wanted = section.take_section(name, nested, names)
    older = parts.get(name)
    if older and wanted is None:
        wanted = Section(section.ledger, Node(section.path, {}), (), names)
    for key, node in older or ():
        assert wanted is not None
        wanted.offer(key, node)
    return wanted
