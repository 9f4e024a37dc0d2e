"""The questions of a newcomer have their answers where the list says."""

from __future__ import annotations

import ast

import pytest

from benchmarks import newcomer


@pytest.mark.parametrize(("file", "name"), [(file, name) for _, file, name in newcomer.QUESTIONS])
def test_each_answer_is_there(file: str, name: str) -> None:
    tree = ast.parse((newcomer.ROOT / "autotune" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert file in newcomer.names()


def test_first_guesses_are_counted() -> None:
    answers = ["autotune/" + newcomer.QUESTIONS[0][1], *["cli.py"] * (len(newcomer.QUESTIONS) - 1)]
    assert "1 of 25 first guesses are right" in newcomer.page(answers)
    with pytest.raises(ValueError, match="25 questions have 1 answers"):
        newcomer.page(["cli.py"])
