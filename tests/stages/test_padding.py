"""A prompt that ends with the token for padding is gone on from its end, as scored, by ONNX Runtime GenAI too."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Do
from odd_models import copied, with_json

from autotune.candidate import Candidate, Recipe
from autotune.results.layout import fill
from autotune.shipping.about import about_model
from autotune.shipping.task import Task
from autotune.stages.backends import OnnxBackend
from autotune.stages.padding import padding
from autotune.stages.text import load_tokenizer

END, SYSTEM = 0, 1


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return copied(tiny_llama, tmp_path / "model")


def chosen(folder: Path, last: Collection[int], used: Collection[int] = (), rows: int = 512) -> int | None:
    return padding(folder, load_tokenizer(folder), rows, {*used, *last}, last)


def test_padding_that_ends_no_prompt_stays(model: Path) -> None:
    assert chosen(model, {40}) is None, "it is the end-of-text token, and special"
    with_json(model, "config.json", pad_token_id=SYSTEM)
    assert chosen(model, {END}) is None


@pytest.mark.parametrize("pad", [40, -1, 99_999, [0, 1]])
def test_padding_that_is_text_or_no_token_is_replaced(pad: Any, model: Path) -> None:
    with_json(model, "config.json", pad_token_id=pad)
    found = chosen(model, {41})
    assert found is not None
    assert found not in (END, 40, 41)


def test_padding_that_ends_a_prompt_is_a_token_that_the_data_has_not(model: Path) -> None:
    tokens = len(load_tokenizer(model))
    assert chosen(model, {END}, rows=tokens) == SYSTEM
    assert chosen(model, {END}, rows=tokens + 3) == tokens, "a row without a token is no text at all"
    assert chosen(model, {END}, used=range(1, 4), rows=tokens) == tokens - 1
    assert chosen(model, {END}, used=range(tokens), rows=tokens) is None


def test_what_is_kept_goes_on_from_the_end_of_such_a_prompt(built: Do, tiny_llama: Path, tmp_path: Path) -> None:
    import onnxruntime_genai as og

    source = built(Recipe(precision="fp32"), tiny_llama)[0]
    backend = OnnxBackend(source, "cpu", 1)
    draw = np.random.default_rng(0)
    prompts = [(*map(int, draw.integers(5, 400, 11)), END) for _ in range(8)]
    wanted = [int(backend.run(np.array([prompt], dtype=np.int64), last=True)[0].argmax()) for prompt in prompts]
    found = {}
    for pad in (None, SYSTEM):
        task = Task(metric="exact_match", max_length=64, pad=pad)
        aside = fill(tmp_path / str(pad), {"onnx": source}, about_model(Candidate(), "m", task))
        model = og.Model(str(aside / "onnx"))
        found[pad] = []
        for prompt in prompts:
            parameters = og.GeneratorParams(model)
            parameters.set_search_options(max_length=20, do_sample=False)
            generator = og.Generator(model, parameters)
            generator.append_tokens(np.array(prompt, dtype=np.int32))
            found[pad].append(int(np.asarray(generator.get_logits()).argmax()))
    assert found[SYSTEM] == wanted
    assert found[None] != wanted, "the runtime has changed: this module is no longer needed"
