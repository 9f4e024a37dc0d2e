"""The files beside a model: what they say for each kind of prompt and metric."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.candidate import Candidate, Recipe
from autotune.data.schema import Message
from autotune.results.rows import Trial
from autotune.shipping.card import card
from autotune.shipping.facts import Facts, Verified, hub_name, licence_of
from autotune.shipping.files import conversation, foundry, run_script
from autotune.shipping.task import Task

CHAT = (
    Message(role="system", content="Be {tone?}."),
    Message(role="user", content="{text}"),
    Message(role="assistant", content="{a}"),
)


def task(**given: Any) -> Task:
    return Task.model_validate({"metric": "choice", "max_length": 64, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"prompt": "Text: {text}\nTone:", "completion": " {t}"}, "Text: {Content}\nTone:"),
        ({"prompt": "{a} and {b}", "completion": " {t}"}, "{Content}"),
        ({"prompt": "Say {{so}}: {a?: }", "completion": "{t}"}, "Say {so}: : {Content}"),
        ({"text": "{body}"}, "{Content}"),
        ({"messages": "chat"}, [{"role": "user", "content": "{Content}"}]),
        ({"messages": CHAT[1:]}, [{"role": "user", "content": "{Content}"}]),
        ({"messages": CHAT}, [{"role": "user", "content": "{Content}"}]),
    ],
)
def test_what_a_user_says_stands_where_the_cell_stood(given: dict[str, Any], expected: object) -> None:
    assert conversation(task(**given)) == expected


def facts(tmp_path: Path, **changes: Any) -> Facts:
    candidate = Candidate(recipe=Recipe(precision="int4"))
    sweep: dict[str, Any] = {
        "name": "s", "model": "m", "data": {"train": "/home/me/secret place/train.csv", "prompt": "{a|b}", "completion": "`{t}`"},
        "target": {"provider": "cpu"},
    }  # fmt: skip
    row = Trial(
        {
            "candidate": candidate.id,
            "trial": 1,
            "accuracy": 0.5,
            "accuracy_low": 0.4,
            "accuracy_high": 0.6,
            "accuracy_n": 90,
        }
    )
    given: dict[str, Any] = {
        "folder": tmp_path, "sweep": sweep, "candidate": candidate, "row": row, "base": None, "final": None, "final_base": None,
        "machine": {}, "inputs": {}, "base_model": "o/m", "on_hub": True, "licence": "mit", **changes,
    }  # fmt: skip
    return Facts(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": "Q: {q} \"'\\\n", "completion": " {a}", "labels": (" a", " ab", ' "c"')},
        {"prompt": "{q}{hint?, hint: }", "completion": "{a}", "metric": "exact_match", "stop": ("\n", '"')},
        {"messages": CHAT, "metric": "exact_match", "max_new_tokens": 5},
        {"messages": "chat", "metric": "rouge_l"},
        {"text": "{body}", "metric": "perplexity"},
    ],
)
def test_the_script_is_python_whatever_the_template_holds(given: dict[str, Any], tmp_path: Path) -> None:
    text = run_script(facts(tmp_path), task(**given))
    compile(text, "run.py", "exec")
    assert "autotune" not in text
    assert ("LABELS" in text) == bool(given.get("labels"))
    assert text.count("\n") <= 60


def test_a_card_tells_no_path_and_breaks_at_no_character(tmp_path: Path) -> None:
    text = card(facts(tmp_path), Verified(16), {"onnx/": "the model"})
    assert "/home/me" not in text
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["base_model"], head["base_model_relation"], head["license"]) == ("o/m", "quantized", "mit")
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["args"] == {"items": 90, "confidence": 0.95, "low": 0.4, "high": 0.6}
    assert "it answered 16 items as recorded" in text
    assert "| accuracy on validation (90 items) | 0.500 [0.400, 0.600] |  |" in text
    assert "**This folder does not answer as recorded**" in card(facts(tmp_path), Verified(16, ("a",)), {})
    assert "not known here" in card(facts(tmp_path, licence=None), Verified(), {})
    assert "license" not in yaml.safe_load(card(facts(tmp_path, licence=None), Verified(), {}).split("---\n")[1])


def test_where_a_model_comes_from(tmp_path: Path) -> None:
    assert hub_name("smollm2-135m-instruct", tmp_path) == ("HuggingFaceTB/SmolLM2-135M-Instruct", True)
    assert licence_of("smollm2-135m-instruct", tmp_path) == "apache-2.0"
    assert hub_name("owner/name", tmp_path) == ("owner/name", True)
    folder = tmp_path / "my model"
    folder.mkdir()
    assert hub_name("my model", tmp_path) == ("my-model", False)
    assert licence_of("my model", tmp_path) is None
    (folder / "config.json").write_text(json.dumps({"_name_or_path": "a/b"}), encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Card\n", encoding="utf-8")
    assert hub_name("my model", tmp_path) == ("a/b", True)
    assert licence_of("my model", tmp_path) == "mit"
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n", encoding="utf-8")
    assert licence_of("my model", tmp_path) is None


def test_foundry_locals_file() -> None:
    said = json.loads(foundry("a-1", 'x "{Content}"\n'))
    assert said == {"Name": "a-1", "PromptTemplate": {"assistant": "{Content}", "prompt": 'x "{Content}"\n'}}
