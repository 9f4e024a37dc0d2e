"""Olive configurations of other ages and kinds: older spellings of data, pairs, evaluators by tasks, models that are not taken."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.errors import UsageError
from autotune.present.olive import import_file
from autotune.sweepfile.olive.ledger import leaves, text_of
from autotune.sweepfile.olive.reader import Imported, import_olive, read_olive
from autotune.sweepfile.olive.written import as_yaml
from autotune.sweepfile.resolve import load_sweep, parse_sweep
from autotune.sweepfile.syntax import read_file
from autotune.tasks import group_of
from benchmarks.olive_files import own, public

TRAINED: dict[str, Any] = {
    "input_model": {"type": "HfModel", "model_path": "owner/m"},
    "data_configs": [
        {"name": "d", "type": "HuggingfaceContainer",
         "load_dataset_config": {"data_name": "json", "data_files": "rows.json", "split": "train[:90%]"},
         "pre_process_data_config": {"text_template": "{q}\n{a}", "max_seq_len": 64, "strategy": "line-by-line"}},
    ],
    "passes": {
        "l": {"type": "LoRA", "train_data_config": "d", "training_args": {"max_steps": 5}},
        "b": {"type": "ModelBuilder", "precision": "int4"},
    },
}  # fmt: skip


def read(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The sweep, and what is refused with its remedy; every key has one fate, and a sweep that is read is one."""
    imported = read_olive(document)
    assert [path for path, _ in imported.ledger.account()] == [path for path in leaves(document) if path]
    refused = {
        text_of(entry.path): f"{entry.why}; {entry.remedy}"
        for entry in imported.ledger.entries.values()
        if entry.fate == "refused"
    }
    if not refused:
        parse_sweep(imported.sweep)
    return imported.sweep, refused


def trained(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The configuration with other data."""
    return {**copy.deepcopy(TRAINED), "data_configs": [{"name": "d", "type": "HuggingfaceContainer", **data}], **more}


def texts(**given: Any) -> dict[str, Any]:
    """The configuration whose rows become texts in another way."""
    rows = {"data_name": "json", "data_files": "rows.json", "split": "train"}
    return trained({"load_dataset_config": rows, "pre_process_data_config": given})


# --- data of before June 2024 ----------------------------------------------------------------------------------------

_ROWS = {"data_name": "json", "data_files": "rows.json", "split": "train[:90%]"}
_TEXTS = {"text_template": "{q}\n{a}", "source_max_len": 64}
OLDER: dict[str, dict[str, Any]] = {
    "kwargs of components": {"params_config": {**_ROWS, "component_kwargs": {"pre_process_data": _TEXTS}}},
    "one mapping": {"params_config": {**_ROWS, **_TEXTS, "batch_size": 2}},
    "components": {"components": {"load_dataset": {"type": "huggingface_dataset", "params": _ROWS},
                                  "pre_process_data": {"params": _TEXTS}, "dataloader": {"params": {"batch_size": 2}}}},
    "what counts first": {"params_config": {"split": "test", "data_name": "json", "data_files": "rows.json",
                          "component_kwargs": {"load_dataset": {"split": "train[:90%]"}, "pre_process_data": _TEXTS}},
                          "components": {"load_dataset": {"params": {"data_files": "others.json"}}}},
}  # fmt: skip


@pytest.mark.parametrize("name", OLDER)
@pytest.mark.parametrize("script", [False, True])
def test_data_in_an_older_spelling_is_the_same_sweep(name: str, script: bool) -> None:
    """A script that the file names registers components: none of them is named, so none is needed."""
    data = {**OLDER[name], **({"user_script": "user_script.py"} if script else {})}
    sweep, refused = read(trained(data))
    assert refused == {}
    assert sweep == read(TRAINED)[0]
    listed = {**trained(data), "data_configs": {"d": {"name": "another", **trained(data)["data_configs"][0]}}}
    del listed["data_configs"]["d"]["name"]
    assert read(listed)[0] == sweep


def test_rows_that_a_script_loads_are_refused_at_their_component_alone() -> None:
    data = {
        "user_script": "user_script.py", "components": {"load_dataset": {"type": "load_tiny_code_dataset"}},
        "params_config": {"data_name": "owner/codes", "split": "train",
                          "component_kwargs": {"load_dataset": {"language": "Python"}, "pre_process_data": _TEXTS}},
    }  # fmt: skip
    _, refused = read(trained(data))
    assert list(refused) == ["data_configs[0].components.load_dataset.type"]
    assert "load_tiny_code_dataset" in str(refused)
    assert "save the rows as a jsonl file" in str(refused)


def test_an_unknown_component_and_parts_of_another_kind_are_refused() -> None:
    for data, key in (
        ({"params_config": [1], "load_dataset_config": _ROWS}, "data_configs[0].params_config"),
        ({"components": {"loader": {"type": "x"}}, "load_dataset_config": _ROWS}, "data_configs[0].components.loader"),
    ):
        assert list(read(trained(data))[1]) == [key]


def test_rows_are_joined_where_a_file_of_that_age_says_so() -> None:
    """Today's Olive joins rows where a file is silent; until August 2024 it did not."""
    for given, joined in (
        ({"text_template": "{q}\n{a}"}, True),
        ({"text_template": "{q}\n{a}", "source_max_len": 64}, False),
        ({"text_template": "{q}\n{a}", "dataset_type": "corpus"}, False),
        ({"text_template": "{q}\n{a}", "source_max_len": 64, "corpus_strategy": "join-random"}, True),
    ):
        assert read_olive(texts(**given)).joined == joined, given


@pytest.mark.parametrize(
    ("given", "prompt", "completion"),
    [
        ({"dataset_type": "pair"}, "{input}", "{output}"),
        ({"pair_format": "default"}, "{input}", "{output}"),
        ({"dataset_type": "pair", "pair_format": "self_instruct"}, "{prompt}", "{completion}"),
        ({"pair_format": "custom", "input_col": "q", "output_col": "a"}, "{q}", "{a}"),
        ({"dataset_type": "pair", "input_template": "Q: {q}\nA:", "output_template": " {a}"}, "Q: {q}\nA:", " {a}"),
        ({"input_cols": ["t", "q"], "target_cols": ["a"]}, "{t} {q}", "{a}"),
    ],
)  # fmt: skip
def test_pairs_are_prompts_and_answers_and_the_loss_is_on_answers(
    given: dict[str, Any], prompt: str, completion: str
) -> None:
    sweep, refused = read(texts(**given, source_max_len=100, target_max_len=28))
    assert refused == {}
    assert (sweep["data"]["prompt"], sweep["data"]["completion"]) == (prompt, completion)
    assert sweep["train"] == {"max_length": 128, "loss_on": "completion"}
    whole, _ = read(texts(**given, source_max_len=100, ignore_source_in_labels=False))
    assert whole["train"] == {"max_length": 100, "loss_on": "text"}


@pytest.mark.parametrize("form", ["alpaca", "chip2", "custom"])
def test_a_format_of_pairs_without_a_template_is_refused(form: str) -> None:
    _, refused = read(texts(dataset_type="pair", pair_format=form, source_max_len=64))
    assert list(refused) == ["data_configs[0].pre_process_data_config.pair_format"]
    assert "input_template and output_template" in str(refused)


# --- what others call a key, and where they write it -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_length", "max_seq_length", "seq_len", "source_max_len"])
def test_the_length_of_a_text_has_many_names(name: str) -> None:
    assert read(texts(text_template="{q}\n{a}", **{name: 77}))[0]["train"]["max_length"] == 77


@pytest.mark.parametrize(
    ("part", "name", "remedy"),
    [
        ("load_dataset_config", "dataset_name", "did you mean 'data_name'?"),
        ("load_dataset_config", "config_name", "did you mean 'subset'?"),
        ("load_dataset_config", "file", "did you mean 'data_files'?"),
        ("load_dataset_config", "start", "behind the split, such as train[:1000]"),
        ("load_dataset_config", "length", "behind the split, such as train[:1000]"),
        ("load_dataset_config", "text_template", "move it to pre_process_data_config"),
        ("load_dataset_config", "max_length", "move it to pre_process_data_config"),
        ("load_dataset_config", "batch_size", "training_args say how items are batched"),
        ("pre_process_data_config", "split", "move it to load_dataset_config"),
        ("pre_process_data_config", "Prompt-Template", "did you mean 'text_template'?"),
        ("pre_process_data_config", "text_column", "did you mean 'text_cols'?"),
        ("pre_process_data_config", "num_samples", "did you mean 'max_samples'?"),
        ("", "data_name", "move it to load_dataset_config"),
        ("", "dataset_name", "write it as data_name in load_dataset_config"),
        ("", "text_template", "move it to pre_process_data_config"),
    ],
)  # fmt: skip
def test_an_unknown_key_of_data_is_told_its_name_or_its_place(part: str, name: str, remedy: str) -> None:
    document = copy.deepcopy(TRAINED)
    data = document["data_configs"][0]
    (data[part] if part else data)[name] = 1
    _, refused = read(document)
    key = f"data_configs[0].{part}{'.' if part else ''}{name}"
    assert list(refused) == [key]
    assert remedy in refused[key]


def test_a_data_set_without_a_split_is_that_which_olive_takes() -> None:
    imported = read_olive(trained({"load_dataset_config": {"data_name": "owner/x"}}))
    assert imported.sweep["data"]["train"] == {"dataset": "owner/x", "split": "validation"}
    assert any("no split is named" in note for note in imported.notes)
    sweep, _ = read(trained({"load_dataset_config": {"data_name": "json", "data_files": "rows.json"}}))
    assert sweep["data"]["train"] == "rows.json"


@pytest.mark.parametrize("kind", ["vision_vqa_pre_process", "my_own_function", "audio_classification_pre_process"])
def test_what_makes_texts_by_code_is_refused_at_its_type(kind: str) -> None:
    _, refused = read(texts(type=kind, text_template="{q}\n{a}"))
    assert list(refused) == ["data_configs[0].pre_process_data_config.type"]
    assert kind in str(refused)
    for plain in ("text_generation_huggingface_pre_process", "huggingface_pre_process"):
        assert read(texts(type=plain, text_template="{q}\n{a}"))[1] == {}


# --- evaluators, passes and models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [{}, {"type": "LMEvaluator"}, {"name": "lm"}])
@pytest.mark.parametrize("nested", [False, True])
def test_an_evaluator_with_tasks_is_one_of_lm_eval(kind: dict[str, str], nested: bool) -> None:
    given = {"tasks": ["arc_easy"], "limit": 10}
    evaluator = {**kind, **({"type_args": given} if nested else given)}
    sweep, refused = read({**copy.deepcopy(TRAINED), "evaluators": {"e": evaluator}, "evaluator": "e"})
    assert refused == {}
    assert (sweep["data"]["metric"], sweep["data"]["max_items"]) == ("lm-eval:arc_easy", {"validation": 10})
    _, refused = read({**copy.deepcopy(TRAINED), "evaluator": {**kind, "tasks": ["a", "b"]}})
    assert "scored by one task" in refused["evaluator.tasks"]


def test_several_tasks_of_lm_eval_are_refused_with_the_file_that_makes_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Olive reports all of them and ranks none; the file in the remedy is taken as it stands."""
    pytest.importorskip("lm_eval")
    monkeypatch.chdir(tmp_path)
    tasks = ["arc_challenge", "arc_easy", "mmlu", "hellaswag", "mmlu_stem", "openbookqa"]
    evaluator = {"type": "LMEvaluator", "tasks": tasks}
    refused = read({**copy.deepcopy(TRAINED), "evaluator": evaluator})[1]["evaluator.tasks"]
    lines = re.search(r"write (group: mine), (task: \[.*?\]), (aggregate_metric_list: \[.*?\]) into a file", refused)
    assert lines is not None
    Path("mine.yaml").write_text("\n".join(lines.groups()), encoding="utf-8")
    group = group_of("lm-eval:mine.yaml", Path("mine.yaml"))
    assert group is not None
    assert {"arc_easy", "hellaswag", "mmlu_abstract_algebra"} <= {one.config["task"] for one in group.members}
    assert not group.weighted
    sweep, refused = read({**copy.deepcopy(TRAINED), "evaluator": {**evaluator, "tasks": ["mine.yaml"]}})
    assert (refused, sweep["data"]["metric"]) == ({}, "lm-eval:mine.yaml")
    parse_sweep(sweep)


def test_a_group_of_lm_eval_is_scored_as_a_whole_and_a_limit_of_each_of_its_tasks_is_told() -> None:
    pytest.importorskip("lm_eval")
    evaluator = {"type": "LMEvaluator", "tasks": ["mmlu_stem"], "limit": 200}
    imported = import_olive({**copy.deepcopy(TRAINED), "evaluator": evaluator}, "olive.json")
    assert imported.sweep["data"]["metric"] == "lm-eval:mmlu_stem"
    parse_sweep(imported.sweep)
    said = "evaluator.limit: of all tasks of the group together, where Olive takes as many of each"
    assert said in imported.notes
    alone = import_olive({**copy.deepcopy(TRAINED), "evaluator": {**evaluator, "tasks": ["arc_easy"]}}, "olive.json")
    assert not any("evaluator.limit" in note for note in alone.notes)


def test_a_task_that_is_described_and_an_evaluator_that_is_unknown_are_refused_once() -> None:
    task = {"task": "wmt18-zh-en", "dataset_path": "wmt/wmt18"}
    for evaluator, key in (
        ({"type": "LMEvaluator", "tasks": [task], "limit": 5, "batch_size": 1}, "evaluator.tasks"),
        ({"type": "MTEBEvaluator", "tasks": ["STS17"], "batch_size": 1}, "evaluator.type"),
    ):
        assert list(read({**copy.deepcopy(TRAINED), "evaluator": evaluator})[1]) == [key]
    assert (
        "lm-eval:tasks/mine.yaml"
        in read({**copy.deepcopy(TRAINED), "evaluator": {"tasks": [task]}})[1]["evaluator.tasks"]
    )


def test_a_second_evaluator_is_refused_where_it_is_named() -> None:
    metric = {"name": "m", "type": "latency", "sub_types": [{"name": "avg", "priority": 1}]}
    document = copy.deepcopy(TRAINED)
    document["passes"]["b"]["evaluator"] = "other"
    evaluators = {"one": {"metrics": [metric]}, "other": {"metrics": [{**metric, "name": "n"}]}}
    _, refused = read({**document, "evaluators": evaluators, "evaluator": "one"})
    assert list(refused) == ["passes.b.evaluator"]


def test_columns_of_texts_alone_are_plain_text() -> None:
    sweep, refused = read(texts(input_cols=["body"], seqlen=96))
    assert refused == {}
    assert (sweep["data"]["text"], sweep["train"]["max_length"]) == ("{body}", 96)


def test_the_older_name_of_the_model_builder() -> None:
    document = copy.deepcopy(TRAINED)
    document["passes"]["b"] = {"type": "GenAIModelExporter", "config": {"precision": "int4"}}
    assert read(document) == read(TRAINED)


def test_a_script_that_names_inputs_of_a_model_is_not_needed() -> None:
    config = {"hf_config": {"model_name": "owner/m", "task": "text-generation"}, "model_script": "user_script.py",
              "io_config": "get_io_config", "dummy_inputs_func": "dummy_inputs"}  # fmt: skip
    document = {**copy.deepcopy(TRAINED), "input_model": {"type": "PyTorchModel", "config": config}}
    assert read(document) == read(TRAINED)
    document["input_model"]["config"]["model_loader"] = "load"
    _, refused = read(document)
    assert sorted(key.rpartition(".")[2] for key in refused) == ["model_loader"]


ENCODERS: list[tuple[dict[str, Any], str]] = [
    ({"type": "HfModel", "model_path": "owner/any", "task": "text-classification"}, "input_model.task"),
    ({"type": "HfModel", "model_path": "owner/any", "task": "token-classification"}, "input_model.task"),
    ({"type": "HfModel", "model_path": "owner/any", "task": "image-classification"}, "input_model.task"),
    ({"type": "HfModel", "model_path": "owner/any", "task": "automatic-speech-recognition"}, "input_model.task"),
    ({"type": "HfModel", "model_path": "Intel/bert-base-uncased-mrpc"}, "input_model.model_path"),
    ({"type": "HfModel", "model_path": "FacebookAI/xlm-roberta-large"}, "input_model.model_path"),
    ({"type": "HfModel", "model_path": "albert/albert-base-v2"}, "input_model.model_path"),
    ({"type": "HfModel", "model_path": "microsoft/deberta-v3-small"}, "input_model.model_path"),
    ({"type": "PyTorchModel", "config": {"hf_config": {"model_name": "models/mine", "model_class": "BertForSequenceClassification"}}},
     "input_model.config.hf_config.model_class"),
    ({"type": "ONNXModel", "config": {"model_path": "m.onnx"}}, "input_model.type"),
    ({"type": "CompositePyTorchModel", "config": {"model_path": "m"}}, "input_model.type"),
    ({"type": "PyTorchModel", "config": {"model_loader": "load", "model_script": "user_script.py"}}, "input_model.config.model_loader"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "key"), ENCODERS, ids=lambda value: str(value)[:60])
def test_a_model_that_generates_no_text_is_refused_once_and_passes_by_name(model: dict[str, Any], key: str) -> None:
    metric = {
        "name": "a",
        "type": "accuracy",
        "data_config": "d",
        "sub_types": [{"name": "accuracy_score", "priority": 1}],
    }
    document = trained(
        {"load_dataset_config": {"data_name": "glue", "subset": "mrpc", "split": "validation"},
         "pre_process_data_config": {"input_cols": ["sentence1", "sentence2"], "label_col": "label", "max_length": 128}},
        input_model=model, passes={"c": {"type": "OnnxConversion", "opset": 17}, "q": {"type": "OnnxQuantization"},
                                   "o": {"type": "OnnxPeepholeOptimizer"}},
        evaluators={"e": {"metrics": [metric]}}, evaluator="e",
    )  # fmt: skip
    _, refused = read(document)
    assert sorted(refused) == sorted([key, "passes.c.type", "passes.q.type"])
    assert "not taken" in refused[key] or key.endswith("model_loader")
    assert (
        refused["passes.c.type"]
        == "the pass 'OnnxConversion' has no equal here; use a language model first: the file's is not taken"
    )


@pytest.mark.parametrize(
    "name", ["o/albert-7b-chat", "gilbert/phi", "Qwen/Qwen3-0.6B", "berta-ai/llama", "robert/phi-3"]
)
def test_a_language_model_is_no_encoder_by_its_name(name: str) -> None:
    document = {**copy.deepcopy(TRAINED), "input_model": {"type": "HfModel", "model_path": name}}
    assert read(document)[1] == {}


def test_the_model_builder_exports_whatever_the_task_says() -> None:
    model = {"type": "HfModel", "model_path": "owner/m", "task": "text-classification"}
    document = {"input_model": model, "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}}}
    assert read(document)[1] == {}
    document = {**copy.deepcopy(TRAINED), "input_model": model}
    assert "write text-generation" in read(document)[1]["input_model.task"]


def test_int4_for_tensorrt_rtx_is_read() -> None:
    system = {
        "type": "LocalSystem",
        "accelerators": [{"device": "gpu", "execution_providers": ["NvTensorRTRTXExecutionProvider"]}],
    }
    builder = {"type": "ModelBuilder", "precision": "int4", "int4_algo_config": "rtn", "enable_cuda_graph": True}
    document = {
        "input_model": {"type": "HfModel", "model_path": "owner/m"}, "systems": {"s": system}, "target": "s",
        "passes": {"b": builder, "q": {"type": "MatMulNBitsToQDQ", "use_int4": True}},
    }  # fmt: skip
    for passes in (document["passes"], {"b": builder}):
        sweep, refused = read({**document, "passes": passes})
        assert (refused, sweep["target"]["provider"]) == ({}, "NvTensorRtRtx")
        (recipe,) = parse_sweep(sweep).space.recipes
        assert (recipe.precision, recipe.algorithm, recipe.use_qdq) == ("int4", "default", True)
        wide = parse_sweep(read_olive({**document, "passes": passes}, True).sweep).space
        assert recipe in wide.recipes
        assert wide.left_out == ()
        notes = read_olive({**document, "passes": passes}).notes
        assert any("int4_algo_config" in note and "default alone" in note for note in notes)


def test_a_job_runs_in_the_workspace_of_its_system_and_reads_data_of_another() -> None:
    def client(name: str) -> dict[str, str]:
        return {"subscription_id": f"sub-{name}", "resource_group": f"group-{name}", "workspace_name": name}

    files = {
        "type": "azureml_datastore",
        "azureml_client": client("rows"),
        "datastore_name": "s",
        "relative_path": "r.json",
    }
    data = {"load_dataset_config": {"data_name": "json", "data_files": files, "split": "train"},
            "pre_process_data_config": {"text_template": "{q} {a}"}}  # fmt: skip
    system = {"type": "AzureML", "accelerators": ["gpu"], "aml_compute": "c"}
    at_system = trained(data, systems={"aml": {**system, "azureml_client_config": client("jobs")}}, host="aml")
    at_top = trained(data, systems={"aml": system}, host="aml", azureml_client=client("jobs"))
    for document in (at_system, at_top):
        sweep, refused = read(document)
        assert refused == {}
        assert sweep["submit"]["azureml"]["workspace_name"] == "jobs"
        assert sweep["data"]["train"].startswith(
            "azureml://subscriptions/sub-rows/resourcegroups/group-rows/workspaces/rows/"
        )
    sweep, _ = read(trained(data, systems={"aml": system}, host="aml"))
    assert sweep["submit"]["azureml"]["workspace_name"] == "rows"


@pytest.mark.parametrize("kind", ["latency", "throughput", "size_on_disk"])
def test_scripts_of_a_timing_are_not_needed_and_those_of_a_score_are_refused(kind: str) -> None:
    sub = {"latency": "avg", "throughput": "avg", "size_on_disk": "bytes"}[kind]
    config = {"user_script": "s.py", "dataloader_func": "f", "func_kwargs": {"f": {"x": 1}}, "batch_size": 1}
    metric = {"name": "m", "type": kind, "sub_types": [{"name": sub, "priority": 1}], "user_config": config}
    assert read({**copy.deepcopy(TRAINED), "evaluator": {"metrics": [metric]}})[1] == {}
    metric |= {"type": "accuracy", "sub_types": [{"name": "accuracy_score", "priority": 1}]}
    refused = read({**copy.deepcopy(TRAINED), "evaluator": {"metrics": [metric]}})[1]
    assert list(refused) == ["evaluator.metrics[0].user_config.user_script"]


def test_rows_to_judge_on_may_be_counted() -> None:
    document = copy.deepcopy(TRAINED)
    document["passes"]["l"]["eval_dataset_size"] = 1024
    sweep, refused = read(document)
    assert (refused, sweep["data"]["max_items"]) == ({}, {"validation": 1024})
    with_task = {**document, "evaluator": {"tasks": ["arc_easy"]}}
    assert "max_items" not in read(with_task)[0]["data"], "they are none of the task's items"
    document["passes"]["l"]["eval_dataset_size"] = 1.5
    assert "a share between 0 and 1, or a number of rows" in read(document)[1]["passes.l.eval_dataset_size"]


def test_one_flow_names_the_passes_that_are_run() -> None:
    document = copy.deepcopy(TRAINED)
    document["passes"] |= {"x": {"type": "OnnxConversion", "target_opset": 17}}
    assert list(read({**document, "pass_flows": [["l", "b"]]})[1]) == []
    assert read({**document, "pass_flows": [["l", "b"]]})[0] == read(TRAINED)[0]
    for flows in ([["b", "l"]], [["l"], ["b"]], [["l", "none"]], [], [[]], "l"):
        assert "pass_flows" in read({**document, "pass_flows": flows})[1], flows


# --- as a sweep file -------------------------------------------------------------------------------------------------

READABLE = {
    name: document for name, document in {**own(), **public()}.items() if not read_olive(document).ledger.problems("")
}


@pytest.mark.parametrize("name", sorted(READABLE))
@pytest.mark.parametrize("search", [False, True])
def test_the_written_sweep_is_the_one_that_was_read_and_is_planned_as_it_is(
    name: str, search: bool, tmp_path: Path, tiny_llama: Path
) -> None:
    """With a model and rows that are here: the sweep of the Olive file and that of the written one are equal."""
    imported = import_olive(READABLE[name], "olive.json", search)
    (tmp_path / "olive.json").write_text(json.dumps(READABLE[name]), encoding="utf-8")
    text = as_yaml(imported, "olive.json")
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    assert read_file(tmp_path / "sweep.yaml", "sweep.yaml")[0] == yaml.safe_load(text) == imported.sweep
    sets = [f"model={tiny_llama}", *_rows_of(imported, tmp_path)]
    from_olive = _loaded(tmp_path / "olive.json", [*sets, *(["search=true"] if search else [])])
    written = _loaded(tmp_path / "sweep.yaml", sets)
    if isinstance(from_olive, list) or isinstance(written, list):  # such as a task that is a group
        assert written == from_olive
        return
    for sweep in (from_olive, written):
        sweep["name"] = ""
        for key in ("batch_size",):  # of the rows and their most tokens, which are another file's here
            sweep.get("space", {}).get("lora", {}).pop(key, None)
    assert written == from_olive


def _loaded(file: Path, sets: list[str]) -> dict[str, Any] | list[str]:
    """The sweep of a file, or the rules that it breaks."""
    try:
        return load_sweep(file, sets).resolved()
    except UsageError as error:
        return [problem.rule for problem in error.problems]


def _rows_of(imported: Imported, folder: Path) -> list[str]:
    """Changes of the command line that name rows which are here, with the columns that the templates name."""
    data = imported.sweep["data"]
    if str(data.get("metric", "")).startswith("lm-eval:"):
        pytest.importorskip("lm_eval")
    columns = (
        "text",
        "phrase",
        "tone",
        "Question",
        "Best Answer",
        "prompt",
        "response",
        "q",
        "a",
        "programming_language",
    )
    chat = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "this"}]
    rows = [
        {**{column: f"{column} {n % 7}" for column in columns}, "n": str(n), "turns": chat, "messages": chat}
        for n in range(60)
    ]
    for split in ("train", "validation"):
        lines = [json.dumps({**row, "text": f"{split} {row['n']}", "phrase": f"{split} {row['n']}"}) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    sets = [f"data.{split}={split}.jsonl" for split in ("train", "validation") if split in data]
    if "prompt" in data:  # else it is chosen by the rows that are meant
        sets.append("data.metric=choice")
    return [*sets, "train.max_length=64"]


@pytest.mark.parametrize("into", [None, "sweeps"])
def test_an_import_into_another_folder_names_the_same_files(
    into: str | None, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep file that is written, or printed into the folder at hand, is planned as the Olive file is."""
    for name in ("configs/dataset", "sweeps", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    rows = [json.dumps({"q": f"what {n}", "a": ("yes", "no")[n % 2]}) for n in range(40)]
    (tmp_path / "configs" / "dataset" / "rows.json").write_text("\n".join(rows), encoding="utf-8")
    shutil.copytree(tiny_llama, tmp_path / "configs" / "tiny")
    document = copy.deepcopy(TRAINED)
    document["input_model"]["model_path"] = "tiny"
    document["data_configs"][0]["load_dataset_config"]["data_files"] = "dataset/rows.json"
    (tmp_path / "configs" / "olive.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "elsewhere")
    target = Path("../sweeps/sweep.yaml") if into is not None else None
    text = import_file(Path("../configs/olive.json"), target, False)
    file = target or Path("printed.yaml")
    if target is None:
        file.write_text(text, encoding="utf-8")
    one, other = load_sweep(Path("../configs/olive.json"), []), load_sweep(file, [])
    assert (one.data.train, other.data.train) == ("dataset/rows.json[:90%]", "../configs/dataset/rows.json[:90%]")
    assert other.data.metric == one.data.metric == "choice"
    assert list(other.space.grid()) == list(one.space.grid())
