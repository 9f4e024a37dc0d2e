"""What a look at model, tokenizer and data means for a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.data.control import without_end
from autotune.data.schema import Dataset
from autotune.errors import UsageError
from autotune.pipeline.inspection import Inspected, has_weights, inspect_job, judge_inspection
from autotune.pipeline.prepare import read_data
from autotune.stages.jobs import Control, Inspection
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep

END = "<|end|>"
Made = tuple[Sweep, Dataset]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """Write data and read it by a sweep: `make(completion=" {tone}", metric="choice")`."""

    def build(**data: Any) -> Made:
        lines = [{"text": f"phrase number {n}", "tone": ("joy", "fear")[n % 2]} for n in range(16)]
        for name, part in (("train", lines[:10]), ("validation", lines[10:])):
            text = "".join(json.dumps(line) + "\n" for line in part)
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        document: dict[str, Any] = {
            "model": "smollm2-135m-instruct",
            "data": {
                "train": "train.jsonl",
                "validation": "validation.jsonl",
                "prompt": "{text}",
                "completion": " {tone}",
            }
            | data,
            "space": {"lora": {"r": 4}, "build": [{"precision": "int8"}]},
        }
        sweep = parse_sweep(document, root=tmp_path)
        return sweep, read_data(sweep)

    return build


def refusal(made: Made, **seen: Any) -> str:
    with pytest.raises(UsageError) as caught:
        judged(made, **seen)
    for problem in caught.value.problems:
        assert problem.key
        assert problem.remedy
    return str(caught.value)


def judged(made: Made, **seen: Any) -> Inspected:
    sweep, dataset = made
    look = Inspection(**{"tokens": 9, "rows": 9} | seen)
    return judge_inspection(sweep.model, sweep.file, sweep.data, sweep.train.max_length, dataset, look)


def test_nothing_seen_changes_nothing(make: Callable[..., Made]) -> None:
    made = make()
    assert judged(made) == Inspected(made[1], (), None)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"missing": ("lm_head.weight",)}, "lack 1 tensor that config.json asks for, which would be random: 'lm_head.weight'"),
        ({"missing": ("lm_head.weight",)}, "set tie_word_embeddings to true"),
        ({"missing": tuple(f"a{n}" for n in range(9))}, "lack 9 tensors that config.json asks for, which would be random: 'a0', 'a1', 'a2', 'a3' and 5 more"),
        ({"mismatched": ("a is 1x2 in the file and 2x2 in the model",)}, "do not fit config.json: a is 1x2 in the file"),
        ({"foreign": ("q_proj.bias",)}, "hold 1 tensor that config.json leaves out"),
        ({"trouble": "the tokenizer cannot be loaded: x", "remedy": "save it again"}, "cannot be loaded: x, got 'smollm2"),
        ({"tokens": 446, "rows": 444, "beyond": ("<|team|>",)}, "446 tokens and the embedding 444 rows: the data uses '<|team|>', which has none"),
        ({"unread": "it cannot read this"}, "leave out space.build"),
        ({"alike": ((" Joy", " joy"),)}, "the labels ' Joy' and ' joy' have the same tokens"),
        ({"alike": ((" caf\u00e9", " cafe\u0301"),)}, "(caf\\xe9) and ' cafe\u0301' (cafe\\u0301) have the same tokens"),
        ({"blank": (".",)}, "the label '.' has no tokens"),
        ({"too_far": (30, 500, 512)}, "a prompt of 30 tokens and 500 new ones do not fit into the model's 512"),
    ],
)  # fmt: skip
def test_what_is_refused(seen: dict[str, Any], said: str, make: Callable[..., Made]) -> None:
    assert said in refusal(make(), **seen)


def test_all_that_is_wrong_with_a_model_is_said_at_once(make: Callable[..., Made]) -> None:
    said = refusal(make(), missing=("a",), mismatched=("b is",), tokens=9, rows=8, beyond=("c",))
    assert len(said.splitlines()) == 3


def test_a_completion_that_does_not_fit_is_named(make: Callable[..., Made]) -> None:
    sweep, dataset = make()
    said = refusal((sweep, dataset), too_long=(("validation", dataset.validation[2].id, 300),))
    assert "train.max_length: every completion must fit into it, and 1 does not" in said
    assert "validation.jsonl:3 has 300 tokens" in said
    assert "raise it to 302 at least" in said


def test_a_template_that_refuses_all_is_one_error(make: Callable[..., Made]) -> None:
    sweep, dataset = make(
        prompt=None, completion=None, messages=[{"role": "system", "content": "x"}, {"role": "user", "content": "{text}"},
                                                {"role": "assistant", "content": "{tone}"}],
    )  # fmt: skip
    refused = [(split, item.id, "System role not supported") for split in ("train", "validation")
               for item in getattr(dataset, split)]  # fmt: skip
    said = refusal((sweep, dataset), refused=tuple(refused), conversations=16)
    assert len(said.splitlines()) == 1
    assert "data.messages: the model's chat template refuses every conversation (System role not supported)" in said
    assert "take the system message out" in said


def test_single_conversations_are_left_out_by_name(make: Callable[..., Made]) -> None:
    sweep, dataset = make()
    gone = dataset.train[3]
    seen = judged((sweep, dataset), refused=(("train", gone.id, "must alternate"),), conversations=16)
    assert gone not in seen.dataset.train
    assert (len(seen.dataset.train), len(seen.dataset.validation)) == (9, 6)
    (left,) = seen.dataset.left_out
    assert (left.split, left.rows, left.examples) == ("train", 1, ("train.jsonl:4",))
    assert left.reason == "refused by the chat template (must alternate)"
    assert seen.notes == ("data: train.jsonl:4 is left out: the chat template refuses it (must alternate)",)
    assert seen.dataset.digest("train") != dataset.digest("train")


def test_a_split_or_a_label_that_is_lost_is_said(make: Callable[..., Made]) -> None:
    sweep, dataset = make()
    all_ = tuple(("validation", item.id, "must alternate") for item in dataset.validation)
    assert "validation must have rows" in refusal((sweep, dataset), refused=all_, conversations=16)
    joy = tuple(("train", item.id, "must alternate") for item in dataset.train if item.completion == " joy")
    assert "which lacks ' joy'" in refusal((sweep, dataset), refused=joy, conversations=16)


def control(made: Made, token: str, where: str) -> tuple[Control, ...]:
    return tuple(
        Control(token=token, split=split, where=where, items=tuple(item.id for item in getattr(made[1], split)))
        for split in ("train", "validation")
    )


def test_the_end_of_text_is_taken_off_completions(make: Callable[..., Made]) -> None:
    made = make(completion=f" {{tone}}{END}")
    assert made[1].labels == (f" fear{END}", f" joy{END}")
    seen = judged(made, ends=(END,), controls=control(made, END, "completion"))
    plain = make()[1]
    assert [item.id for item in seen.dataset.train] == [item.id for item in plain.train], "as without the token"
    assert seen.dataset.labels == (" fear", " joy")
    assert set(seen.dataset.label_rows) <= {" fear", " joy"}
    assert seen.dataset.places[seen.dataset.train[0].id] == "train.jsonl:1"
    (note,) = seen.notes
    assert note.startswith(f"data: 10 train and 6 validation completions hold '{END}' (train.jsonl:1, ...)")
    assert "it is taken off their end" in note


@pytest.mark.parametrize("token", [END, "<|user|>"])
def test_a_control_token_inside_of_a_completion(token: str, make: Callable[..., Made]) -> None:
    made = make(completion=f"{token} {{tone}}", metric="exact_match")
    said = refusal(made, ends=(END,), controls=control(made, token, "completion"))
    assert f"completions hold '{token}'" in said
    assert "train.jsonl:1" in said
    chosen = make(completion=f"{token} {{tone}}")
    assert len(judged(chosen, ends=(END,), controls=control(chosen, token, "completion")).notes) == 1, "a label may"


def test_control_tokens_of_prompts_are_told(make: Callable[..., Made]) -> None:
    made = make(prompt="<|user|>{text}")
    (note,) = judged(made, controls=control(made, "<|user|>", "prompt")).notes
    assert "10 train and 6 validation prompts hold '<|user|>'" in note
    assert "as the sweep file writes it" in note
    (note,) = judged(make(), controls=control(made, "<|user|>", "prompt")).notes
    assert "from the data, not from the sweep file" in note


def test_what_else_is_told(make: Callable[..., Made]) -> None:
    notes = judged(
        make(), around=("<s>", "</s>"), differing=3, texts=20, example="'a' there, 'b' here", template="it gives an error: x",
        unused=("mtp.w",), tokens=10, rows=9, cut={"train": 0, "validation": 2}, encoding="runtime 1",
    ).notes  # fmt: skip
    assert [note.partition(":")[0] for note in notes] == ["model"] * 5 + ["data"]
    assert any("begins a text with '<s>' and ends a text with '</s>'" in note for note in notes)
    assert any("3 of 20 texts" in note for note in notes)
    assert notes[-1].startswith("data: 2 of 6 validation prompts do not fit into train.max_length")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a</s>", "a"),
        ("a</s></s>\n", "a"),
        ("a </s>", "a "),
        ("a</s>b", "a</s>b"),
        ("</s>", ""),
        ("a", "a"),
        ("a<e>", "a"),
    ],
)
def test_ends_come_off_the_end_alone(text: str, plain: str) -> None:
    assert without_end(text, ("</s>", "<e>")) == plain
    assert without_end(text, ()) == text


def test_the_look_is_found_again_by_what_decides_it(
    make: Callable[..., Made], tiny_llama: Path, tmp_path: Path
) -> None:
    sweep, dataset = make()
    job = inspect_job(sweep.data, 256, True, dataset, tiny_llama, tmp_path)
    assert job.key == inspect_job(sweep.data, 256, True, dataset, tiny_llama, tmp_path).key
    assert [split for split, _ in job.data] == ["train", "validation"]
    assert inspect_job(sweep.data, 17, True, dataset, tiny_llama, tmp_path).key != job.key
    assert inspect_job(sweep.data, 256, False, dataset, tiny_llama, tmp_path).key != job.key
    assert has_weights(tiny_llama)
