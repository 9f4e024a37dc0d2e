"""The constants of `frontier` stand in one module, each with its source and its effect."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from autotune.strategies.frontier import constants

FOLDER = Path(constants.__file__).parent
BODY = ast.parse(Path(constants.__file__).read_text(encoding="utf-8")).body
ASSIGNED = [place for place, node in enumerate(BODY) if isinstance(node, ast.Assign)]


def names_in(node: ast.stmt) -> list[str]:
    assert isinstance(node, ast.Assign)
    return [one.id for one in ast.walk(node.targets[0]) if isinstance(one, ast.Name)]


@pytest.mark.parametrize("place", ASSIGNED, ids=lambda place: "-".join(names_in(BODY[place])))
def test_each_constant_has_its_source_and_its_effect(place: int) -> None:
    after = BODY[place + 1]
    assert isinstance(after, ast.Expr), "no docstring"
    assert isinstance(after.value, ast.Constant)
    text = str(after.value.value)
    meaning, found, rest = text.partition("Source: ")
    assert meaning.strip()
    assert found
    assert "Moves: " in rest


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_no_other_module_has_a_constant_number(file: Path) -> None:
    """Nor a literal number with a fraction that would be one, but 0.5 and 0.0, which are in formulas."""
    if file.stem == "constants":
        return
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Tuple):
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            assert not any(isinstance(one, ast.Constant) and isinstance(one.value, int | float) for one in values)
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is float}
    assert literals <= {0.0, 0.5, 1.0, 1e-300}, "give it a name in constants.py"


def test_every_constant_is_used() -> None:
    names = {name for place in ASSIGNED for name in names_in(BODY[place])}
    used = {
        node.id
        for file in FOLDER.glob("*.py")
        if file.stem != "constants"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert not names - used
