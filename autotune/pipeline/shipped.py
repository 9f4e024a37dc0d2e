"""What is asked of a kept winner: the answers to some items, as they are recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.metrics import LABELLED, generates, is_task
from autotune.pipeline.graph import Graph
from autotune.stages.jobs import VerifyItem, VerifyJob

MOST = 16
"""Items that are tried."""
_PASSES = 256
"""Passes through the model that this may take where each label is one: with many labels fewer items are tried."""


def verify_job(graph: Graph, split: str, outcomes: Mapping[str, Any], folder: Path) -> VerifyJob | None:
    """Return the job that tries the model in `folder` on items of a split; None where there is nothing to try.

    `outcomes`: of the winner on that split, as a score wrote them. The items of a task of lm-evaluation-harness have no
    text here.
    """
    data, inputs = graph.data, graph.inputs
    metric = data.metric
    if is_task(metric) or not (folder / "genai_config.json").is_file():
        return None
    items = {item["id"]: item for item in json.loads(inputs.items[split][1].read_text(encoding="utf-8"))}
    labels = inputs.labels if metric in LABELLED else ()
    most = max(2, min(MOST, _PASSES // max(1, len(labels))))
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
        provider=graph.target.provider, device_index=graph.target.device, items=tuple(asked), most=most, labels=labels,
        completions=tuple(longest[:_LONGEST]) if generates(metric) else (), max_length=graph.train.max_length,
        max_new_tokens=data.max_new_tokens, stop=data.stop or (), model_dir=folder,
    )  # fmt: skip


_LONGEST = 1000
"""The longest completions, by characters, among which the one with the most tokens is looked for."""
