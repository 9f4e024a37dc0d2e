"""What a look at model, tokenizer and data means for a sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.data.control import without_end
from autotune.data.schema import Dataset
from autotune.errors import UsageError
from autotune.pipeline.inspection import Inspected, has_weights, inspect_job, judge_inspection
from autotune.pipeline.modules import refused_modules
from autotune.pipeline.prepare import read_data
from autotune.space.domains import Choice
from autotune.stages.inspection_findings import Control, Inspection, Unwritten
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
    none = "the model has none"
    for reason, remedy in (
        (none, "name a model with a chat template"),
        (
            f"{none}, and its chat_template.json is read by processors alone",
            "save the template that it holds as chat_template.jinja",
        ),
    ):
        said = refusal((sweep, dataset), refused=tuple((*one[:2], reason) for one in refused), conversations=16)
        assert remedy in said


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


# --- What no candidate could answer ----------------------------------------------------------------------------------


def unwritten(made: Made, reason: str, count: int | None = None) -> dict[str, Any]:
    """Return what a look says where completions of validation are never written, for a reason."""
    items = tuple(item.id for item in made[1].validation)
    one = Unwritten(reason=reason, items=items[:count], completion=" JOY", written="joy")
    return {"unwritten": {"validation": (one,)}, "counts": {"train": 10, "validation": 6}, "longest_answer": 9}


@pytest.mark.parametrize(
    ("reason", "key", "said"),
    [
        ("text", "data.completion", "makes 'joy' of ' JOY' (validation.jsonl:1)"),
        ("end", "model", "generation ends at 'joy', which eos_token_id of the model's settings names, within ' JOY'"),
        ("stop", "data.stop", "' JOY' (validation.jsonl:1) holds a text of data.stop"),
        ("limit", "data.max_new_tokens", "has more than the 3 tokens of data.max_new_tokens"),
    ],
)
def test_completions_that_are_never_written(reason: str, key: str, said: str, make: Callable[..., Made]) -> None:
    made = make(metric="exact_match", max_new_tokens=3)
    refused = refusal(made, **unwritten(made, reason))
    assert f"{key}: no validation completion could ever be matched: " in refused
    assert said in refused
    if reason == "limit":
        assert "the longest completion has 9 tokens" in refused
    (note,) = judged(made, **unwritten(made, reason, 2)).notes
    assert note.startswith("data: 2 of 6 validation completions can never be what the model writes: ")
    assert said in note


def test_a_metric_of_texts_goes_on_without_the_tokens_that_are_cut(make: Callable[..., Made]) -> None:
    made = make(metric="rouge_l", max_new_tokens=3)
    assert judged(made, **unwritten(made, "limit")).notes == ()
    assert len(judged(made, **unwritten(made, "text")).notes) == 1


def test_prompts_that_are_the_same_to_the_model(make: Callable[..., Made]) -> None:
    made = make()
    items, counts = tuple(item.id for item in made[1].validation), {"validation": 6}
    said = refusal(made, same={"validation": items}, counts=counts)
    assert "data.prompt: all prompts of validation have the same tokens" in said
    cut = refusal(made, same={"validation": items}, counts=counts, cut={"validation": 6})
    assert "train.max_length: all prompts of validation have the same tokens" in cut
    (note,) = judged(made, same={"validation": items[2:4]}, counts=counts).notes
    assert (
        "2 of 6 validation prompts have the tokens of another one with another answer (validation.jsonl:3, ...)" in note
    )


def test_a_template_that_leaves_the_user_out(make: Callable[..., Made]) -> None:
    sweep, dataset = make(
        prompt=None, completion=None, messages=[{"role": "user", "content": "{text}"}, {"role": "assistant", "content": "{tone}"}],
    )  # fmt: skip
    items = tuple(item.id for item in dataset.train)
    said = refusal((sweep, dataset), same={"train": items}, counts={"train": 10}, hidden_roles=("user",))
    assert "data.messages: all prompts of train have the same tokens" in said
    assert "the chat template leaves out the text of 'user'" in said


def test_what_else_is_told_of_texts(make: Callable[..., Made]) -> None:
    made = make()
    notes = judged(
        made, unknown=("<unk>", (("validation", made[1].validation[0].id),)), hidden_roles=("system",), dated="Today: 3 Feb",
        named_class="GPT2Tokenizer",
    ).notes  # fmt: skip
    assert len(notes) == 4
    assert "the class GPT2Tokenizer that it names for its tokenizer splits texts otherwise" in notes[0]
    assert (
        "1 prompts hold what the model's tokenizer does not know and replaces by '<unk>' (validation.jsonl:1, ...)"
        in notes[1]
    )
    assert "does not show the text of messages of 'system'" in notes[2]
    assert "writes what changes with time ('Today: 3 Feb')" in notes[3]


def test_ends_beyond_the_embedding_are_refused(make: Callable[..., Made]) -> None:
    assert "eos_token_id of its settings names 99, and the embedding has 9 rows" in refusal(make(), ends_beyond=(99,))


@pytest.mark.parametrize(
    ("wanted", "tied", "said"),
    [
        (["q_proj", "nope"], False, "'nope'"),
        (["model.layers.0.self_attn.q_proj"], False, "did you mean 'q_proj'?"),
        (["query_key_value"], False, "it has k_proj, lm_head, q_proj, v_proj"),
        (["lm_head"], True, "shares its weights with the embedding"),
        ([["q_proj"], ["embed_tokens"]], False, "'embed_tokens'"),
    ],
)
def test_modules_that_a_model_has_not_are_refused(
    wanted: Any, tied: bool, said: str, make: Callable[..., Made]
) -> None:
    seen = replace(judged(make()), linear=("k_proj", "lm_head", "q_proj", "v_proj"), tied_head=tied)
    domain = Choice(tuple(map(tuple, wanted)) if isinstance(wanted[0], list) else (tuple(wanted),))
    with pytest.raises(UsageError) as caught:
        refused_modules({"target_modules": domain}, "sweep.yaml", seen)
    assert "space.lora.target_modules" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("wanted", [("q_proj", "v_proj"), ("lm_head",), ("qkv_proj",), "attention", "all-linear"])
def test_modules_that_a_model_has_are_taken(wanted: Any, make: Callable[..., Made]) -> None:
    seen = replace(judged(make()), linear=("k_proj", "lm_head", "q_proj", "v_proj"))
    assert refused_modules({"target_modules": Choice((wanted,))}, "sweep.yaml", seen) is seen


@pytest.mark.parametrize(
    ("seen", "remedy"),
    [
        ({"foreign": ("model.layers.0.self_attn.q_proj.lora_A.weight",)}, "merge that (merge_and_unload())"),
        ({"missing": ("a.weight",), "foreign": ("a.base_layer.weight",)}, "merge that (merge_and_unload())"),
        ({"missing": ("a.weight",), "foreign": ("a.qweight", "a.scales")}, "name the model in its original precision"),
        ({"foreign": ("a.weight_scale_inv",)}, "name the model in its original precision"),
        ({"foreign": ("a.biases", "a.scales")}, "name the model in its original precision"),
        ({"mismatched": ("a.weight is whole numbers (I8)",)}, "name the model in its original precision"),
        ({"mismatched": ("a.weight is 2x3 in the file and 3x3 in the model",)}, "fetch or save the model again"),
        ({"missing": ("model.a.weight",), "unused": ("module.model.a.weight",)}, "they are there under other names (module.model.a.weight)"),
        ({"missing": ("model.a.weight",), "unused": ("mtp.b.weight",)}, "fetch or save the model again"),
    ],
)  # fmt: skip
def test_a_model_in_another_form_has_its_own_remedy(
    seen: dict[str, Any], remedy: str, make: Callable[..., Made]
) -> None:
    assert remedy in refusal(make(), **seen)


def test_templates_of_several_names(make: Callable[..., Made]) -> None:
    sweep, dataset = make(
        prompt=None, completion=None, messages=[{"role": "user", "content": "{text}"}, {"role": "assistant", "content": "{tone}"}],
    )  # fmt: skip
    refused = tuple((split, item.id, "multiple chat templates with no default specified!")
                    for split in ("train", "validation") for item in getattr(dataset, split))  # fmt: skip
    assert "call one of them default" in refusal((sweep, dataset), refused=refused, conversations=16)
