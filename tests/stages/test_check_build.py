"""The check of a build: every honest one passes, whatever was damaged fails, and says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Do

from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.stages import backends
from autotune.stages.backends import OnnxBackend, TorchBackend
from autotune.stages.check_build import ITEMS, LOGIT_ERROR, TOKENS, agreement, limit_of, logits_of, texts_of, trouble
from autotune.stages.jobs import BuildJob, CheckJob
from autotune.stages.protocol import Result
from autotune.stages.weights import compare_weights, damaged
from benchmarks.fidelity import Change, edit, one_nan, scrambled

BLOCKS = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
K_QUANT: dict[str, Any] = {"algorithm": "k_quant", "symmetric": None}
UNTIED: dict[str, Any] = {"shared_embeddings": False}


def recipe(precision: str, **changes: Any) -> Recipe:
    return Recipe(precision=precision, **(BLOCKS if precision.startswith("int") else {}) | changes)


FP32, INT8, INT4 = recipe("fp32"), recipe("int8"), recipe("int4")
HONEST = (
    FP32, recipe("fp32", prune_lm_head=True), recipe("fp32", fuse_qkv=False), recipe("fp32", fuse_mlp_gate_up=True),
    INT8, recipe("int8", algorithm="rtn"), recipe("int8", block_size=128), recipe("int8", **K_QUANT),
    INT4, *(recipe("int4", block_size=size) for size in (16, 128, 256)),
    *(recipe("int4", accuracy_level=level) for level in (0, 1)),
    recipe("int4", algorithm="rtn"), recipe("int4", algorithm="rtn", symmetric=False),
    recipe("int4", symmetric=False, **UNTIED), recipe("int4", prune_lm_head=True),
    recipe("int4", **K_QUANT), recipe("int4", mixed_precision="last_matmul:int8,mixed_layers:int8", **K_QUANT),
    recipe("int4", use_qdq=True, **UNTIED), recipe("int4", op_types_to_quantize="MatMul/Gather"),
    recipe("int4", fuse_mlp_gate_up=True),
)  # fmt: skip


def job(recipe: Recipe, folder: Path, source: Path, items: Path, **changes: Any) -> CheckJob:
    given: dict[str, Any] = {
        "source": "build", "provider": "cpu", "recipe": recipe, "data": "items", "max_length": 64,
        "threads": 1, "model_dir": folder, "source_dir": source, "data_file": items,
    }  # fmt: skip
    return CheckJob(**given | changes)


@pytest.fixture
def checked(do: Do, built: Do, items_file: Path, tmp_path: Path) -> Callable[..., Result]:
    """Build, damage a copy of it with `change` where the tensors' names hold all `parts`, and check it."""

    def run(recipe: Recipe, source: Path, change: Change | None = None, *parts: str) -> Result:
        folder, _ = built(recipe, source)
        if change is not None:
            folder = Path(shutil.copytree(folder, tmp_path / "damaged", dirs_exist_ok=True))
            assert edit(folder, change, *parts) > 0
        return do(job(recipe, folder, source, items_file))[1]

    return run


# --- Honest builds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", HONEST, ids=str)
@pytest.mark.parametrize("model", ["tiny_llama", "tiny_qwen2"])
def test_every_honest_build_passes(
    checked: Callable[..., Result], recipe: Recipe, model: str, request: pytest.FixtureRequest
) -> None:
    found = checked(recipe, request.getfixturevalue(model))
    assert found["trouble"] is None
    assert found["texts"] == ITEMS
    # Of each layer two norms and at least three matrices; the final norm; the head.
    assert found["weights"] >= 2 * 5 + 2
    assert found["kl_nats"] >= 0
    if recipe.precision == "fp32":
        assert (found["greedy_agreement"], found["weight_error"], found["weight_steps"]) == (1.0, 0.0, None)
        assert found["kl_nats"] < 1e-6
    else:
        assert found["kl_nats"] > 1e-7
    if found["weight_steps"] is not None:
        assert 0.1 < found["weight_steps"] < 0.5


# --- Damaged builds --------------------------------------------------------------------------------------------------

STORED = {"fp32": ".MatMul.weight", "int8": ".MatMul.weight_Q8", "int4": ".MatMul.weight_Q4"}


@pytest.mark.parametrize(
    "name", ["layers.0.attn.qkv_proj", "layers.1.attn.o_proj", "layers.1.mlp.down_proj", "lm_head"]
)
@pytest.mark.parametrize("recipe", [FP32, INT8, INT4], ids=str)
def test_a_scrambled_matrix_is_found_and_named(
    checked: Callable[..., Result], tiny_llama: Path, recipe: Recipe, name: str
) -> None:
    found = checked(recipe, tiny_llama, scrambled, name + STORED[recipe.precision])
    if name == "lm_head":  # one of a kind, and without it nothing is right
        assert "the build's logits are not PyTorch's" in found["trouble"]
    else:
        assert "1 of" in found["trouble"]
        assert name in found["trouble"].replace("/", ".")
    assert found["weight_error"] > 1


@pytest.mark.parametrize("recipe", [FP32, INT8, INT4], ids=str)
def test_a_doubled_matrix_is_found(checked: Callable[..., Result], tiny_llama: Path, recipe: Recipe) -> None:
    stored = ".MatMul.weight" if recipe == FP32 else ".MatMul.weight_scales"
    assert checked(recipe, tiny_llama, lambda a: a * 2, f"layers.1.mlp.up_proj{stored}")["trouble"] is not None


@pytest.mark.parametrize("recipe", [INT8, INT4], ids=str)
def test_a_matrix_of_zeros_is_found(checked: Callable[..., Result], tiny_llama: Path, recipe: Recipe) -> None:
    found = checked(recipe, tiny_llama, np.zeros_like, "layers.1.mlp.up_proj.MatMul.weight_scales")
    assert "up_proj/MatMul" in found["trouble"]
    assert "differs by 100%" in found["trouble"]


@pytest.mark.parametrize("recipe", [FP32, INT4], ids=str)
def test_another_norm_is_found(checked: Callable[..., Result], tiny_llama: Path, recipe: Recipe) -> None:
    found = checked(recipe, tiny_llama, lambda a: a * 1.2, "layers.1.input_layernorm.weight")
    assert "model.layers.1.input_layernorm.weight differs by 20%" in found["trouble"]


@pytest.mark.parametrize("recipe", [FP32, INT8, INT4], ids=str)
def test_a_model_that_repeats_one_token_is_found(
    checked: Callable[..., Result], tiny_llama: Path, recipe: Recipe
) -> None:
    found = checked(recipe, tiny_llama, np.zeros_like, "final_norm_layernorm.weight")
    assert found["trouble"].startswith("the build repeats one token at 100% of")


@pytest.mark.parametrize("recipe", [FP32, INT4], ids=str)
def test_logits_that_are_no_numbers_are_found(checked: Callable[..., Result], tiny_llama: Path, recipe: Recipe) -> None:
    found = checked(recipe, tiny_llama, one_nan, "layers.0.input_layernorm.weight")
    # ONNX Runtime rounds activations to int8 there, and what is no number becomes one.
    assert "layers.0.input_layernorm.weight holds numbers that are not finite" in found["trouble"]
    if recipe == FP32:
        assert found["trouble"].startswith("the build's logits are infinite or not a number; ")
        assert "kl_nats" not in found


def test_what_is_no_weight_shows_in_the_logits(checked: Callable[..., Result], tiny_llama: Path) -> None:
    found = checked(FP32, tiny_llama, scrambled, "sin_cache")
    assert found["weight_error"] == 0
    assert found["trouble"].startswith("the build's logits are not PyTorch's: they differ by")


def test_another_model_than_its_source_is_found(
    do: Do, built: Do, tiny_llama: Path, tiny_qwen2: Path, items_file: Path
) -> None:
    folder, _ = built(INT4, tiny_qwen2)
    assert do(job(INT4, folder, tiny_llama, items_file))[1]["trouble"] is not None


def test_a_build_that_does_not_load_is_unsupported(do: Do, built: Do, tiny_llama: Path, items_file: Path) -> None:
    broken = recipe("int4", symmetric=False)
    folder, _ = built(broken, tiny_llama)
    with pytest.raises(StageError, match="the build does not load on cpu") as caught:
        do(job(broken, folder, tiny_llama, items_file))
    assert caught.value.status == "unsupported"


# --- Weights ---------------------------------------------------------------------------------------------------------


def test_a_kind_of_weight_that_is_stored_otherwise_is_left_to_the_logits(built: Do, tiny_llama: Path) -> None:
    folder, _ = built(INT4, tiny_llama)
    state = TorchBackend(tiny_llama, None, "cpu", 1).model.state_dict()
    wrong, all_ = damaged(compare_weights(folder, state))
    assert wrong == []
    for layer in (0, 1):
        state[f"model.layers.{layer}.self_attn.o_proj.weight"] = torch.zeros(64, 64)
    assert damaged(compare_weights(folder, state)) == ([], all_ - 2)
    state["model.layers.1.mlp.down_proj.weight"] = torch.ones(64, 128)
    assert [one.name for one in damaged(compare_weights(folder, state))[0]] == [
        "/model/layers.1/mlp/down_proj/MatMul_Q4"
    ]


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4", "int8"])
def test_weights_of_a_build_for_another_provider_are_read_back(do: Do, tiny_qwen2: Path, precision: str) -> None:
    asked = recipe(precision, **({"accuracy_level": 0} if precision.startswith("int") else {}))
    folder, _ = do(BuildJob(source="s", recipe=asked, provider="cuda", source_dir=tiny_qwen2))
    found = compare_weights(folder, TorchBackend(tiny_qwen2, None, "cpu", 1).model.state_dict())
    wrong, judged = damaged(found)
    assert (wrong, judged) == ([], len(found))
    assert judged >= 2 * 5 + 2
    # Floats are rounded to 11 or 8 bits.
    assert 0 < max(one.error for one in found if one.steps is None) < 2.0 ** (-8 if precision == "bf16" else -11)


def test_a_recipe_may_differ_as_much_as_its_coarsest_part() -> None:
    limits = [limit_of(recipe("fp16", **more)) for more in (
        {}, {"kv_cache_quant_scheme": "int8_per_token"}, {"kv_cache_quant_scheme": "int4_per_token"},
        {"moe_quant_type": "int4"},
    )]  # fmt: skip
    assert limits == [LOGIT_ERROR[name] for name in ("fp16", "int8", "int4", "int4")]


# --- Logits ----------------------------------------------------------------------------------------------------------


def test_agreement_is_what_its_words_say() -> None:
    p = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]], dtype=np.float32))
    q = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.7, 0.1]], dtype=np.float32))
    found = agreement([p], [q + 3])  # logits have no origin
    assert found.kl == pytest.approx(0.5 * (0.5 * np.log(2) - 0.25 * np.log(2)))
    assert (found.greedy, found.positions) == (0.5, 2)
    assert (found.built_repeats, found.source_repeats) == (1.0, 0.5)
    same = agreement([p], [p])
    assert (same.kl, same.greedy, same.error) == (0.0, 1.0, 0.0)
    assert agreement([p], [np.zeros_like(p)]).error == pytest.approx(1.0)
    draw = np.random.default_rng(0).standard_normal((2, 50, 400), dtype=np.float32)
    assert agreement([draw[0]], [draw[1]]).error == pytest.approx(2**0.5, rel=0.02)
    padded = np.concatenate([p, np.full((2, 1), 9.0, np.float32)], axis=1)
    assert agreement([p], [padded]) == same  # a vocabulary that the builder padded


def test_a_source_that_repeats_itself_may_have_a_build_that_does() -> None:
    logits = np.zeros((20, 5), dtype=np.float32)
    logits[:, 2] = 1
    assert trouble(INT4, agreement([logits], [logits])) is None


def test_texts_are_few_and_spread_and_as_long_as_they_are() -> None:
    short = [((n, n), (n,)) for n in range(100)]
    texts = texts_of(short)
    assert len(texts) == ITEMS
    assert [text[0] for text in texts] == [n * 100 // ITEMS for n in range(ITEMS)]
    assert texts_of(short[:3]) == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    long = [(tuple(range(TOKENS // 2 - 10)), (7,))] * 5
    assert len(texts_of(long)) == 2
    longer = [(tuple(range(3 * TOKENS)), (7,))] * 5
    assert [len(text) for text in texts_of(longer)] == [3 * TOKENS + 1]


def test_together_or_one_by_one_logits_are_the_same(tiny_llama: Path, built: Do) -> None:
    texts = [tuple(range(5, 5 + n)) for n in (40, 3, 17, 1)]
    for backend in (TorchBackend(tiny_llama, None, "cpu", 1), OnnxBackend(built(FP32, tiny_llama)[0], "cpu", 1)):
        together = logits_of(backend, texts)
        assert [len(logits) for logits in together] == [32, 3, 17, 1]
        for text, logits in zip(texts, together, strict=True):
            np.testing.assert_allclose(logits_of(backend, [text])[0], logits, atol=2e-5)
            np.testing.assert_allclose(logits_of(backend, [text], last=True)[0], logits[-1:], atol=2e-5)


def test_a_pruned_head_that_cannot_be_opened_is_compared_at_last_positions(
    checked: Callable[..., Result], tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "reading_graph", lambda *_: (None, True))
    found = checked(recipe("fp32", prune_lm_head=True), tiny_llama)
    assert (found["trouble"], found["positions"]) == (None, ITEMS)
    assert found["kl_nats"] < 1e-6
