"""A model that is shipped: the task that it was tuned for, and the jobs that score and verify it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.metrics import LABELLED, generates, is_task
from autotune.pipeline.graph import Graph, rouge_code
from autotune.shipping.task import Task
from autotune.stages.delivery_jobs import VerifyItem, VerifyJob
from autotune.stages.jobs import ScoreJob
from autotune.usercode import Code

MOST = 16
"""The most items on which a model is verified."""
_PASSES = 256
"""The most passes through the model in a verification. Each label of an item takes one, so many labels mean fewer items."""


def task_of(graph: Graph) -> Task:
    """Return the task for which the candidates of a sweep are tuned."""
    data, inputs = graph.data, graph.inputs
    return Task(
        metric=data.metric, prompt=data.prompt, completion=data.completion, messages=data.messages, text=data.text,
        where=data.where,
        labels=inputs.labels if data.metric in LABELLED else (), max_length=graph.train.max_length,
        max_new_tokens=data.max_new_tokens, stop=data.stop or (), encoding=inputs.encoding, pad=inputs.pad,
        provider=graph.target.provider, threads=graph.target.threads, device=graph.target.device,
    )  # fmt: skip


def score_job(
    task: Task,
    key: str,
    model_dir: Path,
    data: tuple[str, Path, int],
    options: str | None = None,
    code: Code | None = None,
) -> ScoreJob:
    """Return the job that scores a built model on items as the sweep would.

    `key`: digest of the model; `data`: digest, file and number of the items; `options`: of the provider.
    """
    shared: dict[str, Any] = {}
    if generates(task.metric):
        shared |= {"max_new_tokens": task.max_new_tokens, "stop": task.stop or None}
    if task.metric == "rouge_l":
        shared["code"] = rouge_code()
    if code is not None:
        shared |= {"code": code.digest, "code_file": code.file, "code_root": code.root}
    digest, file, items = data
    return ScoreJob(
        source=key, model=key, model_dir=model_dir, provider=task.provider, provider_options=options, data=digest,
        data_file=file, items=items, metric=task.metric, labels=task.labels, max_length=task.max_length,
        threads=task.threads, encoding=task.encoding, device_index=task.device, **shared,
    )  # fmt: skip


def verify_job(
    task: Task, items_file: Path, outcomes: Mapping[str, Any], folder: Path, most: int | None = None
) -> VerifyJob | None:
    """Return the job that verifies the model in `folder` on items; None where it cannot be verified.

    `outcomes`: of that model on the items of `items_file`, as the score stage wrote them. `most`: the number of items;
    None: at most `MOST`, fewer with many labels. A model that was scored on an lm-eval task cannot be verified: its items
    have no text here.
    """
    metric, labels = task.metric, task.labels
    if is_task(metric) or not (folder / "genai_config.json").is_file():
        return None
    items = {item["id"]: item for item in json.loads(items_file.read_text(encoding="utf-8"))}
    most = most or max(2, min(MOST, _PASSES // max(1, len(labels))))
    asked: list[VerifyItem] = []
    for place, name in enumerate(outcomes["ids"]):
        if len(asked) >= 8 * most or name not in items:
            continue
        given: dict[str, Any] = {"id": name, "prompt": items[name]["prompt"], "completion": items[name]["completion"]}
        if metric in LABELLED:
            given |= {"label": outcomes["predicted"][place]}
        elif generates(metric):
            given |= {"text": str(outcomes["predicted"][place])}
        else:
            given |= {"nll": outcomes["nll"][place]}
        asked.append(VerifyItem.model_validate(given))
    longest = sorted({item["completion"] for item in items.values()}, key=len, reverse=True)
    return VerifyJob(
        provider=task.provider, device_index=task.device, items=tuple(asked), most=most, labels=labels,
        completions=tuple(longest[:_LONGEST]) if generates(metric) else (), max_length=task.max_length,
        max_new_tokens=task.max_new_tokens, stop=task.stop, model_dir=folder,
    )  # fmt: skip


_LONGEST = 1000
"""The longest completions, by characters, among which the one with the most tokens is looked for."""
