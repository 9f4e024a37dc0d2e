"""Olive configurations as sweeps: both spellings, every key accounted for, nothing lost, what is refused and how."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.data.templates import render
from autotune.errors import UsageError
from autotune.sweepfile.olive.corpus import read_template
from autotune.sweepfile.olive.ledger import Path as Key
from autotune.sweepfile.olive.ledger import leaves, text_of
from autotune.sweepfile.olive.reader import Imported, import_olive, is_olive, read_olive, settle
from autotune.sweepfile.olive.sections import Node, Section
from autotune.sweepfile.olive.written import as_yaml
from autotune.sweepfile.resolve import load_sweep, parse_sweep
from autotune.sweepfile.syntax import read_file
from benchmarks import olive_keys
from benchmarks.olive_files import ODD, at, mappings, mutate, own, public, put, todays
from benchmarks.olive_files import PUBLIC as PUBLIC_FOLDER

OWN, PUBLIC = own(), public()
needs_public = pytest.mark.skipif(not PUBLIC, reason="the published Olive files are not beside AUTOTUNE_TEST_DATA")


def refused(imported: Imported) -> dict[str, str]:
    return {text_of(e.path): f"{e.why}; {e.remedy}" for e in imported.ledger.entries.values() if e.fate == "refused"}


def accounted(document: Any, imported: Imported) -> None:
    """Every key has a fate, what is mapped is in the sweep, and each refusal says what to do."""
    ledger = imported.ledger
    account = dict(ledger.account())
    assert set(account) == {path for path in leaves(document) if path}
    for path, entry in account.items():
        assert entry.fate == "mapped" or entry.why, path
        for key in entry.to.split(", ") if entry.fate == "mapped" and not refused(imported) else ():
            plain = "space.build" if key.startswith("space.build") else key
            here: Any = imported.sweep
            for name in plain.split("."):
                assert isinstance(here, dict), (path, entry)
                assert name in here, (path, entry)
                here = here[name]
    for problem in ledger.problems("olive.json"):
        assert problem.remedy, problem
        assert "\n" not in str(problem)


# --- Both spellings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["guide-local", "guide-azureml"])
def test_both_spellings_are_the_same_sweep(name: str) -> None:
    old, new = OWN[name], todays(OWN[name])
    assert old != new
    assert read_olive(old).sweep == read_olive(new).sweep
    assert read_olive(old, True).sweep == read_olive(new, True).sweep
    assert refused(read_olive(new)) == refused(read_olive(old)) == {}


@needs_public
@pytest.mark.parametrize("name", ["phi3-local", "phi3-azureml"])
def test_the_guides_files_are_read_in_full_in_both_spellings(name: str) -> None:
    document = PUBLIC[name]
    for search in (False, True):
        imported = read_olive(document, search)
        accounted(document, imported)
        assert refused(imported) == {}
        new = read_olive(todays(document), search)
        accounted(todays(document), new)
        assert new.sweep == imported.sweep


@needs_public
@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_published_files_are_read_or_refused_by_name(name: str) -> None:
    imported = read_olive(PUBLIC[name])
    accounted(PUBLIC[name], imported)
    for path, said in refused(imported).items():
        if path.startswith("passes.") and path.endswith(".type"):
            assert repr(at(PUBLIC[name], tuple(path.split(".")))) in said
            assert any(word in said for word in ("remove", "use ", "put it"))


@pytest.mark.parametrize("name", sorted(OWN))
def test_our_own_files_are_read_in_full(name: str) -> None:
    for search in (False, True):
        imported = read_olive(OWN[name], search)
        accounted(OWN[name], imported)
        assert refused(imported) == {}
        assert set(imported.origins) >= {"model", "strategy"}


# --- Nothing is lost -----------------------------------------------------------------------------------------------

# Of ranks only the order counts.
_SAME = ("priority",)


def changed(value: Any) -> list[Any]:
    """Other values of a kind."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value * 2 + 1, value / 2]
    if isinstance(value, str):
        return [f"{value}x", value[:-1]]
    return [[*value, "x"], value[:-1]] if isinstance(value, list) else []


@pytest.mark.parametrize("name", sorted({**OWN, **PUBLIC}))
def test_a_mapped_key_with_another_value_is_another_sweep_or_refused(name: str) -> None:
    document = {**OWN, **PUBLIC}[name]
    before = read_olive(document)
    if refused(before):
        pytest.skip("it is refused as a whole")
    seen = 0
    for path, entry in before.ledger.account():
        if entry.fate != "mapped" or path[-1] in _SAME:
            continue
        for value in changed(at(document, path)):
            if value == at(document, path):
                continue
            other = copy.deepcopy(document)
            put(other, path, value)
            after = read_olive(other)
            accounted(other, after)
            same = json.dumps(after.sweep) == json.dumps(before.sweep) and not refused(after)
            assert not same, f"{text_of(path)} = {value!r} changes nothing"
            seen += 1
    assert seen > 5


@pytest.mark.parametrize("name", sorted({**OWN, **PUBLIC}))
def test_a_key_that_nobody_knows_is_refused_wherever_it_stands(name: str) -> None:
    document = {**OWN, **PUBLIC}[name]
    before = read_olive(document)
    for path in mappings(document):
        # Names that nothing names, and options whose names are the provider's.
        if path in (("systems",), ("evaluators",)) or path[-1:] == ("provider_options",):
            continue
        if path == ("passes",) and "pass_flows" in document:  # passes that no flow names
            continue
        inside = [one for one, _ in before.ledger.account() if one[: len(path)] == path]
        read = [one for one in inside if (entry := before.ledger.entry_of(one)) and entry.fate == "mapped"]
        if not read:  # a pass without parameters, a system that nothing names, what is refused
            continue
        other = copy.deepcopy(document)
        at(other, path)["no_such_key"] = 1
        after = read_olive(other)
        accounted(other, after)
        assert text_of((*path, "no_such_key")) in refused(after), text_of(path)


def test_a_key_that_is_nearly_one_is_refused_with_the_right_name() -> None:
    document = copy.deepcopy(OWN["guide-local"])
    lora = document["passes"]["lora"]["config"]
    lora["targt_modules"] = lora.pop("target_modules")
    lora["training_args"]["learning_rte"] = lora["training_args"].pop("learning_rate")
    found = refused(read_olive(document))
    assert "'target_modules'" in found["passes.lora.config.targt_modules"]
    assert "'learning_rate'" in found["passes.lora.config.training_args.learning_rte"]


def test_a_key_in_both_spellings_must_say_the_same() -> None:
    document = copy.deepcopy(OWN["guide-local"])
    document["passes"]["lora"]["config"]["r"] = 16
    assert refused(read_olive(document)) == {}
    document["passes"]["lora"]["config"]["r"] = 8
    assert "given twice" in refused(read_olive(document))["passes.lora.config.r"]


@pytest.mark.parametrize("seed", range(300))
def test_random_changes_are_read_or_refused_key_by_key(seed: int) -> None:
    """`python -m benchmarks.fuzz_olive` does this 20,000 times."""
    rng = random.Random(seed)
    documents = [*OWN.values(), *PUBLIC.values()]
    document = mutate(rng.choice(documents), rng, documents)
    imported = read_olive(document, search=rng.random() < 0.3)
    accounted(document, imported)
    if not refused(imported):
        with contextlib.suppress(UsageError):
            parse_sweep(imported.sweep)


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_any_value_in_any_place_is_read_or_refused(value: Any) -> None:
    for document in OWN.values():
        for path in list(leaves(document))[:: 1 if len(OWN) < 4 else 3]:
            other = copy.deepcopy(document)
            put(other, path, value)
            accounted(other, read_olive(other))


# --- What it becomes -----------------------------------------------------------------------------------------------


def test_search_off_is_one_candidate_and_search_a_space_around_it(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"phrase": f"thing {n}", "tone": ("joy", "fear")[n % 2]} for n in range(40)]
    (tmp_path / "tones.json").write_text(json.dumps(rows), encoding="utf-8")
    file = tmp_path / "olive.json"
    file.write_text(json.dumps(OWN["guide-local"]), encoding="utf-8")
    sets = [f"model={tiny_llama}", "train.max_length=64"]
    single = load_sweep(file, sets)
    (only,) = single.space.grid()
    assert (single.space.size(), single.strategy, single.data.metric) == (1, "grid", "choice")
    assert only.lora is not None
    assert (only.lora.r, only.lora.alpha, only.lora.loss_on, only.lora.steps) == (16, 32, "text", 12)
    wide = load_sweep(file, [*sets, "search=true"])
    assert wide.strategy == "frontier"
    assert wide.budget.trials == 40
    assert set(wide.space.searched) == {
        "r", "alpha_over_r", "learning_rate", "target_modules", "loss_on", "steps", "accumulation",
    }  # fmt: skip
    longest = only.lora.model_copy(update={"steps": 48, "accumulation": 1})
    assert wide.space.has(longest), "a file that is tried out with few steps has longer trainings around it"
    assert wide.space.has(only.lora), "the file's own point is in the space around it"
    assert only.recipe in wide.space.recipes
    assert {recipe.precision for recipe in wide.space.recipes} == {"fp32", "int8", "int4"}
    cuda = load_sweep(file, [*sets, "target.provider=cuda", "search=true"])
    assert {recipe.precision for recipe in cuda.space.recipes} == {"bf16", "fp16", "int8", "int4"}
    several = "targets={gpu: {provider: cuda}, laptop: {provider: cpu}}"
    both = load_sweep(file, [*sets, several, "search=true"])
    assert {recipe.precision for recipe in both.space.recipes} == {"int8", "int4"}, "what both of them run"
    assert any("trust_remote_code" in note for note in single.notes)


def test_the_metric_is_that_of_the_data_that_is_meant(tmp_path: Path) -> None:
    def metric(rows: list[dict[str, Any]]) -> str:
        (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        sweep = read_olive(OWN["guide-local"]).sweep
        sweep["data"]["train"] = "rows.json"
        settle(sweep, tmp_path, {})
        return str(sweep["data"]["metric"])

    assert metric([{"phrase": f"p {n}", "tone": f"t{n % 3}"} for n in range(60)]) == "choice"
    assert metric([{"phrase": f"p {n}", "tone": f"a long answer {n}"} for n in range(60)]) == "perplexity"
    assert metric([{"phrase": f"p {n}", "tone": "same"} for n in range(60)]) == "perplexity"
    assert metric([{"other": "x"}]) == "perplexity"


def test_goals_are_limits_and_ranks_are_objectives() -> None:
    sweep = read_olive(OWN["todays-search"]).sweep
    assert list(sweep["objectives"]) == ["accuracy", "size_mb", "itl_ms_p50"]
    assert sweep["limits"] == ["accuracy >= base - 0.05", "itl_ms_p50 <= base * 0.8", "size_mb <= 200"]
    assert sweep["budget"] == {"trials": 12, "hours": 2.0}
    assert (sweep["strategy"], sweep["seed"]) == ("tpe", 3)


@pytest.mark.parametrize(
    ("goal", "value", "accuracy", "latency"),
    [
        ("threshold", 0.5, "accuracy >= 0.5", "itl_ms_p50 <= 0.5"),
        ("min-improvement", 0.1, "accuracy >= base + 0.1", "itl_ms_p50 <= base - 0.1"),
        ("max-degradation", 0.1, "accuracy >= base - 0.1", "itl_ms_p50 <= base + 0.1"),
        ("percent-min-improvement", 10, "accuracy >= base * 1.1", "itl_ms_p50 <= base * 0.9"),
        ("percent-max-degradation", 10, "accuracy >= base * 0.9", "itl_ms_p50 <= base * 1.1"),
    ],
)
def test_every_kind_of_goal(goal: str, value: float, accuracy: str, latency: str) -> None:
    document = copy.deepcopy(OWN["todays-search"])
    metrics = document["evaluators"]["common"]["metrics"]
    for metric in metrics[:2]:
        metric["sub_types"][0]["goal"] = {"type": goal, "value": value}
    assert read_olive(document).sweep["limits"][:2] == [accuracy, latency]


def test_lists_are_choices_only_where_olive_searches() -> None:
    document = copy.deepcopy(OWN["todays-search"])
    sweep = read_olive(document).sweep
    assert sweep["space"]["lora"]["r"] == {"choice": [4, 8]}
    assert sweep["space"]["lora"]["learning_rate"] == {"choice": [0.001, 0.003]}
    document["search_strategy"] = False
    found = refused(read_olive(document))
    assert "search_strategy is off" in found["passes.tune[0].r"]
    assert "search_strategy is off" in found["passes.tune[0].training_args.learning_rate"]
    assert "several alternatives" in found["passes.build"]


def test_a_chat_and_its_quantised_base() -> None:
    sweep = read_olive(OWN["todays-qlora"]).sweep
    assert sweep["data"]["train"] == {"dataset": "owner/chats", "split": "train[:4096]", "config": "main"}
    assert sweep["data"]["messages"] == "turns"
    lora = sweep["space"]["lora"]
    assert (lora["quantized_base"], lora["double_quant"], lora["dtype"], lora["warmup"]) == ("nf4", True, "bf16", 10)
    assert "build" not in sweep["space"]


@pytest.mark.parametrize(
    ("template", "prompt", "completion"),
    [
        ("### Text: {phrase}\n### The tone is:\n{tone}", "### Text: {phrase}\n### The tone is:\n", "{tone}"),
        ("<|user|>\n{q}<|end|>\n<|assistant|>\n{a}\n<|end|>", "<|user|>\n{q}<|end|>\n<|assistant|>\n", "{a}"),
        ("Q: {q} A: {a}</s>", "Q: {q} A:", " {a}"),
        ("{a} {b} {c}<end_of_turn>\n", "{a} {b}", " {c}"),
        ("{q}\t{a}<|im_end|></s>", "{q}", "\t{a}"),
        ("{{x}} {q}: {best answer}", "{{x}} {q}:", " {best answer}"),
    ],
)
def test_the_last_column_is_the_answer(template: str, prompt: str, completion: str) -> None:
    corpus = read_template(template)
    assert (corpus.prompt, corpus.completion, corpus.text) == (prompt, completion, "")


@pytest.mark.parametrize(
    "template", ["{text}", "{q} and {a} so it ends", "{a} {a}", "{a} {b} {a}", "so {a}\n", "{a}: {b}."]
)
def test_any_other_template_is_plain_text(template: str) -> None:
    assert read_template(template).text == template


def test_a_split_template_makes_the_same_text() -> None:
    row = {"q": "what", "a": "this", "phrase": "p", "tone": "t"}
    for template in ("Q: {q} A: {a}", "{phrase}\n\t {tone}"):
        corpus = read_template(template)
        assert render(corpus.prompt, row) + render(corpus.completion, row) == render(template, row)


def test_alternatives_of_one_pass_are_recipes_side_by_side() -> None:
    builds = read_olive(OWN["todays-search"]).sweep["space"]["build"]
    assert builds[0] == {"precision": "fp32"}
    assert {"algorithm": "k_quant", "mixed_precision": "last_matmul:int8", "precision": "int4",
            "block_size": [32, 128], "symmetric": True} in builds  # fmt: skip


def test_rounding_after_the_build_is_done_by_the_build() -> None:
    document = copy.deepcopy(OWN["build-only"])
    document["passes"] = {
        "m": {"type": "ModelBuilder", "precision": "fp16"},
        "q": {"type": "OnnxBlockWiseRtnQuantization", "block_size": 64},
    }
    imported = read_olive(document)
    accounted(document, imported)
    assert imported.sweep["space"]["build"] == [
        {"precision": "int4", "algorithm": "rtn", "block_size": 64, "accuracy_level": 0, "symmetric": True}
    ]


# --- As a file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(OWN))
@pytest.mark.parametrize("search", [False, True])
def test_the_written_file_is_the_same_sweep(name: str, search: bool, tmp_path: Path) -> None:
    imported = import_olive(OWN[name], "olive.json", search)
    file = tmp_path / "sweep.yaml"
    text = as_yaml(imported, "olive.json")
    file.write_text(text, encoding="utf-8")
    assert read_file(file, "sweep.yaml")[0] == imported.sweep
    assert yaml.safe_load(text) == imported.sweep
    lines = text.split("\n")
    for at_line, line in enumerate(lines):
        if line.strip().startswith(("r:", "model:", "strategy:", "learning_rate:", "build:")):
            assert "  # " in line or lines[at_line - 1].strip().startswith("# "), line


def test_no_token_gets_into_a_sweep_a_message_or_a_note() -> None:
    token = "hf_" + "Secret" * 6
    document = copy.deepcopy(OWN["build-only"])
    document["passes"]["m"]["extra_options"]["hf_token"] = token
    document["input_model"]["load_kwargs"] = {"token": token}
    document["systems"]["gpu"]["hf_token"] = token
    with pytest.raises(UsageError) as error:
        import_olive(document, "olive.json")
    assert token not in str(error.value)
    assert "never read from a file" in str(error.value)


@pytest.mark.parametrize(
    "change", [{"input_model": []}, {"passes": []}, {"passes": {"a": []}}, {"data_configs": {"a": 1}}]
)
def test_parts_of_another_kind_are_refused(change: dict[str, Any]) -> None:
    document = {**copy.deepcopy(OWN["build-only"]), **change}
    assert refused(read_olive(document))


def test_what_is_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    with pytest.raises(UsageError, match="nested deeper"):
        import_olive({**OWN["build-only"], "passes": deep}, "olive.json")


def test_a_sweep_file_is_none_of_olives() -> None:
    assert not is_olive({"model": "x", "data": {}})
    assert is_olive({"input_model": {}})


def test_a_section_takes_older_names_for_todays() -> None:
    ledger = read_olive(OWN["guide-local"]).ledger
    section = Section(ledger, Node(("x",), {"config": {"lora_r": 1}, "r": 2}), ("config",), {"lora_r": "r"})
    path: Key = ("x", "r")
    assert section.nodes["r"].value == 1
    entry = ledger.entries[path]
    assert entry.fate == "refused"


@needs_public
def test_the_table_of_keys_is_current() -> None:
    assert olive_keys.OUT.read_text(encoding="utf-8") == olive_keys.document(PUBLIC_FOLDER)


@pytest.mark.parametrize("local", [True, False])
def test_nothing_is_fetched_for_a_local_model_whose_file_names_no_texts(local: bool, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    model = "mine" if local else "owner/name"
    document = {
        "input_model": {"type": "HfModel", "model_path": model},
        "passes": {"build": {"type": "ModelBuilder", "precision": "int4"}},
    }
    imported = import_olive(document, "config.json")
    if not local:
        settle(imported.sweep, tmp_path, imported.origins)
        assert imported.sweep["data"]["train"]["dataset"] == "Salesforce/wikitext"
        return
    with pytest.raises(UsageError, match=r"names no texts to score builds on.*data.train=FILE"):
        settle(imported.sweep, tmp_path, imported.origins)
