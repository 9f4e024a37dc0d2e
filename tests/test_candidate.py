"""Candidates: one name for one thing, in rows and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.candidate import Candidate, Lora, Recipe, Session, digest
from autotune.results.columns import COLUMNS
from autotune.results.table import text_of
from autotune.space.adapters import resolve_lora
from autotune.space.parameter_tables import LORA, PRESETS, RECIPE, SESSION
from autotune.stages.jobs import MergeJob

PLAIN = resolve_lora({"batch_size": 8, "max_length": 256, "steps": 30})


def text(name: str) -> st.SearchStrategy[Any]:
    if name == "target_modules":
        module = st.from_regex(r"[a-z][\w.-]{0,8}", fullmatch=True)
        return st.sampled_from(PRESETS) | module | st.lists(module, min_size=2, max_size=4, unique=True).map(tuple)
    if name == "provider_options":
        return st.from_regex(r"[a-z_]{1,9}=[\w/.:,]{1,9}( [a-z_]{1,9}=[\w/.:,=]{1,9})?", fullmatch=True)
    return st.from_regex(r"[\w/][\w/.:,]{0,12}", fullmatch=True)


def field(table: Any, name: str) -> st.SearchStrategy[Any]:
    parameter = table[name]
    if parameter.choices:
        return st.sampled_from([choice for choice in parameter.choices if choice != ""])
    if parameter.type is bool:
        return st.booleans()
    if parameter.type is str:
        return text(name)
    if parameter.type is int:
        return st.integers(int(parameter.low), int(parameter.high))
    return st.floats(parameter.low, parameter.high)


def part(model: type[Lora | Recipe | Session], table: Any) -> st.SearchStrategy[Any]:
    required = {name: field(table, name) for name, info in model.model_fields.items() if info.is_required()}
    optional = {name: field(table, name) for name, info in model.model_fields.items() if not info.is_required()}
    return st.fixed_dictionaries(required, optional=optional).map(model.model_validate)


candidates = st.builds(
    Candidate,
    lora=st.none() | part(Lora, LORA),
    recipe=st.none() | part(Recipe, RECIPE),
    session=st.none() | part(Session, SESSION).filter(lambda session: session != Session()),
)


@settings(max_examples=300)
@given(candidates)
def test_a_row_gives_its_candidate_back(candidate: Candidate) -> None:
    row = {column.name: "" for column in COLUMNS}
    row |= {name: text_of(value) for name, value in candidate.columns().items()}
    row |= {"candidate": candidate.id, "kind": candidate.kind, "lorax": "no column of ours"}
    again = Candidate.from_columns(row)
    assert again == candidate
    assert again.id == candidate.id
    assert again.columns() == candidate.columns()


@settings(max_examples=300)
@given(candidates)
def test_columns_are_those_of_results(candidate: Candidate) -> None:
    types = {column.name: column.type for column in COLUMNS}
    for name, value in candidate.columns().items():
        assert type(value) is types[name]


@settings(max_examples=200)
@given(candidates, candidates)
def test_different_candidates_have_different_names(one: Candidate, other: Candidate) -> None:
    assert (one.id == other.id) == (one == other)
    assert len(one.id) == 16
    assert set(one.id) <= set("0123456789abcdef")


def test_names_stay_what_they_are() -> None:
    # Results and caches of earlier versions are found by these: a change here forgets them all.
    recipe = Recipe(precision="int4", algorithm="default", block_size=32, accuracy_level=4, symmetric=True)
    assert Candidate().id == "44136fa355b3678a"
    assert Candidate(recipe=Recipe(precision="fp32")).id == "e8819ef4795e227a"
    assert Candidate(lora=PLAIN, recipe=recipe).id == "457c90d5f048654e"


def test_what_is_not_set_does_not_name() -> None:
    told = Recipe(precision="fp32", algorithm=None, block_size=None)
    assert Candidate(recipe=told).id == Candidate(recipe=Recipe(precision="fp32")).id


def test_kinds() -> None:
    recipe = Recipe(precision="fp32")
    assert Candidate(recipe=recipe).kind == "base"
    assert Candidate(lora=PLAIN).kind == "adapter"
    assert Candidate(lora=PLAIN, recipe=recipe).kind == "pair"


def test_a_recipe_in_words() -> None:
    recipe = Recipe(
        precision="int4", algorithm="k_quant", block_size=32, mixed_precision="last_matmul:int8", fuse_qkv=False
    )
    assert str(recipe) == "int4 k_quant block_size=32 last_matmul:int8 fuse_qkv=False"


@pytest.mark.parametrize(
    "cells",
    [
        {"lora_r": "8"},
        {"build_precision": "fp32", "build_colour": "blue"},
        {"build_precision": "fp32", "build_block_size": "many"},
        {"build_precision": "fp32", "build_fuse_qkv": "perhaps"},
        {"build_precision": "fp32", "session_threads": "many"},
        {"build_precision": "fp32", "session_colour": "blue"},
    ],
)
def test_a_row_that_is_no_candidate_is_refused(cells: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Candidate.from_columns(cells)


def test_a_candidate_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        PLAIN.r = 3  # type: ignore[misc]
    assert hash(PLAIN) == hash(resolve_lora({"batch_size": 8, "max_length": 256, "steps": 30}))


def test_a_session_in_words() -> None:
    assert str(Session()) == ""
    assert str(Session(threads=1)) == "1 thread"
    served = Session(threads=2, arena=False, mem_pattern=True, provider_options="a=1 b=x=y")
    assert str(served) == "2 threads, arena off, mem_pattern on, a=1 b=x=y"
    assert served.options == {"a": "1", "b": "x=y"}
    assert served.config == {"intra_op_num_threads": 2, "enable_cpu_mem_arena": False, "enable_mem_pattern": True}


def test_what_a_session_leaves_open_is_as_the_target_says() -> None:
    target = Session(threads=4, arena=True)
    assert Session().over(target) == target
    assert Session(threads=1, mem_pattern=False).over(target) == Session(threads=1, arena=True, mem_pattern=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=4))
def test_a_digest_is_of_the_content_alone(content: dict[str, Any]) -> None:
    turned = dict(reversed(content.items()))
    assert digest(content) == digest(turned) == digest(json.loads(json.dumps(content)))


def test_a_digest_refuses_what_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest({"loss": math.nan})


def test_a_copy_with_other_values_has_an_id_and_a_key_of_its_own() -> None:
    candidate = Candidate(lora=PLAIN)
    before = candidate.id
    copy = candidate.model_copy(update={"lora": None})
    assert copy.id == Candidate().id != before
    assert candidate.model_copy().id == candidate.id == before
    job = MergeJob(adapter="a", base="b")
    key = job.key
    other = job.model_copy(update={"adapter": "c"})
    assert other.key == MergeJob(adapter="c", base="b").key != key
    assert job.model_copy(update={"base_dir": Path("x")}).key == key
    assert job == MergeJob(adapter="a", base="b")
    assert len({job, MergeJob(adapter="a", base="b")}) == 1
