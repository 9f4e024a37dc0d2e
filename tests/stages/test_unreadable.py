"""Models and tokenizers that cannot be loaded: the file or the key is named, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Do, tone_items
from odd_models import copied, with_json

from autotune.stages.jobs import Inspection, InspectJob
from autotune.stages.text import RuntimeTokenizer, context_length, end_tokens, load_tokenizer

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 123456789\n"
)


@pytest.fixture
def seen(do: Do, write_items: Callable[..., Path], tiny_llama: Path, tmp_path: Path) -> Callable[..., Inspection]:
    """Change a copy of the tiny Llama, and look at it: `seen(change)`."""

    def run(change: Callable[[Path], object]) -> Inspection:
        folder = copied(tiny_llama, tmp_path / "model")
        change(folder)
        job = InspectJob(
            model="m", data=(("train", "t"),), labels=(), metric="perplexity", max_length=128, ships=False,
            model_dir=folder, files=(write_items(tone_items(2)),),
        )  # fmt: skip
        return Inspection.model_validate(do(job)[1])

    return run


def shorten(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5000])


def to_vocabulary(folder: Path) -> None:
    """Leave the vocabulary of a tokenizer alone, without its merges."""
    pieces = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(pieces["vocab"]), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    with_json(folder, "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")


def to_sentencepiece(folder: Path) -> None:
    """Leave a file of sentencepiece alone, which is none."""
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with_json(folder, "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        (lambda m: (m / "model.safetensors").write_bytes(POINTER), "model.safetensors is the pointer of Git LFS", "git lfs pull"),
        (lambda m: (m / "tokenizer.json").write_bytes(POINTER), "tokenizer.json is the pointer of Git LFS", "git lfs pull"),
        (shorten, r"model.safetensors has", "fetch"),
        (lambda m: (m / "model.safetensors").write_bytes(b"<html>Not found</html>"), "model.safetensors is no whole safetensors file", "fetch"),
        (lambda m: with_json(m, "config.json", hidden_act="foo"), "hidden_act in config.json is 'foo', which transformers", "publish"),
        (lambda m: with_json(m, "config.json", dtype="float17"), "dtype in config.json is 'float17', which transformers", "publish"),
        (lambda m: (m / "generation_config.json").write_text("{", encoding="utf-8"), "generation_config.json cannot be used", "remove it"),
        (lambda m: with_json(m, "generation_config.json", num_return_sequences=2), "generation_config.json cannot be used (Greedy", "remove it"),
        (lambda m: with_json(m, "tokenizer_config.json", tokenizer_class="XTok", auto_map={"AutoTokenizer": ["tok.X", None]}),
         "the tokenizer needs code from the model's own folder", "built into transformers"),
        (to_sentencepiece, "the tokenizer cannot be loaded from tokenizer_config.json, tokenizer.model", "add its tokenizer.json"),
        (to_vocabulary, "the tokenizer cannot be loaded from tokenizer_config.json, vocab.json", "merges.txt"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_named(
    change: Callable[[Path], object], said: str, remedy: str, seen: Callable[..., Inspection]
) -> None:
    found = seen(change)
    assert found.trouble.startswith(said), found.trouble
    assert remedy in found.remedy, found.remedy


def test_settings_of_a_build_beside_the_weights_are_not_the_models(tiny_llama: Path, tmp_path: Path) -> None:
    """People export into the folder of the model."""
    folder = copied(tiny_llama, tmp_path / "model")
    other = {"model": {"type": "llama", "eos_token_id": 7, "context_length": 9}}
    (folder / "genai_config.json").write_text(json.dumps(other), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert end_tokens(folder, tokenizer) == end_tokens(tiny_llama, tokenizer) == {0}
    assert context_length(folder) == context_length(tiny_llama) == 512
    assert RuntimeTokenizer(tokenizer, folder).encode("a text") == tokenizer.encode("a text")


def test_merges_are_never_left_out_at_random(tiny_llama: Path, tmp_path: Path) -> None:
    folder = copied(tiny_llama, tmp_path / "model")
    file = folder / "tokenizer.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["model"]["dropout"] = 0.9
    file.write_text(json.dumps(settings), encoding="utf-8")
    text = "Text: the quick brown fox jumps over the lazy dog"
    assert load_tokenizer(folder).encode(text) == load_tokenizer(tiny_llama).encode(text)
