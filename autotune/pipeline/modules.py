"""Notes on LoRA settings that train otherwise than they read: modules that the model fuses or has apart, a warm-up that never
ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from autotune.errors import Problem, UsageError, did_you_mean
from autotune.models import tensors_of
from autotune.pipeline.inspection import Inspected
from autotune.space.adapters import fit_modules
from autotune.space.domains import Choice, Domain, Range
from autotune.space.parameter_tables import LORA, PRESETS
from autotune.space.space import Space


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


_WITH_MLP = ("all-linear", "mlp")
"""The presets that a reader takes to adapt the MLPs of a model, and so its experts."""
_DEFAULT = str(LORA["target_modules"].default)
_HEADS = ("lm_head", "embed_out", "output")


def module_notes(lora: Mapping[str, Domain] | None, folder: Path) -> list[str]:
    """Return a line for each named module that the model in `folder` lacks, with the fused or single modules used instead, and
    one where its experts get no adapter.
    """
    if lora is None:
        return []
    domain = lora.get("target_modules", Choice((_DEFAULT,)))
    if not isinstance(domain, Choice):
        return []
    named = [value if isinstance(value, tuple) else (str(value),) for value in domain.values]
    asked = dict.fromkeys(name for value in named for name in value)
    wanted = [name for name in asked if name not in PRESETS]
    try:
        tensors = tensors_of(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # damaged: the look says how
        return []
    there = {name.removesuffix(".weight").rpartition(".")[2] for name in tensors}
    fitted = {name: fit_modules([name], there) for name in wanted}
    notes = [
        f"target_modules: this model has no {name}; its {' and '.join(found)} get the adapter instead"
        for name, found in fitted.items()
        if found != (name,)
    ]
    preset = next((name for name in asked if name in _WITH_MLP), None)
    if preset is not None and _has_experts(tensors):
        why = "transformers holds those of a layer in one tensor, which is no linear module"
        notes.append(
            f"target_modules: {preset} leaves the experts of this model as they are, without an adapter: {why}"
        )
    return notes


def _has_experts(tensors: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a model's files hold experts: by their names, or several matrices in one tensor. A convolution's is one, too."""
    return any(".experts." in name or (len(shape) == 3 and "conv" not in name) for name, shape in tensors.items())


def adapter_notes(space: Space, folder: Path, items: int) -> list[str]:
    """Return the notes on the settings of adapters, for the model in `folder` and `items` rows to train on."""
    return [*module_notes(space.lora, folder), *_warmup_notes(space, items)]


def _warmup_notes(space: Space, items: int) -> list[str]:
    """Return a note if a warm-up in steps is longer than a training: the learning rate then never reaches the one that is set."""
    if space.lora is None:
        return []
    warmup = _ends(space, "warmup")[1]
    if warmup < 1:  # a share of the steps
        return []
    few = _ends(space, "batch_size")[1] * _ends(space, "accumulation")[1]
    shortest = (
        _ends(space, "steps")[0] if "epochs" not in space.lora else math.ceil(_ends(space, "epochs")[0] * items / few)
    )
    steps = max(1, int(shortest))
    if warmup <= steps:
        return []
    share = steps / (warmup + 1)
    return [
        f"space.lora.warmup: {warmup:g} are steps, and a training of {steps:,} ends before: its learning rate reaches "
        f"{share:.2g} of learning_rate; for a share of the steps write a number below 1"
    ]


def _ends(space: Space, name: str) -> tuple[float, float]:
    """Return the least and the greatest value of a numeric setting."""
    domain = (space.lora or {}).get(name)
    if isinstance(domain, Range):
        return domain.low, domain.high
    values = domain.values if domain is not None else (space.defaults.get(name, LORA[name].default),)
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return min(numbers), max(numbers)
