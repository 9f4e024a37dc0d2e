"""The work of a job: the quantities on which its seconds depend, from its description and, after its end, from its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from autotune.candidate import Recipe
from autotune.metrics import ENOUGH_FOR_P90, generates
from autotune.stages.delivery_jobs import VerifyJob
from autotune.stages.jobs import BuildJob, CheckJob, FinetuneJob, ScoreJob, TimeJob, TurnsJob
from autotune.stages.protocol import Job, Result

USUAL_TOKENS = 100.0
"""The assumed number of tokens of an item, where it is unknown."""
BITS = {"fp32": 32.0, "fp16": 16.0, "bf16": 16.0, "int8": 10.0, "int4": 6.0}
"""Bits of a stored weight, about, by precision: embeddings and scales included."""
MORE_PROCESSES = 0.25
"""The share of the processes between the least and the most that a timing is expected to need."""


@dataclass(frozen=True)
class Subject:
    """The properties of a sweep on which the seconds of its jobs depend."""

    model: str = ""
    parameters: float = 0.0
    tokens: Mapping[str, float] = field(default_factory=dict)
    """By digest of a split, the mean tokens of an item."""
    answer_tokens: float = 16.0
    """Tokens that are generated for an item, where a metric generates and the sweep does not say how many."""


@dataclass(frozen=True)
class Work:
    """The quantities on which the seconds of a job depend."""

    stage: str
    kind: str
    """The same for jobs whose units take about the same time: the data, the length at which texts are cut, precision,
    metric."""
    units: float = 1.0
    """Sequences of a training, items of a score, processes of a timing; else 1."""
    tokens: float = USUAL_TOKENS
    """Tokens of a unit that the model reads at once."""
    decoded: float = 0.0
    """Tokens of a unit that the model generates one by one."""
    parameters: float = 0.0
    bits: float = 32.0
    """Bits of a stored weight, about."""
    slow: float = 1.0
    """The factor by which settings (k_quant, gradient checkpointing) make a unit slower."""
    gpu: bool = False
    known: bool = True
    """Whether the number of units is known; else 1 is assumed until the stage has run."""
    first: bool = False
    """Whether the worker has not done this stage before, and still has to import its packages."""


def work_of(
    job: Job, subject: Subject, recipes: Mapping[str, Recipe], result: Result | None = None, counts: int | None = None
) -> Work:
    """Return the work of a job; `result`: of a job that has ended, with the units that it really did; `recipes`: by the key of
    a build; `counts`: the number of training items, where it is known.
    """
    work = Work(job.stage, "", parameters=subject.parameters)
    changes: dict[str, object]
    match job:
        case FinetuneJob():
            changes = _training(job, subject, result, counts)
        case BuildJob() | CheckJob():
            changes = _build(job.recipe)
            if isinstance(job, CheckJob):
                changes |= {"tokens": subject.tokens.get(job.data, USUAL_TOKENS), "slow": 1.0}
        case ScoreJob():
            changes = _score(job, subject, recipes.get(job.source), result)
        case TimeJob():
            changes = _timing(job, recipes.get(job.build), result)
        case TurnsJob():
            changes = _turns(job, recipes, result)
        case VerifyJob():
            changes = {"units": float(job.most), "decoded": float(job.max_new_tokens or subject.answer_tokens)}
        case _:
            changes = {}
    return Work(**{**vars(work), **changes})


def processes_of(least: int, most: int, share: float = MORE_PROCESSES) -> float:
    """Return how many processes a timing is expected to take; `share`: of those between the least and the most."""
    return least + share * (most - least)


def _training(job: FinetuneJob, subject: Subject, result: Result | None, counts: int | None) -> dict[str, object]:
    lora = job.lora
    steps = (result or {}).get("step") or job.stop_at or job.horizon or lora.steps
    if steps is None and counts:
        steps = lora.horizon(counts)
    return {
        "kind": f"{job.device} {lora.dtype} {job.data[:12]} {lora.max_length}",
        "units": float((steps or 1) * lora.batch_size * lora.accumulation),
        "known": steps is not None,
        "tokens": min(subject.tokens.get(job.data, USUAL_TOKENS), lora.max_length),
        "slow": (1.3 if lora.gradient_checkpointing else 1.0) * (1.0 if lora.quantized_base == "none" else 1.5),
        "gpu": job.device == "cuda",
    }


def _build(recipe: Recipe) -> dict[str, object]:
    algorithm = recipe.algorithm or ""
    return {
        "kind": f"{recipe.precision} {algorithm}".strip(),
        "bits": BITS[recipe.precision],
        "slow": 4.0 if "k_quant" in algorithm else 1.0,
    }


def _score(job: ScoreJob, subject: Subject, recipe: Recipe | None, result: Result | None) -> dict[str, object]:
    items = (result or {}).get("items") or job.items
    decoded = float(job.max_new_tokens or subject.answer_tokens) if generates(job.metric) else 0.0
    served = f"{job.provider or 'torch'} {recipe.precision if recipe is not None else ''}".strip()
    return {
        "kind": f"{served} {job.metric} {job.data[:12]} {job.max_length}",
        "units": float(items or 1),
        "known": items is not None,
        "tokens": min(subject.tokens.get(job.data, USUAL_TOKENS), job.max_length),
        "decoded": decoded,
        "bits": BITS[recipe.precision] if recipe is not None else 32.0,
        "gpu": job.device == "cuda" if job.provider is None else job.provider != "cpu",
    }


def _sequences(job: TimeJob, least: int) -> tuple[float, float]:
    """Return how many tokens a timing process reads at once, and how many it generates one by one."""
    lengths = job.lengths or ((job.prompt_tokens, job.new_tokens),)
    gaps = sum(new - 1 for _, new in lengths)
    rounds = max(1, math.ceil(2 / len(lengths))) + max(
        math.ceil(least / len(lengths)), math.ceil(ENOUGH_FOR_P90 / max(1, gaps))
    )
    read, made = sum(prompt for prompt, _ in lengths), sum(new for _, new in lengths)
    return float(rounds * job.batch * read), float(rounds * made)


def _timing(job: TimeJob, recipe: Recipe | None, result: Result | None) -> dict[str, object]:
    count = processes_of(job.processes, job.most) - len(job.begun)
    if result is not None and "processes" in result:
        count = len(result["processes"]) - int(result.get("begun") or 0)
    tokens, decoded = _sequences(job, 2)
    precision = recipe.precision if recipe is not None else ""
    return {
        "kind": f"{job.provider} {precision} {job.threads or ''} {job.prompt_tokens} {job.new_tokens} {job.batch}",
        "units": float(max(1, count)), "tokens": tokens, "decoded": decoded,
        "bits": BITS[precision] if precision else 32.0, "gpu": job.provider != "cpu",
    }  # fmt: skip


def _turns(job: TurnsJob, recipes: Mapping[str, Recipe], result: Result | None) -> dict[str, object]:
    each = [_timing(graph, recipes.get(graph.build), None) for graph in job.graphs]
    sequences = [_sequences(graph, 8) for graph in job.graphs]
    rounds = processes_of(job.processes, job.most)
    processes = rounds * len(job.graphs)
    if result is not None and "rounds" in result:
        processes = float(sum(place is not None for round_ in result["rounds"] for place in round_))
    return {
        "kind": str(each[0]["kind"]), "units": max(1.0, processes),
        "tokens": sum(tokens for tokens, _ in sequences) / len(sequences),
        "decoded": sum(decoded for _, decoded in sequences) / len(sequences),
        "bits": sum(float(str(one["bits"])) for one in each) / len(each), "gpu": each[0]["gpu"],
    }  # fmt: skip
