"""Notes on `target_modules`: the model may fuse layers that the sweep names separately, or have them apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotune.errors import Problem, UsageError, did_you_mean
from autotune.models import tensors_of
from autotune.pipeline.inspection import Inspected
from autotune.space.adapters import fit_modules
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import PRESETS


def _module_problems(lora: Mapping[str, Domain] | None, file: str, seen: Inspected) -> list[Problem]:
    """Return what is wrong with the names in `target_modules`, each that the model has no linear module for.

    A head that shares its weights with the embedding gets no adapter: a merge would change the embedding, too.
    """
    domain = (lora or {}).get("target_modules")
    if not isinstance(domain, Choice) or not seen.linear:
        return []
    lists = [value if isinstance(value, tuple) else (str(value),) for value in domain.values]
    wanted = dict.fromkeys(name for value in lists for name in value if name not in PRESETS)
    problems = []
    for name in wanted:
        missing = [one for one in fit_modules([name], seen.linear) if one not in seen.linear]
        if missing:
            rule = f"this model has no linear module of that name; it has {', '.join(seen.linear)}"
            near = did_you_mean(name.rpartition(".")[2], seen.linear)
            remedy = near if near.startswith("did you") else "name some of these, or attention, mlp or all-linear"
        elif name in _HEADS and seen.tied_head:
            rule = "it shares its weights with the embedding, which a merge would change, too"
            remedy = "leave it out"
        else:
            continue
        problems.append(Problem(rule, "space.lora.target_modules", file, value=name, remedy=remedy))
    return problems


def refused_modules(lora: Mapping[str, Domain] | None, file: str, seen: Inspected) -> Inspected:
    """Return what was seen. Raises UsageError where `target_modules` names modules that the model does not have."""
    problems = _module_problems(lora, file, seen)
    if problems:
        raise UsageError(problems)
    return seen


_HEADS = ("lm_head", "embed_out", "output")


def module_notes(lora: Mapping[str, Domain] | None, folder: Path) -> list[str]:
    """Return a line for each named module that the model in `folder` lacks, with the fused or single modules used instead."""
    domain = (lora or {}).get("target_modules")
    if not isinstance(domain, Choice):
        return []
    named = [value if isinstance(value, tuple) else (str(value),) for value in domain.values]
    wanted = dict.fromkeys(name for value in named for name in value if name not in PRESETS)
    try:
        there = {name.removesuffix(".weight").rpartition(".")[2] for name in tensors_of(folder)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # damaged: the look says how
        return []
    fitted = {name: fit_modules([name], there) for name in wanted}
    return [
        f"target_modules: this model has no {name}; its {' and '.join(found)} get the adapter instead"
        for name, found in fitted.items()
        if found != (name,)
    ]
