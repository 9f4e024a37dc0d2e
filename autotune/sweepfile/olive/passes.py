"""The passes of an Olive configuration, in order: those that train, those that build, and those without an equal here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.errors import did_you_mean, shown
from autotune.providers import PROVIDERS
from autotune.sweepfile.olive.building import (
    Builds,
    build_qdq,
    read_builder,
    read_half,
    read_qdq,
    read_rounding,
    read_surgeries,
)
from autotune.sweepfile.olive.data import DataConfigs
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.engine import one_flow
from autotune.sweepfile.olive.ledger import text_of
from autotune.sweepfile.olive.sections import Node, Section
from autotune.sweepfile.olive.training import TRAINING, read_training

_EXPORT = ("onnxconversion", "orttransformersoptimization", "optimumconversion", "optimummerging")
_HALF = "onnxfloattofloat16"
_ROUNDING = ("onnxblockwisertnquantization", "onnxkquantquantization")
_REWORKED = (*_ROUNDING, "matmulnbitstoqdq", "graphsurgeries", _HALF)
"""Passes over a built graph that have an equal among the options of the model builder."""
_BUILDER = 'let ModelBuilder round the weights: "precision": "int4", and e.g. "int4_algo_config": "k_quant_mixed"'
_ROUNDED_BEFORE = f"remove the pass; {_BUILDER}"
_INTEL = "remove the pass, and use ModelBuilder: OpenVINO models are not built here"
_QUALCOMM = "remove the pass, and use ModelBuilder: models for NPUs are not built here"
_SESSION = "remove the pass; search threads, arena and mem_pattern in space.session of the sweep file"
_TENSORRT = "remove the pass, and use ModelBuilder with the provider NvTensorRTRTXExecutionProvider"
_REMEDIES = {
    "gptq": _ROUNDED_BEFORE, "gptqquantizer": _ROUNDED_BEFORE, "gptqmodel": _ROUNDED_BEFORE, "autoawqquantizer": _ROUNDED_BEFORE,
    "rtn": _ROUNDED_BEFORE, "kquant": _ROUNDED_BEFORE, "selectivemixedprecision": _ROUNDED_BEFORE, "autoclip": _ROUNDED_BEFORE,
    "quarot": _ROUNDED_BEFORE, "spinquant": _ROUNDED_BEFORE, "quarkquantization": _ROUNDED_BEFORE,
    "onnxbnb4quantization": _ROUNDED_BEFORE, "onnxhqqquantization": _ROUNDED_BEFORE, "mixedprecisionoverrides": _ROUNDED_BEFORE,
    "onnxquantization": _ROUNDED_BEFORE, "onnxdynamicquantization": _ROUNDED_BEFORE, "onnxstaticquantization": _ROUNDED_BEFORE,
    "onnxmatmul4quantizer": _ROUNDED_BEFORE, "incquantization": _ROUNDED_BEFORE, "incdynamicquantization": _ROUNDED_BEFORE,
    "incstaticquantization": _ROUNDED_BEFORE, "aimetquantization": _ROUNDED_BEFORE, "nvmodeloptquantization": _ROUNDED_BEFORE,
    "ortmixedprecision": _ROUNDED_BEFORE, "onnxquantizationpreprocess": "remove the pass: ModelBuilder needs none",
    "sparsegpt": "remove the pass: weights are not pruned here", "slicegpt": "remove the pass: models are not sliced here",
    "extractadapters": "remove the pass: the adapter is merged into the model, and lies beside it in best/ as trained",
    "loha": "use LoRA, or DoRA", "lokr": "use LoRA, or DoRA", "loftq": "use QLoRA", "sdlora": "image models are not trained here",
    "ortsessionparamstuning": _SESSION,
    "splitmodel": "remove the pass: a model is one graph", "capturesplitinfo": "remove the pass: a model is one graph",
    "staticllm": _QUALCOMM, "onnxiodatatypeconverter": "remove the pass: the model builder says the types of inputs",
    "mobiusbuilder": "use ModelBuilder", "converthftogguf": "use ModelBuilder: models are built for ONNX Runtime GenAI",
    "dynamictofixedshape": _QUALCOMM, "composeonnxmodels": "remove the pass: a model is one graph",
    "capturelayerannotations": "remove the pass: a model is one graph", "epcontextbinarygenerator": _QUALCOMM,
    "inputnchwtonhwc": "remove the pass: models of images are not built here", "ortperftuning": _SESSION,
    "nvmodeloptgraphsurgery": "remove the pass: the model builder writes the graph",
    "torchtrtconversion": _TENSORRT, "tensorrtconversion": _TENSORRT,
    "pytorchtensorparallel": "remove the pass: a model runs on one device",
    "moeexpertsdistributor": "remove the pass: a model runs on one device",
    "appendprepostprocessingops": "remove the pass: the tokenizer lies beside the graph",
    "insertbeamsearch": "remove the pass: ONNX Runtime GenAI searches, as its settings say",
    "quantizationawaretraining": "use QLoRA, which trains an adapter over a quantised base",
    "savetestmodelconfig": "remove the pass: autotune plan checks without training",
}  # fmt: skip
"""What to do about passes that have no equal."""
_FAMILIES = {
    "openvino": _INTEL,
    "qnn": _QUALCOMM,
    "qairt": _QUALCOMM,
    "vitis": _QUALCOMM,
    "ryzen": _QUALCOMM,
    "quark": _ROUNDED_BEFORE,
    "snpe": _QUALCOMM,
}
_UNNEEDED = {
    "mergeadapterweights": "every adapter is merged before it is built",
    "onnxpeepholeoptimizer": "ONNX Runtime optimises a graph as it loads it",
    "onnxmodeloptimizer": "ONNX Runtime optimises a graph as it loads it",
    "onnxscriptfusion": "the model builder writes fused operators",
    "onnxopversionconversion": "the model builder chooses the version of operators",
    "onnxdiscrepancycheck": "every build is compared with PyTorch",
    "addolivemetadata": "autotune export writes how a model was made",
}
_OLD = {
    "genaimodelexporter": "modelbuilder", "mobiusmodelbuilder": "mobiusbuilder",
    "onnxiofloat16tofloat32": "onnxiodatatypeconverter", "llamapytorchtensorparallel": "pytorchtensorparallel",
}  # fmt: skip
"""Types of today by older ones."""
_NAMES = ("LoRA", "QLoRA", "DoRA", "MergeAdapterWeights", "ModelBuilder")


def read_passes(draft: Draft, top: Section, data: DataConfigs) -> None:
    """Set `space` from the passes, and account for every key of them."""
    node = top.take("passes")
    ledger = draft.ledger
    if node is None or not isinstance(node.value, Mapping | list):
        place = node.path if node is not None else ("passes",)
        ledger.refuse(
            place, "must name at least one pass", 'add e.g. "build": {"type": "ModelBuilder", "precision": "int4"}'
        )
        return
    if not node.value:
        ledger.refuse(node.path, "must name at least one pass", 'add e.g. "build": {"type": "ModelBuilder"}')
    flow = one_flow(top.nodes.get("pass_flows"), node.value)
    left = [name for name in node.value if flow is not None and str(name) not in flow]
    for name in left:
        ledger.pass_over((*node.path, str(name)), node.value[name], "pass_flows leaves the pass out")
    members = _members(draft, node, left)
    kinds = [_kind(section) for _, section in members]
    reader = _Reader(draft, data, kinds)
    for (_, section), kind in zip(members, kinds, strict=True):
        reader.read(section, kind)
    reader.close()


def _members(draft: Draft, node: Node, left: Sequence[Any]) -> list[tuple[str, Section]]:
    """Return the passes with their names, in order, without those that are left out; one of several alternatives by its own."""
    ledger, found = draft.ledger, []
    named = node.value.items() if isinstance(node.value, Mapping) else enumerate(node.value)
    for name, value in named:
        if name in left:
            continue
        here = Node((*node.path, name if isinstance(name, int) else str(name)), value)
        parts = [here]
        if isinstance(value, list):
            parts = [Node((*here.path, place), part) for place, part in enumerate(value)]
            if not parts:
                ledger.refuse(here.path, "is empty", "remove the pass")
            if len(parts) > 1 and not draft.searching:
                rule = "has several alternatives, and search_strategy is off"
                ledger.refuse(here.path, rule, "keep one of them, or let search_strategy be true")
                continue
        for part in parts:
            if isinstance(part.value, Mapping):
                found.append((str(name), Section(ledger, part, ("config",))))
            else:
                ledger.refuse(part.path, "a pass must be a mapping", 'write { "type": ... }')
    return found


def _kind(section: Section) -> str:
    """Return the type of a pass in lower case; one that is written as the path of its class is the last part."""
    node = section.nodes.get("type")
    kind = node.value.rpartition(".")[2].lower() if node is not None and isinstance(node.value, str) else ""
    return _OLD.get(kind, kind)


class _Reader:
    """Reads pass after pass; what comes later changes what was built before."""

    def __init__(self, draft: Draft, data: DataConfigs, kinds: Sequence[str]) -> None:
        self.draft, self.data, self.kinds = draft, data, kinds
        self.builds: Builds = []
        self.nodes: dict[str, Node] = {}
        self.trained: Section | None = None
        self.place: Section | None = None
        self.later: list[tuple[Section, str]] = []
        """Passes that change what is built: read when all of it is known."""

    def read(self, section: Section, kind: str) -> None:
        """Read one pass."""
        ledger = self.draft.ledger
        name = section.take_text("type")
        if name is None:
            ledger.refuse(section.path, "a pass needs a type", f"add one, e.g. {', '.join(_NAMES)}")
            self._pass_over(section, "the pass is refused")
            return
        self._surroundings(section)
        match kind:
            case _ if kind in TRAINING:
                self._train(section, kind, name)
            case "modelbuilder":
                ledger.map(name.path, "space.build")
                self.place = self.place or section
                read_builder(self.draft, section, self.builds, self.nodes)
            case _ if kind in _UNNEEDED:
                ledger.unneeded(name.path, _UNNEEDED[kind])
                self._pass_over(section, _UNNEEDED[kind])
            case _ if kind in _EXPORT and "modelbuilder" in self.kinds:
                why = "the model builder exports and fuses, in the precision of the pass ModelBuilder"
                ledger.unneeded(name.path, why, tell=True)
                self._pass_over(section, why)
            case _ if kind in _REWORKED and "modelbuilder" in self.kinds:
                ledger.map(name.path, "space.build")
                self.later.append((section, kind))
            case _:
                self._refuse(section, kind, name)

    def _rework(self, section: Section, kind: str) -> None:
        precision = self.nodes.get("precision")
        if kind in (*_ROUNDING, _HALF) and precision is not None:
            self.draft.ledger.unneeded(precision.path, f"the pass {text_of(section.path)} changes it")
        if kind in _ROUNDING:
            read_rounding(self.draft, section, kind, self.builds)
        elif kind == "matmulnbitstoqdq":
            read_qdq(self.draft, section, self.builds, self.nodes)
        elif kind == "graphsurgeries":
            read_surgeries(self.draft, section, self.builds)
        else:
            read_half(self.draft, section, self.builds)

    def _train(self, section: Section, kind: str, name: Node) -> None:
        if self.trained is not None:
            rule = "a model is trained once, and another pass trains it already"
            self.draft.ledger.refuse(name.path, rule, "keep one; space.lora of the sweep file can search both kinds")
            self._pass_over(section, "the pass is refused")
            return
        self.trained = section
        read_training(self.draft, section, kind, self.data)

    def _surroundings(self, section: Section) -> None:
        """Account for what any pass may have besides its parameters."""
        section.unneeded(
            {
                "name": "passes are told apart by where they stand",
                "host": "one machine does every stage",
                "output_name": "results are in one folder",
                "clean_run_cache": "a result is found again by everything that went into it",
                "reuse_cache": "a result is found again by everything that went into it",
            }
        )
        evaluator = section.take("evaluator")
        if evaluator is not None:
            self.draft.evaluators.append(evaluator)
        node = section.take_flag("disable_search")
        if node is not None:
            self.draft.ledger.unneeded(
                node.path, "values that the file lists are searched, and no others", tell=node.value
            )

    def _refuse(self, section: Section, kind: str, name: Node) -> None:
        family = next((remedy for begin, remedy in _FAMILIES.items() if kind.startswith(begin)), None)
        remedy = _REMEDIES.get(kind) or family
        if kind in _EXPORT:
            remedy = 'use ModelBuilder instead: {"type": "ModelBuilder", "precision": "fp16"}'
        elif kind in _REWORKED:
            remedy = "put it behind a pass ModelBuilder"
        rule = f"the pass {shown(name.value)} has no equal here"
        if remedy is None:
            rule, remedy = f"there is no pass {shown(name.value)} here", did_you_mean(kind, [n.lower() for n in _NAMES])
            if not remedy.startswith("did you mean"):
                remedy = f"remove it, or use one of {', '.join(_NAMES)}"
        self.draft.ledger.refuse(name.path, rule, remedy)
        self._pass_over(section, f"the pass {name.value} is refused")

    def _pass_over(self, section: Section, why: str) -> None:
        for node in section.rest():
            self.draft.ledger.unneeded(node.path, why)
        section.nodes.clear()

    def close(self) -> None:
        """Change what was built as later passes say, and set it."""
        for section, kind in self.later:
            if self.builds:
                self._rework(section, kind)
            else:
                why = "the pass ModelBuilder is refused"
                self.draft.ledger.unneeded((*section.path, "type"), why)
                self._pass_over(section, why)
        if not self.builds:
            return
        provider = PROVIDERS.get(str(self.draft.get("target.provider")))
        if provider is not None and provider.qdq:
            build_qdq(self.draft, self.builds, self.nodes)
        assert self.place is not None
        made: list[Any] = []
        for build in self.builds:
            if build not in made:
                made.append(build)
        self.draft.default("space.build", made, text_of(self.place.path))
