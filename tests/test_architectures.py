"""What was probed of the model builder, and what follows from it for a model: refused, left out, or told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Do

from autotune import architectures
from autotune.architectures import (
    PRECISIONS,
    checked_tokens,
    facts_of,
    features_of,
    has_windowed_caches,
    refusals,
    remarks,
)
from autotune.errors import UsageError
from autotune.models import ARCHITECTURES, check_export, shape_from
from autotune.probed import FACTS, VERSIONS, Fact
from autotune.providers import PROVIDERS
from autotune.space.recipes import recipe_impossible
from autotune.stages.preparation_jobs import TinyJob
from autotune.sweepfile.resolve import parse_sweep
from benchmarks.architectures import PACKAGES, probe, source_of, variants

SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


def config(architecture: str, **changes: Any) -> dict[str, Any]:
    return SIZES | {"architectures": [f"{architecture}ForCausalLM"]} | changes


@pytest.fixture(autouse=True)
def as_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions that were probed, whatever is installed."""
    monkeypatch.setattr(architectures, "other_versions", dict)


# --- The table -------------------------------------------------------------------------------------------------------


def test_every_architecture_was_probed_plain_and_with_each_variant_at_each_precision() -> None:
    assert set(VERSIONS) == set(PACKAGES)
    assert all(VERSIONS.values())
    probed: dict[tuple[str, str], list[str]] = {}
    for fact in FACTS:
        assert fact.outcome in ("same", "other", "refused")
        assert bool(fact.by) is (fact.outcome == "refused")
        assert bool(fact.said) is (fact.outcome != "same")
        assert "\n" not in fact.said
        probed.setdefault((fact.architecture, fact.feature), []).extend(fact.precisions)
    assert all(sorted(found) == sorted(PRECISIONS) for found in probed.values())
    assert {architecture for architecture, _ in probed} == set(ARCHITECTURES)
    for architecture in ARCHITECTURES:
        assert (architecture, "") in probed
        assert {feature for name, feature in probed if name == architecture} <= set(variants(architecture))


def test_the_file_is_what_the_command_writes() -> None:
    written: dict[str, Any] = {}
    exec(source_of(list(FACTS)), written)
    assert [vars(fact) for fact in written["FACTS"]] == [vars(fact) for fact in FACTS]


_OFTEN = ("LlamaForCausalLM", "SmolLM3ForCausalLM", "Phi3ForCausalLM")


@pytest.mark.parametrize(
    "architecture",
    [name if name in _OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES],
)
def test_a_variant_is_known_by_its_config(do: Do, architecture: str) -> None:
    probed = {fact.feature for fact in FACTS if fact.architecture == architecture}
    for feature, changes in variants(architecture).items():
        if feature in probed:
            folder, _ = do(TinyJob(architecture=architecture, changes=changes))
            found = features_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
            assert feature in found
            # Nothing else is there that was probed to go wrong.
            assert {name for name in found if name.endswith("rotation") and name != "partial rotation"} <= {feature}


@pytest.mark.parametrize(("architecture", "feature"), [
    ("LlamaForCausalLM", "linear rotation"), ("LlamaForCausalLM", "heads of odd size"), ("Qwen3ForCausalLM", ""),
    ("Gemma3ForCausalLM", ""), ("SmolLM3ForCausalLM", "layers without rotation"),
])  # fmt: skip
def test_what_is_probed_again_comes_out_as_before(architecture: str, feature: str) -> None:
    found = probe(architecture, feature, variants(architecture)[feature])
    before = [fact for fact in FACTS if (fact.architecture, fact.feature) == (architecture, feature)]
    assert {fact.outcome for fact in found} == {fact.outcome for fact in before}
    assert {fact.by for fact in found} == {fact.by for fact in before}


# --- What a config.json asks for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, []),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["linear rotation"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["yarn rotation"]),
        ({"rope_parameters": {"rope_type": "default"}}, []),
        ({"rope_scaling": None}, []),
        ({"rope_scaling": {"type": "su"}}, ["longrope rotation"]),
        ({"rope_scaling": {"rope_type": "longrope"}}, ["longrope rotation without the key type"]),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear"}, "sliding_attention": {}}},
            ["linear rotation"],
        ),
        ({"head_dim": 40}, ["heads of odd size"]),
        ({"hidden_size": 96}, ["heads of odd size"]),
        ({"head_dim": 80, "partial_rotary_factor": 0.4}, ["partial rotation"]),
        ({"head_dim": 48, "partial_rotary_factor": 0.5}, ["a rotated part of odd size"]),
        ({"sliding_window": 16}, ["a sliding window"]),
        ({"sliding_window": 16, "use_sliding_window": False}, []),
        ({"sliding_window": 16, "layer_types": ["full_attention"]}, []),
        ({"tie_word_embeddings": True}, ["a tied head"]),
        ({"no_rope_layers": [1, 1, 0]}, ["layers without rotation"]),
        ({"no_rope_layers": [1, 1]}, []),
    ],
    ids=str,
)
def test_features(changes: dict[str, Any], wanted: list[str]) -> None:
    assert features_of(config("Llama", **changes)) == ["", *wanted]


@pytest.mark.parametrize("value", ["wide", [], True, {"a": 1}, None])
def test_a_strange_config_has_no_features_and_breaks_nothing(value: Any) -> None:
    keys = ("rope_parameters", "rope_scaling", "head_dim", "hidden_size", "layer_types", "sliding_window",
            "no_rope_layers", "partial_rotary_factor", "architectures", "num_local_experts")  # fmt: skip
    for key in keys:
        features_of(config("Llama") | {key: value})
        facts_of(config("Llama") | {key: value})
        remarks(config("Llama") | {key: value}, "cpu", 256)


# --- What follows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (config("SmolLM3", no_rope_layers=[1, 1, 1, 0]), "SmolLM3ForCausalLM with layers without rotation"),
        (config("Gemma3", head_dim=16), "the model builder does not take Gemma3ForCausalLM"),
        (config("Llama", head_dim=24), "the runtime does not take LlamaForCausalLM with heads of odd size: head_size"),
        (config("Qwen2", rope_scaling={"type": "dynamic", "factor": 2.0}), "with dynamic rotation: The dynamic RoPE"),
        (config("Granite", rope_scaling={"rope_type": "llama3"}), "with llama3 rotation"),
    ],
    ids=str,
)
def test_what_no_build_runs_of_is_refused(model: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_export(model, "model", "cpu")
    (problem,) = caught.value.problems
    assert said in problem.rule
    assert VERSIONS["onnxruntime-genai"] in problem.rule
    assert "leave out space.build" in problem.remedy


@pytest.mark.parametrize("model", [
    config("Llama"), config("Llama", rope_scaling={"rope_type": "llama3"}), config("Gemma2", head_dim=16),
    config("Qwen3", head_dim=128), config("SmolLM3", no_rope_layers=[1, 1]), config("Mistral", sliding_window=4096),
    config("Phi3", head_dim=96),
], ids=str)  # fmt: skip
def test_what_runs_is_taken_and_nothing_said_of_it(model: dict[str, Any]) -> None:
    check_export(model, "model", "cpu")
    assert remarks(model, "cpu", 256) == []
    assert shape_from(model).refused == ()


def test_what_the_runtime_refuses_on_the_cpu_was_not_tried_elsewhere() -> None:
    assert refusals(config("Llama", head_dim=24), "cpu")
    assert not refusals(config("Llama", head_dim=24), "cuda")
    assert refusals(config("Gemma3", head_dim=16), "cuda")


def test_a_precision_that_cannot_be_built_is_left_out() -> None:
    shape = shape_from(config("GptOss", head_dim=16, num_local_experts=4))
    assert [precision for precision, _ in shape.refused] == ["int8", "int4"]
    from autotune.candidate import Recipe

    assert recipe_impossible(Recipe(precision="fp32"), shape) is None
    assert "the model builder does not take GptOssForCausalLM" in str(
        recipe_impossible(Recipe(precision="int4"), shape)
    )


@pytest.mark.parametrize("model", [
    config("Llama", rope_scaling={"type": "linear"}), config("Llama", rope_scaling={"type": "yarn"}), config("Olmo"),
    config("Phi", hidden_size=128, partial_rotary_factor=0.5, qk_layernorm=True),
], ids=str)  # fmt: skip
def test_what_becomes_another_model_is_told(model: dict[str, Any]) -> None:
    check_export(model, "model", "cpu")
    (line,) = remarks(model, "cpu", 256)
    assert "the model builder makes another model" in line
    assert "trains nothing for recipes that are another model" in line


def test_a_window_matters_beyond_it() -> None:
    model = config("Mistral", sliding_window=512)
    assert remarks(model, "cpu", 512) == []
    assert "with a sliding window the model builder makes another model" in remarks(model, "cpu", 513)[0]


@pytest.mark.parametrize(
    ("short", "max_length", "told"), [(512, 1024, True), (512, 512, False), (4096, 8192, False), (6000, 8192, True)]
)
def test_an_answer_that_passes_longropes_length_matters_where_the_runtime_does_not_recompute_it(
    short: int, max_length: int, told: bool
) -> None:
    rope = {"rope_type": "longrope", "type": "longrope", "original_max_position_embeddings": short}
    for model in (
        config("Phi3", head_dim=96, model_type="phi3", rope_parameters=rope),
        config(
            "Phi3", head_dim=96, model_type="phi3", rope_scaling={"type": "su"}, original_max_position_embeddings=short
        ),
    ):
        assert [f"beyond {short} tokens its LongRoPE" in line for line in remarks(model, "cpu", max_length)] == [
            True
        ] * told


def test_with_other_versions_nothing_is_refused_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = {"onnxruntime-genai": (VERSIONS["onnxruntime-genai"], "0.99.0")}
    monkeypatch.setattr(architectures, "other_versions", lambda: newer)
    model = config("SmolLM3", no_rope_layers=[1, 1, 1, 0])
    check_export(model, "model", "cpu")
    first, second = remarks(model, "cpu", 256)
    assert "was not probed with onnxruntime-genai 0.99.0: the run finds out before it trains" in first
    assert f"with onnxruntime-genai {VERSIONS['onnxruntime-genai']}: the model builder does not take SmolLM3" in second


def test_installed_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    architectures.other_versions.cache_clear()
    monkeypatch.setattr(
        architectures, "version", lambda name: "0.0" if name == "onnxruntime" else VERSIONS.get(name, "1")
    )
    assert architectures.other_versions()["onnxruntime"] == (VERSIONS["onnxruntime"], "0.0")
    architectures.other_versions.cache_clear()


def test_facts_are_of_the_architecture_and_its_features() -> None:
    found = facts_of(config("Llama", rope_scaling={"type": "linear"}))
    assert {fact.architecture for fact in found} == {"LlamaForCausalLM"}
    assert {fact.feature for fact in found} == {"", "linear rotation"}
    assert all(isinstance(fact, Fact) for fact in found)


def _document(model: str, **space: Any) -> dict[str, Any]:
    return {
        "name": "s", "model": model, "space": space, "budget": {"trials": 1},
        "data": {"train": "a.jsonl", "validation": "b.jsonl", "prompt": "{text}", "completion": " {label}"},
    }  # fmt: skip


def test_a_sweep_of_a_model_that_cannot_be_built_is_refused_and_one_of_its_adapters_is_not(do: Do) -> None:
    four = {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]}
    model = str(do(TinyJob(architecture="SmolLM3ForCausalLM", changes=four))[0])
    lora = {"r": 4, "steps": 1}
    with pytest.raises(UsageError) as caught:
        parse_sweep(_document(model, lora=lora, build=[{"precision": "int4"}]))
    assert [problem.key for problem in caught.value.problems] == ["model"]
    assert "layers without rotation" in str(caught.value)
    assert parse_sweep(_document(model, lora=lora)).space.recipes == ()


def test_recipes_that_cannot_be_built_are_left_out_of_a_sweep(do: Do) -> None:
    model = str(do(TinyJob(architecture="GptOssForCausalLM"))[0])
    build = [{"precision": ["fp32", "int4"]}]
    space = parse_sweep(_document(model, lora={"r": 4, "steps": 1}, build=build)).space
    assert [recipe.precision for recipe in space.recipes] == ["fp32"]
    assert "does not take GptOssForCausalLM" in space.left_out[0].reason


# --- Caches of layers that attend to a window --------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sliding_window": None},
        {"sliding_window": 16},
        {"sliding_window": 16, "use_sliding_window": False},
        {"sliding_window": 16, "use_sliding_window": True},
        {"use_sliding_window": True},
    ],
    ids=str,
)
def test_a_window_is_seen_as_the_builder_sees_it(architecture: str, changes: dict[str, Any]) -> None:
    from transformers import AutoConfig

    # onnxruntime_genai.models.builders.base: the size that it reads, where it is a number above 0.
    window = getattr(AutoConfig.for_model(ARCHITECTURES[architecture], **changes), "sliding_window", -1)
    seen = has_windowed_caches({"architectures": [architecture]} | changes, "cpu")
    assert seen is (window is not None and window > 0)


def test_other_providers_have_whole_caches_anyway() -> None:
    gemma = config("Gemma2")
    assert [name for name in PROVIDERS if has_windowed_caches(gemma, name)] == ["cpu", "cuda", "NvTensorRtRtx"]
    assert not has_windowed_caches(config("Llama"), "cpu")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"sliding_window": 4096}, 4160),
        ({"sliding_window": 4096, "use_sliding_window": False}, None),
        ({"sliding_window": 256}, None),
        ({"sliding_window": 8192}, None),
        ({"sliding_window": 4990}, 5000),
        ({"architectures": ["Gemma2ForCausalLM"], "sliding_window": 4096}, 4160),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 4096}, 4160),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 4096}}, 4160),
        ({"rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 4096}}, None),
    ],
)
def test_how_long_a_text_must_be_to_show_all_that_a_model_computes(
    config: dict[str, Any], expected: int | None
) -> None:
    assert checked_tokens(config, 5000) == expected
