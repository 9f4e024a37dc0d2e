"""The rooms of the package: their order, which `tests/test_imports.py` holds the imports to, and their picture.

A room is a folder of `autotune/`, or files beside one another at its top. `benchmarks/docs.py` writes the picture and the
list of modules into CONTRIBUTING.md, from the imports as they stand in the code.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "autotune"

ROOMS = (
    ("cli", "__main__", "arguments", "in_job", "misspelt"),
    ("run", "submit"),
    ("trackers",),
    ("present", "report"),
    ("scheduler",),
    ("strategies",),
    ("pipeline",),
    ("execution",),
    ("costs",),
    ("artifacts",),
    ("stages",),
    ("shipping",),
    ("results",),
    ("sweepfile",),
    ("models", "model_files", "data"),
    ("space",),
    ("machine",),
    ("tasks",),
    ("analysis",),
    ("usercode",),
    ("remote",),
    ("architectures",),
    (
        "candidate",
        "control_groups",
        "distribution",
        "durable",
        "metrics",
        "paths",
        "providers",
        "errors",
        "probed",
        "scratch",
        "secrets",
    ),
)
"""The rooms from the top down: a module imports from its own room and from those below."""

_ROUND = 50
"""Lines in the list of modules are rounded to so many, so that a small change leaves the page as it is."""

Imports = dict[str, set[str]]
"""By module, by its name below `autotune`, the modules of the package that it imports."""


@functools.cache
def read_modules(package: Path = PACKAGE) -> dict[str, ast.Module]:
    """Return every module of a package as parsed, by its name below the package."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        name = ".".join(file.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        if name:
            found[name] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.Module) -> set[str]:
    """Return the full names that a module imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imports_within(modules: Mapping[str, ast.Module]) -> Imports:
    """Return of each module which others of the package it imports."""
    return {
        name: {full.removeprefix("autotune.") for full in imported(tree) if full.startswith("autotune.")} & set(modules)
        for name, tree in modules.items()
    }


def rank(name: str) -> int:
    """Return the number of a module's room, the lowest first. Raises StopIteration where it is in no room."""
    return next(len(ROOMS) - place for place, rooms in enumerate(ROOMS) if name.split(".")[0] in rooms)


def _nodes() -> dict[str, str]:
    """Return, from the top down, the node of each room's name: a folder is one of its own, files of one level share one."""
    found = {}
    for level in ROOMS:
        files = [name for name in level if not (PACKAGE / name).is_dir()]
        for name in level:
            found[name] = files[0] if name in files else name
    return found


def _reduced(arrows: Imports) -> Imports:
    """Return the arrows without those that a longer way replaces (Aho, Garey and Ullman 1972); they form no circle."""

    def reached(node: str) -> set[str]:
        return {node}.union(*(reached(other) for other in arrows[node]))

    return {
        node: {other for other in others if not any(other in reached(third) for third in others - {other})}
        for node, others in arrows.items()
    }


def _label(node: str) -> str:
    """Return what a node shows: a folder with its slash, or its files, four a line."""
    if (PACKAGE / node).is_dir():
        return f"{node}/"
    names = [f"{name}.py" for name, other in _nodes().items() if other == node and name != "__main__"]
    return ",<br/>".join(", ".join(names[place : place + 4]) for place in range(0, len(names), 4))


def picture() -> str:
    """Return the rooms as a Mermaid graph: an arrow goes from a room to each that it imports and reaches by no other way."""
    nodes = _nodes()
    arrows: Imports = {node: set() for node in nodes.values()}
    for name, others in imports_within(read_modules()).items():
        own = nodes[name.split(".")[0]]
        arrows[own] |= {nodes[other.split(".")[0]] for other in others} - {own}
    order = list(arrows)
    lines = ["```mermaid", "graph TD"]
    lines += [f'  {node}["{_label(node)}"]' for node in order]
    for node, others in _reduced(arrows).items():
        lines += [f"  {node} --> {other}" for other in sorted(others, key=order.index)]
    return "\n".join([*lines, "```"]) + "\n"


def _about(lines: int) -> str:
    return f"{max(_ROUND, round(lines / _ROUND) * _ROUND):,}"


def module_list() -> str:
    """Return a table of the rooms from the top down, with the modules of each and their lines, rounded."""
    lengths: dict[str, dict[str, int]] = {}
    nodes = _nodes()
    for node in nodes.values():
        lengths[node] = {}
    for name in read_modules():
        file = PACKAGE.joinpath(*name.split("."))
        if not file.is_dir():
            text = file.with_suffix(".py").read_text(encoding="utf-8")
            place = "/".join(name.split(".")[1:]) or name
            lengths[nodes[name.split(".")[0]]][place] = text.count("\n")
    lines = ["| room | lines | modules, each with its lines |", "|---|---|---|"]
    for node, modules in lengths.items():
        listed = ", ".join(f"`{name}` {_about(count)}" for name, count in modules.items())
        label = _label(node)
        room = "what every room shares" if node == list(lengths)[-1] else f"`{label}`"
        lines.append(f"| {room} | {_about(sum(modules.values()))} | {listed} |")
    return "\n".join(lines) + "\n"
