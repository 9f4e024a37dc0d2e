"""A good space around the single point of an Olive configuration: what `--search` searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.providers import PROVIDERS
from autotune.sweepfile.olive.draft import Draft

TRIALS = 40
"""Candidates of a widened sweep, where the file says none."""
_WHY = "widened by --search"
_RANKS = (8, 16, 32, 64)
_RATES = (1 / 3, 30.0)
"""By how much below and above the file's own learning rate is searched: LoRA's best is about ten times that of a full
fine-tuning, from which rates of files are often taken (LoRA Without Regret)."""
_HIGHEST_RATE = 1e-2
_SHORT, _LONGER = 100, 4
"""A training of fewer steps than this may be one to try a file out, and no model has learned its task at the end: one that
is so many times as long is searched as well.
"""


def widen(draft: Draft, providers: Sequence[str] = ()) -> None:
    """Replace what is one value by a space that holds it; what the file searches already stays as it is.

    `providers`: those that the command line names in place of the file's; the recipes are such as all of them run.
    """
    if draft.get("space.lora") is not None:
        _widen_adapter(draft)
    if draft.get("space.build") is not None:
        _widen_builds(draft, providers or [str(draft.get("target.provider"))])
    draft.sweep["strategy"] = "frontier"
    draft.origins["strategy"] = _WHY
    trials = draft.get("budget.trials")
    if trials in (None, 1):
        draft.sweep["budget"] = {**(draft.get("budget") or {}), "trials": TRIALS}
        draft.origins["budget.trials"] = _WHY


def _widen_adapter(draft: Draft) -> None:
    lora = draft.sweep["space"]["lora"]

    def put(name: str, value: Any) -> None:
        lora[name] = value
        before = draft.origins.get(f"space.lora.{name}")
        draft.origins[f"space.lora.{name}"] = f"{_WHY}, around {before}" if before else _WHY

    rank, alpha = lora.get("r"), lora.get("alpha")
    if isinstance(rank, int):
        put("r", {"choice": sorted({*_RANKS, rank})})
        if isinstance(alpha, int | float):
            ratio = alpha / rank
            before = draft.origins.pop("space.lora.alpha", "")
            del lora["alpha"]
            put("alpha_over_r", {"choice": sorted({ratio, 1.0, 2.0})})
            draft.ledger.moved("space.lora.alpha", "space.lora.alpha_over_r")
            draft.origins["space.lora.alpha_over_r"] = f"{_WHY}, around {before} over its r"
    rate = lora.get("learning_rate")
    if isinstance(rate, int | float):
        high = max(min(rate * _RATES[1], _HIGHEST_RATE), rate * 2)
        put("learning_rate", {"loguniform": [float(f"{rate * _RATES[0]:.3g}"), float(f"{min(high, 1.0):.3g}")]})
    steps, accumulation = lora.get("steps"), lora.get("accumulation")
    if isinstance(steps, int) and steps < _SHORT:
        put("steps", {"choice": [steps, _LONGER * steps]})
    if isinstance(accumulation, int) and accumulation > 1:  # more steps of the same rows
        put("accumulation", {"choice": [1, accumulation]})
    modules = lora.get("target_modules")
    if modules is not None and not isinstance(modules, Mapping) and modules != "all-linear":
        put("target_modules", {"choice": [modules, "all-linear"]})
    if draft.get("data.prompt") is not None and "loss_on" not in lora:
        put("loss_on", {"choice": ["text", "completion"]})


def _widen_builds(draft: Draft, providers: Sequence[str]) -> None:
    first, *others = [PROVIDERS.get(name, PROVIDERS["cpu"]).precisions for name in providers]
    precisions = tuple(one for one in first if all(one in other for other in others))
    qdq = any(PROVIDERS[name].qdq for name in providers if name in PROVIDERS)
    draft.sweep["space"]["build"] = _around(draft.sweep["space"]["build"], precisions, qdq)
    draft.origins["space.build"] = f"{_WHY}, around {draft.origins.get('space.build', 'the file')}"


def _around(given: list[dict[str, Any]], precisions: tuple[str, ...], qdq: bool) -> list[dict[str, Any]]:
    """Return the file's recipes, and others for what runs on the provider; `qdq`: with the algorithm default alone."""
    builds = list(given)
    for precision in precisions:
        if precision == "int4" and qdq:
            builds.append({"precision": "int4", "symmetric": [True, False], "block_size": [32, 128]})
        elif precision == "int4":
            builds += [
                {"precision": "int4", "algorithm": ["default", "rtn"], "block_size": [32, 128]},
                {
                    "precision": "int4",
                    "algorithm": "k_quant",
                    "mixed_precision": ["", "last_matmul:int8,mixed_layers:int8"],
                },
            ]
        else:
            builds.append({"precision": precision})
    made: list[dict[str, Any]] = []
    for build in builds:
        if build not in made:
            made.append(build)
    return made
