"""LoRA settings: parsed from a sweep file with all defaults, and checked for combinations that cannot train."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from autotune.candidate import Lora
from autotune.errors import Problem
from autotune.space.domains import Domain, parse_domain, unknown_keys
from autotune.space.parameter_tables import LORA


def resolve_lora(values: Mapping[str, Any]) -> Lora:
    """Return the settings with every default; settings without effect are None."""
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


FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""The names of fused layers (Phi-3), with the names of the separate layers that other models have (Llama)."""


def fit_modules(wanted: Sequence[str], there: Collection[str]) -> tuple[str, ...]:
    """Return the model's own names for modules, each once: a fused layer becomes its parts, and a part its fused layer.

    `there`: the names of the model's linear modules. A name that it has in neither form is kept.
    """
    found: dict[str, None] = {}
    for name in wanted:
        parts = FUSED.get(name, ())
        whole = next((fused for fused, inside in FUSED.items() if name in inside), "")
        if name in there:
            found[name] = None
        elif parts and set(parts) <= set(there):
            found.update(dict.fromkeys(parts))
        else:
            found[whole if whole in there else name] = None
    return tuple(found)


def lora_impossible(lora: Lora, device: str) -> str | None:
    """Return why these settings cannot run on `device` (`cpu`, `cuda` or `auto`), or None."""
    if lora.dtype == "fp16" and device == "cpu":
        return "dtype fp16 does not train on a CPU; use fp32 or bf16"
    if lora.dora and lora.quantized_base == "int8" and device == "cpu":
        return "dora on an int8 base does not train on a CPU; use nf4, fp4 or none"
    return None


def parse_lora(raw: Any, problems: list[Problem], key: str = "space.lora") -> dict[str, Domain] | None:
    """Return the domain of each LoRA parameter that a sweep file names; mistakes go to `problems`."""
    if not isinstance(raw, dict):
        remedy = "write lora: {} for the defaults"
        problems.append(Problem("must be a mapping of LoRA parameters", key, value=raw, remedy=remedy))
        return None
    problems.extend(unknown_keys(raw, LORA, key))
    domains: dict[str, Domain] = {}
    for name, value in raw.items():
        if name in LORA:
            domain = parse_domain(LORA[name], value, f"{key}.{name}", problems, ranges=True)
            if domain is not None:
                domains[name] = domain
    for one, other in (("alpha", "alpha_over_r"), ("steps", "epochs")):
        if one in raw and other in raw:
            later = max((one, other), key=list(raw).index)
            rule = f"{one} and {other} exclude one another"
            problems.append(Problem(rule, f"{key}.{later}", remedy="keep one of them"))
    return domains
