"""Rows as people read them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.candidate import Recipe, Session
from autotune.present.tables import candidates, finalist_lines, number, recipe_name, score_text, settings, table
from autotune.results.rows import Finalist, Trial
from autotune.space.domains import Choice
from autotune.space.parameter_tables import RECIPE
from autotune.space.space import Space

SPACE = Space({"r": Choice((8,))}, (), (), {"batch_size": 8, "max_length": 128, "steps": 10})


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ("text", "text"), (True, "True"), (0, "0"), (0.0, "0"), (-0.0, "0"), (12, "12"), (12.0, "12"),
     (1234.56, "1235"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"), (0.7333333, "0.733"), (0.0012, "0.001"),
     (0.00012, "0.00012"), (-0.5, "-0.500"), (-123.4, "-123"), (1e-9, "1e-09"), (1e20, "100000000000000000000")],
)  # fmt: skip
def test_numbers_are_short(value: Any, text: str) -> None:
    assert number(value) == text


@given(st.floats() | st.integers())
def test_any_number_has_a_text(value: float) -> None:
    assert number(value) or not math.isfinite(value)


def test_a_candidate_in_a_few_words() -> None:
    recipe = Recipe(precision="int4", algorithm="k_quant", block_size=32, accuracy_level=4)
    columns = SPACE.candidate({}, recipe).columns()
    assert settings(columns) == "r8 a16 lr 0.001 all-linear | int4 k_quant b32"
    assert settings({}) == ""
    assert settings(SPACE.candidate({}, None).columns()) == "r8 a16 lr 0.001 all-linear"
    odd = SPACE.candidate({"dora": True, "quantized_base": "nf4", "target_modules": ("k", "q")}, None)
    assert settings(odd.columns()) == "r8 a16 lr 0.001 k+q nf4 dora"


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe(precision="fp32"), "fp32"),
        (Recipe(precision="int4", algorithm="default", block_size=128, accuracy_level=1, symmetric=False),
         "int4 b128 asymmetric level 1"),
        (Recipe(precision="int4", algorithm="rtn", block_size=32, accuracy_level=4, symmetric=True), "int4 rtn b32"),
        (Recipe(precision="int4", mixed_precision="last_matmul:int8"), "int4 last_matmul:int8"),
        (Recipe(precision="fp32", fuse_qkv=False, prune_lm_head=True), "fp32 no fuse_qkv prune_lm_head"),
    ],
)  # fmt: skip
def test_a_recipe_in_a_few_words(recipe: Recipe, name: str) -> None:
    columns = {f"build_{key}": value for key, value in recipe.model_dump().items()}
    assert recipe_name(columns) == name
    filled = {key: value for key, value in columns.items() if value is not None}
    assert recipe_name(filled) == name


@pytest.mark.parametrize("name", [name for name in RECIPE if name not in ("precision", "accuracy_level")])
def test_recipes_that_differ_have_different_names(name: str) -> None:
    """But for the accuracy level, whose usual values (4 on cpu, 0 on cuda) are not said."""
    parameter = RECIPE[name]
    values = set(parameter.choices) or ({True, False} if parameter.type is bool else {"some", "others"})
    names = {recipe_name({"build_precision": "int4", f"build_{name}": value}) for value in values - {""}}
    assert len(names) == len(values - {""})


def test_a_table_is_aligned() -> None:
    lines = [["x", 1.5], ["long", None], [None, 123.0]]
    assert table(["name", "n"], lines).splitlines() == [
        "name    n",
        "----  ---",
        "x     1.5",
        "long",
        "      123",
    ]
    assert table(["name", "n"], []).splitlines() == ["name  n", "----  -"]


def test_candidates_star_the_winner_and_name_what_failed() -> None:
    columns = SPACE.candidate({}, Recipe(precision="int8")).columns()
    rows = [
        Trial({"candidate": "0123456789abcdef", "trial": 1, "status": "ok", "accuracy": 0.5, **columns}),
        Trial({"candidate": "fedcba9876543210", "trial": 2, "status": "ok", "accuracy": 0.25}),
    ]
    text = candidates(rows, ["accuracy"], "0123456789abcdef")
    head, _, first, second = text.splitlines()
    assert head.split() == ["candidate", "trial", "settings", "accuracy"]
    assert first.startswith("*  01234567")
    assert first.endswith("r8 a16 lr 0.001 all-linear | int8     0.500")
    assert "the untouched model" in second
    assert not second.startswith("*")
    rows[1] |= {"status": "timeout"}
    assert candidates(rows, ["accuracy"]).splitlines()[-1].endswith("timeout")


def test_a_score_has_its_unit_and_interval() -> None:
    cells = {"accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.93, "size_mb": 90.25, "itl_ms_p50": 8.0}
    row = Trial(cells)
    assert score_text(row, "accuracy") == "accuracy 0.900 [0.850, 0.930]"
    assert score_text(row, "size_mb") == "size_mb 90.2 MB"
    assert score_text(row, "itl_ms_p50") == "itl_ms_p50 8 ms/token"
    assert score_text(row, "f1") == "f1 not measured"


def test_no_cell_commands_a_terminal() -> None:
    row = {"candidate": "a", "trial": 1, "status": "\x1b[2J", "lora_r": 8, "lora_target_modules": "q\x1b[31m\nk"}
    text = candidates([Trial(row)], [])
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3
    assert settings({"lora_r": 8}) == "r8 a lr"


def test_a_session_stands_behind_the_recipe() -> None:
    served = SPACE.candidate({}, Recipe(precision="fp32"), Session(threads=1, arena=False))
    assert settings(served.columns()).endswith(" | fp32 | 1 thread, arena off")
    assert settings(SPACE.candidate({}, Recipe(precision="fp32")).columns()).endswith(" | fp32")


def test_a_metric_of_a_workload_has_its_unit_and_interval() -> None:
    row = Trial({"itl_ms_p50@long": 4.2, "itl_ms_p50_low@long": 4.0, "itl_ms_p50_high@long": 4.4})
    assert score_text(row, "itl_ms_p50@long") == "itl_ms_p50@long 4.2 ms/token [4, 4.4]"


@pytest.mark.parametrize(
    ("in_turns", "searched", "word"),
    [
        (9.97, 3.88, "slower"),
        (3.0, 3.88, "faster"),
        (4.5, 3.88, ""),
        (3.2, 3.88, ""),
        (9.97, None, ""),
        (None, 3.88, ""),
    ],
)
def test_another_pace_of_the_machine_at_the_end_is_told(
    in_turns: float | None, searched: float | None, word: str
) -> None:
    cells = {"role": "winner", "itl_ratio": 0.3, "itl_ratio_low": 0.2, "itl_ratio_high": 0.4, "rounds": 5}
    lines = finalist_lines([Finalist(cells | {"itl_ms_p50": in_turns})], "accuracy", Trial({"itl_ms_p50": searched}))
    assert lines[0].startswith("timed in turns, 5 rounds")
    assert [line.split()[3] for line in lines[1:]] == [word] * bool(word)
