"""The sweep file: three notations of one thing, checked as a whole and spelled out."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_inputs import SWEEP, write_demo, write_model
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from autotune.errors import Problem, UsageError, printable
from autotune.pipeline.prepare import read_data
from autotune.providers import PROVIDERS, Provider
from autotune.space.domains import Choice, Range
from autotune.space.parameter_tables import LORA, RECIPE, Parameter
from autotune.sweepfile.resolve import load_sweep, parse_sweep
from autotune.sweepfile.schema import STRATEGIES, Sweep
from autotune.sweepfile.syntax import parse_value

DEMO: dict[str, Any] = yaml.safe_load(SWEEP.replace("1e-4", "1.0e-4").replace("1e-2", "1.0e-2"))
LEAST: dict[str, Any] = {
    "model": "model",
    "data": DEMO["data"],
    "space": {"lora": {}, "build": [{"precision": "int8"}]},
}
MANY = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
SOME = settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the demo sweep with its model and data."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


def changed(**parts: Any) -> dict[str, Any]:
    return copy.deepcopy(LEAST) | parts


def problems_of(data: dict[str, Any], root: Path) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse_sweep(data, root=root)
    return [str(problem) for problem in caught.value.problems]


# --- Notations ---------------------------------------------------------------------------------------------------

TOML = """\
name = "demo"
model = "model"
limits = ["size_mb <= 100"]
strategy = "tpe"
[data]
train = "train.csv"
validation = "validation.csv"
prompt = "Text: {text}\\nTone:"
completion = " {tone}"
[train]
batch_size = 4
[target]
provider = "cpu"
threads = 2
[space]
build = [{ precision = "int8" }, { precision = "int4", block_size = 32 }]
[space.lora]
r = 8
alpha = 16
learning_rate = { loguniform = [1e-4, 1e-2] }
steps = 30
[objectives]
accuracy = "maximize"
size_mb = "minimize"
[budget]
trials = 4
"""


def test_yaml_toml_and_json_say_the_same(root: Path) -> None:
    (root / "sweep.toml").write_text(TOML, encoding="utf-8")
    (root / "sweep.json").write_text(json.dumps(DEMO), encoding="utf-8-sig")
    (root / "other.YML").write_text(SWEEP, encoding="utf-8-sig")
    first = load_sweep(root / "sweep.yaml").resolved()
    assert first["space"]["lora"]["learning_rate"] == {"loguniform": [1e-4, 1e-2]}
    for name in ("sweep.toml", "sweep.json", "other.YML"):
        assert load_sweep(root / name).resolved() == first


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E5", 1e5), ("-2.5e+3", -2500.0), (".5", 0.5), ("5.", 5.0), ("1_000", 1000), ("1_0.5", 10.5),
        ("0", 0), ("-3", -3), ("+7", 7), ("0x10", 16), ("true", True), ("False", False), ("null", None), ("~", None),
        ("", None), ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("off", "off"), ("1:30", "1:30"), ("1:30.5", "1:30.5"),
        ("010", "010"), ("0o17", "0o17"), ("2024-01-31", "2024-01-31"), (".inf", ".inf"), ("-.inf", "-.inf"),
        (".nan", ".nan"), ("1.2.3", "1.2.3"), ("1e", "1e"), ("e5", "e5"), (".", "."), ("-", [None]), ("'1e-4'", "1e-4"),
        ("[no, 1e-4]", ["no", 1e-4]), ("{ choice: [8, 16] }", {"choice": [8, 16]}),
    ],
)  # fmt: skip
def test_a_yaml_value_means_what_people_think(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@SOME
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300))
def test_numbers_are_read_as_python_writes_them(number: float) -> None:
    found = parse_value(repr(number))
    assert found == number
    assert type(found) is type(number)


def test_no_and_on_stay_texts_in_labels(root: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP.replace("  prompt:", "  labels: [no, on]\n  prompt:"), encoding="utf-8")
    sweep = load_sweep(tmp_path / "s.yaml", sets=[f"model={root / 'model'}"])
    assert sweep.data.labels == ("no", "on")


# --- Places of mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("model: model\nspase: 1\n", ["sweep.yaml: data", "sweep.yaml: space", "sweep.yaml:2: spase"]),
        ("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", ["sweep.yaml:4: b.c", "sweep.yaml:5: a"]),
        ("a:\n- {b: 1, b: 2}\n- {b: 1,\n   b: 2}\n", ["sweep.yaml:2: a[0].b", "sweep.yaml:4: a[1].b"]),
        (SWEEP.replace("size_mb <= 100", "size_mb <= 100\", \"x") , ["sweep.yaml:20: limits[1]"]),
        (SWEEP.replace("tpe", "tpo\n# a comment\n\nlimitz: 3"), ["sweep.yaml:24: limitz", "sweep.yaml:21: strategy"]),
        (SWEEP.replace("    r: 8", "    r[: 8"), ["sweep.yaml:12: space.lora.r["]),
        (SWEEP.replace("    r: 8", "    r:\n      choice:\n        - 8\n        - -8"), ["sweep.yaml:13: space.lora.r.choice"]),
    ],
)  # fmt: skip
def test_every_problem_has_the_line_of_its_key(text: str, places: list[str], tmp_path: Path, monkeypatch: Any) -> None:
    write_demo(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_sweep("sweep.yaml")
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(places), found
    for problem, place in zip(found, places, strict=True):
        assert problem.startswith(f"{place}: ")


def test_all_problems_are_told_at_once(root: Path) -> None:
    data = {
        "model": "modell",
        "data": DEMO["data"] | {"metric": "f2"},
        "train": {"batch_size": 0},
        "space": {"lora": {"r": 0, "lr": 1}, "build": [{"precision": "int5"}]},
        "objectives": {"speed": "maximize", "size_mb": "maximize"},
        "limits": ["size <= 3", 4],
        "strategy": "genetic",
        "target": {"provider": "tpu"},
        "budget": {"trials": True},
    }
    keys = {problem.split(": ")[0] for problem in problems_of(data, root)}
    assert keys == {
        "model", "data.metric", "train.batch_size", "space.lora.r", "space.lora.lr", "space.build[0].precision",
        "objectives.speed", "objectives.size_mb", "limits[0]", "limits[1]", "strategy", "target.provider",
        "budget.trials",
    }  # fmt: skip


def test_problems_of_the_sweep_and_of_the_data_are_told_together(tmp_path: Path) -> None:
    write_demo(tmp_path, SWEEP.replace("trials: 4", "trials: 0").replace("{text}", "{txt}"))
    with pytest.raises(UsageError) as caught:
        load_sweep(tmp_path / "sweep.yaml")
    assert [problem.key for problem in caught.value.problems] == ["budget.trials", "data.prompt", "data.prompt"]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"data": DEMO["data"] | {"train": 5}}, "data.train: must be a text or a mapping, got 5"),
        ({"data": DEMO["data"] | {"train": {"dataset": "a/b"}}}, "data.train.split: is missing"),
        ({"data": DEMO["data"] | {"test": {"dataset": "ab", "split": "s"}}}, "data.test.dataset: must be owner/name"),
        ({"data": DEMO["data"] | {"train": {"dataset": "a/b", "split": "s", "spl": 1}}}, "data.train.spl: unknown key"),
        ({"data": DEMO["data"] | {"messages": [{"role": "boss", "content": "x"}]}}, "data.messages[0].role: must be"),
        ({"data": DEMO["data"] | {"max_items": {"test": 0}}}, "data.max_items.test: must be at least 1, got 0"),
        ({"space": {1: 2}}, "space: its keys must be texts"),
        ({"train": {2: 2}}, "train: its keys must be texts"),
        ({"train": {"time_limit_s": math.inf}}, "train.time_limit_s: must be a finite number"),
        ({"seed": None}, "seed: has no value, and must be a whole number; give one, or remove the key"),
        ({"seed": -1}, "seed: must be at least 0, got -1; the default is 0"),
        ({"engine": "spark"}, "engine: must be 'local' or 'ray', got 'spark'; the default is local"),
        ({"objectives": {}}, "objectives: needs at least one objective; e.g. accuracy: maximize"),
        ({"model": ""}, "model: must not be empty"),
        ({"trust_remote_code": "yes"}, "trust_remote_code: must be true or false, got 'yes'"),
        ({"[key]": None}, "[key]: unknown key"),
        ({"budget": {"trials": None, "hours": 10**400}}, "budget.hours: "),
    ],
)
def test_a_wrong_part_is_said_in_the_words_of_sweep_files(part: dict[str, Any], said: str, root: Path) -> None:
    found = problems_of(changed(**part), root)
    assert any(problem.startswith(said) for problem in found), found


def test_a_plain_list_of_a_wrong_domain_does_not_hide_that_size_is_measured(root: Path) -> None:
    assert len(problems_of(changed(space={"build": [{"precision": "int5"}]}), root)) == 1


# --- --set, --trials, --hours --------------------------------------------------------------------------------------


def test_set_changes_adds_and_replaces(root: Path) -> None:
    sets = ["budget.trials=7", "seed=3", "space.lora.r={ choice: [4, 8] }", "data.max_items={validation: 3}",
            "space.build=[{precision: fp32}]", "limits=[]", "train.max_length=64", "name=a=b", "name=x"]  # fmt: skip
    sweep = load_sweep(root / "sweep.yaml", sets)
    assert (sweep.budget.trials, sweep.seed, sweep.name, sweep.limits) == (7, 3, "x", ())
    assert sweep.space.lora is not None
    assert sweep.space.lora["r"] == Choice((4, 8))
    assert sweep.data.max_items.validation == 3
    assert [recipe.precision for recipe in sweep.space.recipes] == ["fp32"]
    assert (sweep.train.batch_size, sweep.train.max_length) == (4, 64)


def test_a_problem_of_set_names_set_and_others_keep_their_line(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_sweep(root / "sweep.yaml", ["budget={trials: 0}", "space.lora.r=[8]", "strategy=x", "model=gone"])
    places = {problem.key: (problem.file, problem.line) for problem in caught.value.problems}
    assert places == dict.fromkeys(("budget.trials", "space.lora.r", "strategy", "model"), ("--set", None))


def test_trials_and_hours_replace_the_budget(root: Path) -> None:
    assert load_sweep(root / "sweep.yaml", trials=9).budget.model_dump() == {"trials": 9, "hours": None}
    assert load_sweep(root / "sweep.yaml", hours=0.5).budget.model_dump() == {"trials": 4, "hours": 0.5}
    endless = changed(space={"lora": {"r": {"int": [1, 8]}}}, budget={})
    assert parse_sweep(endless, root=root, hours=1).budget.trials is None
    for wrong in (0, -1, math.inf, math.nan):
        with pytest.raises(UsageError, match="command line: --hours: must be a number above 0"):
            parse_sweep(endless, root=root, hours=wrong)


# --- What is spelled out -------------------------------------------------------------------------------------------


def test_the_least_sweep_gets_every_default(root: Path) -> None:
    sweep = parse_sweep(LEAST, root=root, shown="some where/my first_sweep!.yaml")
    assert sweep.name == "my-first_sweep"
    assert sweep.objectives == {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"}
    assert (sweep.strategy, sweep.engine, sweep.seed, sweep.limits) == ("frontier", "local", 0, ())
    assert sweep.budget.model_dump() == {"trials": 20, "hours": None}
    assert sweep.provider is PROVIDERS["cpu"]
    assert sweep.score == "accuracy"
    lora = sweep.space.candidate({}, None).lora
    assert lora is not None
    assert (lora.steps, lora.r, lora.alpha, lora.batch_size, lora.max_length) == (30, 16, 32.0, 8, 256)
    assert set(sweep.resolved()["space"]["lora"]) == set(LORA) - {"alpha", "epochs", "double_quant"}


@pytest.mark.parametrize(
    ("shown", "name"), [("", "sweep"), ("-.yaml", "sweep"), ("é.toml", "sweep"), ("a.b.json", "a.b")]
)
def test_a_sweep_without_a_name_is_called_as_its_file(shown: str, name: str, root: Path) -> None:
    sweep = parse_sweep(LEAST, root=root, shown=shown)
    assert sweep.name == name
    assert parse_sweep(sweep.resolved(), root=root).name == name


def test_train_says_what_lora_does_not(root: Path) -> None:
    space = {"lora": {"batch_size": 2, "epochs": 1.5}}
    sweep = parse_sweep(changed(space=space, train={"batch_size": 32, "max_length": 99}), root=root)
    lora = sweep.space.candidate({}, None).lora
    assert lora is not None
    assert (lora.batch_size, lora.max_length, lora.steps, lora.epochs) == (2, 99, None, 1.5)


@pytest.mark.parametrize(
    ("metric", "score", "direction"),
    [("exact_match", "exact_match", "maximize"), ("f1", "f1", "maximize"), ("perplexity", "perplexity", "minimize")],
)
def test_the_metric_is_the_first_objective(metric: str, score: str, direction: str, root: Path) -> None:
    sweep = parse_sweep(changed(data=DEMO["data"] | {"metric": metric}, space={"lora": {}}), root=root)
    assert sweep.objectives == {score: direction}
    assert sweep.score == score


def test_a_sweep_cannot_be_changed(root: Path) -> None:
    sweep = parse_sweep(LEAST, root=root)
    with pytest.raises(ValueError, match="frozen"):
        sweep.seed = 1  # type: ignore[misc]


# --- Any sweep that is right ---------------------------------------------------------------------------------------


def numbers(parameter: Parameter) -> st.SearchStrategy[Any]:
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    low, high = max(parameter.low, -1e6), min(parameter.high, 1e6)
    return st.integers(int(low), int(high)) if parameter.type is int else st.floats(low, high)


def values(parameter: Parameter) -> st.SearchStrategy[Any]:
    if parameter.name == "target_modules":
        names = st.lists(st.sampled_from(["q_proj", "v_proj", "mlp.up_proj"]), min_size=1, max_size=3)
        return st.sampled_from(["attention", "mlp", "all-linear"]) | names
    if parameter.name == "mixed_precision":
        return st.sampled_from(["", "last_matmul:int8", "mixed_layers:int8, last_matmul:int4"])
    if parameter.name == "nodes_to_exclude":
        return st.sampled_from(["", "/lm_head/MatMul", "b , a"])
    if parameter.type is bool:
        return st.booleans()
    if parameter.type is str:
        return st.sampled_from(parameter.choices)
    return numbers(parameter)


@st.composite
def domains(draw: st.DrawFn, parameter: Parameter, ranges: bool) -> Any:
    kind = draw(st.sampled_from(["fixed", "choice", "range"]))
    if kind == "fixed":
        return draw(values(parameter))
    if kind == "choice" or not ranges or parameter.type not in (int, float):
        return {"choice": draw(st.lists(values(parameter), min_size=1, max_size=3))}
    low, high = sorted(draw(st.tuples(numbers(parameter), numbers(parameter))))
    assume(low < high)
    whole = parameter.type is int or (low == int(low) and high == int(high))
    kinds = ["uniform", *(["loguniform"] if low > 0 else [])]
    kinds += ["int", *(["logint"] if low > 0 else [])] if whole else []
    return {draw(st.sampled_from(kinds)): [low, high]}


@st.composite
def loras(draw: st.DrawFn, ranges: bool = True) -> dict[str, Any]:
    names = draw(st.sets(st.sampled_from(list(LORA))))
    names -= {"alpha"} if "alpha_over_r" in names else set()
    names -= {"epochs"} if "steps" in names else set()
    return {name: draw(domains(LORA[name], ranges)) for name in LORA if name in names}


@st.composite
def recipes(draw: st.DrawFn, provider: Provider) -> dict[str, Any]:
    left = ("precision", "model_stage", "graph_stage")  # a user's own functions have tests of their own
    fits = [n for n, p in RECIPE.items() if n not in left and (not p.providers or provider.name in p.providers)]
    recipe: dict[str, Any] = {"precision": draw(st.lists(st.sampled_from(provider.precisions), min_size=1, max_size=2))}
    for name in draw(st.sets(st.sampled_from(fits), max_size=5)):
        one = st.just(True) if name == "use_qdq" and provider.qdq else values(RECIPE[name])  # false is refused there
        recipe[name] = draw(one | st.lists(one, min_size=1, max_size=2))
    return recipe


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    provider = draw(st.sampled_from(list(PROVIDERS.values())))
    strategy = draw(st.sampled_from(STRATEGIES))
    space: dict[str, Any] = {}
    if draw(st.booleans()):
        space["lora"] = draw(loras(ranges=strategy != "grid"))
    if not space or draw(st.booleans()):
        space["build"] = draw(st.lists(recipes(provider), min_size=1, max_size=3))
    models = ["model", "owner/name"]  # of no known context: any length is drawn
    if "max_length" not in space.get("lora", {}):
        models.append("smollm2-135m-instruct")
    data: dict[str, Any] = {
        "model": draw(st.sampled_from(models)),
        "data": DEMO["data"],
        "space": space,
        "strategy": strategy,
        "target": {"provider": provider.name, "threads": draw(st.integers(1, 64))},
        "budget": draw(st.sampled_from([{"trials": 3}, {"hours": 1.5}, {"trials": 3, "hours": 1e-05}])),
    }
    optional = {
        "name": st.sampled_from(["a", "A.b_c-d"]),
        "train": st.sampled_from([{}, {"max_length": 99}, {"time_limit_s": 60}]),
        "limits": st.sampled_from([[], ["accuracy >= base - 0.05"]]),
        "seed": st.integers(0, 2**31 - 1),
    }
    for key in draw(st.sets(st.sampled_from(list(optional)))):
        data[key] = draw(optional[key])
    return data


def refusal(attempt: Callable[[], object]) -> tuple[Problem, ...]:
    """Return the problems of an attempt; none where it succeeds. No other error may come of it."""
    try:
        attempt()
    except UsageError as error:
        return error.problems or (Problem(""),)
    return ()


def accepted(data: dict[str, Any], root: Path) -> Sweep:
    """Return the sweep, unless the model's shape leaves it no recipe."""
    problems = refusal(lambda: parse_sweep(data, root=root))
    assume(not any(problem.rule.startswith("no recipe can run here") for problem in problems))
    return parse_sweep(data, root=root, shown="s.yaml")


@SOME
@given(sweeps())
def test_a_resolved_sweep_is_the_same_sweep(root: Path, data: dict[str, Any]) -> None:
    sweep = accepted(data, root)
    plain = sweep.resolved()
    assert parse_sweep(plain, root=root).resolved() == plain
    # As the results folder keeps it and compares it.
    assert yaml.safe_load(yaml.safe_dump(plain, sort_keys=False)) == json.loads(json.dumps(plain)) == plain
    for fixed in (parse_value(yaml.safe_dump(plain)), yaml.safe_load(yaml.safe_dump(plain))):
        again = parse_sweep(fixed, root=root)
        assert again.resolved() == plain
        assert again.space.searched == sweep.space.searched
        assert again.space.recipes == sweep.space.recipes


@SOME
@given(sweeps())
def test_a_resolved_sweep_has_the_same_candidates(root: Path, data: dict[str, Any]) -> None:
    sweep = accepted(data, root)
    size = sweep.space.size()
    assume(size is not None and size <= 500)
    again = parse_sweep(sweep.resolved(), root=root)
    assert [candidate.id for candidate in again.space.grid()] == [candidate.id for candidate in sweep.space.grid()]


@SOME
@given(sweeps())
def test_every_recipe_can_run_and_says_nothing_that_does_not_count(root: Path, data: dict[str, Any]) -> None:
    sweep = accepted(data, root)
    assert len(set(sweep.space.recipes)) == len(sweep.space.recipes)
    assert len({str(recipe) for recipe in sweep.space.recipes}) == len(sweep.space.recipes), "strategies go by the text"
    for recipe in sweep.space.recipes:
        assert recipe.precision in sweep.provider.precisions
        for name in recipe.model_dump(exclude_none=True, exclude={"precision"}):
            assert recipe.precision in RECIPE[name].precisions
            assert not RECIPE[name].providers or sweep.provider.name in RECIPE[name].providers


@SOME
@given(sweeps())
def test_ranges_lie_inside_what_a_parameter_may_be(root: Path, data: dict[str, Any]) -> None:
    for name, domain in (accepted(data, root).space.lora or {}).items():
        if isinstance(domain, Range):
            assert LORA[name].low <= domain.low < domain.high <= LORA[name].high
            assert not domain.log or domain.low > 0
            assert domain.integer or LORA[name].type is float
            if domain.integer:
                assert domain.low == int(domain.low)
                assert domain.high == int(domain.high)


# --- Anything else -------------------------------------------------------------------------------------------------

KEYS = [
    "model", "data", "space", "lora", "build", "train", "target", "provider", "objectives", "limits", "strategy", "budget",
    "trials", "hours", "name", "seed", "choice", "uniform", "loguniform", "int", "logint", "validation", "holdout", "prompt",
    "completion", "messages", "metric", "labels", "max_items", "dataset", "split", "role", "content", "workload", "accuracy",
    "size_mb", "engine", "trust_remote_code", "str", "HubDataset", "tuple[Message]", "[key]", "r[", "a.b", *LORA, *RECIPE,
]  # fmt: skip
VALUES = [
    "model", "train.csv", "Text: {text}", " {tone}", "int4", "fp32", "cpu", "cuda", "grid", "maximize", "minimize",
    "accuracy >= base", "size_mb <= 3", "attention", "k_quant", "", "smollm2-135m-instruct", "o/n:train", "~", "~x/y", "\0",
    "\ud800", "a" * 5000, "../" * 3000, 10**400, -(10**400), 2**63, math.nan, math.inf, -math.inf,
]  # fmt: skip
keys = st.sampled_from(KEYS) | st.text(max_size=6)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(VALUES)
anything = st.recursive(
    leaves, lambda parts: st.lists(parts, max_size=4) | st.dictionaries(keys, parts, max_size=5), max_leaves=10
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """The demo sweep with up to three of its parts replaced, added or removed."""
    data = copy.deepcopy(DEMO)
    for _ in range(draw(st.integers(1, 3))):
        here: Any = data
        while True:
            places = list(here) if isinstance(here, dict) else list(range(len(here)))
            place = draw(st.sampled_from(places) | keys if isinstance(here, dict) else st.sampled_from(places))
            inside = here[place] if place in places else None
            if isinstance(inside, dict | list) and inside and draw(st.booleans()):
                here = inside
                continue
            if isinstance(here, dict) and draw(st.integers(0, 5)) == 0:
                here.pop(place, None)
            else:
                here[place] = draw(anything)
            break
    return data


def refused_or_right(data: dict[str, Any], root: Path) -> None:
    problems = refusal(lambda: parse_sweep(data, root=root, shown="sweep.yaml"))
    for problem in problems:
        assert problem.rule
        assert str(problem).startswith(f"sweep.yaml: {printable(problem.key)[:150]}")
    if not problems:
        plain = parse_sweep(data, root=root).resolved()
        assert parse_sweep(plain, root=root).resolved() == plain


@MANY
@given(st.dictionaries(keys, anything, max_size=8))
def test_any_data_is_refused_in_words(root: Path, data: dict[str, Any]) -> None:
    refused_or_right(data, root)


@MANY
@given(spoilt())
def test_a_spoilt_sweep_is_refused_in_words(root: Path, data: dict[str, Any]) -> None:
    refused_or_right(data, root)


@st.composite
def scribbled(draw: st.DrawFn) -> str:
    """The demo's text with pieces cut out or put in."""
    text = SWEEP
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 20)))
        text = text[:start] + draw(st.text("{}[]:,-#&*!|>'\"%@`\t\n 0e.~?<a", max_size=5)) + text[end:]
    return text


@SOME
@given(scribbled())
def test_a_scribbled_file_is_refused_in_words(root: Path, text: str) -> None:
    file = root / "scribbled.yaml"
    file.write_text(text, encoding="utf-8")
    assert all(problem.rule for problem in refusal(lambda: load_sweep(file)))


@SOME
@given(st.sampled_from([".yaml", ".toml", ".json"]), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_refused_in_words(root: Path, suffix: str, content: bytes) -> None:
    file = root / f"noise{suffix}"
    file.write_bytes(content)
    assert all(problem.file and problem.rule for problem in refusal(lambda: load_sweep(file)))


@SOME
@given(st.text(max_size=30))
def test_any_assignment_is_taken_or_refused_in_words(root: Path, text: str) -> None:
    assert all(problem.rule for problem in refusal(lambda: load_sweep(root / "sweep.yaml", [text])))


def bombs() -> Iterator[Any]:
    """Files that are small to read and endless to walk."""
    layers = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    yield pytest.param("sweep.yaml", "a0: &a0 [1]\n" + layers, id="aliases that multiply")
    yield pytest.param("sweep.yaml", "model: &a [*a]\n", id="an alias inside itself")
    yield pytest.param("sweep.yaml", "model: " + "[" * 5000, id="brackets in YAML")
    yield pytest.param("sweep.json", "[" * 100_000, id="brackets in JSON")
    yield pytest.param("sweep.json", '{"seed": ' + "9" * 10_000 + "}", id="digits in JSON")
    yield pytest.param("sweep.json", '{"seed": NaN}', id="NaN in JSON")
    yield pytest.param("sweep.toml", "seed = " + "9" * 10_000, id="digits in TOML")


@pytest.mark.parametrize(
    "tag", ["!!int ''", "!!bool x", "!!timestamp x", "!!binary x", "!!python/object:os.system x", "!own x", "!!set {a}"]
)
def test_tags_are_refused(root: Path, tag: str) -> None:
    file = root / "tag.yaml"
    file.write_text(f"model: model\nseed: {tag}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"is not valid YAML: (the tag \S+ is not taken|a value does not fit its tag)"):
        load_sweep(file)
    with pytest.raises(UsageError, match="--set seed: not a YAML value"):
        load_sweep(root / "sweep.yaml", [f"seed={tag}"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("? [a]\n: 1\n", "odd.yaml:1: is not valid YAML: a key must be a text"),
        ("model: x\n" + "k" * 1001 + ": 1\n", "odd.yaml:2: is not valid YAML: a key is too long"),
        ("model: x\ndata: \x1b[31m\n", "odd.yaml:2: is not valid YAML: the character '\\x1b' is not allowed"),
        ("seed: " + "9" * 5000, "odd.yaml: is not valid YAML: a number has thousands of digits"),
        ("model: " + "[" * 5000, "is not valid YAML: nested"),
        ("#" * 1_000_001, "odd.yaml: cannot be read (it has more than 1,000,000 bytes); check the path"),
    ],
)
def test_odd_yaml_is_refused_with_its_line(root: Path, text: str, says: str) -> None:
    file = root / "odd.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_sweep(file)
    assert says in str(caught.value).replace(f"{root}{os.sep}", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_pipe_is_no_sweep_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UsageError, match="it is no file"):
        load_sweep(tmp_path / "pipe.yaml")


def test_a_bomb_on_the_command_line_is_refused(root: Path) -> None:
    layers = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}], " for n in range(1, 12))
    for value in ("{a0: &a0 [1], " + layers + "}", "&a [*a]", "[" * 100_000):
        with pytest.raises(UsageError, match="not a YAML value"):
            load_sweep(root / "sweep.yaml", [f"data={value}"])


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("seed=0x" + "f" * 5000, "--set: seed: must be less than 2.14748e+09, got 0xfff"),
        ("budget.trials=0x" + "f" * 5000, "--set: budget.trials: must be at most 1e+09, got 0xfff"),
        ("\ud800=3", "must be a text without halves of characters"),
        ("space.lora.\x1b[31m=3", "--set: space.lora.\\x1b[31m: unknown key"),
        ("limits=['size_mb <= \x1b']", "must be a finite number"),
    ],
)
def test_an_odd_assignment_is_refused_in_one_line(root: Path, assignment: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_sweep(root / "sweep.yaml", [assignment])
    assert says in str(caught.value).replace("not a YAML value", "must be a finite number")
    assert all("\n" not in str(problem) and "\x1b" not in str(problem) for problem in caught.value.problems)


def test_a_limit_is_one_line(root: Path) -> None:
    sweep = parse_sweep(changed(limits=["size_mb\n<=  100\t"]), root=root)
    assert [str(limit) for limit in sweep.limits] == ["size_mb <= 100"]


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "..", ".", ".hidden", "a/b", "a\\b", "C:x", "a\n", "-x", "~", "a\0", "a" * 65]
)
def test_a_name_cannot_leave_the_results_folder(root: Path, name: str) -> None:
    (problem,) = problems_of(changed(name=name), root)
    assert "name: must be letters, digits" in problem


# --- Data and model in the sweep's own words ----------------------------------------------------------------------


def test_what_is_wrong_with_the_data_is_said_with_its_line(root: Path) -> None:
    file = root / "column.yaml"
    file.write_text(SWEEP.replace("{text}", "{txt}").replace("train.csv", "trian.csv"), encoding="utf-8")
    sweep = load_sweep(file)
    with pytest.raises(UsageError) as caught:
        read_data(sweep)
    assert [str(problem).split(": ")[:2] for problem in caught.value.problems] == [
        [f"{file}:4", "data.train"], [f"{file}:6", "data.prompt"],
    ]  # fmt: skip
    sweep = load_sweep(file, ["data.prompt=T {tx}", "data.train=train.csv"])
    with pytest.raises(UsageError, match=r"^--set: data.prompt: the column must be in"):
        read_data(sweep)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"train": {"max_length": 200}}, "train.max_length: must be at most 128, the context of the model"),
        ({}, "train.max_length: must be at most 128"),
        ({"space": {"lora": {"max_length": 130}}, "train": {"max_length": 64}}, "space.lora.max_length: must be at most 128"),
        ({"space": {"lora": {"max_length": {"choice": [64, 256]}}}}, "got 256; set space.lora.max_length to 128 or less"),
        ({"space": {"lora": {"max_length": {"int": [64, 129]}}}}, "got 129"),
    ],
)  # fmt: skip
def test_no_item_is_longer_than_the_models_context(root: Path, parts: dict[str, Any], says: str) -> None:
    write_model(root / "short", max_position_embeddings=128)
    (problem,) = problems_of(changed(model="short", **parts), root)
    assert says in problem
    right = {"max_length": 128}
    assert parse_sweep(changed(model="short", train=right), root=root).train.max_length == 128
    assert parse_sweep(changed(model="short", space={"build": [{"precision": "int8"}]}), root=root)
    assert parse_sweep(changed(model="short", space={"lora": {"max_length": {"int": [64, 128]}}}), root=root)


def test_a_models_own_code_cannot_be_asked_for(root: Path) -> None:
    (problem,) = problems_of(changed(trust_remote_code=True), root)
    assert problem.startswith("trust_remote_code: no model's own code is ever run")
    assert parse_sweep(changed(trust_remote_code=False), root=root).resolved()["trust_remote_code"] is False


@pytest.mark.parametrize(("name", "text"), list(bombs()))
def test_a_bomb_is_refused_at_once(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(UsageError, match="is not valid"):
        load_sweep(tmp_path / name)
    assert time.process_time() - began < 60


# --- How a build is served, and what it is asked for -----------------------------------------------------------------


def test_sessions_and_workloads_are_spelled_out_and_read_again(root: Path) -> None:
    target = {
        "threads": 2,
        "arena": False,
        "workloads": {"chat": {"new_tokens": "data"}, "long": {"prompt_tokens": 512}},
    }
    space = LEAST["space"] | {"session": [{}, {"threads": [1, 2]}, {"mem_pattern": False}]}
    objectives = {"accuracy": "maximize", "itl_ms_p50@long": "minimize"}
    sweep = parse_sweep(
        changed(target=target, space=space, objectives=objectives, limits=["itl_ms_p90@long<=9"]), root=root
    )
    assert [str(session) if session else None for session in sweep.space.sessions] == [
        None,
        "1 thread",
        "mem_pattern off",
    ]
    assert {suffix: (work.prompt_tokens, work.new_tokens, work.batch) for suffix, work in sweep.target.timed.items()} == {
        "": (32, "data", 1), "@long": (512, 16, 1),
    }  # fmt: skip
    plain = sweep.resolved()
    assert plain["space"]["session"] == [{}, {"threads": 1}, {"mem_pattern": False}]
    assert "workload" not in plain["target"]
    assert parse_sweep(plain, root=root).resolved() == plain


def test_a_target_without_them_is_spelled_out_as_ever(root: Path) -> None:
    workload = {"prompt_tokens": 32, "new_tokens": 16, "batch": 1}
    timing = {"processes": 5, "most": 12, "precision": 0.03, "repeats": 2}
    target = parse_sweep(changed(), root=root).resolved()["target"]
    assert target == {"provider": "cpu", "workload": workload, "timing": timing}
    assert "session" not in parse_sweep(changed(), root=root).resolved()["space"]


def test_options_of_a_provider_are_read_again(root: Path) -> None:
    space = {"build": [{"precision": "fp16"}], "session": [{"provider_options": {"a": [0, 1]}}]}
    data = changed(target={"provider": "cuda", "provider_options": {"b": "x", "limit": 4e9}}, space=space)
    sweep = parse_sweep(data, root=root)
    assert sweep.target.session.options == {"b": "x", "limit": "4000000000"}
    again = parse_sweep(sweep.resolved(), root=root)
    assert again.space.sessions == sweep.space.sessions
    assert again.target.session == sweep.target.session


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"threads": 0}, "target.threads: must be at least 1, got 0"),
        ({"arena": "on"}, "target.arena: must be true or false, got 'on'"),
        ({"provider_options": {"a": 1}}, "target.provider_options: provider_options means something on cuda"),
        ({"provider": "cuda", "provider_options": {"a": [1]}}, "a value is a text, a number, true or false"),
        ({"workload": {"prompt_tokens": "date"}}, "prompt_tokens: must be 'data' or a whole number, got 'date'"),
        ({"workload": {"prompt_tokens": 0}}, "target.workload.prompt_tokens: must be at least 1, got 0"),
        ({"workload": {"new_tokens": 1}}, "target.workload.new_tokens: must be at least 2, got 1"),
        ({"workloads": {"a": {"batch": 0}}}, "target.workloads.a.batch: must be at least 1, got 0"),
        ({"workloads": {"a": {"prompt": 3}}}, "target.workloads.a.prompt: unknown key; did you mean 'prompt_tokens'?"),
        ({"workloads": {"a": 3}}, "target.workloads.a: must be a mapping, got 3"),
        ({"workloads": {}}, "target.workloads: needs at least one workload"),
        ({"workloads": {"A b": {}}}, "target.workloads.A b: must be a-z, 0-9, '_' and '-', 32 at most"),
        ({"workloads": {"a": {}}, "workload": {}}, "target.workloads: workload and workloads exclude one another"),
    ],
)
def test_a_wrong_target_is_refused_in_a_line(root: Path, target: dict[str, Any], said: str) -> None:
    build = [{"precision": "int4"}]
    problems = problems_of(changed(target=target, space={"build": build}), root)
    assert len(problems) == 1
    assert said in problems[0]


def test_a_percentile_may_be_asked_for_where_there_are_enough_sequences(root: Path) -> None:
    timing = {"processes": 13, "most": 13}
    target = {"workloads": {"chat": {}, "long": {"prompt_tokens": 512}}, "timing": timing}
    limits = ["ttft_ms_p90 <= 9", "ttft_ms_p90@long <= 9"]
    assert len(parse_sweep(changed(target=target, limits=limits), root=root).limits) == 2


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"objectives": {"itl_ms_p50@lon": "minimize"}}, "itl_ms_p50@lon is not measured in this sweep; did you mean 'itl_ms_p50@long'?"),
        ({"objectives": {"itl_ms_p50@chat": "minimize"}}, "write itl_ms_p50: chat is the first of target.workloads"),
        ({"objectives": {"itl_ms_p50@long": "maximize"}}, "itl_ms_p50@long is minimized, by its meaning"),
        ({"objectives": {"decode_tps@long": "minimize"}}, "decode_tps@long is maximized, by its meaning"),
        ({"objectives": {"accuracy@long": "maximize"}}, "no such metric, got 'accuracy@long'"),
        ({"limits": ["size_mb@long <= 3"]}, "unknown metric 'size_mb@long' in a limit"),
        ({"limits": ["gpu_memory_mb <= 3"]}, "gpu_memory_mb is not measured in this sweep; it is measured on cuda"),
        ({"limits": ["ttft_ms_p90 <= 9"]}, "ttft_ms_p90 is not measured in this sweep; it needs 64 sequences: set target.timing.processes, and most, to 13"),
        ({"objectives": {"ttft_ms_p90@long": "minimize"}}, "set target.timing.processes, and most, to 13"),
        ({"limits": ["gpu_memory_mb@long <= 3"]}, "gpu_memory_mb@long is not measured in this sweep; it is measured on"),
        ({"space": {"lora": {}, "session": [{"threads": 1}]}, "objectives": {"accuracy": "maximize"}},
         "space.session: a session is how a build is served, and without space.build nothing is built"),
        ({"data": {n: v for n, v in LEAST["data"].items() if n != "validation"} | {"metric": "lm-eval:arc_easy"}, "target": {"workload": {"new_tokens": "data"}}},
         "no lengths can be drawn from the data: lm-eval:arc_easy brings its own items"),
    ],
)  # fmt: skip
def test_what_is_not_measured_is_said_with_what_to_do(root: Path, part: dict[str, Any], said: str) -> None:
    target = {"workloads": {"chat": {}, "long": {"prompt_tokens": 512}}}
    problems = problems_of(changed(target=target) | part, root)
    assert [problem for problem in problems if said in problem]
    assert len(problems) == 1
