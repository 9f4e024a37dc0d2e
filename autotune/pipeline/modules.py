"""Notes on `target_modules`: the model may fuse layers that the sweep names separately, or have them apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autotune.models import tensors_of
from autotune.space.adapters import fit_modules
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import PRESETS


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
