"""The jobs of a candidate: which stages make it, check it, score it and time it.

A job names its inputs by the keys of the jobs that make them, never by paths; the executor finds the files. This module
decides which settings of the sweep go into a job. It runs nothing and looks nothing up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.metrics import LABELLED, ROUGE_TOKENS, generates, is_task, score_column
from autotune.pipeline.inputs import Inputs
from autotune.providers import Provider, installed
from autotune.space.own_stages import read_stage
from autotune.stages.inspection_findings import AS_SAVED
from autotune.stages.jobs import (
    BuildJob,
    CheckJob,
    FinetuneJob,
    MergeJob,
    OwnBuildJob,
    ScoreJob,
    TaskCheckJob,
    TaskScoreJob,
    TimeJob,
)
from autotune.sweepfile.schema import Sweep


class Graph:
    """The jobs of the candidates of one target, and the sections of the sweep that they are made from."""

    def __init__(self, sweep: Sweep, inputs: Inputs) -> None:
        self.model, self.data, self.train, self.target = sweep.model, sweep.data, sweep.train, sweep.target
        self.space, self.provider, self.seed = sweep.space, sweep.provider, sweep.seed
        self.inputs = inputs
        untouched = base_candidate(sweep.space.recipes, sweep.provider, sweep.exact)
        self.untouched = untouched.model_copy(update={"target": sweep.space.target})
        """The base model as a candidate."""

    @property
    def score(self) -> str:
        """The column of scores."""
        return score_column(self.data.metric)

    @property
    def alone(self) -> Recipe | None:
        """The recipe in which an adapter without a recipe is scored; None: PyTorch scores it."""
        return recipe_alone(self.space.recipes, self.provider, self.inputs.device)

    @property
    def _device(self) -> dict[str, Any]:
        """Where a build runs: index and hardware of the provider's device, and the label of nodes in a cluster."""
        return {
            "device_index": self.target.device,
            "hardware": self.inputs.hardware,
            "label": self.target.label,
        }

    def horizon(self, lora: Lora) -> int:
        """Return the steps of an adapter's whole training."""
        return lora.horizon(self.inputs.counts["train"])

    def session(self, candidate: Candidate) -> Session:
        """Return the session that serves a candidate: its own settings, and the target's for the rest."""
        return (candidate.session or Session()).over(self.target.session)

    def scored_as(self, candidate: Candidate) -> Candidate:
        """Return the candidate as it is scored: an adapter without a recipe may be scored as a build."""
        if candidate.lora is None or candidate.recipe is not None:
            return candidate
        return candidate.model_copy(update={"recipe": self.alone})

    def finetune_job(self, candidate: Candidate, rung: float = 1.0) -> FinetuneJob:
        """Return the job that trains a candidate's adapter up to a rung (a share of its steps, 0 to 1)."""
        lora = candidate.lora
        assert lora is not None
        horizon = self.horizon(lora) if rung < 1 else None
        stop_at = max(1, round(rung * horizon)) if horizon is not None else None
        return FinetuneJob(
            base=self.inputs.base, data=self._digest("train"), lora=lora, seed=self.seed, device=self.inputs.device,
            horizon=horizon, stop_at=stop_at, encoding=self.inputs.encoding,
            time_limit_s=self.train.time_limit_s,
        )  # fmt: skip

    def merge_job(self, candidate: Candidate, rung: float = 1.0) -> MergeJob:
        """Return the job that merges a candidate's adapter, trained to a rung, into the base model."""
        return MergeJob(adapter=self.finetune_job(candidate, rung).key, base=self.inputs.base)

    def source(self, candidate: Candidate, rung: float = 1.0) -> str:
        """Return the key of the model that a candidate is built from: the merged model's, or the base model's digest."""
        return self.inputs.base if candidate.lora is None else self.merge_job(candidate, rung).key

    def build_job(self, candidate: Candidate, rung: float = 1.0) -> BuildJob:
        """Return the job that builds a candidate, its adapter trained to a rung."""
        assert candidate.recipe is not None
        calibration: dict[str, Any] = {}
        if candidate.recipe.calibrated:
            calibration = {"data": self._digest("train"), "max_length": self.train.max_length}
        shared: dict[str, Any] = {
            "source": self.source(candidate, rung), "recipe": candidate.recipe, "provider": self.provider.builds_as,
            "whole_caches": True if self.inputs.window else None,
            "tokenizer": AS_SAVED if (self.inputs.encoding or "").endswith(AS_SAVED) else None, **calibration,
        }  # fmt: skip
        return (
            OwnBuildJob(**shared, **self._own_code(candidate.recipe))
            if candidate.recipe.own_stages
            else BuildJob(**shared)
        )

    def _own_code(self, recipe: Recipe) -> dict[str, Any]:
        """Return the fields of a build job that name the user's own stages of a recipe."""
        given: dict[str, Any] = {}
        for name, text in recipe.own_stages.items():
            code = self.inputs.stages[read_stage(text).function]
            kind = name.removesuffix("_stage")
            given |= {f"{kind}_code": code.digest, f"{kind}_file": code.file}
            given["code_root"] = given.get("code_root") or code.root
        return given

    def check_job(self, candidate: Candidate) -> CheckJob:
        """Return the job that compares a build with its source on validation items."""
        assert candidate.recipe is not None
        metric = self.data.metric
        shared: dict[str, Any] = {
            "source": self.build_job(candidate).key, "provider": self.target.provider,
            "data": self._digest("validation"), "recipe": candidate.recipe, "max_length": self.train.max_length,
            "threads": self.target.threads, "original": self.source(candidate),
            "beyond": self.inputs.beyond, "shares": True if self.provider.name != "cpu" else None, **self._device,
        }  # fmt: skip
        if is_task(metric):
            assert self.inputs.code is not None
            return TaskCheckJob(metric=metric, code_file=self.inputs.code.file, **shared)
        return CheckJob(**shared)

    def time_job(
        self, candidate: Candidate, build: str, signature: str, suffix: str = "", since: str | None = None
    ) -> TimeJob:
        """Return the job that times the build with the key `build`, served as a candidate is, in one of the workloads.

        `signature` is that of the built graph; `suffix` is for example `@long`, and empty for the first workload; `since` says
        when the machine's present pace began.
        """
        target = self.target
        workload = target.timed[suffix]
        drawn = self.inputs.lengths.get(suffix)
        prompt, new = (max(lengths) for lengths in zip(*drawn, strict=True)) if drawn else (None, None)
        return TimeJob(
            graph=signature, provider=target.provider, **self.session(candidate).model_dump(),
            prompt_tokens=prompt or workload.prompt_tokens, new_tokens=new or workload.new_tokens, lengths=drawn,
            batch=workload.batch, machine=self.inputs.machine, since=since,
            **target.timing.model_dump(), build=build, **self._device,
        )  # fmt: skip

    def score_job(self, candidate: Candidate, split: str, rung: float = 1.0) -> ScoreJob:
        """Return the job that scores a candidate on a split: as built, or in PyTorch where nothing is built."""
        metric = self.data.metric
        shared: dict[str, Any] = {
            "data": self._digest(split), "metric": metric, "max_length": self.train.max_length,
            "labels": self.inputs.labels if metric in LABELLED else (), "threads": self.target.threads,
            "items": self.inputs.counts[split], "encoding": self.inputs.encoding,
        }  # fmt: skip
        kind = TaskScoreJob if is_task(metric) else ScoreJob
        if generates(metric):
            shared |= {"max_new_tokens": self.data.max_new_tokens, "stop": self.data.stop}
        if metric == "rouge_l":
            shared["code"] = rouge_code()
        if is_task(metric):
            shared["parts"] = True if self.inputs.aggregated else None
        if (code := self.inputs.code) is not None:
            shared |= {"code": code.digest, "code_file": code.file, "code_root": code.root}
        if candidate.recipe is not None:
            source = self.build_job(candidate, rung).key
            options = self.session(candidate).provider_options
            shared |= self._device
            return kind(source=source, model=source, provider=self.target.provider, provider_options=options, **shared)
        adapter = None if candidate.lora is None else self.finetune_job(candidate, rung).key
        return kind(
            source=adapter or self.inputs.base, model=self.inputs.base, adapter=adapter, device=self.inputs.device,
            **shared,
        )  # fmt: skip

    def _digest(self, split: str) -> str:
        return self.inputs.items[split][0]


def rouge_code() -> str:
    """Return the version of the code that counts ROUGE-L: another version scores anew."""
    return f"rouge-score {installed('rouge-score')}, tokens {ROUGE_TOKENS}"


def base_candidate(recipes: Sequence[Recipe], provider: Provider, exact: Recipe | None = None) -> Candidate:
    """Return the untouched model: built at the provider's most exact precision (fp32), or not built if the sweep has no
    recipes.

    `exact`: the most exact recipe that the target's device runs, where the device was asked.
    """
    return Candidate(recipe=exact or Recipe(precision=provider.precisions[0])) if recipes else Candidate()


def recipe_alone(recipes: Sequence[Recipe], provider: Provider, device: str) -> Recipe | None:
    """Return the recipe in which an adapter without a recipe is scored; None: PyTorch scores it. Adapters train on `device`.

    On the CPU it is a build at full precision, which predicts the same as PyTorch and is several times as fast.
    """
    return base_candidate(recipes, provider).recipe if provider.name == device == "cpu" else None
