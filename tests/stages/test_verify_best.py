"""A kept model is tried by ONNX Runtime GenAI alone, from text: what is recorded is found again, and a difference is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TONES, Do, tone_items
from odd_models import around, copied, with_json, with_template

from autotune.candidate import Recipe
from autotune.execution.local import LocalEngine
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.shipped import MOST, task_of, verify_job
from autotune.stages.backends import OnnxBackend
from autotune.stages.delivery_jobs import VerifyItem, VerifyJob
from autotune.stages.inspection import runtime_name
from autotune.stages.jobs import BuildJob, ScoreJob
from autotune.stages.protocol import Result
from autotune.stages.score import log_likelihood
from autotune.stages.text import load_tokenizer
from autotune.stages.verify_best import Difference, explained, same_text, verify
from autotune.sweepfile.resolve import parse_sweep

Write = Callable[[list[dict[str, Any]]], Path]
LABELS = tuple(f" {tone}" for tone in TONES)


@pytest.fixture(scope="module")
def engine() -> Any:
    with LocalEngine() as engine:
        yield engine


@pytest.fixture
def tried(do: Do, write_items: Write, engine: LocalEngine, tmp_path: Path) -> Callable[..., Result]:
    """Score a build of a model on items, then try it: `tried(build, items, metric, ...)`."""

    def run(build: Path, items: list[dict[str, Any]], metric: str, encoding: str | None = None, **given: Any) -> Result:
        file = write_items(items)
        labels = LABELS if metric == "choice" else ()
        max_length = given.pop("max_length", 128)
        job = ScoreJob(
            source="s", provider="cpu", data="d", metric=metric, labels=labels, max_length=max_length, threads=1,
            encoding=encoding, model_dir=build, data_file=file, max_new_tokens=given.get("max_new_tokens"),
            stop=given.get("stop"),
        )  # fmt: skip
        outcomes = json.loads((do(job)[0] / "outcomes.json").read_text(encoding="utf-8"))
        data = {
            "train": "t.jsonl",
            "validation": "v.jsonl",
            "prompt": "{text}",
            "completion": " {tone}",
            "metric": metric,
        }
        sweep = parse_sweep(
            {"model": "smollm2-135m-instruct", "data": data | given, "train": {"max_length": max_length},
             "space": {"build": [{"precision": "fp32"}]}}
        )  # fmt: skip
        inputs = Inputs(build, "b", {"validation": ("d", file)}, {"validation": len(items)}, labels, "cpu", "m")
        asked = verify_job(task_of(Graph(sweep, inputs)), inputs.items["validation"][1], outcomes, build)
        assert asked is not None
        result, _ = engine.run_fresh(asked, tmp_path / "verify.log")
        return result

    return run


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_what_was_scored_is_found_again(
    precision: str, tried: Callable[..., Result], built: Do, tiny_qwen2: Path
) -> None:
    recipe = (
        Recipe(precision="fp32")
        if precision == "fp32"
        else Recipe(precision="int4", algorithm="default", block_size=32, accuracy_level=4, symmetric=True)
    )
    build, _ = built(recipe, tiny_qwen2)
    items = tone_items(24)
    for metric, given in (
        ("choice", {}),
        ("perplexity", {}),
        ("exact_match", {"max_new_tokens": 9}),
        ("exact_match", {"stop": (" ",)}),
    ):
        assert tried(build, items, metric, **given) == {"items": MOST, "wrong": []}, metric


@pytest.mark.parametrize(
    ("found", "recorded", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("", "a", False),
        ("a\ufffd", "a\ufffdb c", True),
        ("a\ufffd", "b\ufffdb c", False),
        ("a", "a\ufffdb", False),
    ],
)
def test_the_runtime_stops_at_bytes_that_are_no_text(found: str, recorded: str, same: bool) -> None:
    assert same_text(found, recorded) == same


def test_prompts_that_were_cut_are_passed_over(tried: Callable[..., Result], built: Do, tiny_llama: Path) -> None:
    build, _ = built(Recipe(precision="fp32"), tiny_llama)
    items = tone_items(6)
    items[2]["prompt"] = "on it goes " * 60
    assert tried(build, items, "choice", max_length=40) == {"items": 5, "wrong": []}


def test_an_end_token_between_prompt_and_completion_is_found(
    tried: Callable[..., Result], do: Do, tiny_llama: Path, tmp_path: Path
) -> None:
    """Scored on the tokens of transformers, which its users do not have: that is what the check is there for."""
    model = copied(tiny_llama, tmp_path / "model")
    with_json(model, "tokenizer.json", post_processor=around("<|user|>", "<|end|>"))
    build, _ = do(BuildJob(source="odd", recipe=Recipe(precision="fp32"), provider="cpu", source_dir=model))
    items = tone_items(12)
    for metric in ("perplexity", "exact_match"):
        wrong = tried(build, items, metric, max_new_tokens=6 if metric == "exact_match" else None)
        assert len(wrong["wrong"]) > 6, metric
        assert "recorded" in wrong["wrong"][0]
        right = tried(build, items, metric, runtime_name(), max_new_tokens=6 if metric == "exact_match" else None)
        assert right == {"items": 12, "wrong": []}


def test_messages_go_through_the_template_that_ships(
    tried: Callable[..., Result], do: Do, built: Do, tiny_llama: Path, tmp_path: Path
) -> None:
    build, _ = built(Recipe(precision="fp32"), tiny_llama)
    items = [
        {**item, "prompt": [{"role": "user", "content": f'é "{n}" <b>\n'}]} for n, item in enumerate(tone_items(8))
    ]
    assert tried(build, items, "choice") == {"items": 8, "wrong": []}
    model = with_template(copied(tiny_llama, tmp_path / "model"), "{{ messages[0]['content'] | reverse }}")
    other, _ = do(BuildJob(source="odd", recipe=Recipe(precision="fp32"), provider="cpu", source_dir=model))
    found = tried(other, items, "choice")
    assert found["items"] == 0
    assert "the model's chat template cannot be rendered" in found["wrong"][0]


@pytest.mark.parametrize(
    ("differences", "told"),
    [
        ([(0.02, -0.08)], ""),  # what is recorded is right token by token
        ([(0.02, 0.0009)], ""),
        ([(0.5, 0.5)], "0"),  # both ways agree: no rounding is seen, so none explains it
        ([(0.02, 0.01), (0.05, -0.3)], ""),  # the second item shows how far rounding moves this model
        ([(0.6, 0.55), (0.05, -0.3)], "0"),
        ([(0.0012, 0.0012)], "0"),
        ([(5.0, -1.0)], "0"),  # no rounding is as large: the two ways are two models
        ([(0.6, 0.55), (5.0, -1.0)], "01"),
        ([(float("nan"), 0.2)], "0"),
        ([(float("inf"), float("inf"))], "0"),
        ([], ""),
    ],
)
def test_what_rounding_explains_is_no_difference(differences: list[tuple[float, float]], told: str) -> None:
    given = [Difference(str(place), *ways) for place, ways in enumerate(differences)]
    assert explained(given) == list(told)


def test_eight_bit_activations_are_no_difference_and_another_score_is(built: Do, tiny_qwen2: Path) -> None:
    """Recorded token by token, as labels are scored: in one pass over the text the last bits differ, and so do roundings."""
    recipe = Recipe(precision="int4", algorithm="default", block_size=32, accuracy_level=4, symmetric=True)
    build, _ = built(recipe, tiny_qwen2)
    backend, tokenizer = OnnxBackend(build, "cpu", 1), load_tokenizer(build)
    asked: dict[float, list[VerifyItem]] = {0.0: [], 0.2: []}
    for item in tone_items(24):
        item["completion"] += " " + " ".join(TONES)
        prompt, tokens = (tokenizer.encode(item[key], add_special_tokens=False) for key in ("prompt", "completion"))
        logits, cache = backend.run(np.array([prompt]), keep=True, last=True)
        nll = 0.0
        for place, token in enumerate(tokens):
            nll -= float(log_likelihood(logits[0, -1:], np.array([[token]])).sum())
            if place + 1 < len(tokens):
                logits, cache = backend.run(np.array([[token]]), cache, keep=True)
        for shift, items in asked.items():
            items.append(VerifyItem.model_validate(item | {"nll": nll + shift * len(tokens)}))
    for shift, items in asked.items():
        job = VerifyJob(provider="cpu", items=tuple(items), most=24, max_length=128, model_dir=build)
        # In this process, where the tests have loaded what a user of the model does not have.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autotune.stages.verify_best._HEAVY", ())
            found = verify(job, build)
        assert (found["items"], len(found["wrong"])) == (24, 24 if shift else 0)
