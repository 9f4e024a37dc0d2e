"""Sweep files and `--set` as people write them out of habit: taken where that is plain, else told with what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.analysis.limits import excludes, parse_limit
from autotune.data.dataset import template_notes
from autotune.data.schema import DataSpec
from autotune.errors import UsageError, did_you_mean, number_remedy
from autotune.metrics import METRICS
from autotune.sweepfile.overrides import apply_set
from autotune.sweepfile.resolve import load_sweep
from tests.bad_inputs import ROWS, SWEEP, write_csv, write_model


def said(
    folder: Path, change: tuple[str, str] = ("", ""), *sets: str, name: str = "sweep.yaml", text: str = SWEEP
) -> str:
    """Return what is said of a sweep file in which one thing is changed; nothing where it is taken."""
    write_model(folder / "model")
    write_csv(folder / "train.csv", ROWS)
    write_csv(folder / "validation.csv", [("another", "joy"), ("yet another", "fear")])
    assert change[0] in text
    (folder / name).write_text(text.replace(*change, 1), encoding="utf-8")
    try:
        load_sweep(str(folder / name), list(sets))
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("strategy: tpe", "strategy:\ttpe"), "write spaces, and no tab, after the colon"),
        (("strategy: tpe", "<<<<<<< HEAD\nstrategy: tpe\n=======\nstrategy: gp\n>>>>>>> x"), "a merge was left unfinished here"),
        (("trials: 4", "trials: {{ trials }}"), "{{ trials }} is not filled in"),
        (("trials: 4", "trials: ${TRIALS}"), "${TRIALS} is not filled in"),
        (("model: model", "model: $MODEL"), "variables of the environment are not filled in"),
        (("strategy: tpe", "strategy: tpe\n1: 2"), ": 1: its keys must be texts, got 1"),
        (("name: demo", "name: 123"), 'name: must be a text, got 123; write it in quotes: "123"'),
        (("batch_size: 4", "batch_size: 4.0"), "must be a whole number, got 4.0; write 4"),
        (("r: 8", "r: 010"), "got '010'; write 10"),
        (("precision: int8", "precision: INT8"), "got 'INT8'; write int8"),
        (("steps: 30", "steps: 30\n    dora: yes"), "got 'yes'; write true"),
        (("r: 8", "r: { values: [8, 16] }"), "write r: { choice: [8, 16] }"),
        (("r: 8", "r: { distribution: int_uniform, min: 4, max: 16 }"), "write r: { int: [4, 16] }"),
        (
            ("{ loguniform: [1e-4, 1e-2] }", "{ type: loguniform, low: 1e-4, high: 1e-2 }"),
            "write learning_rate: { loguniform: [0.0001, 0.01] }",
        ),
        (
            ("{ loguniform: [1e-4, 1e-2] }", "{ low: 1e-4, high: 1e-2, log: true }"),
            "write learning_rate: { loguniform: [0.0001, 0.01] }",
        ),
        (("size_mb <= 100", "size_mb <= -5"), "size_mb is above 0, so that no candidate could keep the limit"),
        (("size_mb <= 100", "accuracy <= 0.9"), "accuracy is maximized, by its meaning, and this limit would keep what is worse"),
        (('"size_mb <= 100"', '"size_mb <= 10", "size_mb >= 20"'), "no candidate could keep this limit and 'size_mb <= 10'"),
        (("size_mb <= 100", "accuracy >= 1.5"), "give a bound from 0 to 1"),
        (("size_mb <= 100", "accuracy >= 95"), "write 0.95"),
        (("Text: {text}", "Text: {{ text }}"), "write {text} for {{ text }}"),
        (("Text: {text}", "Text: {text} {meta.team}"), "write a nested field into a column of its own"),
        (("Text: {text}", "Text: {text} {tone}"), "every prompt would hold its own answer: 'tone' stands in both"),
        (('" {tone}"\n', '" {tone}"\n  metric: accuracy\n'), "got 'accuracy'; did you mean 'choice'?"),
        (('" {tone}"\n', '" {tone}"\n  metric: ppl\n'), "got 'ppl'; did you mean 'perplexity'?"),
        (('" {tone}"\n', '" {tone}"\n  encoding: utf8mb4\n'), "got 'utf8mb4'"),
        (('" {tone}"\n', '" {tone}"\n  labels: [1, 2]\n'), 'data.labels[0]: must be a text, got 1; write it in quotes: "1"'),
    ],
)  # fmt: skip
def test_a_slip_has_its_remedy(change: tuple[str, str], told: str, tmp_path: Path) -> None:
    assert told in said(tmp_path, change)


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("size_mb <= 100", "size_mb >= 5"),
        ('"size_mb <= 100"', '"size_mb <= 100", "size_mb >= 50"'),
        ('"size_mb <= 100"', '"accuracy >= base - 0.1", "size_mb <= 100"'),
        ('prompt: "Text: {text}', 'prompt: "{{json}} ${text} {text}'),
        ("r: 8", "r: { choice: [8, 8] }"),
    ],
)
def test_what_only_looks_a_little_so_is_taken(change: tuple[str, str], tmp_path: Path) -> None:
    assert said(tmp_path, change) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nmodel: y\n", "call the file .yaml"),
        ("# mine\nname: x\n", "call the file .yaml"),
        ("", "the file is empty"),
    ],
)
def test_what_is_no_json(text: str, told: str, tmp_path: Path) -> None:
    found = said(tmp_path, name="sweep.json", text=text)
    assert told in found or (text.startswith("#") and "JSON has none" in found)


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("space.build[0].precision=int8", "write --set 'space.build=[...]'"),
        ("limits[0]=size_mb <= 100", "write --set 'limits=[...]'"),
        ("..trials=4", "KEY has an empty part"),
        ("budget.=4", "KEY has an empty part"),
        ("nope.x=1", "--set: nope: unknown key"),
        ("--budget.trials=4", "--set: --budget: unknown key; did you mean 'budget'?"),
    ],
)
def test_settings_that_are_none(assignment: str, told: str, tmp_path: Path) -> None:
    assert told in said(tmp_path, ("", ""), assignment)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("data.prompt=Text: {text}", "Text: {text}"),
        ("data.completion={tone}", "{tone}"),
        ('data.completion=" {tone}"', " {tone}"),
        ("data.prompt=[{text}]: {text} - {a}: {b", "[{text}]: {text} - {a}: {b"),
        ("data.prompt=null", None),
        ("budget.trials=4", 4),
        ("train={batch_size: 4}", {"batch_size": 4}),
    ],
)
def test_a_template_on_the_command_line_is_text(assignment: str, value: object) -> None:
    data: dict[str, Any] = {}
    *parents, last = apply_set(data, assignment).split(".")
    for name in parents:
        data = data[name]
    assert data[last] == value


def test_templates_that_say_something_else_than_they_seem_to_are_told() -> None:
    def notes(prompt: str) -> str:
        return "\n".join(template_notes(DataSpec(train="a", prompt=prompt, completion=" {tone}")))

    assert "data.prompt ends in a space" in notes("Text: {text}\nTone: ")
    assert "data.prompt holds '${text}'" in notes("Text: ${text}\nTone:")
    assert "data.prompt holds '{% '" in notes("{% if text %} {text}")
    assert "write {text}" in notes("{{text}} {text}")
    assert notes("Cost: $5, {text}, {{json}}\nTone:") == ""


def test_limits_that_exclude_one_another() -> None:
    def limits(*texts: str) -> bool:
        one, other = (parse_limit(text, METRICS) for text in texts)
        return excludes(one, other)

    assert limits("size_mb <= 10", "size_mb >= 20")
    assert limits("accuracy <= base - 0.1", "accuracy >= base")
    assert not limits("size_mb <= 20", "size_mb >= 20")
    assert not limits("size_mb <= 10", "itl_ms_p50 >= 20")
    assert not limits("accuracy <= base - 0.1", "accuracy >= 0.5")


def test_words_for_metrics_and_numbers() -> None:
    assert did_you_mean("acc", ["choice", "f1"]) == "did you mean 'choice'?"
    assert did_you_mean("acc", ["accuracy", "f1"]) == "did you mean 'accuracy'?"
    assert did_you_mean("macro-F1", ["choice", "f1"]) == "did you mean 'f1'?"
    assert number_remedy("007") == "write 7"
    assert number_remedy("0") == "write it without quotes"


# --- keys and forms of other tools, and of other sections ---------------------------------------------------------------

LR = "{ loguniform: [1e-4, 1e-2] }"
END = '  completion: " {tone}"\n'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("trials: 4", "trials: 1,000"), "budget.000: unknown key; write the number before it without a comma"),
        (("strategy: tpe", "metric: f1\nstrategy: tpe"), ":21: metric: unknown key; write it in data"),
        (("strategy: tpe", "lora: { r: 8 }\nstrategy: tpe"), "lora: unknown key; write it in space"),
        (("strategy: tpe", "include: base.yaml\nstrategy: tpe"), "include: unknown key; remove it: a sweep file is whole"),
        (("strategy: tpe", "x-base: &b { r: 8 }\nstrategy: tpe"), "write an anchor (&) where its value is used first"),
        (("batch_size: 4", "steps: 30"), "train.steps: unknown key; write it in space.lora"),
        (("batch_size: 4", "bf16: true"), "train.bf16: unknown key; write dtype in space.lora"),
        (("batch_size: 4", "seed: 3"), "train.seed: unknown key; write it at the top of the file, in no section"),
        (("batch_size: 4", "batch_siz: 4"), "did you mean 'batch_size'?"),
        (("threads: 2", 'limits: ["size_mb <= 9"]'), "target.limits: unknown key; write it at the top of the file"),
        (("threads: 2", "block_size: 32"), "target.block_size: unknown key; write it in each recipe of space.build"),
        ((END, f'{END}  text_column: text\n'), 'such as prompt: "{text}"'),
        ((END, f'{END}  label_column: tone\n'), 'such as completion: "{tone}"'),
        ((END, f'{END}  sep: ";"\n'), "data.sep: unknown key; remove it: the delimiter is found by the header"),
        ((END, f'{END}  system: be kind\n'), "one of the role system"),
        ((END, f'{END}  max_items: 300\n'), "write max_items: { validation: 300 }"),
        ((END, f'{END}  metric: exact_match\n  stop: "\\n"\n'), 'write data.stop: ["\\n"]'),
        ((END, f'{END}  metric: lm_eval:arc_easy\n'), "got 'lm_eval:arc_easy'; write lm-eval:arc_easy"),
        (("  train: train.csv", "  train: { path: train.csv }"), "got {'path': 'train.csv'}; write train: train.csv"),
        (("  train: train.csv", '  train: ""'), "data.train: must not be empty, got ''"),
        (("{ provider: cpu, threads: 2 }", "cpu"), "write target: { provider: cpu }"),
        (("provider: cpu", "provider: [cpu, cuda]"), "write targets: { cpu: { provider: cpu }, cuda: { provider: cuda } }"),
        (("provider: cpu", "provider: CPUExecutionProvider"), "did you mean 'cpu'?"),
        (("provider: cpu", "provider: DirectML"), "did you mean 'dml'?"),
        (("{ trials: 4 }", "4"), "write budget: { trials: 4 }"),
        (("{ trials: 4 }", "8h"), "write budget: { hours: 8 }"),
        (("trials: 4", "minutes: 90"), "budget.minutes: unknown key; write hours: 1.5"),
        (("{ accuracy: maximize, size_mb: minimize }", "[accuracy, size_mb]"), "write objectives: { accuracy: maximize, size_mb: minimize }"),
        (("accuracy: maximize", "accuracy: max"), "did you mean 'maximize'?"),
        (('["size_mb <= 100"]', "{ size_mb: 100, accuracy: '>= 0.9' }"), 'write limits: ["size_mb <= 100", "accuracy >= 0.9"]'),
        (('"size_mb <= 100"', "accuracy >= 0,9"), "a comma begins another limit"),
        ((LR, "{ loguniform: [1e-2, 1e-4] }"), "got [0.01, 0.0001]; write [0.0001, 0.01]"),
        ((LR, "{ uniform: [0.1, 0.1] }"), "got [0.1, 0.1]; write learning_rate: 0.1"),
        ((LR, "{ log_uniform: [1e-4, 1e-2] }"), "write learning_rate: { loguniform: [0.0001, 0.01] }"),
        ((LR, "{ range: [0.1, 0.2] }"), "write learning_rate: { uniform: [0.1, 0.2] }"),
        ((LR, "{ uniform: [1e-4, 1e-2], log: true }"), "write learning_rate: { loguniform: [0.0001, 0.01] }"),
        (("r: 8", "r: { int: [4, 10], step: 2 }"), "write r: { choice: [4, 6, 8, 10] }"),
        (("r: 8", "r: { int: [4, 1000], step: 2 }"), "write r: { int: [4, 1000] }"),
        (("r: 8", 'r: { choice: "4, 8" }'), "write choice: [4, 8]"),
        (("r: 8", "r: { choice: 4 8 }"), "write choice: [4, 8]"),
        (("{ batch_size: 4 }", "&a { batch_size: *a }"), ":8: is not valid YAML: a value holds itself"),
        (('["size_mb <= 100"]', "&a [*a]"), ":20: is not valid YAML: a value holds itself"),
        (("- { precision: int8 }", "-{ precision: int8 }"), ":17: is not valid YAML: expected <block end>, but found '-'; write a space after the dash"),
        (("model: model", "model: https://huggingface.co/owner/name/tree/main"), "write owner/name"),
        (("model: model", "model: owner/name@v2"), "write owner/name: a revision cannot be named"),
    ],
)  # fmt: skip
def test_a_habit_of_another_tool_has_its_remedy(change: tuple[str, str], told: str, tmp_path: Path) -> None:
    assert told in said(tmp_path, change)


def test_a_share_is_no_number_of_rows(tmp_path: Path) -> None:
    assert "write 0.1" not in said(tmp_path, (END, f"{END}  max_items: {{ validation: 10% }}\n"))


@pytest.mark.parametrize(
    "remedy",
    [
        ("space.lora.learning_rate", {"loguniform": [0.0001, 0.01]}),
        ("space.lora.r", {"choice": [4, 6, 8, 10]}),
        ("objectives", {"accuracy": "maximize", "size_mb": "minimize"}),
        ("limits", ["size_mb <= 100", "accuracy >= 0.9"]),
        ("budget", {"hours": 8}),
        ("data.max_items", {"validation": 300}),
        ("target", {"provider": "cpu"}),
    ],
)
def test_what_a_remedy_says_is_taken(remedy: tuple[str, Any], tmp_path: Path) -> None:
    key, value = remedy
    assert said(tmp_path, ("", ""), f"{key}={value}") == ""
