"""Lengths drawn from the data: tokens as they are scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TONES, Do, tone_items

from autotune.stages.lengths import DRAWN, quantiles
from autotune.stages.preparation_jobs import LengthsJob
from autotune.stages.protocol import Result
from autotune.stages.text import encode, load_tokenizer

Write = Callable[[list[dict[str, Any]]], Path]
LABELS = tuple(f" {tone}" for tone in TONES)


@pytest.fixture
def counted(do: Do, tiny_llama: Path, write_items: Write) -> Callable[..., Result]:
    """Count the lengths of items: `counted(items, max_length)`."""

    def count(items: list[dict[str, Any]], max_length: int = 128) -> Result:
        job = LengthsJob(
            base="b", data="d", labels=LABELS, max_length=max_length, base_dir=tiny_llama, data_file=write_items(items)
        )
        return do(job)[1]

    return count


def test_they_are_lengths_of_the_data_in_equal_parts(counted: Callable[..., Result], tiny_llama: Path) -> None:
    items = tone_items(24)
    found = counted(items)
    encoded, _ = encode(load_tokenizer(tiny_llama), items, 128)
    prompts = sorted(len(item.prompt) for item in encoded)
    assert len(set(prompts)) > 3
    assert found["prompt_tokens"] == [
        prompts[place] for place in (1, 4, 7, 10, 13, 16, 19, 22)
    ]  # middles of 8 parts of 3
    assert set(found["new_tokens"]) <= {max(2, len(item.completion)) for item in encoded}
    assert found["context"] == 512


def test_the_chat_template_counts(counted: Callable[..., Result]) -> None:
    plain = [{**item, "prompt": "I felt joy"} for item in tone_items(4)]
    chat = [{**item, "prompt": [{"role": "user", "content": "I felt joy"}]} for item in plain]
    more = counted(chat)["prompt_tokens"][0] - counted(plain)["prompt_tokens"][0]
    assert more == 3  # <|user|>, <|end|> and <|assistant|>


def test_prompts_are_cut_as_for_scoring_and_a_sequence_has_two_new_tokens(counted: Callable[..., Result]) -> None:
    items = [{**item, "prompt": "word " * 200, "completion": "!"} for item in tone_items(4)]
    found = counted(items, max_length=32)
    assert max(found["prompt_tokens"]) < 32
    assert found["new_tokens"] == [2] * DRAWN


def test_quantiles_of_few() -> None:
    assert quantiles([7]) == [7] * DRAWN
    assert quantiles([9, 1]) == [1] * 4 + [9] * 4
    assert quantiles(list(range(100, 0, -1))) == [7, 19, 32, 44, 57, 69, 82, 94]
