"""What of an Olive configuration gives way to `--set`: keys that exclude a changed one, or that only made sense before it.

A sweep file that holds both is refused, because its author can remove one. Here its author wrote neither: one is read from
Olive's file, and who changes the other means that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autotune.errors import Problem, UsageError
from autotune.metrics import is_task
from autotune.providers import PROVIDERS
from autotune.space.parameter_tables import RECIPE
from autotune.sweepfile.olive.draft import SINGLE_POINT
from autotune.sweepfile.olive.ledger import Ledger, text_of
from autotune.sweepfile.olive.widen import TRIALS
from autotune.sweepfile.schema import Document

_TEXTS = ("data.prompt", "data.completion", "data.messages", "data.text")
_REPLACED: Mapping[str, Sequence[str]] = {
    "data.train": ("data.where",),
    "data.validation": ("data.holdout",),
    "data.holdout": ("data.validation",),
    "data.prompt": ("data.messages", "data.text"),
    "data.completion": ("data.messages", "data.text"),
    "data.messages": ("data.prompt", "data.completion", "data.text"),
    "data.text": ("data.prompt", "data.completion", "data.messages"),
    "space.lora.alpha": ("space.lora.alpha_over_r",),
    "space.lora.alpha_over_r": ("space.lora.alpha",),
    "space.lora.steps": ("space.lora.epochs",),
    "space.lora.epochs": ("space.lora.steps",),
    "target.provider": ("target.provider_options",),
    "targets": ("target",),
}
"""By key that is changed, the keys of the file that it replaces."""


def give_way(sweep: dict[str, Any], changed: Sequence[str], origins: Mapping[str, str]) -> list[str]:
    """Take out of a sweep that was read what the changed keys replace; returns what the user is told of it."""
    pairs = [(key, other) for key in changed for other in (*_REPLACED.get(key, ()), *_of_a_task(sweep, key))]
    told = [
        f"{other} of the file is left out: --set {key} takes its place"
        for key, other in pairs
        if other not in changed and _remove(sweep, other)
    ]
    if "target.provider" in changed or "target" in changed:
        told += _fit_recipes(sweep, changed)
    if any(key in _TEXTS for key in changed) and "data.metric" not in changed:
        _judge_texts(sweep)
    _search_what_is_wide(sweep, changed, origins)
    return told


def refuse_keys_of_olive(changed: Sequence[str], ledger: Ledger, shown: str) -> None:
    """Raise UsageError where `--set` names keys of Olive's file, each with the keys of the sweep that it became."""
    became = {text_of(path): entry.to for path, entry in ledger.account() if entry.fate == "mapped"}
    problems = []
    for key in changed:
        first = key.split(".")[0].partition("[")[0]
        if first in Document.model_fields or first not in {*ledger.document, *_of_engine(ledger.document)}:
            continue
        rule = "is a key of the Olive file, and --set changes those of the sweep that it becomes"
        to = " and ".join(
            dict.fromkeys(
                f"--set {one}=..." for one in (became.get(key) or became.get(f"engine.{key}", "")).split(", ") if one
            )
        )
        remedy = f"write {to}" if to else f"autotune import-olive {shown} shows them"
        problems.append(Problem(rule, key, "--set", remedy=remedy))
    if problems:
        raise UsageError(problems)


def _of_engine(document: Mapping[str, Any]) -> Iterator[str]:
    engine = document.get("engine")
    yield from engine if isinstance(engine, Mapping) else ()


def _of_a_task(sweep: Mapping[str, Any], key: str) -> Iterator[str]:
    """Yield what a task of lm-evaluation-harness has no use for: it brings its own items."""
    data = sweep.get("data")
    if key == "data.metric" and isinstance(data, Mapping) and is_task(str(data.get("metric"))):
        yield from ("data.validation", "data.holdout")


def _fit_recipes(sweep: Mapping[str, Any], changed: Sequence[str]) -> list[str]:
    """Take out of the file's recipes what means nothing on the provider that is asked for; returns what is told of it."""
    target, space = sweep.get("target"), sweep.get("space")
    provider = target.get("provider") if isinstance(target, Mapping) else None
    builds = space.get("build") if isinstance(space, Mapping) else None
    if provider not in PROVIDERS or not isinstance(builds, list) or {"space", "space.build"} & set(changed):
        return []
    told = {}
    for build in builds:
        for name in [one for one in build if one in RECIPE and RECIPE[one].providers]:
            if provider not in RECIPE[name].providers:
                del build[name]
                told[name] = f"{name} of the file is left out: it means nothing on {provider}"
    return list(told.values())


def _judge_texts(sweep: Mapping[str, Any]) -> None:
    """Score texts without answers by perplexity; for answers the metric of plain text is chosen anew."""
    data = sweep.get("data")
    if not isinstance(data, dict):
        return
    if "prompt" not in data:
        data["metric"] = "perplexity"
    elif data.get("metric") == "perplexity":
        del data["metric"]


def _remove(sweep: dict[str, Any], key: str) -> bool:
    """Remove a key where it is. Returns whether it was there."""
    here: Any = sweep
    *parents, last = key.split(".")
    for name in parents:
        here = here.get(name) if isinstance(here, dict) else None
    return isinstance(here, dict) and here.pop(last, None) is not None


def _search_what_is_wide(sweep: dict[str, Any], changed: Sequence[str], origins: Mapping[str, str]) -> None:
    """Lift the bound of one candidate where the space is changed: what is listed is tried, and ranges are searched."""
    if not any(key.split(".")[0] == "space" for key in changed):
        return
    bounded = any(key.split(".")[0] == "budget" for key in changed)
    if not bounded and origins.get("budget.trials") == SINGLE_POINT:
        _remove(sweep, "budget.trials")
    space = sweep.get("space")
    lora = space.get("lora") if isinstance(space, dict) else None
    values = lora.values() if isinstance(lora, dict) else ()
    if "strategy" not in changed and any(isinstance(one, dict) and "choice" not in one for one in values):
        sweep["strategy"] = "frontier"
        if not bounded and isinstance(sweep.setdefault("budget", {}), dict):
            sweep["budget"].setdefault("trials", TRIALS)
