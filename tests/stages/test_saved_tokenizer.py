"""A tokenizer is what its tokenizer.json says, whichever class the model names for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Do
from odd_models import copied, with_json
from tokenizers import Tokenizer

from autotune.candidate import Recipe
from autotune.stages.inspection_findings import AS_SAVED
from autotune.stages.jobs import BuildJob
from autotune.stages.saved_tokenizer import open_tokenizer
from autotune.stages.text import load_tokenizer

TEXT = "Text: 1234 I felt JOY today, it's 5678!\nTone:"
DIGITS: dict[str, Any] = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    ],
}
"""As SmolLM2 has it, whose class is GPT2Tokenizer."""


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return copied(tiny_llama, tmp_path / "model")


def saved(folder: Path) -> list[int]:
    ids: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize(
    "named", ["GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"]
)
@pytest.mark.parametrize("changes", [{}, {"pre_tokenizer": DIGITS}, {"normalizer": {"type": "Lowercase"}}])
def test_tokens_are_those_of_the_file(named: str, changes: dict[str, Any], model: Path) -> None:
    with_json(with_json(model, "tokenizer.json", **changes), "tokenizer_config.json", tokenizer_class=named)
    tokenizer, instead_of = open_tokenizer(model)
    assert tokenizer.encode(TEXT, add_special_tokens=False) == saved(model)
    assert tokenizer.eos_token_id == 0
    assert instead_of in ("", named.removesuffix("Fast"))
    if named == "PreTrainedTokenizerFast":
        assert instead_of == ""
    if named.startswith("GPT2") and changes:
        assert instead_of == "GPT2Tokenizer", "its own way of splitting is another"


@pytest.mark.parametrize("named", ["GPT2Tokenizer", "GemmaTokenizerFast", "T5TokenizerFast"])
def test_a_build_ships_the_tokenizer_of_the_file(named: str, do: Do, model: Path) -> None:
    with_json(with_json(model, "tokenizer.json", pre_tokenizer=DIGITS), "tokenizer_config.json", tokenizer_class=named)
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    job = BuildJob(source="s", recipe=Recipe(precision="fp32"), provider="cpu", source_dir=model, tokenizer=AS_SAVED)
    built, _ = do(job)
    assert saved(built) == saved(model)
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before, "the model itself stays as it is"
    for encoding in (None, AS_SAVED):
        assert load_tokenizer(built, encoding).encode(TEXT, add_special_tokens=False) == saved(model)


def test_a_build_ships_the_tokenizer_of_the_file_where_a_kind_of_model_has_a_class_of_its_own(
    do: Do, tiny_qwen2: Path
) -> None:
    job = BuildJob(
        source="s", recipe=Recipe(precision="fp32"), provider="cpu", source_dir=tiny_qwen2, tokenizer=AS_SAVED
    )
    built, _ = do(job)
    assert saved(built) == saved(tiny_qwen2)
    for encoding in (None, AS_SAVED):
        assert load_tokenizer(built, encoding).encode(TEXT, add_special_tokens=False) == saved(tiny_qwen2)


@pytest.mark.parametrize("named", ["GemmaTokenizerFast", "T5TokenizerFast", "BertTokenizerFast", "MyOwnTokenizer"])
def test_a_class_that_does_not_take_the_vocabulary_does_not_matter(named: str, model: Path) -> None:
    own = {"AutoTokenizer": ["tokenization_my.MyOwnTokenizer", None]} if named == "MyOwnTokenizer" else None
    with_json(model, "tokenizer_config.json", tokenizer_class=named, **({"auto_map": own} if own else {}))
    tokenizer, instead_of = open_tokenizer(model)
    assert instead_of
    assert tokenizer.encode(TEXT, add_special_tokens=False) == saved(model)


def test_a_file_that_is_damaged_is_told_as_before(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Exception, match="added_tokens"):
        open_tokenizer(model)
