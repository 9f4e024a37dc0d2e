"""The search space: domains, recipes that multiply, what cannot run, and every candidate once."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.errors import Problem
from autotune.providers import PRECISIONS, PROVIDERS
from autotune.space.adapters import lora_impossible, parse_lora, resolve_lora
from autotune.space.domains import Choice, Domain, Range
from autotune.space.parameter_tables import LORA, RECIPE, SESSION, Parameter
from autotune.space.recipes import LeftOut, ModelShape, parse_recipes
from autotune.space.sessions import parse_sessions
from autotune.space.space import Space, fit_recipes

SMOLLM2 = ModelShape((576, 1536), tied=True)
UNTIED = ModelShape((1024, 4096), tied=False)
DEFAULTS = {"batch_size": 8, "max_length": 256, "steps": 30}


def lora(raw: Any) -> dict[str, Domain]:
    problems: list[Problem] = []
    domains = parse_lora(raw, problems)
    assert problems == []
    assert domains is not None
    return domains


def build(
    raw: Any, provider: str = "cpu", shape: ModelShape | None = SMOLLM2
) -> tuple[tuple[Recipe, ...], tuple[LeftOut, ...]]:
    problems: list[Problem] = []
    found = parse_recipes(raw, PROVIDERS[provider], shape, problems)
    assert problems == []
    return found


def names(raw: Any, provider: str = "cpu", shape: ModelShape | None = SMOLLM2) -> list[str]:
    return [str(recipe) for recipe in build(raw, provider, shape)[0]]


def space(lora_part: Any = None, build_part: Any = None, **more: Any) -> Space:
    domains = None if lora_part is None else lora(lora_part)
    recipes = () if build_part is None else build(build_part)[0]
    return Space(domains, recipes, defaults=DEFAULTS, **more)


# --- The tables ----------------------------------------------------------------------------------------------------


def test_the_tables_are_the_fields_of_candidates() -> None:
    assert set(LORA) - {"alpha_over_r"} == set(Lora.model_fields)
    assert list(RECIPE) == list(Recipe.model_fields)
    assert list(SESSION) == list(Session.model_fields)


@pytest.mark.parametrize("parameter", [*LORA.values(), *RECIPE.values()], ids=lambda parameter: parameter.name)
def test_a_parameter_is_documented_and_its_own_default_is_allowed(parameter: Parameter) -> None:
    assert parameter.meaning
    assert set(parameter.providers) <= set(PROVIDERS)
    assert set(parameter.precisions) <= set(PRECISIONS)
    if parameter.default is not None:
        assert type(parameter.default) is parameter.type
        assert parameter.choices == () or parameter.default in parameter.choices
        if parameter.type in (int, float):
            assert parameter.low <= float(parameter.default) <= parameter.high
    if parameter.type in (int, float) and not parameter.choices:
        assert math.isfinite(parameter.low)
        assert math.isfinite(parameter.high)


# --- Domains -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "domain"),
    [
        ({"r": 8}, Choice((8,))),
        ({"r": 8.0}, Choice((8,))),
        ({"r": {"choice": [8, 16, 8.0]}}, Choice((8, 16))),
        ({"r": {"int": [4, 32]}}, Range(4, 32, integer=True)),
        ({"r": {"uniform": [4, 32]}}, Range(4, 32, integer=True)),
        ({"r": {"logint": [4, 32]}}, Range(4, 32, log=True, integer=True)),
        ({"r": {"loguniform": [4, 32]}}, Range(4, 32, log=True, integer=True)),
        ({"alpha": 16}, Choice((16.0,))),
        ({"alpha": {"int": [4, 32]}}, Range(4, 32, integer=True)),
        ({"learning_rate": {"loguniform": [1e-4, 1e-2]}}, Range(1e-4, 1e-2, log=True)),
        ({"dropout": {"uniform": [0, 0.1]}}, Range(0, 0.1)),
        ({"dora": {"choice": [False, True]}}, Choice((False, True))),
        ({"target_modules": "mlp"}, Choice(("mlp",))),
        ({"target_modules": ["v_proj", "q_proj", "v_proj"]}, Choice((("q_proj", "v_proj"),))),
        ({"target_modules": ["q_proj"]}, Choice(("q_proj",))),
        ({"target_modules": ["mlp"]}, Choice(("mlp",))),
        ({"target_modules": {"choice": [["b", "a"], "mlp", ["a", "b"]]}}, Choice((("a", "b"), "mlp"))),
    ],
)
def test_a_domain_is_read(raw: dict[str, Any], domain: Domain) -> None:
    found = lora(raw)[next(iter(raw))]
    assert found == domain
    if isinstance(found, Choice) and isinstance(domain, Choice):
        assert [type(value) for value in found.values] == [type(value) for value in domain.values]


@pytest.mark.parametrize(
    ("raw", "key", "rule"),
    [
        (None, "", "must be a mapping of LoRA parameters"),
        ([], "", "must be a mapping of LoRA parameters"),
        ({"r": None}, ".r", "has no value"),
        ({"r": True}, ".r", "must be a whole number"),
        ({"r": "8"}, ".r", "must be a whole number"),
        ({"r": 10**400}, ".r", "must be a whole number"),
        ({"r": 1025}, ".r", "must be between 1 and 1024"),
        ({"r": math.nan}, ".r", "must be a whole number"),
        ({"alpha": math.inf}, ".alpha", "must be a number"),
        ({"alpha": -1}, ".alpha", "must be between 0.001 and 100000"),
        ({"dora": 1}, ".dora", "must be true or false"),
        ({"schedule": 1}, ".schedule", "must be a text"),
        ({"schedule": "step"}, ".schedule", "must be one of linear, cosine, constant"),
        ({"quantized_base": "int4"}, ".quantized_base", "must be one of none, nf4, fp4, int8"),
        ({"target_modules": []}, ".target_modules", "a list of target modules must hold names"),
        ({"target_modules": ["a+b"]}, ".target_modules", "a list of target modules must hold names"),
        ({"target_modules": [["a"]]}, ".target_modules", "a list of target modules must hold names"),
        (
            {"target_modules": "q_proj"},
            ".target_modules",
            "must be one of all-linear, attention, mlp, or a list of mod",
        ),
        ({"r": {}}, ".r", "a searched parameter has exactly one of choice, uniform, loguniform, int, logint"),
        ({"r": {"choice": 8}}, ".r.choice", "choice needs a list with at least one value"),
        ({"r": {"choice": [8, 0]}}, ".r.choice", "must be between 1 and 1024"),
        ({"r": {"choice": [None]}}, ".r.choice", "has no value"),
        ({"r": {"int": [1.5, 8]}}, ".r.int", "int needs whole numbers"),
        ({"r": {"uniform": [1.5, 8]}}, ".r.uniform", "must be a whole number"),
        ({"r": {"int": [0, 8]}}, ".r.int", "must be between 1 and 1024"),
        ({"r": {"int": [8, 8]}}, ".r.int", "`low < high` must hold"),
        ({"r": {"int": [1, True]}}, ".r.int", "int needs two numbers"),
        ({"r": {"int": "1-8"}}, ".r.int", "int needs two numbers"),
        ({"epochs": {"logint": [0.5, 3]}}, ".epochs.logint", "logint needs whole numbers"),
        ({"warmup": {"loguniform": [0, 1]}}, ".warmup.loguniform", "loguniform needs low > 0"),
        ({"dora": {"uniform": [0, 1]}}, ".dora", "uniform is for numbers; dora is not one"),
        ({"epochs": 1, "steps": 1}, ".steps", "steps and epochs exclude one another"),
        ({"steps": 1, "epochs": 1}, ".epochs", "steps and epochs exclude one another"),
        ({"alpha": 1, "alpha_over_r": 1}, ".alpha_over_r", "alpha and alpha_over_r exclude one another"),
        ({3: 1}, ".3", "unknown key"),
    ],
)
def test_a_wrong_domain_is_a_problem(raw: Any, key: str, rule: str) -> None:
    problems: list[Problem] = []
    parse_lora(raw, problems)
    assert [(problem.key, problem.rule[: len(rule)]) for problem in problems] == [(f"space.lora{key}", rule)]
    assert problems[0].remedy


@pytest.mark.parametrize(
    ("word", "meant"),
    [("rank", "r"), ("lora_alpha", "alpha"), ("lr", "learning_rate"), ("max_steps", "steps"), ("num_epochs", "epochs"),
     ("lora_dropout", "dropout"), ("targets_modules", "target_modules"), ("use_dora", "dora")],
)  # fmt: skip
def test_words_of_other_tools_are_understood(word: str, meant: str) -> None:
    problems: list[Problem] = []
    parse_lora({word: 1}, problems)
    assert problems[0].remedy == f"did you mean '{meant}'?"


# --- Adapters ------------------------------------------------------------------------------------------------------


def test_alpha_follows_the_rank() -> None:
    both = space({"r": {"choice": [4, 16]}, "alpha_over_r": {"choice": [1, 2]}})
    found = [(c.lora.r, c.lora.alpha) for c in both.grid() if c.lora]
    assert found == [(4, 4.0), (4, 8.0), (16, 16.0), (16, 32.0)]
    by_default = [(c.lora.r, c.lora.alpha) for c in space({"r": {"choice": [4, 16]}}).grid() if c.lora]
    assert by_default == [(4, 8.0), (16, 32.0)]
    fixed = [(c.lora.r, c.lora.alpha) for c in space({"r": {"choice": [4, 16]}, "alpha": 3}).grid() if c.lora]
    assert fixed == [(4, 3.0), (16, 3.0)]


def test_epochs_stand_for_steps() -> None:
    found = resolve_lora({"batch_size": 1, "max_length": 8, "steps": 30, "epochs": 2})
    assert (found.steps, found.epochs) == (None, 2.0)
    found = resolve_lora({"batch_size": 1, "max_length": 8, "steps": 30})
    assert (found.steps, found.epochs) == (30, None)


def test_double_quant_counts_only_on_a_base_of_four_bits() -> None:
    parts = {"quantized_base": {"choice": ["none", "nf4", "int8"]}, "double_quant": {"choice": [False, True]}}
    found = [(c.lora.quantized_base, c.lora.double_quant) for c in space(parts).grid() if c.lora]
    assert found == [("none", None), ("nf4", False), ("nf4", True), ("int8", None)]


def test_searched_values_win_over_fixed_and_default_ones() -> None:
    parts = space({"r": {"choice": [4, 8]}, "steps": 7, "learning_rate": {"loguniform": [1e-4, 1e-2]}})
    found = parts.candidate({"r": 8, "learning_rate": 3e-3}, None).lora
    assert found is not None
    assert (found.r, found.steps, found.learning_rate, found.batch_size) == (8, 7, 3e-3, 8)
    assert list(parts.searched) == ["r", "learning_rate"]


def test_fp16_does_not_train_on_a_cpu() -> None:
    half = resolve_lora({**DEFAULTS, "dtype": "fp16"})
    assert "fp16 does not train on a CPU" in (lora_impossible(half, "cpu") or "")
    assert lora_impossible(half, "cuda") is None
    assert lora_impossible(half, "auto") is None
    both = {"dtype": {"choice": ["fp32", "fp16"]}}
    assert [c.lora.dtype for c in space(both, device="cpu").grid() if c.lora] == ["fp32"]
    assert [c.lora.dtype for c in space(both, device="auto").grid() if c.lora] == ["fp32", "fp16"]


# --- Recipes -------------------------------------------------------------------------------------------------------


def test_recipes_multiply_in_the_order_written() -> None:
    raw = [
        {"precision": ["int8", "fp32"]},
        {"precision": "int4", "block_size": [64, 32], "algorithm": ["rtn", "default"]},
    ]
    assert names(raw) == [
        "int8 default block_size=32 accuracy_level=4 symmetric=True",
        "fp32",
        "int4 rtn block_size=64 accuracy_level=4 symmetric=True",
        "int4 default block_size=64 accuracy_level=4 symmetric=True",
        "int4 rtn block_size=32 accuracy_level=4 symmetric=True",
        "int4 default block_size=32 accuracy_level=4 symmetric=True",
    ]
    assert (
        names({"precision": {"choice": ["int8", "fp32"]}}) == names({"precision": ["int8", "fp32"]}) == names(raw)[:2]
    )


@pytest.mark.parametrize(
    "raw",
    [
        [{"precision": "fp32"}, {"precision": "fp32"}],
        {"precision": "fp32", "block_size": [16, 32], "algorithm": ["rtn", "k_quant"], "accuracy_level": [0, 4]},
        {"precision": "fp32", "symmetric": [True, False], "use_qdq": [False, True], "nodes_to_exclude": ["", "a"]},
        {"precision": "fp32", "fuse_qkv": True, "prune_lm_head": False, "shared_embeddings": True},
        {"precision": "int4", "algorithm": "k_quant", "symmetric": [True, False]},
        {"precision": "int8", "mixed_precision": ["", "last_matmul:int8"]},
        {"precision": "int4", "algorithm": "rtn", "mixed_precision": ["last_matmul:int8,mixed_layers:int4",
                                                  " mixed_layers : int4 , last_matmul:int8,"]},
        {"precision": "int4", "nodes_to_exclude": ["/a/MatMul,/b/MatMul", "/b/MatMul , /a/MatMul,/b/MatMul"]},
        {"precision": "int4", "accuracy_level": 4, "block_size": [32, 32.0]},
    ],
)  # fmt: skip
def test_what_does_not_count_makes_no_second_recipe(raw: Any) -> None:
    assert len(names(raw)) == 1


def test_what_counts_is_kept() -> None:
    raw = {"precision": "int4", "kv_cache_quant_scheme": ["none", "int4_per_channel"], "kv_cache_rotation": "none",
           "fuse_qkv": False, "symmetric": False, "shared_embeddings": False, "qmoe_block_size": 0}  # fmt: skip
    plain, quantised = build(raw, "cuda")[0]
    assert quantised.model_dump(exclude_none=True) == {
        "precision": "int4", "algorithm": "default", "block_size": 32, "accuracy_level": 0, "symmetric": False,
        "kv_cache_quant_scheme": "int4_per_channel", "fuse_qkv": False, "shared_embeddings": False, "qmoe_block_size": 0,
    }  # fmt: skip
    assert (plain.kv_cache_quant_scheme, plain.calibrated, quantised.calibrated) == (None, False, True)
    assert plain.kv_cache_rotation is None


CACHES = [
    ("kv_cache_quant_scheme", f"{kind}_per_{shared}", said)
    for kind, shared, said in (
        ("int8", "token", "needs paged attention"), ("int4", "token", "needs paged attention"),
        ("fp8", "tensor", "does not load on cpu"), ("fp8", "channel", "does not load on cpu"),
    )
] + [("kv_cache_rotation", "hadamard", "needs paged attention")]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said"), CACHES)
def test_a_cache_that_can_never_run_is_refused_and_its_old_rows_are_read(name: str, value: str, said: str) -> None:
    for written in (value, [RECIPE[name].default, value]):
        problems: list[Problem] = []
        found, _ = parse_recipes({"precision": "int4", name: written}, PROVIDERS["cuda"], None, problems)
        assert found == ()
        assert [(problem.key, problem.value) for problem in problems] == [(f"space.build[0].{name}", value)]
        assert f"{value} {said}" in str(problems[0])
        assert "write " in problems[0].remedy
    old = {"build_precision": "int4", "build_accuracy_level": "0", f"build_{name}": value}
    row = Candidate.from_columns(old)
    assert getattr(row.recipe, name) == value
    assert row.columns() == {"build_precision": "int4", "build_accuracy_level": 0, f"build_{name}": value}


def test_a_parameter_of_recipes_names_no_value_twice() -> None:
    for parameter in RECIPE.values():
        assert not set(parameter.choices) & dict(parameter.refused).keys()


@pytest.mark.parametrize(("provider", "level"), [("cpu", 4), ("cuda", 0), ("dml", 0), ("webgpu", 4)])
def test_the_accuracy_level_is_that_of_the_provider(provider: str, level: int) -> None:
    assert build({"precision": "int4"}, provider)[0][0].accuracy_level == level
    assert build({"precision": "int4", "accuracy_level": 1}, provider)[0][0].accuracy_level == 1


@pytest.mark.parametrize("name", [name for name, parameter in RECIPE.items() if parameter.providers])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_option_of_one_provider_is_refused_on_another(name: str, provider: str) -> None:
    parameter = RECIPE[name]
    other = not parameter.default if parameter.type is bool else parameter.choices[-1]
    problems: list[Problem] = []
    precision = PROVIDERS[provider].precisions[-1]
    recipe = {"precision": precision, name: other}
    found, _ = parse_recipes(recipe, PROVIDERS[provider], None, problems)
    if provider in parameter.providers:
        assert problems == []
        kept = None if other == parameter.default or precision not in parameter.precisions else other
        assert getattr(found[0], name) == kept
    else:
        assert [problem.key for problem in problems] == [f"space.build[0].{name}"]
        assert f"remove it for {provider}" in str(problems[0])


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
def test_only_precisions_that_run_are_taken(provider: Any) -> None:
    problems: list[Problem] = []
    parse_recipes({"precision": list(PRECISIONS)}, provider, None, problems)
    assert [problem.value for problem in problems] == [p for p in PRECISIONS if p not in provider.precisions]


@pytest.mark.parametrize(
    ("raw", "key", "rule"),
    [
        ([], "", "needs at least one recipe"),
        (None, "[0]", "a recipe is a mapping"),
        (["int4"], "[0]", "a recipe is a mapping"),
        ({}, "[0]", "a recipe needs a precision"),
        ({"precision": []}, "[0].precision", "needs at least one value"),
        ({"precision": ["int4", "q4"]}, "[0].precision", "must be one of fp32, fp16, bf16, int8, int4"),
        ([{"precision": "int8"}, {"precision": "fp16"}], "[1].precision", "fp16 does not run on the cpu provider"),
        ({"precision": "int4", "block_size": 48}, "[0].block_size", "must be one of 16, 32, 64, 128, 256"),
        ({"precision": "int4", "block_size": {"int": [16, 32]}}, "[0].block_size", "a recipe takes values and lists"),
        ({"precision": "int4", "algorithm": "gptq"}, "[0].algorithm", "must be one of default, rtn, k_quant"),
        ({"precision": "int4", "symmetric": "no"}, "[0].symmetric", "must be true or false"),
        ({"precision": "int4", "mixed_precision": "int8"}, "[0].mixed_precision", "must be group:precision"),
        ({"precision": "int4", "mixed_precision": "last_matmul:fp16"}, "[0].mixed_precision", "must be group:precision"),
        ({"precision": "int4", "mixed_precision": "last_matmul:int8,last_matmul:int4"}, "[0].mixed_precision", "must be"),
        ({"precision": "int4", "nodes_to_exclude": "/a b"}, "[0].nodes_to_exclude", "must be node names, separated"),
        ({"precision": "int4", "nodes_to_exclude": "=1+1"}, "[0].nodes_to_exclude", "must be node names, separated"),
        ({"precision": "int4", "nodes_to_exclude": "a\nb"}, "[0].nodes_to_exclude", "must be a text"),
        ({"precision": "int4", "blocksize": 32}, "[0].blocksize", "unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_a_problem(raw: Any, key: str, rule: str) -> None:
    problems: list[Problem] = []
    found, left_out = parse_recipes(raw, PROVIDERS["cpu"], SMOLLM2, problems)
    assert [(problem.key, problem.rule[: len(rule)]) for problem in problems] == [(f"space.build{key}", rule)]
    assert problems[0].remedy
    assert left_out == ()
    # What else is right is still looked at, so that its own mistakes come up.
    assert len(found) == (key == "[1].precision" or key.endswith("blocksize"))


def test_lists_that_multiply_to_too_many_recipes_are_refused_at_once() -> None:
    recipe: dict[str, Any] = {"precision": "int4", "algorithm": ["default", "rtn", "k_quant"],
              "block_size": [16, 32, 64, 128, 256], "accuracy_level": [0, 1, 2, 3, 4], "qmoe_block_size": [0, 16, 32, 64]}  # fmt: skip
    for name in ("symmetric", "use_qdq", "shared_embeddings", "fuse_qkv", "fuse_mlp_gate_up", "prune_lm_head"):
        recipe[name] = [False, True]
    problems: list[Problem] = []
    assert parse_recipes(recipe, PROVIDERS["cpu"], None, problems) == ((), ())
    assert [problem.rule for problem in problems] == ["its lists multiply to 19,200 recipes, and 10,000 are the most"]


# --- What cannot run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "fits"), [(16, True), (32, True), (64, False), (128, False), (256, False)])
def test_k_quant_needs_an_even_number_of_blocks(block: int, fits: bool) -> None:
    # 576 / 64 = 9 and 576 / 128 = 4.5: 9 and 5 blocks. 1536 / 256 = 6, but 576 / 256 makes 3.
    recipes, left_out = build({"precision": "int4", "algorithm": "k_quant", "block_size": block})
    assert len(recipes) == fits
    assert len(left_out) == (not fits)
    if not fits:
        assert left_out[0].settings.startswith(f"int4 k_quant block_size={block}")
        assert f"576 in blocks of {block} gives {math.ceil(576 / block)}" in left_out[0].reason


def test_only_k_quant_at_int4_minds_the_blocks() -> None:
    raw = [{"precision": "int4", "algorithm": ["default", "rtn"], "block_size": [64, 128]},
           {"precision": "int8", "algorithm": "k_quant", "block_size": 64}]  # fmt: skip
    assert len(build(raw)[0]) == 5
    assert build(raw)[1] == ()


def test_one_block_that_fits_is_enough() -> None:
    recipes, left_out = build({"precision": "int4", "algorithm": "k_quant", "block_size": [32, 64, 128]})
    assert [recipe.block_size for recipe in recipes] == [32]
    assert len(left_out) == 2


@given(st.integers(1, 20_000), st.sampled_from([16, 32, 64, 128, 256]))
def test_left_out_exactly_where_a_row_has_an_odd_number_of_blocks(size: int, block: int) -> None:
    raw = {"precision": "int4", "algorithm": "k_quant", "block_size": block}
    blocks = len(range(0, size, block))
    assert len(build(raw, shape=ModelShape((size,), tied=False))[0]) == (blocks % 2 == 0)


def test_sharing_embeddings_follows_the_model() -> None:
    raw = {"precision": "int4", "shared_embeddings": [True, False]}
    tied, untied = build(raw), build(raw, shape=UNTIED)
    assert [recipe.shared_embeddings for recipe in tied[0]] == [None, False]
    assert [recipe.shared_embeddings for recipe in untied[0]] == [None]
    assert [left.reason for left in untied[1]] == ["shared_embeddings needs a model that ties embedding and head; this one does not"]  # fmt: skip


def test_qdq_does_not_go_with_tied_embeddings() -> None:
    raw = {"precision": "int4", "use_qdq": True, "shared_embeddings": [True, False]}
    assert [recipe.shared_embeddings for recipe in build(raw)[0]] == [False]
    assert "add shared_embeddings: false" in build(raw)[1][0].reason
    assert len(build(raw, shape=UNTIED)[0]) == 1


def test_qdq_is_written_for_the_algorithm_default_alone() -> None:
    """The model builder takes the option with others, and writes MatMulNBits; it refuses groups at int8 and embeddings."""
    raw = {"precision": "int4", "use_qdq": True, "algorithm": ["default", "rtn", "k_quant"], "block_size": [32, 128]}
    for shape in (UNTIED, None):
        recipes, left_out = build(raw, shape=shape)
        assert [recipe.algorithm for recipe in recipes] == ["default", "default"]
        assert len(left_out) == 4
        assert all("the algorithm default alone" in left.reason for left in left_out)
    for more in ({"mixed_precision": "last_matmul:int8"}, {"op_types_to_quantize": "MatMul/Gather"}):
        recipes, left_out = build({"precision": "int4", "use_qdq": True, **more}, shape=UNTIED)
        assert recipes == ()
        assert "use_qdq" in left_out[0].reason


@pytest.mark.parametrize("shape", [SMOLLM2, UNTIED, None], ids=["tied", "untied", "not known"])
def test_int4_for_tensorrt_rtx_is_always_qdq(shape: ModelShape | None) -> None:
    recipes, left_out = build({"precision": "int4", "symmetric": [True, False]}, "NvTensorRtRtx", shape)
    assert left_out == ()
    assert [recipe.use_qdq for recipe in recipes] == [True, True]
    known = fit_recipes(Space(None, recipes, defaults=DEFAULTS), shape or SMOLLM2)
    assert known.left_out == ()
    tied = shape is not UNTIED
    assert {recipe.shared_embeddings for recipe in known.recipes} == {False if tied else None}
    problems: list[Problem] = []
    parse_recipes({"precision": "int4", "use_qdq": False}, PROVIDERS["NvTensorRtRtx"], shape, problems)
    assert [problem.key for problem in problems] == ["space.build[0].use_qdq"]
    assert build({"precision": "int4", "use_qdq": True}, "NvTensorRtRtx", shape)[0] == recipes[:1]


def test_a_model_not_seen_yet_is_fitted_later() -> None:
    raw = [{"precision": "int4", "algorithm": "k_quant", "block_size": [32, 64], "shared_embeddings": [True, False]},
           {"precision": "int4", "algorithm": "k_quant"}]  # fmt: skip
    unseen, left_out = build(raw, shape=None)
    assert len(unseen) == 5
    assert left_out == ()
    fitted = fit_recipes(Space(None, unseen, (LeftOut("before", "as said"),)), SMOLLM2)
    assert (fitted.recipes, set(fitted.left_out[1:])) == (build(raw)[0], set(build(raw)[1]))
    assert fitted.left_out[0].settings == "before"
    assert fit_recipes(fitted, SMOLLM2) == fitted


# --- Grids ---------------------------------------------------------------------------------------------------------


def test_a_grid_goes_through_all_recipes_of_an_adapter_before_the_next() -> None:
    whole = space({"r": {"choice": [8, 4]}}, {"precision": ["int8", "fp32"]})
    found = [(c.lora.r, c.recipe.precision) for c in whole.grid() if c.lora and c.recipe]
    assert found == [(8, "int8"), (8, "fp32"), (4, "int8"), (4, "fp32")]
    assert whole.size() == 4


def test_a_space_may_lack_adapters_or_recipes() -> None:
    assert [c.kind for c in space(None, {"precision": ["int8", "fp32"]}).grid()] == ["base", "base"]
    assert [c.kind for c in space({}).grid()] == ["adapter"]
    assert [c.kind for c in space({}, {"precision": "fp32"}).grid()] == ["pair"]


def test_a_range_has_no_grid() -> None:
    endless = space({"r": {"int": [1, 2]}})
    assert endless.size() is None
    with pytest.raises(ValueError, match=r"lora\.r is a range: a grid needs choices"):
        next(endless.grid())


def test_a_large_space_is_not_counted_one_by_one() -> None:
    parts = {
        name: {"choice": [n / 100 for n in range(1, 51)]}
        for name in ("dropout", "learning_rate", "warmup", "weight_decay", "max_grad_norm", "alpha")
    }
    assert space(parts, {"precision": ["int8", "fp32"]}).size() == 50**6 * 2  # counted, they would take days


@settings(deadline=None, max_examples=50)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "r": st.lists(st.sampled_from([4, 8, 16]), min_size=1, max_size=3),
            "alpha_over_r": st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0]), min_size=1, max_size=3),
            "quantized_base": st.lists(st.sampled_from(["none", "nf4", "fp4"]), min_size=1, max_size=3),
            "double_quant": st.lists(st.booleans(), min_size=1, max_size=2),
            "target_modules": st.lists(st.sampled_from(["mlp", ["b", "a"], ["a", "b"]]), min_size=1, max_size=3),
            "dtype": st.lists(st.sampled_from(["auto", "fp32", "fp16"]), min_size=1, max_size=3),
        },
    ),
    st.lists(st.sampled_from(["fp32", "int8", "int4"]), min_size=1, max_size=3),
    st.sampled_from(["cpu", "auto"]),
)
def test_a_grid_has_every_candidate_once(choices: dict[str, list[Any]], precisions: list[str], device: str) -> None:
    parts = {name: {"choice": values} for name, values in choices.items()}
    whole = space(parts, {"precision": precisions, "block_size": [32, 128]}, device=device)
    found = list(whole.grid())
    assert len({candidate.id for candidate in found}) == len(found) == whole.size()
    adapters = {c.lora for c in found}
    assert len(found) == len(adapters) * len(whole.recipes)
    for candidate in found:
        assert candidate.lora is not None
        assert lora_impossible(candidate.lora, device) is None
        for name, values in choices.items():
            if name not in ("alpha_over_r", "double_quant"):
                wanted = [tuple(sorted(value)) if isinstance(value, list) else value for value in values]
                assert getattr(candidate.lora, name) in wanted


# --- Sessions ------------------------------------------------------------------------------------------------------


def served(
    raw: Any, provider: str = "cpu", target: Session | None = None
) -> tuple[tuple[Session | None, ...], list[str]]:
    problems: list[Problem] = []
    found = parse_sessions(raw, target or Session(), PROVIDERS[provider], problems)
    return found, [str(problem) for problem in problems]


def test_sessions_multiply_as_recipes_do() -> None:
    found, problems = served([{"threads": [1, 2], "arena": [True, False]}, {"threads": 4, "mem_pattern": False}])
    assert problems == []
    assert [str(session) for session in found] == [
        "1 thread, arena on", "1 thread, arena off", "2 threads, arena on", "2 threads, arena off",
        "4 threads, mem_pattern off",
    ]  # fmt: skip
    assert served({"threads": 3}) == ((Session(threads=3),), [])


def test_two_sessions_that_come_to_the_same_are_one() -> None:
    target = Session(threads=2)
    assert served([{"threads": 2, "arena": False}, {"arena": False}], target=target)[0] == (
        Session(threads=2, arena=False),
    )
    assert served([{}, {"threads": [2, 4]}], target=target)[0] == (None, Session(threads=4))
    assert served([{"threads": [1, 1]}, {"threads": 1}])[0] == (Session(threads=1),)


def test_provider_options_are_spelled_in_one_way_and_multiply() -> None:
    options = {
        "gpu_mem_limit": 4e9,
        "arena_extend_strategy": ["kNextPowerOfTwo", "kSameAsRequested"],
        "a": True,
    }
    found, problems = served({"threads": 1, "provider_options": options}, "cuda")
    assert problems == []
    assert [session.provider_options for session in found if session] == [
        f"a=1 arena_extend_strategy={strategy} gpu_mem_limit=4000000000"
        for strategy in ("kNextPowerOfTwo", "kSameAsRequested")
    ]
    two = served({"provider_options": [{"x": 1}, {"x": "1"}, {"x": 0.5}]}, "cuda")[0]
    assert [session.options for session in two if session] == [{"x": "1"}, {"x": "0.5"}]


@pytest.mark.parametrize(
    ("raw", "provider", "said"),
    [
        ({"threads": 0}, "cpu", "session[0].threads: must be between 1 and 1024, got 0"),
        ({"threads": 2000}, "cpu", "must be between 1 and 1024, got 2000"),
        ({"threads": "two"}, "cpu", "threads: must be a whole number"),
        ({"threads": {"int": [1, 4]}}, "cpu", "a session takes values and lists of them, not ranges"),
        ({"arena": "off"}, "cpu", "arena: must be true or false, got 'off'"),
        ({"thread": 1}, "cpu", "session[0].thread: unknown key; did you mean 'threads'?"),
        ({"threads": []}, "cpu", "needs at least one value"),
        ([], "cpu", "space.session: needs at least one session"),
        ("fast", "cpu", "a session is a mapping, got 'fast'"),
        ({"provider_options": {"a": 1}}, "cpu", "provider_options means something on cuda, dml, webgpu, openvino, NvTensorRtRtx only"),
        ({"provider_options": 3}, "cuda", "must be a mapping of options, got 3"),
        ({"provider_options": {}}, "cuda", "must be a mapping of options"),
        ({"provider_options": {"a": {"b": 1}}}, "cuda", "a value is a text, a number, true or false"),
        ({"provider_options": {"a": math.inf}}, "cuda", "a value is a text, a number, true or false"),
        ({"provider_options": {"a": "x y"}}, "cuda", "a value is a text without spaces"),
        ({"provider_options": {"a b": 1}}, "cuda", "a name is letters, digits"),
        ({"threads": list(range(1, 1001)), "provider_options": {"a": list(range(20))}}, "cuda", "10,000 are the most"),
    ],
)  # fmt: skip
def test_a_session_that_makes_no_sense_is_refused_in_a_line(raw: Any, provider: str, said: str) -> None:
    problems = served(raw, provider)[1]
    assert len(problems) == 1
    assert said in problems[0]


def test_a_grid_serves_every_build_in_every_session() -> None:
    sessions = (None, Session(threads=1), Session(threads=2, arena=False))
    whole = space({"r": {"choice": [4, 8]}}, [{"precision": "int8"}, {"precision": "fp32"}], sessions=sessions)
    grid = list(whole.grid())
    assert whole.size() == len(grid) == len({candidate.id for candidate in grid}) == 2 * 2 * 3
    assert [candidate.session for candidate in grid[:4]] == [*sessions, None]
    plain = grid[0]
    assert plain.id == Candidate(lora=plain.lora, recipe=plain.recipe).id


@pytest.mark.parametrize(
    ("change", "inside"),
    [
        ({}, True),
        ({"r": 16, "alpha": 32.0}, True),
        ({"r": 16}, False),  # alpha over r is another then
        ({"r": 256, "alpha": 512.0}, False),
        ({"learning_rate": 9e-3}, True),
        ({"learning_rate": 2e-2}, False),
        ({"dora": True}, False),
        ({"steps": None, "epochs": 2.0}, False),
    ],
)
def test_a_space_knows_its_own_adapters(change: dict[str, Any], inside: bool) -> None:
    problems: list[Problem] = []
    raw = {"r": {"choice": [8, 16]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": {"choice": [10, 20]}}
    space = Space(parse_lora(raw, problems), (), defaults={"batch_size": 8, "max_length": 64})
    lora = space.candidate({"r": 8, "learning_rate": 1e-3, "steps": 20}, None).lora
    assert lora is not None
    assert space.has(lora.model_copy(update=change)) is inside
    assert not Space(None, ()).has(lora)


@given(st.sampled_from([3, 6, 8, 12, 24, 48, 96, 100]), st.sampled_from([0.1, 0.7, 1 / 3, 2.0, 3.3]))
def test_it_knows_them_whatever_rank_and_ratio_come_to(r: int, ratio: float) -> None:
    problems: list[Problem] = []
    raw = {"r": {"choice": [r, 512]}, "alpha_over_r": {"choice": [ratio, 7.7]}, "steps": 20}
    space = Space(parse_lora(raw, problems), (), defaults={"batch_size": 8, "max_length": 64})
    assert all(space.has(candidate.lora) for candidate in space.grid() if candidate.lora is not None)
