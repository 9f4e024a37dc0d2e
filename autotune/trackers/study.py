"""Describes a sweep as Optuna studies, in plain data, for the mirror of `--optuna-storage`."""

from __future__ import annotations

from typing import Any

from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import Value
from autotune.space.space import Space
from autotune.sweepfile.schema import Sweep

Plain = str | int | float | bool


def studies_of(sweep: Sweep) -> list[dict[str, Any]]:
    """Return the study of each target: its name, objectives with directions, limits, and the domains of its parameters."""
    return [
        {
            "name": sweep.name if target is None else f"{sweep.name}-{target}",
            "target": target,
            "objectives": dict(one.objectives),
            "limits": [str(limit) for limit in one.limits],
            "domains": _domains(one.space),
        }
        for target, one in sweep.by_target.items()
    ]


def label(value: Value) -> Plain:
    """Return a parameter's value as Optuna keeps it: a list of modules becomes their names, joined by `+`."""
    return "+".join(value) if isinstance(value, tuple) else value


def session_label(session: object) -> str:
    """Return a session as Optuna keeps it; None is the target's session."""
    return "as the target says" if session is None else str(session)


def _domains(space: Space) -> dict[str, dict[str, Any]]:
    """Return the domain of each searched parameter, by its name in the sweep file; recipe and session are one choice each."""
    found = {name: _plain(domain) for name, domain in space.searched.items()}
    if space.recipes:
        found["recipe"] = {"choices": [str(recipe) for recipe in space.recipes]}
    if space.sessions:
        found["session"] = {"choices": [session_label(session) for session in space.sessions]}
    return found


def _plain(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Choice):
        return {"choices": [label(value) for value in domain.values]}
    return {"low": domain.low, "high": domain.high, "log": domain.log, "integer": domain.integer}
