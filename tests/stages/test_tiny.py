"""The tiny random model: what other tests and provider probes stand on."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Do
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.text import load_tokenizer, prompt_ids


def test_it_is_a_model_folder_that_loads_and_ties_as_its_architecture_does(tiny_llama: Path, tiny_qwen2: Path) -> None:
    for folder, architecture, tied in (
        (tiny_llama, "LlamaForCausalLM", True),
        (tiny_qwen2, "Qwen2ForCausalLM", False),
    ):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == [architecture]
        assert config["tie_word_embeddings"] is tied
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
        assert not list(folder.glob("*.bin"))


def test_one_seed_gives_the_same_weights_and_another_others(do: Do, tiny_llama: Path) -> None:
    def weights(seed: int) -> dict[str, object]:
        folder, result = do(TinyJob(seed=seed))
        assert result["parameters"] > 50_000
        return {name: tensor.tolist() for name, tensor in load_file(folder / "model.safetensors").items()}

    first = {name: t.tolist() for name, t in load_file(tiny_llama / "model.safetensors").items()}
    assert weights(0) == first
    assert weights(1) != first


def test_its_tokenizer_keeps_every_text_and_has_a_chat_template(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_llama)
    for text in ("plain", " leading space", "äöü ß 日本語 🙂", "a\nb\t c  d"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_token_id == 0
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "What a day!"}])
    assert tokenizer.decode(ids) == "<|user|>What a day!<|end|><|assistant|>"
