"""Finds the parts of a candidate in the cache or in `best/`; or makes them again, and scores those."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.errors import MachineError, Problem, UsageError
from autotune.metrics import score_column
from autotune.paths import is_folder
from autotune.pipeline.graph import Graph
from autotune.pipeline.measure import Pipeline
from autotune.pipeline.shipped import task_of
from autotune.present.recorded import AtHand, Recorded, at_hand, prepared
from autotune.present.workshop import Workshop, say
from autotune.results.folder import read_outcomes
from autotune.results.layout import ABOUT
from autotune.shipping.facts import Anew, Facts, read_json, score_of

_SAME = 1e-3
"""Likelihoods that differ by less (nats a token) count as the same."""


@dataclass(frozen=True)
class Made:
    """The parts of a candidate's model, and the items on which it can be scored."""

    parts: dict[str, Path]
    hand: AtHand
    again: bool = False
    """Whether any part was made again."""
    anew: dict[str, Anew] = field(default_factory=dict)


def make_parts(recorded: Recorded, facts: Facts, shop: Workshop, merged: bool) -> Made:
    """Return the parts of a candidate, found or made again. Raises UsageError, MachineError."""
    candidate = facts.candidate
    needed = ["onnx"] * (candidate.recipe is not None) + ["adapter"] * (candidate.lora is not None)
    if not needed:
        rule = f"candidate {candidate.id} is the untouched model, not built: there is nothing to export"
        raise UsageError(
            Problem(rule, "--candidate", str(facts.folder / "results.csv"), remedy="name another candidate")
        )
    parts = _there(recorded, facts, shop, needed)
    merged = merged and candidate.lora is not None
    if set(parts) == set(needed) and not merged:
        return Made(parts, at_hand(recorded, shop.cache.root))
    sweep, inputs = prepared(recorded, shop)
    pipeline = Pipeline(Graph(sweep, inputs), sweep.aims, shop.stages)
    graph, again, anew = pipeline.graph, False, {}
    hand = AtHand(task_of(graph), inputs.items["validation"][1])
    if set(parts) != set(needed):
        lost = " and ".join("build" if name == "onnx" else name for name in needed if name not in parts)
        say(f"the {lost} of {candidate.id} is no longer in the cache: it is made again")
        if candidate.lora is not None and "adapter" not in parts and candidate.recipe is not None:
            shop.stages.discard(graph.build_job(candidate))  # all parts are of one training
        done = pipeline.measure(candidate, items=0, timed=False, on_stage=lambda stage: say(f"{stage} ..."))
        if done.status != "ok":
            raise MachineError(
                f"candidate {candidate.id} could not be made again ({done.status}): {done.error}; the log is {shop.log}"
            )
        stored = {"onnx": done.build, "adapter": done.adapter}
        again = any(one is not None and not one.cached for one in stored.values())
        parts = {name: one.path for name, one in stored.items() if one is not None}
        anew = _scored_anew(facts, pipeline, shop) if again else {}
    if merged:
        say("merging ...")
        job = graph.merge_job(candidate).model_copy(update={"adapter_dir": parts["adapter"]})
        parts["merged"] = shop.stages(job).path
    return Made(parts, hand, again, anew)


def _there(recorded: Recorded, facts: Facts, shop: Workshop, needed: Sequence[str]) -> dict[str, Path]:
    """Return the parts that the cache has under the row's keys, or that are in `best/`."""
    keys = {"onnx": ("build", facts.row.built), "adapter": ("finetune", facts.row.adapter)}
    stored = {name: shop.cache.find_key(keys[name][0], str(keys[name][1])) for name in needed if keys[name][1]}
    parts = {name: one.path for name, one in stored.items() if one is not None}
    best = recorded.best
    if set(parts) != set(needed) and read_json(best / ABOUT).get("candidate") == facts.candidate.id:
        kept = {name: best / name for name in needed if is_folder(best / name)}
        parts = kept if set(kept) == set(needed) else parts
    return parts


def _scored_anew(facts: Facts, pipeline: Pipeline, shop: Workshop) -> dict[str, Anew]:
    """Score a model that was made again, by split. Returns the splits on which its answers differ from the recorded ones."""
    found = {}
    for split in ("validation", "test"):
        recorded = read_outcomes(facts.folder, facts.candidate.id, split)
        if recorded is None or split not in pipeline.inputs.items:
            continue
        say(f"scoring on {split} ...")
        job = pipeline.graph.score_job(facts.candidate, split)
        shop.stages.discard(job)  # the score of what was there before
        outcomes = json.loads((shop.stages(job).path / "outcomes.json").read_text(encoding="utf-8"))
        differing = _differing(recorded, outcomes)
        total = len(outcomes["ids"])
        if differing is None:
            say(f"{split}: its items are not those that were scored, so that nothing can be compared")
            differing = total
        if not differing:
            say(f"{split}: all {total} answers are as recorded")
            continue
        score = score_of(facts.metric, split, outcomes)
        column, was = score_column(facts.metric), facts.row.number(score_column(facts.metric))
        before = f", recorded {was:.3f}" if split == "validation" and was is not None else ""
        say(f"{split}: {differing} of {total} answers are not as recorded; {column} is {score.value:.3f}{before}")
        found[split] = Anew(score, outcomes, differing)
    return found


def _differing(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> int | None:
    """Return how many answers differ from the recorded ones; None if the items are not the same."""
    if list(recorded["ids"]) != list(found["ids"]):
        return None
    if "nll" in found:
        triples = zip(recorded["nll"], found["nll"], found["tokens"], strict=True)
        unlike = [abs(a - b) > _SAME * max(1, tokens) for a, b, tokens in triples]
    else:
        answers = "predicted" if "predicted" in found else "values"
        unlike = [a != b for a, b in zip(recorded.get(answers, ()), found.get(answers, ()), strict=True)]
    return sum(map(bool, unlike))
