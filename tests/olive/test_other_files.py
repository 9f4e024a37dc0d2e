"""Olive configurations that nobody handed us: what its schema allows today, and what older files have, read or refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from autotune.errors import UsageError
from autotune.sweepfile.olive.ledger import leaves, text_of
from autotune.sweepfile.olive.reader import Imported, read_olive
from autotune.sweepfile.resolve import load_sweep, parse_sweep

CLIENT = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
BASE: dict[str, Any] = {
    "input_model": {"type": "HfModel", "model_path": "owner/m"},
    "data_configs": [
        {"name": "d", "type": "HuggingfaceContainer",
         "load_dataset_config": {"data_name": "json", "data_files": "rows.json", "split": "train"},
         "pre_process_data_config": {"text_template": "{q} {a}", "max_seq_len": 64}},
    ],
    "passes": {
        "l": {"type": "LoRA", "train_data_config": "d", "training_args": {"max_steps": 5}},
        "b": {"type": "ModelBuilder", "precision": "int4"},
    },
}  # fmt: skip


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    """The configuration with one value more, or another."""
    document = copy.deepcopy(BASE)
    here: Any = document
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value
    return document


def read(document: dict[str, Any]) -> tuple[Imported, dict[str, str]]:
    """What is read, with what is refused; every key has one fate, and a sweep that is read is one."""
    imported = read_olive(document)
    assert [path for path, _ in imported.ledger.account()] == [path for path in leaves(document) if path]
    refused = {
        text_of(entry.path): f"{entry.why}; {entry.remedy}"
        for entry in imported.ledger.entries.values()
        if entry.fate == "refused"
    }
    assert not any("is not read here" in told for told in refused.values()), refused
    if not refused:
        parse_sweep(imported.sweep)
    return imported, refused


# --- passes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "passes",
    [
        list(BASE["passes"].values()),
        [{"name": "tune", **BASE["passes"]["l"]}, BASE["passes"]["b"]],
        {"l": [BASE["passes"]["l"]], "b": [BASE["passes"]["b"]]},
        {**BASE["passes"], "b": {"type": "olive.passes.onnx.model_builder.ModelBuilder", "precision": "int4"}},
        {"l": {"type": "lora", "config": {k: v for k, v in BASE["passes"]["l"].items() if k != "type"}},
         "b": {"type": "modelbuilder", "config": {"precision": "int4"}, "disable_search": True}},
    ],
    ids=["list", "named", "lists of one", "path of a class", "nested"],
)  # fmt: skip
def test_passes_in_every_form_are_the_same_sweep(passes: Any) -> None:
    imported, refused = read(changed("passes", value=passes))
    assert refused == {}
    assert imported.sweep == read(BASE)[0].sweep


def test_the_kinds_of_adapter() -> None:
    for kind, key, value in (("QLoRA", "quantized_base", "nf4"), ("DoRA", "dora", True)):
        imported, refused = read(changed("passes", "l", "type", value=kind))
        assert (refused, imported.sweep["space"]["lora"][key]) == ({}, value)


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("LoftQ", "use QLoRA"), ("LoHa", "use LoRA"), ("CaptureLayerAnnotations", "a model is one graph"),
        ("EPContextBinaryGenerator", "NPUs"), ("InputNCHWtoNHWC", "images"), ("NVModelOptGraphSurgery", "graph"),
        ("OrtPerfTuning", "space.session"), ("TensorRTConversion", "NvTensorRTRTXExecutionProvider"),
        ("PyTorchTensorParallel", "one device"), ("olive.passes.pytorch.gptq.Gptq", "ModelBuilder"),
    ],
)  # fmt: skip
def test_passes_without_an_equal_name_what_to_do(kind: str, remedy: str) -> None:
    document = changed("passes", "x", value={"type": kind, "some_parameter": 1})
    _, refused = read(document)
    assert kind in refused["passes.x.type"]
    assert remedy in refused["passes.x.type"]
    assert list(refused) == ["passes.x.type"]


def test_a_parameter_that_depends_on_another_is_refused_as_such() -> None:
    given = {"olive_parameter_type": "SearchParameter", "type": "Conditional", "parents": ["x"], "support": {}}
    document = {**changed("passes", "l", "r", value=given), "search_strategy": True}
    _, refused = read(document)
    assert list(refused) == ["passes.l.r"]
    assert "Conditional" in refused["passes.l.r"]


def test_every_argument_of_todays_trainer_is_known() -> None:
    from transformers import TrainingArguments

    for name in TrainingArguments.__dataclass_fields__:
        document = changed("passes", "l", "training_args", name, value=True)
        imported = read_olive(document)
        told = [entry.why for entry in imported.ledger.entries.values() if entry.fate == "refused"]
        assert not any("has no key" in why for why in told), (name, told)


def test_older_and_newer_names_of_training_arguments() -> None:
    document = copy.deepcopy(BASE)
    document["passes"]["l"]["training_args"] |= {
        "per_gpu_train_batch_size": 2, "activation_checkpointing": False, "train_sampling_strategy": "random",
    }  # fmt: skip
    imported, refused = read(document)
    lora = imported.sweep["space"]["lora"]
    assert (refused, lora["batch_size"], lora["gradient_checkpointing"]) == ({}, 2, False)
    assert any("train_sampling_strategy" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        ({"int4_block_size": "128"}, {"block_size": 128}), ({"int4_accuracy_level": "4"}, {"accuracy_level": 4}),
        ({"int4_is_symmetric": "false"}, {"symmetric": False}), ({"int4_is_symmetric": "1"}, {"symmetric": True}),
        ({"int4_op_types_to_quantize": ["Gather", "MatMul"]}, {"op_types_to_quantize": "MatMul/Gather"}),
        ({"int4_op_types_to_quantize": ["Gemm", "MatMul"]}, {"op_types_to_quantize": "MatMul"}),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_options_of_the_model_builder_may_be_texts_as_on_its_command_line(
    options: dict[str, Any], recipe: dict[str, Any], nested: bool
) -> None:
    document = copy.deepcopy(BASE)
    document["passes"]["b"] |= {"extra_options": options} if nested else options
    imported, refused = read(document)
    assert refused == {}
    assert imported.sweep["space"]["build"] == [{"precision": "int4", **recipe}]


@pytest.mark.parametrize(("name", "value"), [("int4_block_size", "wide"), ("int4_block_size", "1e2"), ("int4_block_size", "true"),
                                             ("int4_is_symmetric", "2"), ("int4_block_size", "48"), ("int4_block_size", "")])  # fmt: skip
def test_texts_that_are_no_numbers_stay_refused(name: str, value: str) -> None:
    _, refused = read(changed("passes", "b", name, value=value))
    assert list(refused) == [f"passes.b.{name}"]


def test_an_option_that_is_like_none_is_told_without_the_list_of_all() -> None:
    _, refused = read(changed("passes", "b", "extra_options", value={"quant_mode": "default"}))
    (told,) = refused.values()
    assert "remove it: the pass ModelBuilder has nothing like it here" in told
    assert len(told) < 200


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("name", ["enable_cuda_graph", "use_cuda_bf16", "use_webgpu_fp32"])
def test_an_option_of_another_provider_is_left_out_and_told(name: str, value: bool) -> None:
    imported, refused = read(changed("passes", "b", name, value=value))
    assert refused == {}
    assert imported.sweep["space"]["build"] == [{"precision": "int4"}]
    assert any(name in note for note in imported.notes) == value
    document = changed("passes", "b", name, value=value)
    on = "WebGpuExecutionProvider" if "webgpu" in name else "CUDAExecutionProvider"
    imported, refused = read({**document, "execution_providers": [on]})
    assert (refused, imported.sweep["space"]["build"]) == ({}, [{"precision": "int4", name: value}])


# --- data ------------------------------------------------------------------------------------------------------------


def loading(**given: Any) -> dict[str, Any]:
    return changed("data_configs", 0, "load_dataset_config", value=given)


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"data_name": "csv", "data_files": "r.csv"}, "r.csv"),
        ({"data_name": "json", "data_files": ["r.jsonl"], "split": "train[10:20]"}, "r.jsonl[10:20]"),
        ({"data_name": "csv", "data_files": {"train": "a.csv", "test": "b.csv"}, "split": "test[:10%]"}, "b.csv[:10%]"),
        ({"data_name": "json", "data_dir": "folder", "data_files": "r.jsonl"}, "folder/r.jsonl"),
        ({"data_name": "glue", "subset": "mrpc", "split": "validation"},
         {"dataset": "nyu-mll/glue", "config": "mrpc", "split": "validation"}),
        ({"data_name": "owner/x", "revision": "main", "split": "train[:4096]"},
         {"dataset": "owner/x", "split": "train[:4096]"}),
        ({"type": "huggingface_dataset", "params": {"data_name": "json", "data_files": "r.jsonl"}}, "r.jsonl"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_where_rows_are(given: dict[str, Any], source: Any) -> None:
    imported, refused = read(loading(**given))
    assert (refused, imported.sweep["data"]["train"]) == ({}, source)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"data_name": "rows.jsonl"}, '"data_files": "rows.jsonl"'),
        ({"data_name": "./folder/rows.csv", "split": "train"}, "a path is one of data_files"),
        ({"data_name": "unheard"}, "write owner/unheard"),
        ({"data_name": "bigcode/the-stack", "data_dir": "data/python"}, "no part of a data set"),
        ({"data_name": "json", "data_dir": "folder"}, "name one file as data_files"),
        ({"data_name": "json", "data_files": ["a.jsonl", "b.jsonl"]}, "put the rows of several into one"),
        ({"data_name": "owner/x", "revision": "abc"}, "the newest revision"),
        ({"data_name": "json", "data_files": {"type": "azureml_job_output", "config": {}}}, "azureml_datastore"),
    ],
)  # fmt: skip
def test_rows_that_are_not_read_are_refused_once(given: dict[str, Any], said: str) -> None:
    """Templates and lengths of data that is refused are no mistakes of their own."""
    _, refused = read(loading(**given))
    assert said in " ".join(refused.values())
    assert not any("pre_process" in key for key in refused)


PYTHON = {"programming_language": "Python", "stars": 5, "rate": 0.5, "good": True}


def filtered(train: Any, validation: Any = None, named: bool = True) -> dict[str, Any]:
    """The configuration with rows taken by their cells, and with a second data config that judges."""
    document = copy.deepcopy(BASE)
    first = document["data_configs"][0]
    second = copy.deepcopy(first) | {"name": "e"}
    second["load_dataset_config"]["data_files"] = "other.json"
    for config, where in ((first, train), (second, validation)):
        if where is not None:
            config["load_dataset_config"]["col_filters"] = where
    if named:
        document["data_configs"].append(second)
        document["passes"]["l"]["eval_data_config"] = "e"
    return document


def test_rows_that_are_taken_by_their_cells() -> None:
    imported, refused = read(filtered(PYTHON, named=False))
    assert (refused, imported.sweep["data"]["where"]) == ({}, PYTHON)
    assert imported.origins["data.where"] == "data_configs[0].load_dataset_config.col_filters"
    imported, refused = read(filtered(PYTHON, PYTHON))
    assert (refused, imported.sweep["data"]["where"]) == ({}, PYTHON)
    fates = {text_of(path): entry for path, entry in imported.ledger.account()}
    assert fates["data_configs[1].load_dataset_config.col_filters.stars"].to == "data.where"
    for nothing in ({}, None):
        imported, refused = read(filtered(nothing, nothing))
        assert (refused, "where" in imported.sweep["data"]) == ({}, False)


@pytest.mark.parametrize(
    ("train", "validation", "key"),
    [
        (PYTHON, None, "passes.l.eval_data_config"),
        (None, PYTHON, "data_configs[1].load_dataset_config.col_filters"),
        (PYTHON, {"stars": 5}, "data_configs[1].load_dataset_config.col_filters"),
    ],
)
def test_rows_to_judge_on_that_are_taken_by_other_cells_are_refused_once(train: Any, validation: Any, key: str) -> None:
    _, refused = read(filtered(train, validation))
    assert list(refused) == [key]
    assert "give both the same col_filters" in refused[key]


@pytest.mark.parametrize("value", ["Python", ["Python"], 5, True])
def test_cells_are_named_by_their_column(value: Any) -> None:
    _, refused = read(filtered(value, named=False))
    assert list(refused) == ["data_configs[0].load_dataset_config.col_filters"]


@pytest.mark.parametrize("value", [None, "", " ", ["a", "b"], {"a": 1}, float("nan")])
def test_a_cell_is_compared_with_one_value(value: Any) -> None:
    _, refused = read(filtered({"language": value, "stars": 5}, named=False))
    assert list(refused) == ["data_configs[0].load_dataset_config.col_filters.language"]


def test_the_same_file_by_other_cells_is_other_data() -> None:
    document = filtered(PYTHON, None, named=False)
    document["data_configs"].append(copy.deepcopy(BASE["data_configs"][0]) | {"name": "e"})
    judge = {**metric("accuracy", "accuracy_score")["metrics"][0], "data_config": "e"}
    _, refused = read({**document, "evaluator": {"metrics": [judge]}})
    assert list(refused) == ["evaluator.metrics[0].data_config"]
    document["data_configs"][1]["pre_process_data_config"]["max_samples"] = 7
    document["data_configs"][1]["load_dataset_config"]["col_filters"] = PYTHON
    assert read({**document, "evaluator": {"metrics": [judge]}})[1] == {}


# --- model -----------------------------------------------------------------------------------------------------------


def test_a_model_on_a_datastore() -> None:
    place = {
        "type": "azureml_datastore",
        "config": {"azureml_client": CLIENT, "datastore_name": "d", "relative_path": "m/"},
    }
    imported, refused = read(changed("input_model", "model_path", value=place))
    assert refused == {}
    assert imported.sweep["model"] == (
        "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/m"
    )  # fmt: skip


def test_keys_of_hf_config() -> None:
    hf = {"model_name": "owner/m", "task": "text-generation", "model_class": "X", "generation_config": {"top_k": 1},
          "components": [{"name": "x"}], "dataset": {"data_name": "y"}}  # fmt: skip
    _, refused = read(changed("input_model", value={"type": "PyTorchModel", "config": {"hf_config": hf}}))
    assert sorted(key.rpartition(".")[2] for key in refused) == ["components", "dataset"]


@pytest.mark.parametrize("kind", ["ONNXModel", "CompositeModel", "DistributedHfModel", "OpenVINOModel"])
def test_a_model_that_is_built_already_names_its_source(kind: str) -> None:
    _, refused = read(changed("input_model", value={"type": kind, "config": {"model_path": "m.onnx"}}))
    assert "name the PyTorch model that it was made from" in refused["input_model.type"]


# --- search and evaluators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "strategy", "budget"),
    [
        ({}, "frontier", None),
        ({"execution_order": "joint", "sampler": "tpe", "max_samples": 5, "seed": 1}, "tpe", {"trials": 5}),
        ({"sampler": "random", "sampler_config": {"max_samples": 3, "group": True}}, "random", {"trials": 3}),
        ({"execution_order": ["l", "b"], "search_algorithm": "exhaustive"}, "grid", None),
        ({"sampler": "sequential", "max_iter": 4, "max_time": 720}, "grid", {"trials": 4, "hours": 0.2}),
    ],
)  # fmt: skip
def test_objects_of_search_strategy(given: dict[str, Any], strategy: str, budget: Any) -> None:
    imported, refused = read({**copy.deepcopy(BASE), "search_strategy": given})
    assert (refused, imported.sweep["strategy"], imported.sweep.get("budget")) == ({}, strategy, budget)


def judged(evaluator: dict[str, Any], **more: Any) -> tuple[Imported, dict[str, str]]:
    return read({**copy.deepcopy(BASE), "evaluator": evaluator, **more})


def metric(kind: str, name: str, **sub: Any) -> dict[str, Any]:
    return {"metrics": [{"name": "m", "type": kind, "sub_types": [{"name": name, "priority": 1, **sub}]}]}


@pytest.mark.parametrize(
    "given",
    [
        {"tasks": ["arc_easy"], "limit": 10},
        {"type_args": {"tasks": ["arc_easy"], "limit": 10}},
        {"tasks": ["arc_easy", "size_on_disk"], "limit": 10, "bootstrap_iters": 0},
    ],
)
def test_a_task_of_lm_eval_brings_its_own_items(given: dict[str, Any]) -> None:
    document = changed("passes", "l", "eval_dataset_size", value=0.3)
    imported, refused = read({**document, "evaluator": {"type": "LMEvaluator", **given}})
    assert refused == {}
    data = imported.sweep["data"]
    assert (data["metric"], data["max_items"], "holdout" in data) == ("lm-eval:arc_easy", {"validation": 10}, False)
    assert any("eval_dataset_size" in note for note in imported.notes)


def test_data_to_judge_on_that_is_dropped_still_says_what_it_trains() -> None:
    document = changed("passes", "l", "eval_data_config", value="d")
    imported, _ = read({**document, "evaluator": {"type": "LMEvaluator", "tasks": ["arc_easy"]}})
    fates = {text_of(path): entry for path, entry in imported.ledger.account()}
    assert fates["data_configs[0].load_dataset_config.data_files"].to == "data.train"
    assert fates["passes.l.eval_data_config"].fate == "unneeded"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("first", ["f1_score", "accuracy_score"])
def test_the_score_is_that_which_the_file_ranks_wherever_it_stands(first: str, apart: bool) -> None:
    """Olive reports scores without a priority, and ranks by those with one."""
    ranked = {"name": "accuracy_score", "priority": 1, "goal": {"type": "max-degradation", "value": 0.05}}
    subs = [ranked, {"name": "f1_score"}]
    subs.sort(key=lambda sub: sub["name"] != first)
    metrics = [{"name": "m", "type": "accuracy", "sub_types": subs}]
    if apart:
        metrics = [{"name": f"m{place}", "type": "accuracy", "sub_types": [sub]} for place, sub in enumerate(subs)]
    imported, refused = judged({"metrics": metrics})
    assert refused == {}
    assert imported.sweep["data"]["metric"] == "choice"
    assert imported.sweep["objectives"] == {"accuracy": "maximize"}
    assert imported.sweep["limits"] == ["accuracy >= base - 0.05"]
    assert any("one score is counted, and that is choice" in note for note in imported.notes)


def test_of_two_scores_that_are_ranked_the_second_is_refused_wherever_it_stands() -> None:
    subs = [{"name": "f1_score", "priority": 2}, {"name": "accuracy_score", "priority": 1}]
    _, refused = judged({"metrics": [{"name": "m", "type": "accuracy", "sub_types": subs}]})
    assert list(refused) == ["evaluator.metrics[0].sub_types[0].name"]


def test_data_that_is_refused_where_it_is_named_is_refused_there_alone() -> None:
    """Every key of it has a fate, and none is told as if nobody knew it."""
    document = filtered(None, None)
    judge = {**metric("accuracy", "accuracy_score")["metrics"][0], "data_config": "e"}
    del document["passes"]["l"]["eval_data_config"]
    document["passes"]["l"]["eval_dataset_size"] = 0.3
    assert list(read({**document, "evaluator": {"metrics": [judge]}})[1]) == ["evaluator.metrics[0].data_config"]
    document["passes"]["l"]["eval_data_config"] = "e"
    assert list(read(document)[1]) == ["passes.l.eval_dataset_size"]
    del document["passes"]["l"]["eval_dataset_size"]
    document["data_configs"][1]["pre_process_data_config"]["text_template"] = "{q}: {a}"
    assert list(read(document)[1]) == ["passes.l.eval_data_config"]
    del document["passes"]["l"]["eval_data_config"]
    assert list(read({**document, "evaluator": {"metrics": [judge]}})[1]) == ["evaluator.metrics[0].data_config"]


def test_a_sub_type_that_is_not_measured_is_refused_once_with_its_goal() -> None:
    _, refused = judged(metric("latency", "p99", goal={"type": "threshold", "value": 5}))
    assert list(refused) == ["evaluator.metrics[0].sub_types[0].name"]


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        (metric("latency", "avg", goal={"type": "percent-min-improvement", "value": 150}), 150),
        (metric("accuracy", "accuracy_score", goal={"type": "percent-max-degradation", "value": 100}), 100),
    ],
)
def test_a_percentage_that_no_model_has_is_refused(given: dict[str, Any], bound: float) -> None:
    _, refused = judged(given)
    (told,) = refused.values()
    assert f"must be below 100 for {'itl_ms_p50' if bound == 150 else 'accuracy'}" in told
    for kind, name, goal in (
        ("accuracy", "accuracy_score", "percent-min-improvement"),
        ("latency", "avg", "percent-max-degradation"),
    ):
        assert judged(metric(kind, name, goal={"type": goal, "value": bound}))[1] == {}


# --- what --set replaces ---------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"what {n}", "a": f"this {n % 3}", "t": f"text {n}"} for n in range(60)]
    for name in ("rows.json", "other.json"):
        Path(name).write_text(json.dumps(rows), encoding="utf-8")
    document = copy.deepcopy(BASE)
    document["passes"]["l"] |= {"eval_dataset_size": 0.3, "alpha": 32}
    Path("olive.json").write_text(json.dumps(document), encoding="utf-8")
    return Path("olive.json")


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize(
    ("sets", "left_out"),
    [
        (["data.validation=other.json"], "data.holdout"),
        (["data.text={t}"], "data.prompt"),
        (["space.lora.alpha_over_r=2"], "space.lora.alpha"),
        (["space.lora.alpha=16"], "space.lora.alpha_over_r"),
        (["space.lora.epochs=1"], "space.lora.steps"),
    ],
)
def test_what_excludes_a_changed_key_gives_way(
    file: Path, tiny_llama: Path, sets: list[str], left_out: str, search: bool
) -> None:
    sweep = load_sweep(file, [f"model={tiny_llama}", *sets, *(["search=true"] if search else [])])
    plain = sweep.resolved()
    *parents, last = left_out.split(".")
    for name in parents:
        plain = plain[name]
    assert last not in plain
    told = f"{left_out} of the file is left out: --set {sets[0].partition('=')[0]} takes its place"
    assert (told in sweep.notes) == (left_out != ("space.lora.alpha" if search else "space.lora.alpha_over_r"))


def test_cells_by_which_rows_are_taken_are_those_of_the_files_own_data(file: Path, tiny_llama: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    document["data_configs"][0]["load_dataset_config"]["col_filters"] = {"a": "this 1"}
    file.write_text(json.dumps(document), encoding="utf-8")
    sweep = load_sweep(file, [f"model={tiny_llama}", "data.metric=perplexity"])
    assert sweep.data.where == {"a": "this 1"}
    sweep = load_sweep(file, [f"model={tiny_llama}", "data.train=other.json"])
    assert sweep.data.where is None
    assert "data.where of the file is left out: --set data.train takes its place" in sweep.notes
    document["data_configs"][0]["load_dataset_config"]["col_filters"] = {"a": "nothing"}
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError, match=r"data\.where\.a \(from data_configs\[0\]"):
        load_sweep(file, [f"model={tiny_llama}", "strategy=nothing"])


def test_two_changes_that_exclude_one_another_are_refused(file: Path, tiny_llama: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        load_sweep(file, [f"model={tiny_llama}", "data.validation=other.json", "data.holdout=0.2"])


def test_the_metric_follows_the_texts_that_are_asked_for(file: Path, tiny_llama: Path) -> None:
    model = f"model={tiny_llama}"
    assert load_sweep(file, [model]).data.metric == "choice"
    assert load_sweep(file, [model, "data.text={t}"]).data.metric == "perplexity"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["data_configs"][0]["pre_process_data_config"] = {"text_cols": ["t"]}
    file.write_text(json.dumps(document), encoding="utf-8")
    assert load_sweep(file, [model]).data.metric == "perplexity"
    sweep = load_sweep(file, [model, "data.prompt={q}:", "data.completion={a}"])
    assert (sweep.data.prompt, sweep.data.completion, sweep.data.metric) == ("{q}:", "{a}", "choice")


def test_a_space_that_is_changed_is_not_bound_to_one_candidate(file: Path, tiny_llama: Path) -> None:
    model = f"model={tiny_llama}"
    assert load_sweep(file, [model]).budget.trials == 1
    listed = load_sweep(file, [model, "space.lora.r={choice: [2, 4]}"])
    assert (listed.strategy, listed.budget.trials, listed.space.size()) == ("grid", None, 2)
    ranged = load_sweep(file, [model, "space.lora.learning_rate={loguniform: [1e-4, 1e-3]}"])
    assert (ranged.strategy, ranged.budget.trials) == ("frontier", 40)
    ranged = load_sweep(file, [model, "space.lora.learning_rate={loguniform: [1e-4, 1e-3]}", "budget.trials=3"])
    assert ranged.budget.trials == 3


def test_another_provider_leaves_options_of_the_files_out(file: Path, tiny_llama: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    document["execution_providers"] = ["CUDAExecutionProvider"]
    document["passes"]["b"]["enable_cuda_graph"] = True
    file.write_text(json.dumps(document), encoding="utf-8")
    sweep = load_sweep(file, [f"model={tiny_llama}", "target.provider=cpu"])
    assert "enable_cuda_graph of the file is left out: it means nothing on cpu" in sweep.notes


def test_keys_of_the_olive_file_are_no_keys_of_the_sweep(file: Path, tiny_llama: Path) -> None:
    sets = [f"model={tiny_llama}", "passes.l.alpha=8", "input_model.model_path=x", "search_strategy=true"]
    with pytest.raises(UsageError) as error:
        load_sweep(file, sets)
    told = str(error.value)
    assert "passes.l.alpha: is a key of the Olive file" in told
    assert "write --set space.lora.alpha=..." in told
    assert "write --set model=..." in told
    assert "search_strategy" not in told  # the file has no such key
    document = {**json.loads(file.read_text(encoding="utf-8")), "engine": {"search_strategy": False}}
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError, match=r"search_strategy: is a key of the Olive file.*write --set strategy="):
        load_sweep(file, sets)


def test_a_file_without_a_model_is_still_one_of_olives(tmp_path: Path) -> None:
    document = {key: value for key, value in BASE.items() if key != "input_model"}
    (tmp_path / "olive.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UsageError, match="input_model: is missing"):
        load_sweep(tmp_path / "olive.json")


# --- The hub's login -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        ("data_configs", 0, "load_dataset_config", "token"),
        ("input_model", "load_kwargs", "token"),
        ("passes", "b", "hf_token"),
    ],
)
def test_a_login_is_asked_for_by_true_and_a_token_is_refused(path: tuple[str | int, ...]) -> None:
    def given(value: object) -> dict[str, Any]:
        document = copy.deepcopy(BASE)
        document["input_model"]["load_kwargs"] = {}
        here: Any = document
        for step in path[:-1]:
            here = here[step]
        here[path[-1]] = value
        return document

    for value in (True, False, None):
        assert read(given(value))[1] == {}, value
    for value in ("hf_abcdefghijklmnopqrst", 1, ["x"]):
        (told,) = read(given(value))[1].values()
        assert "never read from a file; remove it, and log in" in told


def test_how_batches_are_padded_is_not_needed() -> None:
    document = changed("data_configs", 0, "pre_process_data_config", "padding", value="max_length")
    document["data_configs"][0]["pre_process_data_config"]["truncation"] = True
    assert read(document)[1] == {}


def test_an_adapter_of_qlora_is_on_every_layer_that_is_quantised_as_in_olive() -> None:
    """Olive's QLoRA sets target_modules to its quantised layers, whatever the file says; LoRA and DoRA ask PEFT."""
    for kind, modules in (("QLoRA", "all-linear"), ("LoRA", ["q_proj", "v_proj"]), ("DoRA", ["q_proj", "v_proj"])):
        document = changed("passes", "l", "type", value=kind)
        document["passes"]["l"].pop("target_modules", None)
        imported, refused = read(document)
        assert refused == {}
        assert imported.sweep["space"]["lora"]["target_modules"] == modules
        document["passes"]["l"]["target_modules"] = ["k_proj"]
        imported, _ = read(document)
        assert imported.sweep["space"]["lora"]["target_modules"] == ["k_proj"]
        told = [note for note in imported.notes if "Olive's QLoRA adapts every linear layer, whatever is named" in note]
        assert len(told) == (kind == "QLoRA")


@pytest.mark.parametrize("name", ["use_cpu", "no_cuda"])
def test_training_on_the_processor_is_taken(name: str) -> None:
    imported, refused = read(changed("passes", "l", "training_args", name, value=True))
    assert refused == {}
    assert imported.sweep["train"]["device"] == "cpu"
    imported, refused = read(changed("passes", "l", "training_args", name, value=False))
    assert refused == {}
    assert "device" not in imported.sweep.get("train", {})


def test_an_epsilon_that_is_not_adamws_own_is_refused() -> None:
    assert read(changed("passes", "l", "training_args", "adam_epsilon", value=1e-8))[1] == {}
    _, refused = read(changed("passes", "l", "training_args", "adam_epsilon", value=1e-6))
    assert "AdamW's epsilon is 1e-8, got 1e-06" in refused["passes.l.training_args.adam_epsilon"]
