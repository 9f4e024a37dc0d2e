"""The search space: which parameters there are, what may be searched, and which combinations cannot run.

One idea: a sampler sees flat, unconditional choices (the LoRA parameters, and one list of whole recipes), and
whatever it draws is resolved here into a `Candidate` that holds only the parameters that count.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.candidate import Candidate, Lora, Recipe, Session
from autotune.errors import Problem, did_you_mean
from autotune.providers import PRECISIONS, Provider

Value = bool | int | float | str | tuple[str, ...]

PRESETS = ("all-linear", "attention", "mlp")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep file; help, checks and the tables in the docs are generated from these."""

    name: str
    type: type
    meaning: str
    default: Value | None = None
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[Any, ...] = ()
    providers: tuple[str, ...] = ()
    """The only providers where it means something (recipes); empty: all."""
    precisions: tuple[str, ...] = PRECISIONS
    """The only precisions where it means something (recipes)."""
    option: str = ""
    """Its name for the model builder (recipes), where that differs."""


def _table(*parameters: Parameter) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


LORA = _table(
    Parameter("r", int, "rank of the adapter", 16, low=1, high=1024),
    Parameter("alpha", float, "LoRA alpha: the update is scaled by alpha / r", low=1e-3, high=1e5),
    Parameter("alpha_over_r", float, "alpha as a multiple of r (instead of alpha)", 2.0, low=1e-3, high=1e4),
    Parameter("dropout", float, "dropout in front of the adapter", 0.0, low=0.0, high=0.9),
    Parameter("target_modules", str, "modules that get an adapter: attention, mlp, all-linear, or a list of names", "all-linear"),
    Parameter("learning_rate", float, "peak learning rate of AdamW", 1e-3, low=1e-8, high=1.0),
    Parameter("schedule", str, "learning rate after the warm-up", "linear", choices=("linear", "cosine", "constant")),
    Parameter("warmup", float, "warm-up: a share of the steps below 1, a number of steps from 1 on", 0.1, low=0.0, high=1e6),
    Parameter("batch_size", int, "items in one forward pass; default: train.batch_size", low=1, high=4096),
    Parameter("accumulation", int, "forward passes in one optimiser step", 1, low=1, high=4096),
    Parameter("gradient_checkpointing", bool, "trade time for memory", default=False),
    Parameter("max_grad_norm", float, "gradient clipping by global norm; 0: none", 1.0, low=0.0, high=1e4),
    Parameter("adam_beta1", float, "AdamW beta 1", 0.9, low=0.0, high=0.9999),
    Parameter("adam_beta2", float, "AdamW beta 2", 0.999, low=0.0, high=0.99999),
    Parameter("weight_decay", float, "AdamW weight decay of the adapter", 0.0, low=0.0, high=10.0),
    Parameter("dtype", str, "arithmetic of the frozen base: auto is bf16 on CUDA, else fp32", "auto",
              choices=("auto", "fp32", "bf16", "fp16")),
    Parameter("max_length", int, "tokens kept of an item; default: train.max_length", low=8, high=1_000_000),
    Parameter("steps", int, "optimiser steps", low=1, high=10_000_000),
    Parameter("epochs", float, "passes over the training split (instead of steps)", low=1e-3, high=1e4),
    Parameter("dora", bool, "weight-decomposed adapter (DoRA)", default=False),
    Parameter("rslora", bool, "scale by alpha / sqrt(r) (rsLoRA)", default=False),
    Parameter("quantized_base", str, "train on a quantised base through bitsandbytes (QLoRA); the adapter is merged into the "
              "original weights", "none", choices=("none", "nf4", "fp4", "int8")),
    Parameter("double_quant", bool, "quantise the quantisation constants too (nf4 and fp4 only)", default=False),
)  # fmt: skip

_QUANTIZED = ("int8", "int4")

RECIPE = _table(
    Parameter("precision", str, "precision of the weights", choices=PRECISIONS),
    Parameter("algorithm", str, "how weights are rounded", "default", choices=("default", "rtn", "k_quant"),
              precisions=_QUANTIZED, option="algo_config"),
    Parameter("block_size", int, "weights that share a scale", 32, choices=(16, 32, 64, 128, 256), precisions=_QUANTIZED),
    Parameter("accuracy_level", int, "least precision of the activations in MatMulNBits: 1 fp32, 2 fp16, 3 bf16, 4 int8, "
              "0 unset; default: 4 on cpu and webgpu, else 0", choices=(0, 1, 2, 3, 4), precisions=_QUANTIZED),
    Parameter("symmetric", bool, "no zero points (means nothing under k_quant)", default=True, precisions=_QUANTIZED,
              option="is_symmetric"),
    Parameter("mixed_precision", str, "groups kept at other bits, e.g. last_matmul:int8,mixed_layers:int8", "",
              precisions=("int4",), option="matmul_mixed_precision"),
    Parameter("nodes_to_exclude", str, "node names left unquantised, separated by commas", "", precisions=_QUANTIZED),
    Parameter("op_types_to_quantize", str, "operator types that are quantised: MatMul or MatMul/Gather", "",
              choices=("", "MatMul", "MatMul/Gather"), precisions=("int4",)),
    Parameter("use_qdq", bool, "QuantizeLinear and DequantizeLinear instead of MatMulNBits", default=False, precisions=("int4",)),
    Parameter("shared_embeddings", bool, "one matrix for embedding and head (tied models only); default: as the model ties"),
    Parameter("fuse_qkv", bool, "one matrix product for q, k and v", default=True),
    Parameter("fuse_mlp_gate_up", bool, "one matrix product for gate and up", default=False),
    Parameter("fuse_qk_norm_gqa", bool, "fuse the q and k norms into attention", default=True, providers=("cuda", "webgpu")),
    Parameter("prune_lm_head", bool, "logits of the last position only", default=False),
    Parameter("kv_cache_quant_scheme", str, "precision of the key-value cache (schemes without a calibration file)", "none",
              choices=("none", "int8_per_token", "int4_per_token"), providers=("cuda",)),
    Parameter("kv_cache_rotation", str, "rotation in front of a quantised key-value cache", "none",
              choices=("none", "hadamard"), providers=("cuda",)),
    Parameter("moe_quant_type", str, "precision of the experts of mixture models",
              choices=("int2", "int4", "int8", "mxfp4", "nvfp4"), precisions=_QUANTIZED),
    Parameter("qmoe_block_size", int, "block of the experts' weights", choices=(0, 16, 32, 64, 128, 256), precisions=_QUANTIZED),
    Parameter("enable_cuda_graph", bool, "capture a CUDA graph", default=False, providers=("cuda", "NvTensorRtRtx")),
    Parameter("enable_cuda_fpa_intb_gemm", bool, "the fpA_intB kernels for MatMulNBits", default=False,
              providers=("cuda",), precisions=_QUANTIZED),
    Parameter("matmulnbits_weights_prepacked", int, "weight layout of MatMulNBits: 0 raw, 1 Ampere, 2 Hopper", 0,
              choices=(0, 1, 2), providers=("cuda",), precisions=_QUANTIZED),
    Parameter("use_cuda_bf16", bool, "bf16 activations around int4 and int8 weights", default=False,
              providers=("cuda",), precisions=_QUANTIZED),
    Parameter("enable_webgpu_graph", bool, "capture a WebGPU graph", default=False, providers=("webgpu",)),
    Parameter("use_webgpu_fp32", bool, "fp32 activations", default=False, providers=("webgpu",)),
    Parameter("enable_dml_graph", bool, "capture a DirectML graph", default=True, providers=("dml",)),
)  # fmt: skip

SESSION = _table(
    Parameter("threads", int, "threads that one operator is shared among", low=1, high=1024),
    Parameter("arena", bool, "keep freed CPU memory for the next pass (ONNX Runtime's memory arena)"),
    Parameter("mem_pattern", bool, "lay out the memory of a pass ahead, from those before of its shape"),
    Parameter("provider_options", str, "options of the execution provider, name: value",
              providers=("cuda", "dml", "webgpu", "NvTensorRtRtx")),
)  # fmt: skip


def _same(value: Value, other: Value) -> bool:
    """Whether two values are the same number but for the last digits."""
    return isinstance(value, int | float) and isinstance(other, int | float) and math.isclose(value, other)


@dataclass(frozen=True)
class Choice:
    """A finite set of values, in the order written; one value: fixed."""

    values: tuple[Value, ...]

    @property
    def some(self) -> Value:
        """One of its values."""
        return self.values[0]

    def has(self, value: Value) -> bool:
        """Whether a value is one of them; numbers but for their last digits."""
        return value in self.values or any(_same(value, one) for one in self.values)


@dataclass(frozen=True)
class Range:
    """A closed interval of numbers, uniform in the value or in its logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    @property
    def some(self) -> Value:
        """One of its values."""
        return self.value(self.low)

    def has(self, value: Value) -> bool:
        """Whether a value lies inside."""
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside or _same(value, self.low) or _same(value, self.high)

    def value(self, number: float) -> int | float:
        """Return the parameter's value at a number inside: four digits tell learning rates apart, and people read them."""
        return int(number) if self.integer else min(max(float(f"{number:.4g}"), self.low), self.high)


Domain = Choice | Range


@dataclass(frozen=True)
class LeftOut:
    """A combination that cannot run here, and why; listed by `plan`, never tried."""

    settings: str
    reason: str


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides which combinations can run: from its config.json."""

    inner_sizes: tuple[int, ...]
    """Row lengths K of the matrices that get quantised."""
    tied: bool
    """Whether embedding and head are one matrix."""


_MANY = 10_000
"""Combinations up to which they are counted one by one."""


@dataclass(frozen=True)
class Space:
    """What is searched. `lora` None: only recipes; `recipes` empty: only adapters; `sessions` empty: as the target says."""

    lora: Mapping[str, Domain] | None
    recipes: tuple[Recipe, ...]
    left_out: tuple[LeftOut, ...] = ()
    defaults: Mapping[str, Value] = field(default_factory=dict)
    device: str = "cpu"
    sessions: tuple[Session | None, ...] = ()

    @property
    def searched(self) -> dict[str, Domain]:
        """The LoRA parameters that have more than one value."""
        lora = self.lora or {}
        return {n: d for n, d in lora.items() if isinstance(d, Range) or len(d.values) > 1}

    def candidate(
        self, values: Mapping[str, Value], recipe: Recipe | None, session: Session | None = None
    ) -> Candidate:
        """Resolve values of the searched parameters (the fixed ones are filled in) into a candidate."""
        if self.lora is None:
            return Candidate(recipe=recipe, session=session)
        fixed = {n: d.values[0] for n, d in self.lora.items() if isinstance(d, Choice)}
        return Candidate(lora=resolve_lora({**self.defaults, **fixed, **values}), recipe=recipe, session=session)

    def has(self, lora: Lora) -> bool:
        """Whether an adapter's settings are among those of this space."""
        settings = lora.model_dump() | {"alpha_over_r": lora.alpha / lora.r}
        values = {name: settings[name] for name in self.searched if settings[name] is not None}
        # Those that do not count beside others are None.
        idle = {name: domain.some for name, domain in self.searched.items() if name not in values}
        if self.lora is None or not all(self.searched[name].has(value) for name, value in values.items()):
            return False
        own = self.candidate(values | idle, None).lora
        # A ratio times the rank need not give the same alpha to the last digit.
        return (
            own is not None
            and math.isclose(own.alpha, lora.alpha)
            and own == lora.model_copy(update={"alpha": own.alpha})
        )

    def grid(self) -> Iterator[Candidate]:
        """Every candidate of a finite space once: adapters in the order written, each in every recipe and session.

        Raises ValueError where a parameter is a range.
        """
        domains = self.searched
        for name, domain in domains.items():
            if isinstance(domain, Range):
                raise ValueError(f"lora.{name} is a range: a grid needs choices")
        seen: set[str] = set()
        axes = [domain.values for domain in domains.values() if isinstance(domain, Choice)]
        for combination in itertools.product(*axes):
            for recipe, session in itertools.product(self.recipes or (None,), self.sessions or (None,)):
                candidate = self.candidate(dict(zip(domains, combination, strict=True)), recipe, session)
                if candidate.id not in seen and not (candidate.lora and lora_impossible(candidate.lora, self.device)):
                    seen.add(candidate.id)
                    yield candidate

    def size(self) -> int | None:
        """The number of different candidates; above 10,000 of combinations; None where a parameter is a range."""
        combinations = max(1, len(self.recipes)) * max(1, len(self.sessions))
        for domain in self.searched.values():
            if isinstance(domain, Range):
                return None
            combinations *= len(domain.values)
        return sum(1 for _ in self.grid()) if combinations <= _MANY else combinations


def resolve_lora(values: Mapping[str, Any]) -> Lora:
    """Return the settings that count, every default spelled out; inactive ones are None."""
    settings: dict[str, Any] = {
        name: parameter.default
        for name, parameter in LORA.items()
        if parameter.default is not None and name not in ("alpha", "alpha_over_r")
    }
    settings.update(values)
    ratio = settings.pop("alpha_over_r", None)
    if settings.get("alpha") is None:
        settings["alpha"] = settings["r"] * (LORA["alpha_over_r"].default if ratio is None else ratio)
    if settings["quantized_base"] not in ("nf4", "fp4"):
        settings["double_quant"] = None
    if settings.get("epochs") is not None:
        settings["steps"] = None
    return Lora.model_validate(settings)


def lora_impossible(lora: Lora, device: str) -> str | None:
    """Return why these settings cannot run on `device` (`cpu`, `cuda` or `auto`), or None."""
    if lora.dtype == "fp16" and device == "cpu":
        return "dtype fp16 does not train on a CPU; use fp32 or bf16"
    if lora.dora and lora.quantized_base == "int8" and device == "cpu":
        return "dora on an int8 base does not train on a CPU; use nf4, fp4 or none"
    return None


def fit_recipes(space: Space, shape: ModelShape) -> Space:
    """Return the space without the recipes that cannot run on a model of this shape (known only when it is fetched)."""
    fitting: dict[Recipe, None] = {}
    left_out = list(space.left_out)
    for recipe in space.recipes:
        if recipe.shared_embeddings == shape.tied:
            recipe = recipe.model_copy(update={"shared_embeddings": None})
        reason = _recipe_impossible(recipe, shape)
        if reason:
            left_out.append(LeftOut(str(recipe), reason))
        else:
            fitting[recipe] = None
    return replace(space, recipes=tuple(fitting), left_out=tuple(left_out))


def _resolve_recipe(settings: dict[str, Any], provider: Provider, shape: ModelShape | None) -> Recipe | LeftOut:
    """Return the recipe with inactive parameters removed and defaults spelled out, or why it cannot run."""
    precision = settings["precision"]
    active: dict[str, Any] = {"precision": precision}
    for name, parameter in RECIPE.items():
        if name == "precision" or precision not in parameter.precisions:
            continue
        if parameter.providers and provider.name not in parameter.providers:
            continue
        value = settings.get(name, parameter.default)
        if name == "accuracy_level" and value is None:
            value = provider.accuracy_level
        active[name] = value
    if active.get("algorithm") == "k_quant":
        active.pop("symmetric", None)
    if active.get("kv_cache_quant_scheme") == "none":
        active.pop("kv_cache_rotation", None)
    # An option at its default outside the core of a recipe says nothing: leave it out of names and digests.
    core = ("precision", "algorithm", "block_size", "accuracy_level", "symmetric")
    active = {n: v for n, v in active.items() if v is not None and (n in core or v not in ("", RECIPE[n].default))}
    if shape is not None and active.get("shared_embeddings") == shape.tied:
        del active["shared_embeddings"]
    recipe = Recipe.model_validate(active)
    reason = _recipe_impossible(recipe, shape)
    return LeftOut(str(recipe), reason) if reason else recipe


def _recipe_impossible(recipe: Recipe, shape: ModelShape | None) -> str | None:
    """Return why the model builder or the runtime cannot take this recipe for this model, or None."""
    if shape is None:
        return None
    if recipe.shared_embeddings and not shape.tied:
        return "shared_embeddings needs a model that ties embedding and head; this one does not"
    if recipe.use_qdq and shape.tied and recipe.shared_embeddings is not False:
        return "use_qdq fails with tied embeddings; add shared_embeddings: false"
    if (
        recipe.precision == "int4"
        and recipe.algorithm == "default"
        and shape.tied
        and recipe.shared_embeddings is not False
    ):
        # The shared matrix is one of symmetric 4 bits: anything else for the head builds, and never loads.
        remedy = "use rtn or k_quant, or add shared_embeddings: false"
        if recipe.symmetric is False:
            return f"int4 default without symmetry does not load with tied embeddings; {remedy}"
        if "last_matmul:int8" in (recipe.mixed_precision or ""):
            return f"int4 default with last_matmul:int8 does not load with tied embeddings; {remedy}"
    if recipe.precision == "int4" and recipe.algorithm == "k_quant" and recipe.block_size:
        odd = [k for k in shape.inner_sizes if math.ceil(k / recipe.block_size) % 2]
        if odd:
            blocks = math.ceil(odd[0] / recipe.block_size)
            return (
                f"int4 k_quant needs an even number of blocks in a row; {odd[0]} in blocks of "
                f"{recipe.block_size} gives {blocks}"
            )
    return None


def _number(value: Any) -> bool:
    # Comparing keeps away nan and inf, and integers that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_GROUPS = ("last_matmul", "mixed_layers", "linear_attn")
"""The groups that `mixed_precision` may name, in the order in which recipes are spelled out."""
_GROUP_TYPES = ("int4", "int8")


def _mixed_precision(text: str) -> tuple[Value | None, str]:
    """Return groups and their precisions in one spelling, or the rule that `text` breaks."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        group, _, kind = (word.strip() for word in part.partition(":"))
        if group not in _GROUPS or kind not in _GROUP_TYPES or group in found:
            groups, kinds = ", ".join(_GROUPS), " or ".join(_GROUP_TYPES)
            return None, f"must be group:precision, separated by commas, with each group of {groups} once at {kinds}"
        found[group] = kind
    return ",".join(f"{group}:{found[group]}" for group in _GROUPS if group in found), ""


def _check_value(parameter: Parameter, value: Any) -> tuple[Value | None, str]:
    """Return (the value in its type and its one spelling, "") or (None, the rule that it breaks)."""
    if value is None:
        return None, "has no value"
    if parameter.name == "target_modules" and isinstance(value, list):
        if value and all(isinstance(module, str) and re.fullmatch(r"[\w.-]+", module) for module in value):
            modules = sorted(set(value))
            return (tuple(modules) if len(modules) > 1 else modules[0]), ""
        return None, "a list of target modules must hold names"
    if parameter.type is bool:
        return (value, "") if isinstance(value, bool) else (None, "must be true or false")
    if parameter.type is str:
        if not isinstance(value, str) or not value.isprintable():
            return None, "must be a text"
        if parameter.name == "mixed_precision":
            return _mixed_precision(value)
        if parameter.name == "nodes_to_exclude":
            names = {name.strip() for name in value.split(",")} - {""}
            if all(re.fullmatch(r"[\w/]\S*", name) for name in names):
                return ",".join(sorted(names)), ""
            return None, "must be node names, separated by commas"
    elif parameter.type is int:
        if not _number(value) or value != int(value):
            return None, "must be a whole number"
        value = int(value)
    elif not _number(value):
        return None, "must be a number"
    else:
        value = float(value)
    if parameter.choices and value not in parameter.choices:
        return None, "must be one of " + ", ".join(str(choice) or "''" for choice in parameter.choices)
    if parameter.name == "target_modules" and value not in PRESETS:
        return None, "must be one of " + ", ".join(PRESETS) + ", or a list of module names"
    if parameter.type in (int, float) and not parameter.low <= value <= parameter.high:
        return None, f"must be between {parameter.low:g} and {parameter.high:g}"
    return value, ""


_RANGES = {
    "uniform": (False, False),
    "loguniform": (True, False),
    "int": (False, True),
    "logint": (True, True),
}


def _parse_domain(
    parameter: Parameter, raw: Any, key: str, problems: list[Problem], *, ranges: bool, what: str = "recipe"
) -> Domain | None:
    """Return what `raw` says a parameter may be; what is wrong goes to `problems`."""
    if isinstance(raw, dict):
        kinds = ["choice", *(_RANGES if ranges else ())]
        if len(raw) != 1 or next(iter(raw)) not in kinds:
            problems.append(
                Problem(
                    "a searched parameter has exactly one of " + ", ".join(kinds)
                    if ranges
                    else f"a {what} takes values and lists of them, not ranges",
                    key,
                    value=raw,
                    remedy=f"write e.g. {parameter.name}: " + ("{ choice: [...] }" if ranges else "[..., ...]"),
                )
            )
            return None
        kind, body = next(iter(raw.items()))
        if kind == "choice":
            if not isinstance(body, list) or not body:
                rule = "choice needs a list with at least one value"
                problems.append(Problem(rule, f"{key}.choice", value=body, remedy="write choice: [..., ...]"))
                return None
            return _choice(parameter, body, f"{key}.choice", problems)
        log, integer = _RANGES[kind]
        if parameter.type not in (int, float):
            problems.append(
                Problem(f"{kind} is for numbers; {parameter.name} is not one", key, remedy="use choice: [...]")
            )
            return None
        if not (isinstance(body, list) and len(body) == 2 and all(_number(v) for v in body)):
            problems.append(
                Problem(f"{kind} needs two numbers", f"{key}.{kind}", value=body, remedy="write [low, high]")
            )
            return None
        low, high = body
        for bound in (low, high):
            _, rule = _check_value(parameter, bound)
            if integer and bound != int(bound):
                rule = f"{kind} needs whole numbers"
            if rule:
                remedy = f"{parameter.name} is: {parameter.meaning}"
                problems.append(Problem(rule, f"{key}.{kind}", value=bound, remedy=remedy))
                return None
        if low >= high:
            problems.append(Problem("`low < high` must hold", f"{key}.{kind}", value=body, remedy="write [low, high]"))
            return None
        if log and low <= 0:
            problems.append(Problem(f"{kind} needs low > 0", f"{key}.{kind}", value=low, remedy="use uniform"))
            return None
        return Range(float(low), float(high), log, integer or parameter.type is int)
    if isinstance(raw, list) and parameter.name != "target_modules":
        if ranges:
            remedy = f"write {parameter.name}: {{ choice: {raw} }}"
            problems.append(Problem("a list is not searched by itself", key, value=raw, remedy=remedy))
            return None
        return _choice(parameter, raw, key, problems)
    return _choice(parameter, [raw], key, problems)


def _choice(parameter: Parameter, values: Sequence[Any], key: str, problems: list[Problem]) -> Choice | None:
    good: list[Value] = []
    failed = False
    for raw in values:
        value, rule = _check_value(parameter, raw)
        if rule or value is None:
            problems.append(Problem(rule, key, value=raw, remedy=f"{parameter.name} is: {parameter.meaning}"))
            failed = True
        elif value not in good:
            good.append(value)
    if not good and not failed:
        remedy = "add one, or remove the key"
        problems.append(Problem("needs at least one value", key, value=list(values), remedy=remedy))
    return Choice(tuple(good)) if good and not failed else None


def _unknown(raw: Mapping[Any, Any], table: Mapping[str, Parameter], key: str) -> list[Problem]:
    return [
        Problem("unknown key", f"{key}.{name}", remedy=did_you_mean(str(name), list(table)))
        for name in raw
        if name not in table
    ]


def parse_lora(raw: Any, problems: list[Problem], key: str = "space.lora") -> dict[str, Domain] | None:
    """Return the domain of each LoRA parameter that a sweep file names; mistakes go to `problems`."""
    if not isinstance(raw, dict):
        remedy = "write lora: {} for the defaults"
        problems.append(Problem("must be a mapping of LoRA parameters", key, value=raw, remedy=remedy))
        return None
    problems.extend(_unknown(raw, LORA, key))
    domains: dict[str, Domain] = {}
    for name, value in raw.items():
        if name in LORA:
            domain = _parse_domain(LORA[name], value, f"{key}.{name}", problems, ranges=True)
            if domain is not None:
                domains[name] = domain
    for one, other in (("alpha", "alpha_over_r"), ("steps", "epochs")):
        if one in raw and other in raw:
            later = max((one, other), key=list(raw).index)
            rule = f"{one} and {other} exclude one another"
            problems.append(Problem(rule, f"{key}.{later}", remedy="keep one of them"))
    return domains


def _mappings(
    raw: Any, known: Mapping[str, Parameter], key: str, what: str, remedy: str, problems: list[Problem]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the mappings of a list, or the one that stands for it, each with its key. Mistakes go to `problems`."""
    items = raw if isinstance(raw, list) else [raw]
    if not items:
        problems.append(Problem(f"needs at least one {what}", key, value=raw, remedy=remedy))
    for index, item in enumerate(items):
        here = f"{key}[{index}]"
        if isinstance(item, dict):
            problems.extend(_unknown(item, known, here))
            yield here, item
        else:
            problems.append(Problem(f"a {what} is a mapping", here, value=item, remedy=remedy))


def parse_recipes(
    raw: Any,
    provider: Provider,
    shape: ModelShape | None,
    problems: list[Problem],
    key: str = "space.build",
) -> tuple[tuple[Recipe, ...], tuple[LeftOut, ...]]:
    """Multiply out the recipes of a sweep file.

    Returns the different recipes that can run on `provider` with a model of `shape` (None: not known yet), and
    those that cannot, each with its reason. A value that can never run is a problem instead.
    """
    recipes: dict[Recipe, None] = {}
    left_out: dict[LeftOut, None] = {}
    for here, item in _mappings(raw, RECIPE, key, "recipe", "write - { precision: int4 }", problems):
        before = len(problems)
        if "precision" not in item:
            problems.append(
                Problem("a recipe needs a precision", here, remedy="one of " + ", ".join(provider.precisions))
            )
        axes: dict[str, tuple[Value, ...]] = {}
        for name, value in item.items():
            if name not in RECIPE:
                continue
            parameter = RECIPE[name]
            if parameter.providers and provider.name not in parameter.providers:
                rule = f"{name} means something on {' and '.join(parameter.providers)} only"
                problems.append(Problem(rule, f"{here}.{name}", remedy=f"remove it for {provider.name}"))
                continue
            domain = _parse_domain(parameter, value, f"{here}.{name}", problems, ranges=False)
            if isinstance(domain, Choice):
                axes[name] = domain.values
        for precision in axes.get("precision", ()):
            if precision not in provider.precisions:
                rule = f"{precision} does not run on the {provider.name} provider"
                remedy = "use one of " + ", ".join(provider.precisions)
                problems.append(Problem(rule, f"{here}.precision", value=precision, remedy=remedy))
        if len(problems) > before or "precision" not in axes:
            continue
        if (many := math.prod(map(len, axes.values()))) > _MANY:
            rule = f"its lists multiply to {many:,} recipes, and {_MANY:,} are the most"
            problems.append(Problem(rule, here, remedy="shorten the lists"))
            continue
        for combination in itertools.product(*axes.values()):
            resolved = _resolve_recipe(dict(zip(axes, combination, strict=True)), provider, shape)
            if isinstance(resolved, Recipe):
                recipes[resolved] = None
            else:
                left_out[resolved] = None
    return tuple(recipes), tuple(left_out)


_OPTION = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def spell_options(raw: Mapping[Any, Any]) -> tuple[str, str]:
    """Return (the options of a provider in their one spelling, "") or ("", the rule that they break).

    ONNX Runtime takes texts: a truth value is 1 or 0 to it. The spelling is name=value, sorted, separated by spaces.
    """
    words: list[str] = []
    for name, value in raw.items():
        if not isinstance(name, str) or not _OPTION.fullmatch(name):
            return "", f"has the option {name!r}, and a name is letters, digits, '.', '-' and '_'"
        if not isinstance(value, bool | str) and not _number(value):
            return "", f"has the option {name} at {value!r}, and a value is a text, a number, true or false"
        whole = isinstance(value, bool | float) and value == int(value)  # 4e9 is a number of bytes
        text = str(int(value) if whole else value)
        if not text or not text.isprintable() or any(map(str.isspace, text)):
            return "", f"has the option {name} at {value!r}, and a value is a text without spaces"
        words.append(f"{name}={text}")
    return " ".join(sorted(words)), ""


def _option_choices(raw: Any, key: str, problems: list[Problem]) -> tuple[str, ...]:
    """Return the choices of `provider_options`: mappings, whose lists multiply."""
    choices: dict[str, None] = {}
    for item in raw if isinstance(raw, list) else [raw]:
        if not isinstance(item, dict) or not item:
            remedy = "write provider_options: { name: value }"
            problems.append(Problem("must be a mapping of options", key, value=item, remedy=remedy))
            continue
        axes = [value if isinstance(value, list) and value else [value] for value in item.values()]
        if math.prod(map(len, axes)) > _MANY:
            problems.append(Problem(f"its lists multiply to more than {_MANY:,} sessions", key, remedy="shorten them"))
            continue
        for combination in itertools.product(*axes):
            text, rule = spell_options(dict(zip(item, combination, strict=True)))
            if rule:
                problems.append(Problem(rule, key, remedy="see the provider's options in ONNX Runtime's documentation"))
                break
            choices[text] = None
    return tuple(choices)


def check_served(name: str, provider: Provider, key: str, problems: list[Problem]) -> bool:
    """Return whether a setting of sessions means something on a provider; if not, it is a problem."""
    parameter = SESSION[name]
    if parameter.providers and provider.name not in parameter.providers:
        rule = f"{name} means something on {', '.join(parameter.providers)} only: {provider.name} has no options"
        problems.append(Problem(rule, key, remedy=f"remove it for {provider.name}"))
        return False
    return True


def parse_sessions(
    raw: Any, target: Session, provider: Provider, problems: list[Problem], key: str = "space.session"
) -> tuple[Session | None, ...]:
    """Multiply out the sessions of a sweep file; None is the target's own.

    Two that come to the same on this `target` are one, the first. Mistakes go to `problems`.
    """
    sessions: dict[Session, Session | None] = {}
    for here, item in _mappings(raw, SESSION, key, "session", "write - { threads: [1, 2] }", problems):
        before = len(problems)
        axes: dict[str, tuple[Value, ...]] = {}
        for name, value in item.items():
            if name not in SESSION or not check_served(name, provider, f"{here}.{name}", problems):
                continue
            if name == "provider_options":
                axes[name] = _option_choices(value, f"{here}.{name}", problems)
                continue
            domain = _parse_domain(SESSION[name], value, f"{here}.{name}", problems, ranges=False, what="session")
            if isinstance(domain, Choice):
                axes[name] = domain.values
        if len(problems) > before:
            continue
        if (many := math.prod(map(len, axes.values()))) > _MANY:
            rule = f"its lists multiply to {many:,} sessions, and {_MANY:,} are the most"
            problems.append(Problem(rule, here, remedy="shorten the lists"))
            continue
        for combination in itertools.product(*axes.values()):
            session = Session.model_validate(dict(zip(axes, combination, strict=True)))
            sessions.setdefault(session.over(target), session if session != Session() else None)
    return tuple(sessions.values())
