"""The evaluators of an Olive configuration: metrics with goals become objectives and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from autotune.errors import did_you_mean, shown
from autotune.metrics import METRICS, SCORES
from autotune.sweepfile.olive.data import DataConfigs, put_source, put_validation, same_rows
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.lm_tasks import names_tasks, read_tasks
from autotune.sweepfile.olive.sections import Node, Section, is_number
from autotune.sweepfile.olive.texts import put_shape

_SCORES = {
    "accuracy_score": "choice", "accuracy": "choice", "f1_score": "f1", "f1": "f1", "perplexity": "perplexity",
    "exact_match": "exact_match", "rouge": "rouge_l", "rougel": "rouge_l",
}  # fmt: skip
"""data.metric by the sub-type of an accuracy metric."""
_SERVED = {
    ("latency", "avg"): "itl_ms_p50", ("latency", "p50"): "itl_ms_p50", ("latency", "p90"): "itl_ms_p90",
    ("throughput", "avg"): "decode_tps", ("throughput", "p50"): "decode_tps", ("size_on_disk", "bytes"): "size_mb",
}  # fmt: skip
_TYPES = ("accuracy", "latency", "throughput", "size_on_disk", "custom")
_GOALS = ("threshold", "min-improvement", "percent-min-improvement", "max-degradation", "percent-max-degradation")
_SCALE = {"size_mb": 1e-6}
"""What Olive's unit is in ours, where they differ: bytes are 10^-6 MB."""
_GENERATED = "target.workload says what a timing generates"
_OTHER_TIME = "Olive times one forward pass, we the time between generated tokens"


class Wanted(NamedTuple):
    """A metric that the file ranks: its name here, and its rank."""

    metric: str
    rank: int
    node: Node


class Evaluators:
    """The evaluators of a file by name; the one that engine or passes name is read."""

    def __init__(self, draft: Draft, top: Section) -> None:
        self.draft = draft
        node = top.take("evaluators")
        self.nodes: dict[str, Node] = {}
        self.read: set[str] = set()
        if node is not None and isinstance(node.value, Mapping):
            self.nodes = {str(name): Node((*node.path, str(name)), part) for name, part in node.value.items()}
            if not self.nodes:
                draft.ledger.unneeded(node.path, "it is empty")
        elif node is not None:
            draft.ledger.refuse(node.path, "must be a mapping", "write { ... }")

    def take(self, top: Section, data: DataConfigs) -> None:
        """Set metric, objectives and limits from the evaluator that is named, and account for every key of it."""
        ledger = self.draft.ledger
        named = [node for node in (top.take("evaluator"), *self.draft.evaluators) if node is not None]
        for place, node in enumerate(named):
            if isinstance(node.value, Mapping):
                found = node
            elif isinstance(node.value, str) and node.value in self.nodes:
                found = self.nodes[node.value]
                self.read.add(node.value)
                ledger.unneeded(node.path, "the evaluator that it names is read")
            else:
                known = list(self.nodes)
                remedy = did_you_mean(str(node.value), known) if known else "add it to evaluators"
                ledger.refuse(node.path, f"there is no evaluator {shown(node.value)}", remedy)
                continue
            if place and found.value != named[0].value and found.path != self._first(named[0]):
                ledger.refuse(node.path, "every candidate is judged by one evaluator", "name one for all passes")
                if not isinstance(node.value, Mapping):
                    ledger.pass_over(found.path, found.value, "another evaluator judges every candidate")
            elif not place:
                self._read(found, data)
        for name, node in self.nodes.items():
            if name not in self.read:
                ledger.unneeded(node.path, "nothing names this evaluator")

    def _first(self, node: Node) -> Any:
        return self.nodes[node.value].path if isinstance(node.value, str) and node.value in self.nodes else node.path

    def _read(self, node: Node, data: DataConfigs) -> None:
        section = Section(self.draft.ledger, node, ("config", "type_args"))
        section.unneeded({"name": "the evaluator is named where it stands"})
        kind = section.take_text("type")
        if kind is not None and kind.value.lower() == "lmevaluator":
            self.draft.ledger.map(kind.path, "data.metric")
        if (kind is not None and kind.value.lower() == "lmevaluator") or (kind is None and names_tasks(section)):
            read_tasks(self.draft, section)
            return
        if kind is not None and kind.value.lower() not in ("oliveevaluator", "onnxevaluator", "pytorchevaluator"):
            remedy = "use LMEvaluator, or metrics of the types accuracy, latency, throughput and size_on_disk"
            self.draft.ledger.refuse(kind.path, f"there is no evaluator of the type {shown(kind.value)}", remedy)
            self.draft.ledger.pass_over(node.path, node.value, "the evaluator is refused")
            return
        if kind is not None:
            self.draft.ledger.unneeded(kind.path, "every build is scored on its provider")
        code = ("no code of a file is run", "write the metric as a function of one text: data.metric: module:function")
        section.refuse(dict.fromkeys(("user_script", "script_dir", "evaluator_script"), code))
        metrics = section.take("metrics")
        section.close("an evaluator")
        if metrics is None or not isinstance(metrics.value, list):
            place = metrics.path if metrics is not None else section.path
            self.draft.ledger.refuse(place, "needs a list of metrics", "add metrics")
            return
        subs: list[tuple[_Metric, str, Node]] = []
        for at, part in enumerate(metrics.value):
            metric = _Metric(self.draft, data, Node((*metrics.path, at), part))
            subs += [(metric, of, sub) for of, sub in metric.read()]
        wanted: list[Wanted] = []
        for metric, of, sub in sorted(subs, key=_rank_of):  # one score is counted: that which the file ranks first
            wanted += metric.read_sub(of, sub)
        if not metrics.value:
            self.draft.ledger.refuse(metrics.path, "needs at least one metric", "add one")
        self._rank(wanted)

    def _rank(self, wanted: list[Wanted]) -> None:
        """Set the objectives in the order of their ranks."""
        draft = self.draft
        ordered = sorted(wanted, key=lambda one: one.rank)
        names = list(dict.fromkeys(one.metric for one in ordered))
        if not names:
            return
        for one in ordered:
            draft.put("objectives", {name: METRICS[name].direction for name in names}, one.node)


def _rank_of(sub: tuple[_Metric, str, Node]) -> float:
    """Return by what sub-types are read in turn: scores by their rank, then what ranks nothing, then all that is no score."""
    _, kind, node = sub
    rank = node.value.get("priority") if isinstance(node.value, Mapping) else None
    if kind != "accuracy":
        return math.inf
    return float(rank) if rank is not None and is_number(rank) and rank > 0 else 1e300


class _Metric:
    """One metric of an evaluator."""

    def __init__(self, draft: Draft, data: DataConfigs, node: Node) -> None:
        self.draft, self.data, self.node = draft, data, node
        self.ledger = draft.ledger

    def read(self) -> list[tuple[str, Node]]:
        """Return its sub-types, each with the type of the metric."""
        section = Section(self.ledger, self.node, ("user_config",))
        section.unneeded(
            {
                "name": "metrics are named by what they measure",
                "backend": "scores are computed here",
                "sample_log_num": "outcomes/ has the outcome of every item",
                "sample_log_dir": "outcomes/ has the outcome of every item",
                "inference_settings": "a session says how a build is served: space.session",
                "io_bind": "ONNX Runtime GenAI binds inputs and outputs",
                "shared_kv_buffer": "ONNX Runtime GenAI shares the buffer",
                "run_kwargs": "ONNX Runtime GenAI runs the model",
                "batch_size": _GENERATED,
                "data_dir": "a data config says which data",
                "dataloader_func": "a data config says which data",
                "func_kwargs": "a data config says which data",
            }
        )
        kind = section.take_text("type")
        name = kind.value.lower() if kind is not None else ""
        if name not in _TYPES or name == "custom":
            self._refuse(section, kind)
            return []
        assert kind is not None
        self.ledger.unneeded(kind.path, "the sub-types say what is measured")
        code = ("no code of a file is run", "write the metric as a function of one text: data.metric: module:function")
        scripts = (
            "user_script", "script_dir", "evaluate_func", "evaluate_func_kwargs", "metric_func", "metric_func_kwargs",
            "post_processing_func",
        )  # fmt: skip
        if name == "accuracy":
            section.refuse(dict.fromkeys(scripts, code))
        else:
            section.unneeded(dict.fromkeys(scripts, _GENERATED))
        named, subs = section.take("data_config"), section.take("sub_types")
        section.close("a metric")
        if named is not None:
            self._read_data(name, named)
        if subs is None or not isinstance(subs.value, list) or not subs.value:
            place = subs.path if subs is not None else section.path
            self.ledger.refuse(place, "needs a list of sub_types", 'add e.g. [{"name": "avg", "priority": 1}]')
            return []
        return [(name, Node((*subs.path, at), part)) for at, part in enumerate(subs.value)]

    def _refuse(self, section: Section, kind: Node | None) -> None:
        place = kind.path if kind is not None else section.path
        if kind is not None and kind.value.lower() == "custom":
            remedy = "write it as a function of one text, and name it in data.metric: module:function"
            self.ledger.refuse(place, "a function of a whole model is not called here", remedy)
        else:
            value = kind.value if kind is not None else None
            rule = f"there is no metric of the type {shown(value)}"
            self.ledger.refuse(place, rule, did_you_mean(str(value), _TYPES))
        section.unneeded(dict.fromkeys(list(section.nodes), "the metric is refused"))

    def _read_data(self, kind: str, named: Node) -> None:
        """Score on the data that an accuracy metric names, where its texts are those of the training data."""
        draft = self.draft
        if kind != "accuracy":
            self.ledger.unneeded(named.path, _GENERATED)
            return
        found = self.data.find(named)
        if found is None:
            self.ledger.unneeded(named.path, "the data that it names is refused")
            return
        if draft.get("data.train") is None:
            put_source(draft, "data.train", found, named)
            put_shape(draft, found.shape)
        elif draft.get("data.train") == found.source and same_rows(draft, found):
            why = "the rows held out of the training data are scored"
            self.ledger.unneeded(named.path, why)
            self.data.pass_over(named, why)
        elif draft.get("data.validation") in (None, found.source) and draft.get("data.holdout") is None:
            same = all(
                draft.get(f"data.{name}") == value for name, value in found.shape.data.items() if name != "metric"
            )
            if not same:
                self.ledger.refuse(
                    named.path, "makes other texts than the training data", "give both the same template"
                )
                self.data.pass_over(named)
                return
            put_validation(draft, found, named)
        else:
            self.ledger.refuse(
                named.path, "the rows that candidates are scored on are named already", "keep one of them"
            )
            self.data.pass_over(named)

    def read_sub(self, kind: str, node: Node) -> list[Wanted]:
        """Set the limit of a sub-type's goal; return what of it is ranked."""
        section = Section(self.ledger, node)
        name = section.take_text("name")
        rank, goal = section.take_number("priority", whole=True), section.take_section("goal")
        higher = section.take_flag("higher_is_better")
        settings = section.take_section("metric_config")
        if settings is not None:
            why = "a timing goes on until its interval is narrow, or scores are computed here"
            settings.unneeded(dict.fromkeys(list(settings.nodes), why))
        section.close("a sub-type")
        if name is None:
            self.ledger.refuse(node.path, "needs a name", "add one")
            return []
        ranked = rank is not None and rank.value > 0
        to = "objectives" if ranked else "limits" if goal is not None else ""
        metric = self._metric(kind, name, to)
        if metric is None:
            for left in (rank, higher, *(goal.rest() if goal is not None else ())):
                if left is not None:
                    self.ledger.unneeded(left.path, "the sub-type is not measured")
            return []
        if higher is not None and higher.value != (METRICS[metric].direction == "maximize"):
            rule = f"{metric} is {METRICS[metric].direction}d, by its meaning"
            self.ledger.refuse(higher.path, rule, "remove the key")
        elif higher is not None:
            self.ledger.unneeded(higher.path, "each metric has its direction")
        if goal is not None:
            self._read_goal(metric, goal)
        if rank is not None and not ranked:
            self.ledger.unneeded(rank.path, "it is measured, and ranks nothing")
        return [Wanted(metric, int(rank.value), rank)] if rank is not None and ranked else []

    def _metric(self, kind: str, name: Node, to: str) -> str | None:
        """Return what is measured here for a sub-type; `to`: what it decides, and one that decides nothing may be unknown."""
        sub, counts = name.value.lower(), bool(to)
        if kind == "accuracy" and sub in _SCORES:
            own = _SCORES[sub]
            had = self.draft.get("data.metric")
            if had in (None, own):
                self.draft.put("data.metric", own, name)
                return SCORES[own]
            if counts:
                rule = f"one score is counted, and data.metric is {had} already"
                self.ledger.refuse(name.path, rule, "keep one of them")
            else:
                self.ledger.unneeded(name.path, f"one score is counted, and that is {had}", tell=True)
            return None
        metric = _SERVED.get((kind, sub))
        if metric is not None:
            why = f"{metric}: {_OTHER_TIME}" if kind == "latency" else metric
            if counts:
                self.ledger.map(name.path, to, why, tell=kind == "latency")
            else:
                self.ledger.unneeded(name.path, f"it is measured anyway: {metric}")
            return metric
        if counts:
            known = [one for of, one in _SERVED if of == kind] if kind != "accuracy" else list(_SCORES)
            rule = f"{name.value} of {kind} is not measured here"
            self.ledger.refuse(name.path, rule, f"use {' or '.join(known)}")
        else:
            self.ledger.unneeded(name.path, "it is not measured here, and nothing depends on it")
        return None

    def _read_goal(self, metric: str, goal: Section) -> None:
        kind, value = goal.take_text("type"), goal.take("value")
        goal.close("a goal")
        if kind is None or value is None or not is_number(value.value):
            place = value.path if value is not None else goal.path
            self.ledger.refuse(place, "a goal needs a type and a number", f"write one of {', '.join(_GOALS)}")
            return
        self.ledger.unneeded(kind.path, "its value is refused")  # where it is; else both are mapped below
        number, more = float(value.value) * _SCALE.get(metric, 1.0), METRICS[metric].direction == "maximize"
        sign = ">=" if more else "<="
        share = float(value.value) / 100
        match kind.value.lower():
            case "threshold":
                bound = f"{number:.12g}"
            case "min-improvement":
                bound = f"base {'+' if more else '-'} {number:.12g}"
            case "max-degradation":
                bound = f"base {'-' if more else '+'} {number:.12g}"
            case "percent-min-improvement":
                bound = f"base * {1 + share if more else 1 - share:.12g}"
            case "percent-max-degradation":
                bound = f"base * {1 - share if more else 1 + share:.12g}"
            case other:
                self.ledger.refuse(kind.path, f"there is no goal {shown(other)}", did_you_mean(other, _GOALS))
                self.ledger.unneeded(value.path, "its type is refused")
                return
        if kind.value.lower() != "threshold" and value.value < 0:
            self.ledger.refuse(value.path, f"must be 0 or more, got {shown(value.value)}", "write the amount alone")
            return
        if kind.value.lower().startswith("percent-") and share >= 1 and more == ("degradation" in kind.value.lower()):
            rule = f"must be below 100 for {metric}, got {shown(value.value)}"
            self.ledger.refuse(value.path, rule, "write a percentage of what the untouched model has")
            return
        limits = [*(self.draft.get("limits") or []), f"{metric} {sign} {bound}"]
        self.draft.put("limits", limits, kind)
        self.draft.put("limits", limits, value)
