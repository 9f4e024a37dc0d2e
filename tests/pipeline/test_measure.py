"""One candidate through the stages: which run, with what, in which order, and what a failure leaves."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeStages, inputs_in, make_sweep

from autotune.analysis.limits import Limit, parse_limit
from autotune.artifacts.store import Stored
from autotune.candidate import Candidate, Recipe, Session
from autotune.errors import StageError
from autotune.metrics import METRICS
from autotune.pipeline import measure as measure_module
from autotune.pipeline.graph import Graph, base_candidate, recipe_alone
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.timing_validity import Pace
from autotune.providers import PROVIDERS
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, MergeJob, ScoreJob, TaskCheckJob, TimeJob, resolved
from autotune.stages.protocol import Job
from autotune.usercode import Code

SPACE = Space({"r": Choice((8, 16))}, (), (), {"batch_size": 8, "max_length": 128, "steps": 10})
INT8, INT4 = Recipe(precision="int8"), Recipe(precision="int4")


def candidate(r: int = 8, recipe: Recipe | None = INT8) -> Candidate:
    return SPACE.candidate({"r": r}, recipe)


def make(tmp_path: Path, stages: FakeStages | None = None, **keys: Any) -> tuple[Pipeline, FakeStages]:
    stages = stages or FakeStages(tmp_path / "cache")
    sweep = make_sweep(**keys)
    return Pipeline(Graph(sweep, inputs_in(tmp_path, test=True)), sweep.aims, stages), stages


def limits(*texts: str) -> list[Limit]:
    return [parse_limit(text, METRICS) for text in texts]


def test_stages_come_in_the_order_of_their_cost(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    said: list[str] = []
    done = pipeline.measure(candidate(), on_stage=said.append)
    assert said == [job.stage for job in stages.jobs] == ["finetune", "merge", "build", "check", "time", "score"]
    assert (done.status, done.error, done.seconds) == ("ok", "", 12.0)
    assert (done.cells["kl_nats"], done.cells["greedy_agreement"], done.cells["check_items"]) == (0.01, 0.9, 16)
    assert done.cells["accuracy"] == 0.74
    assert done.cells["probability"] == pytest.approx(0.74 * math.exp(-0.2) + 0.26 * math.exp(-1.6))
    assert done.cells["size_mb"] == pytest.approx(267 + 1 / 3)
    assert done.cells["itl_ms_p50"] == pytest.approx(14.02)
    assert done.outcomes is not None
    assert len(done.curve) == 2


def test_jobs_say_what_decides(tmp_path: Path) -> None:
    target = {"provider": "cpu", "threads": 3, "workload": {"prompt_tokens": 7, "new_tokens": 5, "batch": 2}}
    pipeline, stages = make(tmp_path, target=target, seed=5, train={"time_limit_s": 77, "max_length": 99})
    pipeline.measure(candidate())
    train, merge, build, check, timing, score = stages.jobs
    assert isinstance(train, FinetuneJob)
    assert (train.base, train.data, train.seed, train.time_limit_s) == ("base digest", "train digest", 5, 77)
    assert isinstance(merge, MergeJob)
    assert (merge.adapter, merge.base) == (train.key, "base digest")
    assert merge.adapter_dir == tmp_path / "cache" / "finetune" / train.key[:12]
    assert isinstance(build, BuildJob)
    assert (build.source, build.recipe, build.provider) == (merge.key, INT8, "cpu")
    assert build.source_dir == tmp_path / "cache" / "merge" / merge.key[:12]
    assert isinstance(check, CheckJob)
    assert (check.source, check.data, check.recipe, check.max_length) == (build.key, "validation digest", INT8, 99)
    assert (check.source_dir, check.model_dir) == (build.source_dir, tmp_path / "cache" / "build" / build.key[:12])
    assert (check.provider, check.threads) == ("cpu", 3)
    assert isinstance(timing, TimeJob)
    assert (timing.graph, timing.threads, timing.machine) == (f"graph of {INT8}", 3, "machine digest")
    assert (timing.prompt_tokens, timing.new_tokens, timing.batch, timing.processes) == (7, 5, 2, 5)
    assert isinstance(score, ScoreJob)
    assert (score.source, score.data, score.metric, score.max_length) == (build.key, "validation digest", "choice", 99)
    assert (score.labels, score.threads, score.provider) == ((" fear", " joy"), 3, "cpu")


def test_a_timing_that_candidates_share_is_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, really = list[int](), measure_module.latency_cells

    def noted(processes: Any, *more: Any) -> Any:
        asked.append(len(processes))
        return really(processes, *more)

    monkeypatch.setattr(measure_module, "latency_cells", noted)
    pipeline, stages = make(tmp_path)
    first, second = pipeline.measure(candidate()), pipeline.measure(candidate(r=16))
    assert [job.stage for job in stages.jobs].count("time") == 1
    assert len(asked) == 1
    assert first.cells["itl_ms_p50"] == second.cells["itl_ms_p50"]
    assert first.timings == second.timings


def test_the_untouched_model_is_neither_trained_nor_merged(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    done = pipeline.measure(Candidate(recipe=INT4))
    assert [job.stage for job in stages.jobs] == ["build", "check", "time", "score"]
    build = stages.jobs[0]
    assert isinstance(build, BuildJob)
    assert (build.source, build.source_dir) == ("base digest", tmp_path / "base")
    assert done.adapter is None


@pytest.mark.parametrize("lora", [True, False])
def test_without_a_recipe_pytorch_scores(tmp_path: Path, lora: bool) -> None:
    pipeline, stages = make(tmp_path, build=None)
    done = pipeline.measure(candidate(recipe=None) if lora else Candidate())
    assert [job.stage for job in stages.jobs] == ["finetune", "score"] if lora else ["score"]
    score = stages.jobs[-1]
    assert isinstance(score, ScoreJob)
    assert (score.provider, score.device, score.model_dir) == (None, "cpu", tmp_path / "base")
    assert score.source == (stages.jobs[0].key if lora else "base digest")
    assert (score.adapter_dir is not None) == lora
    assert "size_mb" not in done.cells


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_adapter_alone_is_scored_as_built_for_the_cpu(tmp_path: Path, device: str) -> None:
    pipeline, stages = make(tmp_path)
    pipeline.inputs = replace(pipeline.inputs, device=device)
    pipeline.measure(candidate(recipe=None))
    built = ["merge", "build"] if device == "cpu" else []
    assert [job.stage for job in stages.jobs] == ["finetune", *built, "score"]
    score = stages.jobs[-1]
    assert isinstance(score, ScoreJob)
    assert (score.provider, score.device) == (("cpu", None) if built else (None, "cuda"))
    sweeps = (
        make_sweep(),
        make_sweep(build=[{"precision": "fp16"}], target={"provider": "cuda"}),
        make_sweep(build=None),
    )
    alone = [recipe_alone(sweep.space.recipes, sweep.provider, device) for sweep in sweeps]
    assert alone == [Recipe(precision="fp32") if built else None, None, None]


def test_a_build_that_is_there_needs_no_merge(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    pipeline.measure(candidate())
    pipeline.tidy()
    before = len(stages.jobs)
    said: list[str] = []
    done = pipeline.measure(candidate(), on_stage=said.append)
    assert stages.jobs[before:] == []
    assert said == []
    assert (done.cells["cached"], done.seconds) == ("train+build+check+time+score", 0.0)
    assert not any(name.startswith("cost_") for name in done.cells)


def test_a_check_that_is_missing_needs_the_merged_model_and_no_build(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    pipeline.measure(candidate())
    pipeline.tidy()
    stages.done.pop(pipeline.graph.check_job(candidate()).key)
    before = len(stages.jobs)
    done = pipeline.measure(candidate())
    assert [job.stage for job in stages.jobs[before:]] == ["merge", "check"]
    assert done.cells["cached"] == "train+build+time+score"
    assert (done.cells["cost_merge_s"], done.cells["cost_check_s"]) == (2.0, 2.0)


def test_a_build_is_checked_on_validation_whatever_is_scored(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    pipeline.measure(candidate())
    assert pipeline.measure(candidate(), "test").cells["cached"] == "train+build+check+time"
    assert stages.ran["check"] == 1


def test_a_build_that_is_another_model_fails_and_is_not_kept(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    stages.found = lambda job: "it repeats one token" if job.recipe == INT4 else None
    done = pipeline.measure(candidate(recipe=INT4))
    assert (done.status, done.error) == ("failed", "check: it repeats one token")
    assert (done.cells["kl_nats"], done.cells["check_items"], done.cells["cost_check_s"]) == (0.01, 16, 2.0)
    assert stages.ran["time"] == stages.ran["score"] == 0
    stages.found = lambda job: None
    assert pipeline.measure(candidate(recipe=INT4)).status == "ok"
    assert (stages.ran["build"], stages.ran["check"]) == (2, 2)


def test_a_build_that_was_found_is_not_asked_for_again(tmp_path: Path) -> None:
    """Were it evicted in between, it would be built from the base model, under the adapter's key."""

    class Evicting(FakeStages):
        def find(self, job: Job) -> Stored | None:
            found = super().find(job)
            if isinstance(job, BuildJob):
                self.done.pop(job.key, None)
            return found

    pipeline, stages = make(tmp_path, Evicting(tmp_path / "cache"))
    pipeline.measure(candidate())
    before = len(stages.jobs)
    assert pipeline.measure(candidate()).status == "ok"
    assert [job.stage for job in stages.jobs[before:]] in ([], ["merge", "build"])


def test_a_merged_model_serves_the_recipes_that_follow(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    for r, recipe in ((8, INT8), (8, INT4), (16, INT8)):
        pipeline.measure(candidate(r, recipe))
        assert len(stages.merged) == 1
    assert stages.ran["merge"] == 2
    pipeline.tidy()
    assert not stages.merged


@pytest.mark.parametrize("stage", ["finetune", "merge", "build", "check", "time", "score"])
def test_a_failure_is_a_status_and_its_time_is_booked(tmp_path: Path, stage: str) -> None:
    def trouble(job: Job) -> None:
        if job.stage == stage:
            raise StageError("timeout", "too slow")

    pipeline, stages = make(tmp_path, FakeStages(tmp_path / "cache", trouble))
    done = pipeline.measure(candidate())
    assert (done.status, done.error, done.outcomes) == ("timeout", "too slow", None)
    cost = done.cells["cost_train_s" if stage == "finetune" else f"cost_{stage}_s"]
    assert isinstance(cost, float)
    assert done.seconds == pytest.approx(2.0 * stages.ran.total() + cost)
    assert "accuracy" not in done.cells


# --- limits ----------------------------------------------------------------------------------------------------------


def test_a_known_number_ends_it_before_anything_runs(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    known = {"size_mb": 267.3, "itl_ms_p50": 14.0}
    done = pipeline.measure(candidate(), limits=limits("size_mb <= 100"), known=known)
    assert (done.status, stages.jobs) == ("over_limit", [])
    assert done.cells == known
    assert done.error == "size_mb <= 100 cannot be kept: size_mb is 267.3"
    kept = pipeline.measure(candidate(), limits=limits("size_mb <= 300"), known=known)
    assert kept.status == "ok"


def test_limits_end_it_after_the_build_and_after_the_timing(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path)
    done = pipeline.measure(candidate(), limits=limits("size_mb <= 100"))
    assert (done.status, [job.stage for job in stages.jobs]) == ("over_limit", ["finetune", "merge", "build"])
    assert "kl_nats" not in done.cells
    assert done.build is not None
    done = pipeline.measure(candidate(), limits=limits("decode_tps >= 1000"))
    assert (done.status, stages.ran["time"], stages.ran["score"]) == ("over_limit", 1, 0)
    assert done.cells["itl_ms_p50"] == pytest.approx(14.02)


def test_scores_and_unknown_numbers_end_nothing(tmp_path: Path) -> None:
    pipeline, _ = make(tmp_path)
    assert pipeline.measure(candidate(), limits=limits("accuracy >= 0.99")).status == "ok"
    relative = limits("size_mb <= base * 0.1")
    assert pipeline.measure(candidate(), limits=relative, base={}).status == "ok"
    assert pipeline.measure(candidate(), limits=relative, base={"size_mb": 540.0}).status == "over_limit"


# --- scores that are no numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nll", [[math.nan, 1.0], [math.inf, 1.0], [1e6, 1e6]])
@pytest.mark.parametrize("lora", [True, False])
def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path, nll: list[float], lora: bool) -> None:
    class Gibberish(FakeStages):
        def _do(self, job: Job, out: Path) -> dict[str, Any]:
            if not isinstance(job, ScoreJob):
                return super()._do(job, out)
            outcomes = {"ids": ["a", "b"], "nll": nll, "tokens": [1, 1]}
            (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
            return {}

    data = {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{a}", "completion": " {b}", "metric": "perplexity"}
    pipeline, _ = make(tmp_path, Gibberish(tmp_path / "cache"), data=data)
    done = pipeline.measure(candidate() if lora else Candidate(recipe=INT8))
    assert done.status == ("diverged" if lora else "failed")
    assert done.error == "score: perplexity is inf"
    assert done.outcomes is None
    assert "perplexity" not in done.cells


def test_a_build_is_checked_on_the_prompts_of_a_task(tmp_path: Path) -> None:
    data = {"train": "t.jsonl", "prompt": "{a}", "completion": " {b}", "metric": "lm-eval:arc_easy"}
    pipeline, _ = make(tmp_path, data=data)
    code = Code(tmp_path / "arc.yaml", None, "digest", ())
    pipeline.inputs = replace(pipeline.inputs, code=code)
    job = pipeline.graph.check_job(candidate())
    assert isinstance(job, TaskCheckJob)
    assert (job.metric, job.code_file, job.data) == ("lm-eval:arc_easy", code.file, "validation digest")


def test_the_probability_of_the_right_label_is_that_of_validation(tmp_path: Path) -> None:
    pipeline, _ = make(tmp_path)
    assert "probability" not in pipeline.measure(candidate(), "test").cells


def test_labels_are_part_of_a_score_only_where_they_mean_something(tmp_path: Path) -> None:
    for metric, labels in (("choice", 2), ("f1", 2), ("exact_match", 0), ("perplexity", 0)):
        data = {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{a}", "completion": " {b}", "metric": metric}
        pipeline, _ = make(tmp_path, data=data)
        assert len(pipeline.graph.score_job(candidate(), "validation").labels) == labels


def test_the_base_is_the_most_exact_build_of_its_provider() -> None:
    recipes = [Recipe(precision="int4")]
    assert base_candidate(recipes, PROVIDERS["cpu"]) == Candidate(recipe=Recipe(precision="fp32"))
    assert base_candidate([], PROVIDERS["cpu"]) == Candidate()
    assert base_candidate(recipes, PROVIDERS["dml"]) == Candidate(recipe=Recipe(precision="fp16"))
    assert base_candidate(recipes, PROVIDERS["webgpu"]).recipe is not None


def test_a_calibrated_recipe_is_built_with_the_training_items(tmp_path: Path) -> None:
    pipeline, _ = make(tmp_path)
    data, file = pipeline.inputs.items["train"]
    graph, of = pipeline.graph, candidate()
    assert of.recipe is not None
    calibrated = of.recipe.model_copy(update={"kv_cache_quant_scheme": "int8_per_tensor"})
    job = graph.build_job(of.model_copy(update={"recipe": calibrated}))
    assert (job.data, job.max_length) == (data, graph.train.max_length)
    assert resolved(job, lambda key: pipeline.inputs.places.get(key, Path(key))).data_file == file
    assert graph.build_job(of).data is None


def test_what_scores_is_part_of_a_score(tmp_path: Path) -> None:
    data = {"train": "t.jsonl", "validation": "v.jsonl", "prompt": "{a}", "completion": " {b}"}

    def job(metric: str, code: Code | None = None, **more: Any) -> ScoreJob:
        pipeline, _ = make(tmp_path, data=data | {"metric": metric} | more)
        pipeline.inputs = replace(pipeline.inputs, code=code)
        return pipeline.graph.score_job(candidate(), "validation")

    plain = job("exact_match")
    assert (plain.max_new_tokens, plain.stop, plain.code) == (None, None, None)
    short = job("exact_match", max_new_tokens=3, stop=["."])
    assert (short.max_new_tokens, short.stop) == (3, (".",))
    assert short.key != plain.key
    assert (job("rouge_l").code or "").startswith("rouge-score ")
    module = tmp_path / "words.py"
    module.write_text("def near(prediction, reference, item): ...\n", encoding="utf-8")
    keys = set()
    for digest in ("one", "two"):
        own = job("exact_match", Code(module, tmp_path, digest, (module,)))
        assert (own.code, own.code_file, own.code_root) == (digest, module, tmp_path)
        keys.add(own.key)
    assert len(keys) == 2


def test_a_build_is_scored_once_for_all_its_sessions_and_timed_in_each(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path, target={"threads": 4})
    plain = candidate()
    done = [
        pipeline.measure(plain.model_copy(update={"session": session}))
        for session in (None, Session(threads=1), Session(arena=False), Session(threads=4))
    ]
    timings = [job for job in stages.jobs if isinstance(job, TimeJob)]
    assert [(job.threads, job.arena) for job in timings] == [(4, None), (1, None), (4, False)]
    assert (stages.ran["build"], stages.ran["score"]) == (1, 1)
    assert next(job for job in stages.jobs if isinstance(job, ScoreJob)).threads == 4
    assert done[3].cells["cached"] == "train+build+check+time+score", "as the target says, by another name"
    times = [float(one.cells["itl_ms_p50"] or 0) for one in done]
    assert times[0] == times[1] == times[3] < times[2]
    assert len({one.cells["size_mb"] for one in done}) == len({one.cells["accuracy"] for one in done}) == 1


def test_options_of_a_provider_may_change_numbers_and_are_scored_by_themselves(tmp_path: Path) -> None:
    options = {"provider": "cuda", "provider_options": {"use_tf32": True}}
    pipeline, stages = make(tmp_path, target=options, build=[{"precision": "fp16"}])
    recipe = Recipe(precision="fp32")
    for session in (None, Session(threads=1), Session(provider_options="use_tf32=0")):
        pipeline.measure(Candidate(recipe=recipe, session=session))
    scores = [job.provider_options for job in stages.jobs if isinstance(job, ScoreJob)]
    assert scores == ["use_tf32=1", "use_tf32=0"]


def test_each_workload_is_timed_and_the_first_has_no_name(tmp_path: Path) -> None:
    workloads = {"chat": {"prompt_tokens": 32}, "long": {"prompt_tokens": 64, "batch": 2}}
    pipeline, stages = make(tmp_path, target={"workloads": workloads})
    done = pipeline.measure(candidate())
    assert [(job.prompt_tokens, job.batch) for job in stages.jobs if isinstance(job, TimeJob)] == [(32, 1), (64, 2)]
    cells = done.cells
    assert cells["itl_ms_p50@long"] == pytest.approx(2 * 14 + 0.02)
    assert cells["itl_ms_p50"] == pytest.approx(14.02)
    low, high = cells["itl_ms_p50_low@long"], cells["itl_ms_p50_high@long"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert low < 28.02 < high
    assert cells["peak_memory_mb@long"] == 700.0
    assert {name.partition("@")[2] for name in cells} == {"", "long"}
    assert "load_s@long" not in cells
    assert cells["cost_time_s"] == 4.0
    assert pipeline.measure(candidate()).cells["cached"] == "train+build+check+time+score"


def test_a_limit_on_a_workload_ends_a_candidate_before_the_next_is_timed(tmp_path: Path) -> None:
    workloads = {"a": {}, "b": {"prompt_tokens": 64}, "c": {"prompt_tokens": 96}}
    pipeline, stages = make(tmp_path, target={"workloads": workloads})
    done = pipeline.measure(candidate(), limits=limits("itl_ms_p50@b <= 20"))
    assert (done.status, stages.ran["time"], stages.ran["score"]) == ("over_limit", 2, 0)
    assert done.error == "itl_ms_p50@b <= 20 cannot be kept: itl_ms_p50@b is 28.02"


def test_lengths_of_the_data_are_numbers_in_the_key(tmp_path: Path) -> None:
    pipeline, stages = make(tmp_path, target={"workload": {"prompt_tokens": "data", "new_tokens": 4}})
    drawn = ((16, 4), (32, 4))
    pipeline.inputs = replace(pipeline.inputs, lengths={"": drawn})
    pipeline.measure(candidate())
    timing = next(job for job in stages.jobs if isinstance(job, TimeJob))
    assert (timing.lengths, timing.prompt_tokens, timing.new_tokens) == (drawn, 32, 4)
    assert timing.described()["inputs"]["lengths"] == [[16, 4], [32, 4]]


@pytest.mark.parametrize(("ago_s", "again"), [(5.0, 0), (86_400.0, 1), (-3600.0, 1)])
def test_a_timing_that_another_sweep_has_just_made_holds(tmp_path: Path, ago_s: float, again: int) -> None:
    """Two sweeps that run side by side: the second finds the timing before the first has said that the pace is known."""
    pipeline, stages = make(tmp_path)
    pipeline.measure(candidate())
    for key, stored in stages.done.items():
        stages.done[key] = replace(stored, made=time.time() - ago_s)
    other = Pipeline(Graph(make_sweep(), pipeline.inputs), pipeline.aims, stages, Pace(tmp_path / "empty", "machine"))
    assert other.measure(candidate()).status == "ok"
    assert stages.repeated == again
