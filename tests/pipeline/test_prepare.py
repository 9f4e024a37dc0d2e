"""What all candidates share, brought to files with digests, and every reason to stop before the first of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from autotune.artifacts.store import Stored
from autotune.candidate import Candidate
from autotune.distribution import pip_install
from autotune.errors import MachineError, StageError, UsageError
from autotune.pipeline import prepare as prepare_module
from autotune.pipeline.graph import Graph
from autotune.pipeline.prepare import _ORDER, check_packages, needs_network, prepare
from autotune.stages.preparation_jobs import BaseJob, DataJob, LengthsJob, MetricJob, ProbeJob, TaskJob
from autotune.stages.protocol import Job
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_hidden_layers": 2, "vocab_size": 256, "tie_word_embeddings": True,
}  # fmt: skip
PROBE = {"device": "cpu", "gpus": 0, "providers": ["CPUExecutionProvider"]}


def write_model(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    save_file({"empty": np.zeros(0, np.float32)}, folder / "model.safetensors")
    return folder


def write_data(file: Path, first: int, count: int) -> None:
    rows = [{"text": f"phrase number {n}", "tone": ("joy", "fear")[n % 2]} for n in range(first, first + count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class Fetched:
    """What `do` is to preparation: a hub that has one model and one dataset."""

    def __init__(self, folder: Path, probe: dict[str, Any] = PROBE) -> None:
        self.folder, self.probe = folder, probe
        self.jobs: list[Job] = []
        self.trouble: Callable[[Job], None] = lambda job: None

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        self.jobs.append(job)
        self.trouble(job)
        return Stored(self.folder, self.probe if isinstance(job, ProbeJob) else {}, 1.0, cached=False)

    def find(self, job: Job) -> Stored | None:
        return None

    def discard(self, job: Job) -> None: ...

    def let_go(self, *needed: Job) -> None: ...

    def pin(self, folder: Path, jobs: Sequence[Job]) -> None: ...


def sweep_in(root: Path, **keys: Any) -> Sweep:
    """Return a sweep whose files lie in `root`."""
    if not (root / "model").exists():
        write_model(root / "model")
        write_data(root / "train.jsonl", 0, 8)
        write_data(root / "validation.jsonl", 100, 4)
    document: dict[str, Any] = {
        "model": str(root / "model"),
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"},
        "space": {"lora": {"r": {"choice": [4, 8]}}, "build": [{"precision": "int8"}]},
    }
    return parse_sweep(document | keys, root=root)


def test_inputs_are_files_with_digests(tmp_path: Path) -> None:
    sweep, cache = sweep_in(tmp_path), tmp_path / "cache"
    cache.mkdir()
    again, dataset, inputs = prepare(sweep, Fetched(tmp_path), cache)
    assert again == sweep
    assert (len(dataset.train), len(dataset.validation)) == (8, 4)
    assert inputs.base_dir == tmp_path / "model"
    assert inputs.labels == ("fear", "joy") or inputs.labels == (" fear", " joy")
    assert set(inputs.items) == {"train", "validation"}
    for split, (digest, file) in inputs.items.items():
        assert file == cache / "items" / f"{digest}.json"
        assert len(json.loads(file.read_text(encoding="utf-8"))) == len(getattr(dataset, split))
    assert prepare(sweep, Fetched(tmp_path), cache)[2] == inputs


def test_lesson_4_content_decides_and_not_names(tmp_path: Path) -> None:
    sweep, cache = sweep_in(tmp_path), tmp_path / "cache"
    cache.mkdir()
    before = prepare(sweep, Fetched(tmp_path), cache)[2]
    write_data(tmp_path / "train.jsonl", 1, 8)  # edited in place
    after = prepare(sweep, Fetched(tmp_path), cache)[2]
    assert after.items["train"] != before.items["train"]
    assert after.items["validation"] == before.items["validation"]
    (tmp_path / "model" / "tokenizer.json").write_text('{"other": 1}', encoding="utf-8")
    assert prepare(sweep, Fetched(tmp_path), cache)[2].base != before.base


@pytest.mark.parametrize("memo", ["", "[]", "[1]", "null", "{"])
def test_a_damaged_memo_of_digests_is_forgotten(tmp_path: Path, memo: str) -> None:
    sweep, cache = sweep_in(tmp_path), tmp_path / "cache"
    cache.mkdir()
    before = prepare(sweep, Fetched(tmp_path), cache)[2]
    (cache / "digests.json").write_text(memo, encoding="utf-8")
    assert prepare(sweep, Fetched(tmp_path), cache)[2] == before
    assert json.loads((cache / "digests.json").read_text(encoding="utf-8"))


def networked(sweep: Sweep) -> bool:
    return needs_network(sweep.model, sweep.data, sweep.root)


def test_a_model_on_the_hub_is_fetched_and_looked_at(tmp_path: Path) -> None:
    sweep = sweep_in(tmp_path, model="owner/name")
    assert networked(sweep)
    assert not networked(sweep_in(tmp_path))
    do = Fetched(write_model(tmp_path / "fetched"))
    (tmp_path / "cache").mkdir()
    inputs = prepare(sweep, do, tmp_path / "cache")[2]
    assert inputs.base_dir == tmp_path / "fetched"
    assert [job for job in do.jobs if isinstance(job, BaseJob)] == [BaseJob(name="owner/name")]
    (tmp_path / "fetched" / "config.json").write_text(
        json.dumps(CONFIG | {"architectures": ["Other"]}), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="cannot export this architecture"):
        prepare(sweep, do, tmp_path / "cache")


def test_recipes_that_do_not_fit_a_fetched_model_are_left_out_or_refused(tmp_path: Path) -> None:
    """Not silently: a sweep without its recipes would be another sweep, of adapters alone."""
    do = Fetched(write_model(tmp_path / "fetched"))  # 96 in blocks of 32 gives 3: k_quant cannot build that
    (tmp_path / "cache").mkdir()
    k_quant = {"precision": "int4", "algorithm": "k_quant", "block_size": 32}
    both = {"lora": {"r": {"choice": [4, 8]}}, "build": [k_quant, {"precision": "int8"}]}
    sweep = prepare(sweep_in(tmp_path, model="owner/name", space=both), do, tmp_path / "cache")[0]
    assert [recipe.precision for recipe in sweep.space.recipes] == ["int8"]
    assert "even number of blocks" in sweep.space.left_out[0].reason
    for space in (both | {"build": [k_quant]}, {"build": [k_quant]}):
        with pytest.raises(UsageError, match=r"no recipe can run on this model .*even number of blocks"):
            prepare(sweep_in(tmp_path, model="owner/name", space=space), do, tmp_path / "cache")


def stop(tmp_path: Path, sweep: Sweep, do: Fetched) -> str:
    (tmp_path / "cache").mkdir(exist_ok=True)
    with pytest.raises(MachineError) as error:
        prepare(sweep, do, tmp_path / "cache")
    return str(error.value)


def test_what_this_machine_lacks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_in(tmp_path)
    none = Fetched(tmp_path, {"device": "cpu", "gpus": 0, "providers": ["AzureExecutionProvider"]})
    assert "provider cpu: this ONNX Runtime has only AzureExecutionProvider" in stop(tmp_path, sweep, none)
    cuda = sweep_in(tmp_path, train={"device": "cuda"})
    assert "PyTorch sees no CUDA device" in stop(tmp_path, cuda, Fetched(tmp_path))

    def crash(job: Job) -> None:
        raise StageError("failed", f"{job.stage}: the process crashed (SIGILL)")

    crashing = Fetched(tmp_path)
    crashing.trouble = crash
    assert stop(tmp_path, sweep, crashing) == "this machine could not be looked at: probe: the process crashed (SIGILL)"
    remote = sweep_in(tmp_path, model="owner/name")
    assert stop(tmp_path, remote, crashing) == "model owner/name: base: the process crashed (SIGILL)"
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "installed", lambda name: "" if name == "peft" else "1.0")
        assert "this machine lacks peft; install the extra" in stop(tmp_path, sweep, Fetched(tmp_path))
        patch.setattr(prepare_module, "installed", lambda name: "" if "onnxruntime" in name else "1.0")
        assert "this machine lacks onnxruntime-genai" in stop(tmp_path, sweep, Fetched(tmp_path))
    spec = {"train": "train.jsonl", "prompt": "{text}", "completion": " {tone}"}
    rouge = sweep_in(tmp_path, data=spec | {"validation": "validation.jsonl", "metric": "rouge_l"})
    task = sweep_in(tmp_path, data=spec | {"metric": "lm-eval:arc_easy"})
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "installed", lambda name: "" if name in ("rouge-score", "lm-eval") else "1.0")
        said = stop(tmp_path, rouge, Fetched(tmp_path))
        assert said.startswith("metric rouge_l needs the package rouge-score; " + pip_install("rouge"))
        said = stop(tmp_path, task, Fetched(tmp_path))
        assert said.startswith("metric lm-eval:arc_easy needs the package lm-eval; " + pip_install("lm-eval"))
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "free_disk_mb", lambda folder: 0.1)
        assert "AUTOTUNE_CACHE" in stop(tmp_path, sweep, Fetched(tmp_path))


def test_a_dataset_on_the_hub_is_fetched(tmp_path: Path) -> None:
    data = {"train": "owner/name:train", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"}
    sweep = sweep_in(tmp_path, data=data)
    assert networked(sweep)
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    write_data(fetched / "data.jsonl", 0, 8)
    do = Fetched(fetched)
    (tmp_path / "cache").mkdir()
    dataset = prepare(sweep, do, tmp_path / "cache")[1]
    assert len(dataset.train) == 8
    assert [(job.dataset, job.split) for job in do.jobs if isinstance(job, DataJob)] == [("owner/name", "train")]

    def away(job: Job) -> None:
        raise StageError("failed", "the dataset owner/name:train cannot be had")

    do.trouble = away
    assert "cannot be had" in stop(tmp_path, sweep, do)


def test_a_function_of_ones_own_is_tried_in_a_worker_and_watched(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text("def near(prediction, reference, item):\n    return 0.0\n", encoding="utf-8")
    data = {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"}
    sweep, do = sweep_in(tmp_path, data=data | {"metric": "words:near"}), Fetched(tmp_path)
    _, _, inputs = prepare(sweep, do, tmp_path)
    assert inputs.code is not None
    assert inputs.code.file in inputs.files
    tried = [job for job in do.jobs if isinstance(job, MetricJob)]
    assert [(job.metric, job.code, job.file) for job in tried] == [("words:near", inputs.code.digest, inputs.code.file)]
    assert not networked(sweep)

    def refuse(job: Job) -> None:
        if isinstance(job, MetricJob):
            raise StageError("failed", "words:near: no such luck")

    do.trouble = refuse
    with pytest.raises(UsageError, match=r"data.metric: words:near: no such luck; logs/prepare.log"):
        prepare(sweep, do, tmp_path)


def test_a_task_brings_its_own_items(tmp_path: Path) -> None:
    task = "task: tones\ndataset_path: json\ndataset_kwargs: { data_files: train.jsonl }\n"
    (tmp_path / "tones.yaml").write_text(task, encoding="utf-8")
    data = {"train": "train.jsonl", "prompt": "{text}", "completion": " {tone}", "metric": "lm-eval:tones.yaml"}
    sweep = sweep_in(tmp_path, data=data | {"max_items": {"test": 7}})
    splits = {"validation": {"digest": "v", "items": 30}, "test": {"digest": "t", "items": 7}}

    mean = True

    class WithTask(Fetched):
        def __call__(self, job: Job, timeout: float | None = None) -> Stored:
            stored = super().__call__(job, timeout)
            result = {"metric": "acc", "higher_is_better": self.probe["higher"], "splits": splits, "mean": mean}
            return Stored(stored.path, result, 1.0, cached=False) if isinstance(job, TaskJob) else stored

    do = WithTask(tmp_path, PROBE | {"higher": True})
    prepared, dataset, inputs = prepare(sweep, do, tmp_path)
    candidate = Candidate(recipe=prepared.space.recipes[0])
    assert "parts" not in Graph(prepared, inputs).score_job(candidate, "test").described()["inputs"]
    assert (len(dataset.train), dataset.validation) == (8, ())
    assert inputs.items["validation"] == ("v", tmp_path / "validation.json")
    assert (inputs.counts["validation"], inputs.counts["test"]) == (30, 7)
    assert inputs.code is not None
    assert {file.name for file in inputs.code.files} == {"tones.yaml", "train.jsonl"}
    assert [job.max_test for job in do.jobs if isinstance(job, TaskJob)] == [7]
    mean = False  # each item's part in the score is asked for
    prepared, _, others = prepare(sweep, do, tmp_path)
    assert Graph(prepared, others).score_job(candidate, "test").described()["inputs"]["parts"] is True
    with pytest.raises(UsageError, match=r"objectives.lm_eval: acc of this task is minimized, .*lm_eval: minimize"):
        prepare(sweep, WithTask(tmp_path, PROBE | {"higher": False}), tmp_path)
    assert not networked(sweep)
    assert networked(sweep_in(tmp_path, data=data | {"metric": "lm-eval:arc_easy"}))


class Counted(Fetched):
    """Counts the lengths of the items without a tokenizer."""

    def __call__(self, job: Job, timeout: float | None = None) -> Stored:
        stored = super().__call__(job, timeout)
        found = {"prompt_tokens": [1, 2, 3, 4, 5, 6, 7, 8], "new_tokens": [2, 2, 2, 3, 3, 3, 4, 60], "context": 62}
        return replace(stored, result=found) if isinstance(job, LengthsJob) else stored


def test_lengths_are_drawn_once_for_the_workloads_that_ask(tmp_path: Path) -> None:
    workloads = {
        "chat": {"prompt_tokens": "data", "new_tokens": "data"},
        "long": {"prompt_tokens": 50},
        "b": {"new_tokens": "data"},
    }
    sweep, do = sweep_in(tmp_path, target={"workloads": workloads}), Counted(tmp_path)
    (tmp_path / "cache").mkdir()
    inputs = prepare(sweep, do, tmp_path / "cache")[2]
    jobs = [job for job in do.jobs if isinstance(job, LengthsJob)]
    assert len(jobs) == 1
    assert (jobs[0].data, jobs[0].base, jobs[0].labels) == (inputs.items["validation"][0], inputs.base, inputs.labels)
    assert set(inputs.lengths) == {"", "@b"}
    drawn = inputs.lengths[""]
    assert sorted(prompt for prompt, _ in drawn) == [1, 2, 2, 4, 5, 6, 7, 8], "where 60 follow, 2 is all that fits"
    assert sorted(new for _, new in drawn) == [2, 2, 2, 3, 3, 3, 4, 60]
    assert [prompt for prompt, new in drawn if new == 60] == [2]
    assert {prompt for prompt, _ in inputs.lengths["@b"]} == {32, 2}


def test_the_order_of_drawn_lengths_has_no_correlation() -> None:
    assert sorted(_ORDER) == list(range(8))
    assert np.corrcoef(range(8), _ORDER)[0, 1] == pytest.approx(0)


def test_what_measures_gpu_memory_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {"build": [{"precision": "fp16"}]}
    sweep = sweep_in(tmp_path, target={"provider": "cuda"}, space=space, limits=["gpu_memory_mb <= 8000"])
    monkeypatch.setattr("autotune.pipeline.prepare.installed", lambda name: "" if name == "nvidia-ml-py" else "1")
    with pytest.raises(MachineError, match="this machine lacks nvidia-ml-py"):
        check_packages(sweep)


@pytest.mark.parametrize(("changes", "window"), [({}, None), ({"sliding_window": 16}, True)])
def test_only_a_model_with_a_window_is_built_under_a_key_of_its_own(
    tmp_path: Path, changes: dict[str, Any], window: bool | None
) -> None:
    write_model(tmp_path / "model", **changes)
    write_data(tmp_path / "train.jsonl", 0, 8)
    write_data(tmp_path / "validation.jsonl", 100, 4)
    sweep, _, inputs = prepare(sweep_in(tmp_path), Fetched(tmp_path / "model"), tmp_path / "cache")
    job = Graph(sweep, inputs).build_job(Candidate(recipe=sweep.space.recipes[0]))
    assert job.whole_caches is window
    assert ("whole_caches" in job.described()["inputs"]) is (window is not None)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"warmup": 30, "steps": 20}, "30 are steps, and a training of 20 ends before: its learning rate reaches 0.65"),
        ({"warmup": {"choice": [0.1, 10, 50]}, "steps": {"choice": [40, 200]}}, "50 are steps, and a training of 40 ends"),
        ({"warmup": {"uniform": [1, 99.5]}, "steps": {"int": [60, 70]}}, "99.5 are steps, and a training of 60 ends"),
        ({"warmup": 5, "epochs": 1, "batch_size": 4}, "5 are steps, and a training of 2 ends"),  # of 8 items
        ({"warmup": 5, "epochs": {"choice": [1, 8]}, "batch_size": {"choice": [2, 4]}, "accumulation": 2}, "a training of 1 ends"),
        ({"warmup": 1000}, "1000 are steps"),  # of the default number of steps
        ({"warmup": 20, "steps": 20}, ""),
        ({"warmup": 0.9, "steps": 1}, ""),
        ({"warmup": 4, "epochs": 2, "batch_size": 4}, ""),
        ({"steps": 1}, ""),
    ],
)  # fmt: skip
def test_a_warm_up_that_outlasts_a_training_is_told(tmp_path: Path, lora: dict[str, Any], told: str) -> None:
    (tmp_path / "cache").mkdir()
    sweep = sweep_in(tmp_path, space={"lora": lora, "build": [{"precision": "int8"}]}, budget={"trials": 4})
    _, _, inputs = prepare(sweep, Fetched(tmp_path), tmp_path / "cache")
    notes = [note for note in inputs.notes if "warmup" in note]
    assert len(notes) == bool(told)
    assert told in "".join(notes)
