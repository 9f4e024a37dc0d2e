"""The metrics that a sweep may optimise or limit, each with its direction.

A score belongs to a model and a set of items, and has an interval; the other metrics belong to the built graph.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["maximize", "minimize"]
Kind = Literal["score", "latency", "footprint", "cost"]


@dataclass(frozen=True)
class Metric:
    """One measured quantity; `name` is its CSV column and its word in sweep files."""

    name: str
    direction: Direction
    kind: Kind
    meaning: str
    turns: bool = False
    """Whether a sweep may state either direction, because the metric has none of its own."""


_ALL = (
    Metric("accuracy", "maximize", "score", "share of items whose most likely label is the right one"),
    Metric("exact_match", "maximize", "score", "share of items whose generated text equals the completion"),
    Metric("f1", "maximize", "score", "macro F1 of the predicted labels (mean over labels, each weighing the same)"),
    Metric("perplexity", "minimize", "score", "exp of the mean negative log-likelihood of a completion token"),
    Metric("ttft_ms_p50", "minimize", "latency", "median time to the first token, milliseconds"),
    Metric("ttft_ms_p90", "minimize", "latency", "90th percentile of the time to the first token, milliseconds"),
    Metric("itl_ms_p50", "minimize", "latency", "median time between tokens, milliseconds"),
    Metric("itl_ms_p90", "minimize", "latency", "90th percentile of the time between tokens, milliseconds"),
    Metric("decode_tps", "maximize", "latency", "tokens decoded a second after the first, over the batch"),
    Metric("size_mb", "minimize", "footprint", "size of the files that ship, 10^6 bytes"),
    Metric(
        "peak_memory_mb",
        "minimize",
        "footprint",
        "peak resident memory of a fresh process that serves the model, 10^6 bytes",
    ),
    Metric("load_s", "minimize", "footprint", "time to load the model in a fresh process, seconds"),
    Metric("f1_micro", "maximize", "score", "micro F1 of the predicted labels (each item weighing the same)"),
    Metric("rouge_l", "maximize", "score", "mean over the items of the ROUGE-L F-measure of the generated text"),
    Metric(
        "custom", "maximize", "score", "mean over the items of the user's own function, module:function", turns=True
    ),
    Metric("lm_eval", "maximize", "score", "the metric of the lm-evaluation-harness task", turns=True),
    Metric(
        "gpu_memory_mb",
        "minimize",
        "footprint",
        "peak memory on the GPU of a fresh process that serves the model, 10^6 bytes",
    ),
)

PER_WORKLOAD = frozenset({m.name for m in _ALL if m.kind == "latency"} | {"peak_memory_mb", "gpu_memory_mb"})
"""The metrics that are measured for each workload of a sweep."""

WORKLOAD = re.compile(r"[a-z0-9_-]{1,32}")
"""The name of a workload."""


class _Metrics(dict[str, Metric]):
    """The metrics by name, also `itl_ms_p50@long`: that metric in the sweep's workload `long`.

    An iteration yields only the metrics themselves, without workloads.
    """

    def __missing__(self, name: str) -> Metric:
        plain, at, workload = name.partition("@")
        if not at or plain not in PER_WORKLOAD or not WORKLOAD.fullmatch(workload):
            raise KeyError(name)
        return replace(self[plain], name=name, meaning=f"{self[plain].meaning}, in the workload {workload}")

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except KeyError:
            return False


METRICS: dict[str, Metric] = _Metrics({metric.name: metric for metric in _ALL})


def beside(metric: str, what: str) -> str:
    """Return the column beside a metric's own: `beside("itl_ms_p50@long", "low")` is `itl_ms_p50_low@long`."""
    plain, at, workload = metric.partition("@")
    return f"{plain}_{what}{at}{workload}"


ENOUGH_FOR_P90 = 64
"""The least samples for a 90th percentile."""
PRECISION = 0.03
"""The half-width of a latency's interval, as a share, at which it counts as precise."""
RESOLUTION_MS = 0.1
"""A difference of so many milliseconds a token does not matter, however small the model."""

FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""A function of the user's own: `module:function`."""

TASK = "lm-eval:"
"""The prefix of a task of lm-evaluation-harness."""

# The names that `data.metric` may have beside module:function and lm-eval:task, each with its score column.
SCORES: dict[str, str] = {
    "choice": "accuracy",
    "exact_match": "exact_match",
    "f1": "f1",
    "perplexity": "perplexity",
    "f1_micro": "f1_micro",
    "rouge_l": "rouge_l",
}
ROUGE_TOKENS = 2
"""The version of ROUGE-L's tokens (`autotune.stages.rouge`): scores of another version are made anew."""
LABELLED = frozenset({"choice", "f1", "f1_micro"})
"""The metrics that choose among labels."""
SHARES = frozenset({"accuracy", "exact_match", "f1", "f1_micro", "rouge_l"})
"""The scores from 0 to 1."""
REFERENCED = frozenset({"exact_match", "rouge_l"})
"""The metrics that compare a generated text with all references of an item, and count the best."""


def is_function(metric: str) -> bool:
    """Whether `data.metric` names a function of the user's own."""
    return metric not in SCORES and FUNCTION.fullmatch(metric) is not None


def is_task(metric: str) -> bool:
    """Whether `data.metric` names a task of lm-evaluation-harness."""
    return metric.startswith(TASK) and all(part.strip() for part in metric.removeprefix(TASK).split("@", 1))


def task_of(metric: str) -> tuple[str, str]:
    """Return the task and the metric of `lm-eval:<task or file>@<metric>`; an empty metric means the task's first."""
    name, _, own = metric.removeprefix(TASK).partition("@")
    return name, own


def generates(metric: str) -> bool:
    """Whether a `data.metric` scores generated text."""
    return metric in ("exact_match", "rouge_l") or is_function(metric)


def score_column(metric: str) -> str:
    """Return the score column of a `data.metric`. Raises KeyError for an unknown metric."""
    return "lm_eval" if is_task(metric) else "custom" if is_function(metric) else SCORES[metric]
