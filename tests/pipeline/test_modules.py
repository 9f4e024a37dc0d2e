"""Names of `target_modules` that a model does not have are refused before anything is trained."""

from __future__ import annotations

import pytest

from autotune.errors import UsageError
from autotune.pipeline.modules import Modules, module_notes
from autotune.space.domains import Choice
from autotune.space.parameter_tables import Value

LLAMA = Modules(("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"), ("lm_head",), ())
EXPERTS = Modules(("k_proj", "lm_head", "o_proj", "q_proj", "v_proj"), (), ("mlp",))


@pytest.mark.parametrize(
    ("values", "modules", "said"),
    [
        ((("q_proj", "wqkv"),), LLAMA, "this model has no linear module of that name, got 'wqkv'"),
        (("all-linear", "wqkv"), LLAMA, "got 'wqkv'"),
        (("embed_tokens",), LLAMA, "this model has no linear module of that name, got 'embed_tokens'"),
        (("input_layernorm",), LLAMA, "got 'input_layernorm'"),
        ((("lm_head", "q_proj"),), LLAMA, "lm_head shares its weights with the embedding"),
        (("self_attn.q_proj",), LLAMA, "a name is the last part of a module's"),
        (("mlp",), EXPERTS, "this model has no modules for mlp"),
    ],
)
def test_a_name_without_a_module_is_refused(values: tuple[Value, ...], modules: Modules, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        module_notes({"target_modules": Choice(values)}, modules, "sweep.yaml")
    (problem,) = caught.value.problems
    assert problem.key == "space.lora.target_modules"
    assert said in str(problem)
    assert "k_proj" in problem.remedy


@pytest.mark.parametrize(
    ("values", "modules"),
    [
        (("all-linear", "attention", "mlp"), LLAMA),
        (("attention",), EXPERTS),
        ((("lm_head", "q_proj"),), EXPERTS),
        (("wqkv",), Modules()),
    ],
)
def test_what_there_is_is_taken_and_nothing_said(values: tuple[Value, ...], modules: Modules) -> None:
    assert module_notes({"target_modules": Choice(values)}, modules) == []
    assert module_notes(None, modules) == []


def test_parts_and_wholes_stand_for_one_another() -> None:
    assert module_notes({"target_modules": Choice(("qkv_proj",))}, LLAMA) == [
        "target_modules: this model has no qkv_proj; its q_proj and k_proj and v_proj get the adapter instead"
    ]
