"""Which modules of a model an adapter's `target_modules` mean: told where its layers are fused otherwise than the sweep names
them, and refused where it has no such module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.errors import Problem, UsageError
from autotune.space.adapters import fit_modules
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import PRESETS


@dataclass(frozen=True)
class Modules:
    """The linear modules of a model, as in `Inspection`; without names nothing is known of them."""

    linear: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def module_notes(lora: Mapping[str, Domain] | None, modules: Modules, sweep_file: str = "") -> list[str]:
    """Return a line for each fused layer, or part of one, that is another module in the model.

    Raises UsageError where a name or a preset means no module that can get an adapter.
    """
    domain = (lora or {}).get("target_modules")
    if not isinstance(domain, Choice) or not modules.linear:
        return []
    named = [value if isinstance(value, tuple) else (str(value),) for value in domain.values]
    wanted = dict.fromkeys(name for value in named for name in value)
    fitted = {name: fit_modules([name], modules.linear) for name in wanted if name not in PRESETS}
    problems = []
    for name in wanted:
        rule = ""
        if name in modules.absent:
            rule = f"this model has no modules for {name}"
        elif name in modules.shared:
            rule = f"{name} shares its weights with the embedding of this model, which a merge would change too"
        elif name in fitted and not set(fitted[name]) <= set(modules.linear):
            rule = "this model has no linear module of that name"
            if "." in name:
                rule += ": a name is the last part of a module's, and means that module in all layers"
        if rule:
            remedy = f"name some of {', '.join(modules.linear)}, or all-linear"
            problems.append(Problem(rule, "space.lora.target_modules", sweep_file, value=name, remedy=remedy))
    if problems:
        raise UsageError(problems)
    return [
        f"target_modules: this model has no {name}; its {' and '.join(found)} get the adapter instead"
        for name, found in fitted.items()
        if found != (name,)
    ]
