"""Describes a sweep as Optuna studies, in plain data, for the mirror of `--optuna-storage`."""

from __future__ import annotations

from typing import Any

from autotune.analysis.limits import Aims
from autotune.space.domains import Choice, Domain
from autotune.space.parameter_tables import Value
from autotune.space.space import Space

Plain = str | int | float | bool


def study_of(name: str, aims: Aims, space: Space) -> dict[str, Any]:
    """Return the study of one target of the sweep `name`: its objectives with directions, limits, and the domains of its
    parameters.
    """
    return {
        "name": name if space.target is None else f"{name}-{space.target}",
        "target": space.target,
        "objectives": dict(aims.objectives),
        "limits": [str(limit) for limit in aims.limits],
        "domains": _domains(space),
    }


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
