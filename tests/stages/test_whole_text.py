"""A loss on the whole text, plain text to model, and fused layers that a model has otherwise than they are named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Do, tone_items
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from autotune.analysis.scores import summarise
from autotune.candidate import Candidate, Recipe, digest
from autotune.pipeline.modules import module_notes
from autotune.space.adapters import fit_modules, resolve_lora
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.stages.finetune import collate, completion_loss
from autotune.stages.jobs import FinetuneJob, ScoreJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.text import Encoded, encode, load_tokenizer
from autotune.stages.torch_model import load_model

Write = Callable[[list[dict[str, Any]]], Path]
TEXTS = [{"id": f"{n:016x}", "prompt": "", "completion": f"I felt {n} today and on it goes"} for n in range(12)]


def lora(**changes: Any) -> Any:
    return resolve_lora({"r": 4, "steps": 6, "batch_size": 4, "max_length": 64, "learning_rate": 1e-2, **changes})


# --- loss_on -------------------------------------------------------------------------------------------------------


def test_the_loss_is_of_the_completion_or_of_all_but_the_first_token() -> None:
    items = [Encoded("a", (1, 2, 3), (4, 5), ""), Encoded("b", (6,), (7,), "")]
    assert collate(items, 9, 0, "cpu")["labels"].tolist() == [[-100, -100, -100, 4, 5, 9], [-100, 7, 9, *[-100] * 3]]
    whole = collate(items, 9, 0, "cpu", "text")["labels"].tolist()
    assert whole == [[-100, 2, 3, 4, 5, 9], [-100, 7, 9, *[-100] * 3]]


def test_the_loss_on_text_is_that_of_transformers(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    items, _ = encode(tokenizer, tone_items(5), 64)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    for sliced in (False, True):
        total = completion_loss(model, collate(items, 2, 0, "cpu", "text"), sliced)
        expected = 0.0
        for item in items:
            ids = torch.tensor([[*item.prompt, *item.completion, 2]])
            with torch.no_grad():
                expected += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        assert total.item() == pytest.approx(expected, rel=1e-4)


def test_a_training_on_text_says_its_loss_by_token(do: Do, tiny_llama: Path, items_file: Path) -> None:
    def train(**changes: Any) -> float:
        given = {"base": "b", "data": "d", "seed": 0, "device": "cpu", "base_dir": tiny_llama, "data_file": items_file}
        folder, _ = do(FinetuneJob(lora=lora(**changes), **given))
        return float(json.loads((folder / "state.json").read_text(encoding="utf-8"))["curve"][0][1])

    # The first loss of an untrained model is about that of a guess among its tokens, for either.
    rows = load_file(tiny_llama / "model.safetensors")["model.embed_tokens.weight"].shape[0]
    answer, whole = train(), train(loss_on="text")
    assert answer != whole
    assert whole == pytest.approx(math.log(rows), rel=0.2)


def test_what_learns_from_completions_keeps_its_digest() -> None:
    plain = lora(loss_on="completion")
    assert plain == lora()
    assert "loss_on" not in plain.model_dump()
    assert digest(lora(loss_on="text").model_dump()) != digest(plain.model_dump())
    assert plain.settings()["loss_on"] == "completion"


def test_both_are_searched_and_read_back_from_rows() -> None:
    domains = {"r": Choice((2, 4)), "loss_on": Choice(("text", "completion"))}
    space = Space(domains, (Recipe(precision="fp32"),), defaults={"batch_size": 4, "max_length": 64, "steps": 3})
    candidates = list(space.grid())
    assert len({candidate.id for candidate in candidates}) == space.size() == 4
    for candidate in candidates:
        assert candidate.lora is not None
        assert space.has(candidate.lora)
        cells = {name: str(value) for name, value in candidate.columns().items()}
        assert Candidate.from_columns(cells) == candidate
        assert Candidate.from_columns({k: v for k, v in cells.items() if v != "completion"}) == candidate


# --- plain text ----------------------------------------------------------------------------------------------------


def test_of_a_plain_text_all_but_the_first_token_are_scored_and_its_end_is_cut(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    whole = tokenizer.encode(TEXTS[0]["completion"])
    (item,), cut = encode(tokenizer, TEXTS[:1], 64)
    assert (*item.prompt, *item.completion) == tuple(whole)
    assert (len(item.prompt), cut) == (1, 0)
    (short,), cut = encode(tokenizer, TEXTS[:1], 4)
    assert (*short.prompt, *short.completion) == tuple(whole[:3])
    assert cut == 1


def test_a_text_of_one_token_is_its_end_alone(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    (item,), _ = encode(tokenizer, [{"id": "1", "prompt": "", "completion": "I"}], 64)
    if len(tokenizer.encode("I")) == 1:
        assert item.completion == (tokenizer.eos_token_id,)
    assert len(item.prompt) == 1
    assert item.completion


def test_perplexity_of_plain_text_is_that_of_pytorch(do: Do, built: Do, tiny_llama: Path, write_items: Write) -> None:
    file = write_items(TEXTS)
    folder, _ = built(Recipe(precision="fp32"), tiny_llama)
    given = {"source": "s", "data": "d", "metric": "perplexity", "max_length": 64, "data_file": file}
    out, _ = do(ScoreJob(provider="cpu", model_dir=folder, **given))
    found = summarise("perplexity", json.loads((out / "outcomes.json").read_text(encoding="utf-8")))[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_llama).eval(), load_tokenizer(tiny_llama)
    nll = count = 0.0
    for item in TEXTS:
        ids = torch.tensor([tokenizer.encode(item["completion"])])
        with torch.no_grad():
            nll += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert found == pytest.approx(math.exp(nll / count), rel=1e-4)


# --- fused layers --------------------------------------------------------------------------------------------------

SPLIT = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
WHOLE = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        (("o_proj", "qkv_proj"), SPLIT, ("o_proj", "q_proj", "k_proj", "v_proj")),
        (("gate_up_proj",), SPLIT, ("gate_proj", "up_proj")),
        (("q_proj", "v_proj", "o_proj"), WHOLE, ("qkv_proj", "o_proj")),
        (("gate_proj", "down_proj"), WHOLE, ("gate_up_proj", "down_proj")),
        (("qkv_proj",), WHOLE, ("qkv_proj",)),
        (("q_proj",), SPLIT, ("q_proj",)),
        (("query",), SPLIT, ("query",)),
        (("gate_up_proj",), {"up_proj", "down_proj"}, ("gate_up_proj",)),
        (("k_proj", "qkv_proj"), SPLIT, ("k_proj", "q_proj", "v_proj")),
    ],
)
def test_fused_layers_are_named_as_the_model_has_them(
    wanted: tuple[str, ...], there: set[str], found: tuple[str, ...]
) -> None:
    assert fit_modules(wanted, there) == found


@pytest.mark.parametrize(
    ("architecture", "wanted", "trained", "told"),
    [
        ("LlamaForCausalLM", ("o_proj", "qkv_proj"), {"o_proj", "q_proj", "k_proj", "v_proj"}, ["qkv_proj"]),
        ("Phi3ForCausalLM", ("q_proj", "gate_proj"), {"qkv_proj", "gate_up_proj"}, ["q_proj", "gate_proj"]),
    ],
)
def test_an_adapter_is_put_on_the_layers_that_are_there(
    do: Do, items_file: Path, architecture: str, wanted: tuple[str, ...], trained: set[str], told: list[str]
) -> None:
    model = do(TinyJob(architecture=architecture))[0]
    job = FinetuneJob(
        base="b", data="d", lora=lora(target_modules=wanted, steps=1), seed=0, device="cpu", base_dir=model,
        data_file=items_file,
    )  # fmt: skip
    folder, _ = do(job)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in tensors} == trained
    notes = module_notes({"target_modules": Choice((wanted,))}, model)
    assert [note.split("has no ")[1].split(";")[0] for note in notes] == told


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("GptOssForCausalLM", {}),
        ("Lfm2MoeForCausalLM", {}),
        ("PhiMoEForCausalLM", {}),
        ("GraniteMoeHybridForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    ],
)
def test_experts_that_get_no_adapter_are_told(do: Do, architecture: str, changes: dict[str, Any]) -> None:
    folder, _ = do(TinyJob(architecture=architecture, changes=changes))
    model = load_model(folder, "cpu")
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    assert not [name for name, _ in adapted.named_parameters() if "lora_A" in name and "experts" in name]
    for lora in ({}, {"target_modules": Choice(("all-linear",))}, {"target_modules": Choice(("attention", "mlp"))}):
        (note,) = module_notes(lora, folder)
        assert "leaves the experts of this model as they are" in note
    assert module_notes({"target_modules": Choice(("attention", ("q_proj",)))}, folder) == []
    assert module_notes(None, folder) == []


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Lfm2ForCausalLM"])
def test_a_model_without_experts_has_none_told(do: Do, architecture: str) -> None:
    folder, _ = do(TinyJob(architecture=architecture, changes={}))
    assert module_notes({"target_modules": Choice(("all-linear", "mlp"))}, folder) == []
