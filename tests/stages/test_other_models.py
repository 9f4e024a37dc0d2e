"""Builds of many architectures: those that are the model are taken at every precision, those of another model at none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
import pytest
import torch
from conftest import Do
from transformers import AutoModelForCausalLM

from autotune.architectures import checked_tokens
from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.stages.backends import OnnxBackend, TorchBackend
from autotune.stages.check_build import Reference, judge, logits_of
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import Result
from autotune.stages.score import choose_labels, completion_nll, generate, log_likelihood
from autotune.stages.text import Encoded, load_tokenizer
from benchmarks.fidelity import RECIPES as ALL_RECIPES

INTEGERS: dict[str, Any] = {"algorithm": "default", "block_size": 32, "accuracy_level": 4, "symmetric": True}
RECIPES = {
    "fp32": Recipe(precision="fp32"),
    "int8": Recipe(precision="int8", **INTEGERS),
    "int4": Recipe(precision="int4", **INTEGERS),
}
Model = tuple[str, dict[str, Any] | None]


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


LINEAR, YARN = rope("linear", factor=4.0), rope("yarn", factor=4.0, original_max_position_embeddings=128)
LLAMA3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128
)  # fmt: skip
LONG = {
    **rope(
        "longrope", type="longrope", short_factor=[1 + 0.1 * n for n in range(8)], long_factor=[2 + 0.5 * n for n in range(8)],
        original_max_position_embeddings=64,
    ),
    "original_max_position_embeddings": 64,
}  # fmt: skip
WINDOW: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
SMOLLM3_WINDOW: dict[str, Any] = {
    "use_sliding_window": True, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip

HONEST: dict[str, Model] = {
    "Ernie 4.5": ("Ernie4_5ForCausalLM", None),
    "Gemma": ("GemmaForCausalLM", None),
    "Gemma 2": ("Gemma2ForCausalLM", None),
    "Granite": ("GraniteForCausalLM", None),
    "Granite hybrid without its mambas": ("GraniteMoeHybridForCausalLM", None),
    "HunYuan": ("HunYuanDenseV1ForCausalLM", None),
    "Llama 3's rotation": ("LlamaForCausalLM", LLAMA3),
    "Llama with biases and a tied head": (
        "LlamaForCausalLM",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "Mistral": ("MistralForCausalLM", None),
    "Mistral, linear": ("MistralForCausalLM", LINEAR),
    "Nemotron": ("NemotronForCausalLM", None),
    "Phi": ("PhiForCausalLM", None),
    "Phi 3": ("Phi3ForCausalLM", None),
    "Phi 3, long": ("Phi3ForCausalLM", LONG),
    "Qwen2 with a window": ("Qwen2ForCausalLM", WINDOW),
    "Qwen3": ("Qwen3ForCausalLM", None),
    "Qwen3 with a window": ("Qwen3ForCausalLM", WINDOW),
    "SmolLM3 with a window": ("SmolLM3ForCausalLM", SMOLLM3_WINDOW),
}
WINDOWED: dict[str, Model] = {
    **{name: which for name, which in HONEST.items() if "window" in name or name == "Gemma 2"},
    "gpt-oss": ("GptOssForCausalLM", None),  # at fp32 alone
}
WRONG: dict[str, Model] = {
    "Llama, linear": ("LlamaForCausalLM", LINEAR),
    "Llama, YaRN": ("LlamaForCausalLM", YARN),
    "Llama, half of each head rotated": ("LlamaForCausalLM", {"head_dim": 32, "partial_rotary_factor": 0.5}),
    "OLMo": ("OlmoForCausalLM", None),
    "Phi with normed queries": ("PhiForCausalLM", {"qk_layernorm": True}),
    "Mistral beyond its window": ("MistralForCausalLM", {"sliding_window": 16}),
    "Granite hybrid with experts": (
        "GraniteMoeHybridForCausalLM",
        {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}

_DRAW = np.random.default_rng(0)
TEXTS = [tuple(int(token) for token in _DRAW.integers(5, 300, size)) for size in (40, 87, 10)]


@pytest.fixture(scope="module")
def model(do: Do) -> Callable[[Model], Path]:
    """Make a tiny model once."""
    made: dict[str, Path] = {}

    def make(which: Model) -> Path:
        if str(which) not in made:
            made[str(which)] = do(TinyJob(architecture=which[0], changes=which[1]))[0]
        return made[str(which)]

    return make


@pytest.fixture
def judged(built: Do, model: Callable[[Model], Path]) -> Callable[[Model, str], Result]:
    """Build a model in a precision and compare the two."""

    def run(which: Model, precision: str) -> Result:
        source, recipe = model(which), RECIPES[precision]
        folder, _ = built(recipe, source)
        reference = Reference(TorchBackend(source, None, "cpu", 1), TEXTS)
        return judge(reference, OnnxBackend(folder, "cpu", 1), folder, recipe)

    return run


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow), "int4"])
def test_a_build_of_the_model_is_taken_and_its_weights_put_back_give_its_logits(
    judged: Callable[[Model, str], Result], name: str, precision: str
) -> None:
    found = judged(HONEST[name], precision)
    assert found["trouble"] is None
    # Of Phi and Nemotron PyTorch's and the runtime's activations are approximations of their own.
    assert found["computed_error"] < (0.003 if name in ("Phi", "Nemotron") else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=str)
def test_every_recipe_is_taken_of_ten_architectures(built: Do, model: Callable[[Model], Path], recipe: Recipe) -> None:
    refused: dict[str, str | None] = {}
    architectures = set()
    for name, which in HONEST.items():
        source = model(which)
        try:
            folder, _ = built(recipe, source)
            backend = OnnxBackend(folder, "cpu", 1)
        except StageError:  # not of every model: a tied head has recipes of its own
            continue
        reference = Reference(TorchBackend(source, None, "cpu", 1), TEXTS)
        refused[name] = judge(reference, backend, folder, recipe)["trouble"]
        architectures.add(which[0])
    assert {name: trouble for name, trouble in refused.items() if trouble} == {}
    assert len(architectures) >= 10


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("precision", RECIPES)
def test_a_build_of_another_model_is_refused_at_every_precision(
    judged: Callable[[Model, str], Result], name: str, precision: str
) -> None:
    trouble = judged(WRONG[name], precision)["trouble"]
    assert "logits are not PyTorch's" in trouble or "the build computes another model" in trouble


def test_what_rounding_hides_is_named(judged: Callable[[Model, str], Result]) -> None:
    for name in ("Llama, linear", "OLMo"):
        found = judged(WRONG[name], "int4")
        assert found["logit_error"] < 0.9
        assert found["computed_error"] > 0.1
        assert found["trouble"].startswith("the build computes another model: with the same weights its logits differ")


def test_it_is_seen_only_as_far_as_texts_go(built: Do, model: Callable[[Model], Path]) -> None:
    source = model(WRONG["Mistral beyond its window"])
    folder, _ = built(RECIPES["int4"], source)
    for size, right in ((15, True), (30, False)):
        reference = Reference(TorchBackend(source, None, "cpu", 1), [TEXTS[1][:size]])
        found = judge(reference, OnnxBackend(folder, "cpu", 1), folder, RECIPES["int4"], longest=size)
        assert (found["trouble"] is None) is right


FAR: dict[str, Model] = {
    "a window of 600": ("MistralForCausalLM", {"sliding_window": 600, "max_position_embeddings": 1024}),
    "LongRoPE from 600": (
        "Phi3ForCausalLM",
        LONG | {"original_max_position_embeddings": 600, "max_position_embeddings": 1024,
                "rope_parameters": LONG["rope_parameters"] | {"original_max_position_embeddings": 600}},
    ),
    "Gemma 2's window of 600": ("Gemma2ForCausalLM", {"sliding_window": 600, "max_position_embeddings": 1024}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAR)
def test_a_model_that_is_another_one_beyond_a_length_is_seen_there(
    built: Do, model: Callable[[Model], Path], name: str
) -> None:
    """Also where texts of the usual length do not go so far; the builder leaves out Mistral's window."""
    source = model(FAR[name])
    beyond = checked_tokens(json.loads((source / "config.json").read_text(encoding="utf-8")), 800)
    assert beyond == 664
    folder, _ = built(RECIPES["int4"], source)
    right = name != "a window of 600"
    for far in (None, beyond):
        reference = Reference(TorchBackend(source, None, "cpu", 1), TEXTS)
        found = judge(reference, OnnxBackend(folder, "cpu", 1), folder, RECIPES["int4"], 800, far)
        assert (found["trouble"] is None) is (right or far is None)


# --- Sliding windows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WINDOWED)
def test_a_model_with_a_window_is_scored_as_pytorch_scores_it(
    built: Do, model: Callable[[Model], Path], name: str
) -> None:
    source = model(WINDOWED[name])
    built_, torch_ = OnnxBackend(built(RECIPES["fp32"], source)[0], "cpu", 1), TorchBackend(source, None, "cpu", 1)
    items = [Encoded(str(n), text, TEXTS[0][:5], "") for n, text in enumerate(TEXTS)]
    labels = [(7, 8, 9), (7, 8, 10), (11,), (12, 13)]
    ours, theirs = (choose_labels(backend, items, labels) for backend in (built_, torch_))
    assert ours[0] == theirs[0]
    np.testing.assert_allclose(ours[2], theirs[2], atol=1e-4)
    np.testing.assert_allclose(completion_nll(built_, items), completion_nll(torch_, items), atol=1e-4)
    tokenizer = load_tokenizer(source)
    written = [generate(backend, items, tokenizer, (), 24) for backend in (built_, torch_)]
    assert written[0] == written[1]
    assert any(written[0])


@pytest.mark.parametrize("name", WINDOWED)
def test_genai_runs_it_at_any_length_and_computes_the_same(
    built: Do, model: Callable[[Model], Path], name: str
) -> None:
    source = model(WINDOWED[name])
    folder, _ = built(RECIPES["fp32"], source)
    backend = TorchBackend(source, None, "cpu", 1)
    served = og.Model(str(folder))
    for size, most in ((3, 10), (12, 128), (40, 64)):  # the window is 16
        text = TEXTS[0][:size]
        parameters = og.GeneratorParams(served)
        parameters.set_search_options(max_length=most, do_sample=False)
        generator = og.Generator(served, parameters)
        generator.append_tokens(np.array(text, dtype=np.int32))
        for _ in range(24):
            ours = np.asarray(generator.get_logits()).reshape(-1)
            np.testing.assert_allclose(ours, logits_of(backend, [text], last=True)[0][0], atol=1e-4)
            generator.generate_next_token()
            if generator.is_done():  # the end of the text, and no logits after it
                break
            text = tuple(int(token) for token in generator.get_sequence(0))


# --- LongRoPE where an answer passes the length of its short factors -----------------------------------------------------


def long_from(tokens: int) -> Model:
    return "Phi3ForCausalLM", {
        **LONG, "original_max_position_embeddings": tokens, "max_position_embeddings": 2 * tokens,
        "rope_parameters": LONG["rope_parameters"] | {"original_max_position_embeddings": tokens},
    }  # fmt: skip


def written_by_genai(folder: Path, prompt: tuple[int, ...], limit: int) -> list[int]:
    served = og.Model(str(folder))
    parameters = og.GeneratorParams(served)
    parameters.set_search_options(max_length=len(prompt) + limit, do_sample=False)
    generator = og.Generator(served, parameters)
    generator.append_tokens(np.array(prompt, dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)][len(prompt) :]


def written_by_transformers(folder: Path, prompt: tuple[int, ...], limit: int) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = model.generate(torch.tensor([prompt]), max_new_tokens=limit, do_sample=False, pad_token_id=1)
    return [int(token) for token in found[0, len(prompt) :]]


@pytest.mark.parametrize("short", [64, 4096])
def test_an_answer_that_passes_longropes_length_is_written_as_what_ships_writes_it(
    built: Do, model: Callable[[Model], Path], short: int
) -> None:
    """ONNX Runtime GenAI recomputes the text at 4,096 tokens alone, and transformers at the model's own length."""
    source = model(long_from(short))
    folder, _ = built(RECIPES["fp32"], source)
    prompt = tuple(int(token) for token in np.random.default_rng(0).integers(5, 300, short - 6))
    tokenizer = load_tokenizer(source)
    items = [Encoded(str(n), prompt, (), "") for n in range(2)]
    texts = []
    for backend, tokens in (
        (OnnxBackend(folder, "cpu", 1), written_by_genai(folder, prompt, 16)),
        (TorchBackend(source, None, "cpu", 1), written_by_transformers(source, prompt, 16)),
    ):
        assert len(tokens) == 16, "no end of the text, which other numbers of the seed may bring"
        texts.append(tokenizer.decode(tokens, skip_special_tokens=True))
        assert generate(backend, items, tokenizer, (), 16) == [texts[-1]] * 2
    assert (texts[0] == texts[1]) is (short == 4096)


def test_labels_that_pass_longropes_length_are_read_as_whole_texts(built: Do, model: Callable[[Model], Path]) -> None:
    source = model(long_from(64))
    labels = [(7, 8, 9, 10), (7, 8, 10, 3), (11, 12, 13, 14), (12, 13)]
    items = [Encoded(str(n), TEXTS[1][:size], TEXTS[0][:5], "") for n, size in enumerate((40, 62, 62, 63, 64, 65))]
    folder, _ = built(RECIPES["fp32"], source)
    found = []
    for backend in (OnnxBackend(folder, "cpu", 1), TorchBackend(source, None, "cpu", 1)):
        assert backend.short_length == 64
        whole = np.array([
            [log_likelihood(backend.read([(*item.prompt, *label)], [len(item.prompt) - 1])[0][:-1], np.array(label)[:, None]).sum()
             for label in labels] for item in items
        ])  # fmt: skip
        chosen, _, scores = choose_labels(backend, items, labels)
        assert chosen == whole.argmax(axis=1).tolist()
        np.testing.assert_allclose(scores[range(len(items)), chosen], whole.max(axis=1), atol=1e-4)
        found.append(whole)
        if isinstance(backend, OnnxBackend):  # as run.py asks ONNX Runtime GenAI
            served, text = og.Model(str(folder)), (*items[2].prompt, *labels[0])
            generator = og.Generator(served, og.GeneratorParams(served))
            generator.append_tokens(np.array(text, dtype=np.int32))
            logits = np.asarray(generator.get_output("logits"))[0, len(items[2].prompt) - 1 : -1]
            assert float(log_likelihood(logits, np.array(labels[0])[:, None]).sum()) == pytest.approx(
                whole[2, 0], abs=1e-4
            )
    np.testing.assert_allclose(*found, atol=1e-4)
