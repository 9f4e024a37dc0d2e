"""The harness's tasks on our backends: the same numbers as its own PyTorch model, on builds as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TONES, Do
from lm_eval import evaluator
from lm_eval.api import metrics as harness_metrics
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from autotune.analysis.scores import PARTS, summarise
from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.stages.jobs import TaskCheckJob, TaskScoreJob
from autotune.stages.lm_task import _parts
from autotune.stages.preparation_jobs import TaskJob
from autotune.stages.text import load_tokenizer
from autotune.tasks import find_task

HEAD = """\
task: my_tones
dataset_path: json
dataset_kwargs: { data_files: { validation: items.jsonl, test: more.jsonl } }
validation_split: validation
doc_to_text: "Text: {{text}}\\nTone:"
"""
CHOICE = (
    HEAD
    + """\
output_type: multiple_choice
doc_to_choice: [fear, joy, sadness and more, surprise]
doc_to_target: "{{label}}"
metric_list:
  - { metric: acc, aggregation: mean, higher_is_better: true }
  - { metric: acc_norm, aggregation: mean, higher_is_better: true }
"""
)
WRITE = (
    HEAD
    + """\
output_type: generate_until
doc_to_target: "{{tone}}"
generation_kwargs: { until: ["e", "\\n\\n"], max_gen_toks: 12, do_sample: false }
metric_list:
  - { metric: exact_match, aggregation: mean, higher_is_better: true }
"""
)
ROLLING = (
    HEAD.replace('doc_to_text: "Text: {{text}}\\nTone:"', 'doc_to_text: ""')
    + """\
output_type: loglikelihood_rolling
doc_to_target: "{{text}}"
metric_list:
  - { metric: word_perplexity, higher_is_better: false }
  - { metric: bits_per_byte, higher_is_better: false }
"""
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task's folder with its data, which is the working directory."""
    for name, start, count in (("items", 0, 14), ("more", 100, 6)):
        rows = [
            {"text": f"{n} " + "and so on " * (n % 3) + f"I felt {TONES[n % 4]}", "tone": TONES[n % 4], "label": n % 4}
            for n in range(start, start + count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scored(do: Do, folder: Path) -> Callable[..., dict[str, Any]]:
    """Score a model on a task: `scored(CHOICE, model, metric="acc", provider="cpu")`."""

    def run(text: str, model: Path, own: str = "", split: str = "validation", **changes: Any) -> dict[str, Any]:
        (folder / "tones.yaml").write_text(text, encoding="utf-8")
        metric = f"lm-eval:tones.yaml{own and '@' + own}"
        code = find_task(metric, folder)
        most = changes.pop("max_validation", None)
        read, about = do(TaskJob(metric=metric, code=code.digest, file=code.file, max_validation=most))
        job = TaskScoreJob(
            source="s", data=about["splits"][split]["digest"], data_file=read / f"{split}.json", metric=metric,
            code=code.digest, code_file=code.file, max_length=64, model_dir=model, **changes,
        )  # fmt: skip
        out, result = do(job)
        scores = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
        assert about["mean"] is ("values" in scores)
        assert about["mean"] is not ("parts" in scores)
        found: dict[str, Any] = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
        assert result["items"] == len(found["ids"]) == about["splits"][split]["items"]
        return found | {"about": about}

    return run


def theirs(folder: Path, model: Path, metric: str, split: str = "validation") -> tuple[float, list[Any]]:
    """Return what the harness's own model gives: the score, and each item's share."""
    task = TaskManager(include_defaults=False).load([str(folder / "tones.yaml")])["tasks"]["my_tones"]
    if split == "test":
        task.set_config("test_split", "test")
    task.set_config("num_fewshot", 0)
    tokenizer = load_tokenizer(model)  # of the file: transformers has a class of its own for Qwen2, which splits digits
    lm = HFLM(pretrained=str(model), tokenizer=tokenizer, device="cpu", batch_size=1, dtype="float32")
    found = evaluator.evaluate(lm, {"tasks": {"my_tones": task}}, bootstrap_iters=0)
    chosen = found["samples"]["my_tones"][0]["filter"]
    return found["results"]["my_tones"][f"{metric},{chosen}"], [s[metric] for s in found["samples"]["my_tones"]]


@pytest.mark.parametrize(("text", "metric"), [(CHOICE, "acc"), (CHOICE, "acc_norm"), (WRITE, "exact_match")])
def test_items_are_scored_as_by_the_harness_itself(
    text: str, metric: str, scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path, built: Do
) -> None:
    ours = scored(text, tiny_qwen2, metric)
    score, shares = theirs(folder, tiny_qwen2, metric)
    assert ours["values"] == shares
    value, interval, n = summarise("lm-eval:tones.yaml", ours)
    assert value == pytest.approx(score)
    assert interval.low <= value <= interval.high
    assert n == 14
    if metric != "exact_match":
        assert 0 < score < 1
        assert ours["stderr"] > 0
    onnx, _ = built(Recipe(precision="fp32"), tiny_qwen2)
    for batched in (True, False):
        assert scored(text, onnx, metric, provider="cpu", batched=batched)["values"] == shares


def test_generated_texts_are_those_of_the_harness(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path
) -> None:
    """By a task whose score is the text's length: exact match of a random model is 0 either way."""
    (folder / "length.py").write_text(
        "def of(doc, results):\n    return {'length': sum(map(ord, results[0]))}\n", encoding="utf-8"
    )
    text = WRITE.replace("exact_match", "length") + "process_results: !function length.of\n"
    ours = scored(text, tiny_qwen2, "length")
    _, shares = theirs(folder, tiny_qwen2, "length")
    assert ours["values"] == shares
    assert len(set(shares)) > 3


@pytest.mark.parametrize("metric", ["word_perplexity", "bits_per_byte"])
def test_a_score_that_is_no_mean_has_an_interval_all_the_same(
    metric: str, scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path, built: Do
) -> None:
    onnx, _ = built(Recipe(precision="fp32"), tiny_qwen2)
    ours = scored(ROLLING, onnx, metric, provider="cpu")
    score, _ = theirs(folder, tiny_qwen2, metric)
    assert ours["score"] == pytest.approx(score, rel=1e-4)
    assert ours["about"]["higher_is_better"] is False
    assert summarise("lm-eval:tones.yaml", ours) == (ours["score"], (ours["low"], ours["high"]), 14)
    assert ours["low"] < ours["score"] < ours["high"]
    assert len(ours["parts"]) == 14
    ranked = np.mean(ours["parts"])
    made = ranked / np.log(2) if metric == "bits_per_byte" else np.exp(ranked)
    assert made == pytest.approx(ours["score"])


@pytest.mark.parametrize("name", ["weighted_perplexity", "bits_per_byte", "weighted_mean"])
def test_the_parts_of_the_harness_s_weighted_scores_are_of_the_ratio(name: str) -> None:
    rng = np.random.default_rng(3)
    pairs = [
        (-float(loss), int(octets)) for loss, octets in zip(rng.random(700), rng.integers(1, 900, 700), strict=True)
    ]
    score = float(getattr(harness_metrics, name)(pairs))
    parts = np.array(_parts(getattr(harness_metrics, name), pairs, score))
    sign = 1 if name == "weighted_mean" else -1
    assert parts == pytest.approx(sign * np.array([n for n, _ in pairs]) / np.mean([w for _, w in pairs]))
    # A model that is better by items, and worse by bytes, is worse.
    longest = np.argsort([w for _, w in pairs])[-200:]
    other = [(n - (0.5 if k in longest else -0.1) * sign * -1, w) for k, (n, w) in enumerate(pairs)]
    change = float(getattr(harness_metrics, name)(other)) - score
    again = np.array(_parts(getattr(harness_metrics, name), other, score + change))
    assert np.sign(again.mean() - parts.mean()) == np.sign(change)


@pytest.mark.parametrize("count", [1, 2, 60, PARTS + 77])
def test_the_parts_of_other_scores_are_those_of_the_jackknife(count: int) -> None:
    rng = np.random.default_rng(count)
    pairs = [
        (float(loss), int(octets)) for loss, octets in zip(rng.random(count), rng.integers(1, 9, count), strict=True)
    ]

    def ratio(items: list[tuple[float, int]]) -> float:
        return 1 + sum(loss for loss, _ in items) / sum(octets for _, octets in items)

    parts = _parts(ratio, pairs, ratio(pairs))
    assert len(parts) == min(count, PARTS)
    assert np.mean(parts) == pytest.approx(ratio(pairs))
    if count == 60:
        moved = [60 * ratio(pairs) - 59 * ratio(pairs[:k] + pairs[k + 1 :]) for k in range(60)]
        assert np.diff(parts) == pytest.approx(np.diff(moved))


def test_a_task_with_two_splits_keeps_test_for_the_finalists_and_a_cap_is_drawn_by_content(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path
) -> None:
    both = CHOICE.replace("validation_split: validation", "validation_split: validation\ntest_split: test")
    validation, test = (scored(both, tiny_qwen2, "acc", split=split) for split in ("validation", "test"))
    assert (len(validation["ids"]), len(test["ids"])) == (14, 6)
    assert test["values"] == theirs(folder, tiny_qwen2, "acc", "test")[1]
    capped = scored(both, tiny_qwen2, "acc", max_validation=5)
    assert len(capped["values"]) == 5
    where = [validation["ids"].index(item) for item in capped["ids"]]
    assert where == sorted(where)
    assert where != list(range(5))
    assert capped["values"] == [validation["values"][at] for at in where]
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "items.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    again = scored(both, tiny_qwen2, "acc", max_validation=5)
    assert set(again["ids"]) == set(capped["ids"])


def test_data_lies_beside_the_task_file_wherever_the_command_is_run(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert len(scored(CHOICE, tiny_qwen2)["values"]) == 14
    assert Path.cwd() == folder / "elsewhere"


@pytest.mark.parametrize(
    ("text", "own", "status", "says"),
    [
        (CHOICE, "acc_nrom", "failed", "the task has no metric acc_nrom; did you mean 'acc_norm'?"),
        (CHOICE.replace("validation_split: validation", ""), "", "failed", "must have valid or test docs"),
        (CHOICE.replace("split: validation", "split: nowhere"), "", "failed", "nowhere"),
        (CHOICE.replace("multiple_choice", "drawing"), "", "failed", "tones.yaml"),
        (CHOICE + "process_docs: !function nothing.there\n", "", "failed", "cannot be loaded: "),
        (WRITE.replace("do_sample: false", "do_sample: true, temperature: 1.0"), "", "unsupported", "at random"),
        (WRITE.replace("max_gen_toks: 12", "max_gen_toks: 99999"), "", "failed", "99999 new tokens do not fit"),
        (CHOICE.replace("{{text}}", "{{1 // (label - 3)}}"), "", "failed", "score: lm-eval:tones.yaml raised ZeroDiv"),
    ],
)
def test_what_cannot_be_scored_is_told_in_one_line(
    text: str, own: str, status: str, says: str, scored: Callable[..., dict[str, Any]], tiny_qwen2: Path
) -> None:
    with pytest.raises(StageError) as caught:
        scored(text, tiny_qwen2, own)
    assert says in str(caught.value)
    assert caught.value.status == status
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [CHOICE, WRITE, ROLLING])
def test_a_build_is_checked_on_the_prompts_of_a_task(
    do: Do, built: Do, folder: Path, tiny_llama: Path, text: str
) -> None:
    (folder / "tones.yaml").write_text(text, encoding="utf-8")
    found = find_task("lm-eval:tones.yaml", folder)
    read, _ = do(TaskJob(metric="lm-eval:tones.yaml", code=found.digest, file=found.file))
    recipe = Recipe(precision="fp32")
    job = TaskCheckJob(
        source="s", provider="cpu", recipe=recipe, data="d", max_length=16, metric="lm-eval:tones.yaml", threads=1,
        model_dir=built(recipe, tiny_llama)[0], source_dir=tiny_llama, data_file=read / "validation.json",
        code_file=found.file,
    )  # fmt: skip
    _, result = do(job)
    assert (result["trouble"], result["texts"], result["greedy_agreement"]) == (None, 8, 1.0)
    assert 8 < result["positions"] <= 8 * 16


GROUP = """\
group: all_tones
task: [my_tones, other_tones]
aggregate_metric_list:
  - { metric: acc, aggregation: mean, weight_by_size: true }
  - { metric: acc_norm, aggregation: mean, weight_by_size: false }
"""
OTHER = CHOICE.replace("my_tones", "other_tones").replace("items.jsonl", "more.jsonl")


def with_group(folder: Path, other: str = OTHER) -> None:
    (folder / "mine.yaml").write_text(CHOICE, encoding="utf-8")
    (folder / "other.yaml").write_text(other, encoding="utf-8")


def theirs_of_group(folder: Path, model: Path, key: str) -> float:
    """Return the score that the harness itself gives the group."""
    loaded = TaskManager(include_defaults=False, include_path=str(folder)).load(["all_tones"])
    for task in loaded["tasks"].values():
        task.set_config("num_fewshot", 0)
    lm = HFLM(pretrained=str(model), tokenizer=load_tokenizer(model), device="cpu", batch_size=1, dtype="float32")
    return float(evaluator.evaluate(lm, loaded, bootstrap_iters=0)["groups"]["all_tones"][f"{key},none"])


def test_a_group_is_scored_as_by_the_harness_itself_whether_tasks_count_by_size_or_the_same(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path, built: Do
) -> None:
    """The tasks have 14 and 6 items, and different scores: by size is not the same as each alike."""
    with_group(folder)
    by_size, alike = (scored(GROUP, tiny_qwen2, metric) for metric in ("acc", "acc_norm"))
    assert (len(by_size["values"]), len(alike["parts"])) == (20, 20)
    assert np.mean(by_size["values"]) == pytest.approx(theirs_of_group(folder, tiny_qwen2, "acc"))
    assert alike["score"] == pytest.approx(theirs_of_group(folder, tiny_qwen2, "acc_norm"))
    assert np.mean(alike["parts"]) == pytest.approx(alike["score"])
    each = [np.mean(own) for own in (alike["parts"][:14], alike["parts"][14:])]
    assert each[0] * 14 / 20 + each[1] * 6 / 20 == pytest.approx(alike["score"])
    assert alike["low"] < alike["score"] < alike["high"]
    assert summarise("lm-eval:tones.yaml", alike) == (alike["score"], (alike["low"], alike["high"]), 20)
    swapped = GROUP.replace("weight_by_size: true", "weight_by_size: false")
    assert scored(swapped, tiny_qwen2, "acc")["score"] != pytest.approx(np.mean(by_size["values"]))
    onnx, _ = built(Recipe(precision="fp32"), tiny_qwen2)
    assert scored(GROUP, onnx, "acc", provider="cpu")["values"] == by_size["values"]


def test_a_cap_of_a_group_is_of_all_its_tasks_and_alike_where_each_counts_the_same(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path
) -> None:
    with_group(folder)
    whole = scored(GROUP, tiny_qwen2, "acc")
    assert len(set(whole["ids"])) == 20
    capped = scored(GROUP, tiny_qwen2, "acc", max_validation=8)
    assert capped["values"] == [whole["values"][whole["ids"].index(item)] for item in capped["ids"]]
    assert len(capped["values"]) == 8
    few = scored(
        GROUP, tiny_qwen2, "acc", max_validation=1
    )  # a task without an item is left out, and not scored in full
    assert few["values"] == [whole["values"][whole["ids"].index(few["ids"][0])]]
    alike = scored(GROUP, tiny_qwen2, "acc_norm", max_validation=8)
    assert sum(item in whole["ids"][:14] for item in alike["ids"]) == 4
    with pytest.raises(
        StageError, match="each of the 2 tasks of all_tones counts the same, so max_items needs as many at least"
    ):
        scored(GROUP, tiny_qwen2, "acc_norm", max_validation=1)


def test_a_group_has_a_test_split_where_each_of_its_tasks_has(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path
) -> None:
    both = "validation_split: validation\ntest_split: test"
    with_group(folder, OTHER.replace("validation_split: validation", both))
    assert list(scored(GROUP, tiny_qwen2, "acc")["about"]["splits"]) == ["validation"]
    (folder / "mine.yaml").write_text(CHOICE.replace("validation_split: validation", both), encoding="utf-8")
    assert len(scored(GROUP, tiny_qwen2, "acc", split="test")["values"]) == 12
    assert len(scored(GROUP, tiny_qwen2, "acc")["values"]) == 20


def test_a_group_changes_its_tasks_and_describes_some_itself(
    scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path
) -> None:
    with_group(folder)
    plain = scored(GROUP, tiny_qwen2, "acc")["values"]
    text = GROUP.replace("other_tones]", "{ task: other_tones, doc_to_text: 'Not at all: {{text}}. So' }]")
    assert scored(text, tiny_qwen2, "acc")["values"][:14] == plain[:14]
    own = (
        "{ "
        + ", ".join(line for line in OTHER.split("metric_list")[0].splitlines())
        + ", metric_list: [{ metric: acc }] }"
    )
    assert scored(GROUP.replace("other_tones", own, 1), tiny_qwen2, "acc")["values"] == plain


@pytest.mark.parametrize(
    ("other", "own", "says"),
    [
        (WRITE.replace("my_tones", "other_tones"), "acc", "no score of all its tasks: other_tones has no metric acc; name"),
        (OTHER.replace("acc, aggregation: mean", "acc, aggregation: median"), "acc", "a task of the group all_tones, is not the mean"),
        (OTHER.replace("acc, aggregation: mean, higher_is_better: true", "acc, aggregation: mean, higher_is_better: false"),
         "acc", "acc is maximized in some tasks of the group all_tones, and minimized in others"),
        (OTHER.replace("multiple_choice", "drawing"), "acc", "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_group_whose_score_is_not_made_of_its_items_is_refused(
    other: str, own: str, says: str, scored: Callable[..., dict[str, Any]], folder: Path, tiny_qwen2: Path
) -> None:
    with_group(folder, other)
    with pytest.raises(StageError) as caught:
        scored(GROUP, tiny_qwen2, own)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_build_is_checked_on_the_prompts_of_a_group(do: Do, built: Do, folder: Path, tiny_llama: Path) -> None:
    with_group(folder)
    (folder / "tones.yaml").write_text(GROUP, encoding="utf-8")
    found = find_task("lm-eval:tones.yaml", folder)
    read, _ = do(TaskJob(metric="lm-eval:tones.yaml", code=found.digest, file=found.file))
    recipe = Recipe(precision="fp32")
    job = TaskCheckJob(
        source="s", provider="cpu", recipe=recipe, data="d", max_length=16, metric="lm-eval:tones.yaml", threads=1,
        model_dir=built(recipe, tiny_llama)[0], source_dir=tiny_llama, data_file=read / "validation.json",
        code_file=found.file,
    )  # fmt: skip
    assert do(job)[1]["trouble"] is None
