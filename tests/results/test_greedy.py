"""A kept model answers as it was scored, whatever its generation_config.json asks for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Do
from odd_models import copied, with_json

from autotune.candidate import Recipe
from autotune.results.greedy import PLAIN, answer_greedily, generation_note
from autotune.results.layout import fill
from autotune.stages.jobs import BuildJob


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({}, []),
        ({"do_sample": False, "repetition_penalty": 1.0, "temperature": 0.7, "eos_token_id": [0, 2]}, []),
        ({"repetition_penalty": 1.05}, ["repetition_penalty 1.05"]),
        ({"do_sample": True, "num_beams": 4}, ["do_sample True", "num_beams 4"]),
        ({"no_repeat_ngram_size": 3, "min_length": 5}, ["no_repeat_ngram_size 3", "min_length 5"]),
        ([], []),
    ],
)
def test_what_a_model_asks_for_beyond_the_likeliest_token_is_told(
    asked: object, named: list[str], tmp_path: Path
) -> None:
    assert generation_note(tmp_path) == []
    (tmp_path / "generation_config.json").write_text(json.dumps(asked), encoding="utf-8")
    notes = generation_note(tmp_path)
    assert bool(notes) == bool(named)
    for part in named:
        assert part in notes[0]


def test_settings_that_change_nothing_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "genai_config.json"
    file.write_text('{"search": {"do_sample": false, "top_k": 50}}', encoding="utf-8")
    answer_greedily(file)
    assert file.read_text(encoding="utf-8") == '{"search": {"do_sample": false, "top_k": 50}}'


def test_settings_that_change_an_answer_are_set_back_and_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "genai_config.json"
    asked = {"num_beams": 4, "no_repeat_ngram_size": 2, "do_sample": True, "repetition_penalty": 1.05, "top_k": 20}
    file.write_text(json.dumps({"model": {"vocab_size": 512}, "search": asked}), encoding="utf-8")
    answer_greedily(file)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found == {"model": {"vocab_size": 512}, "search": {**PLAIN, "top_k": 20}}


def test_what_is_kept_gives_the_likeliest_tokens_by_its_own_settings(do: Do, tiny_llama: Path, tmp_path: Path) -> None:
    """Sampling reaches the settings that the builder writes, and no further."""
    import onnxruntime_genai as og

    source = with_json(copied(tiny_llama, tmp_path / "model"), "generation_config.json", do_sample=True)
    job = BuildJob(source="s", recipe=Recipe(precision="fp32"), provider="cpu", source_dir=source)
    built, _ = do(job)
    plain, _ = do(job.model_copy(update={"source_dir": tiny_llama}))
    kept = fill(tmp_path / ".best", {"onnx": built}, {}) / "onnx"
    there = json.loads((built / "genai_config.json").read_text(encoding="utf-8"))["search"]
    assert there["do_sample"] is True
    search = json.loads((kept / "genai_config.json").read_text(encoding="utf-8"))["search"]
    assert {name: search[name] for name in PLAIN} == PLAIN

    def answer(folder: Path) -> list[int]:
        model = og.Model(str(folder))
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=40)  # all the rest as the folder says
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.array([60, 70, 80, 90], dtype=np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)]

    assert answer(kept) == answer(plain)
    assert answer(built) != answer(plain)
