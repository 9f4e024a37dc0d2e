"""Which modules of a model get an adapter: what `target_modules` means in it."""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import StageError
from autotune.space.adapters import fit_modules


def target_modules(model: Any, wanted: str | tuple[str, ...]) -> str | list[str]:
    """Return what PEFT understands for a preset or a list of names.

    Raises StageError (`unsupported`) where nothing matches, and for a head that shares its weights with the embedding.
    """
    if wanted == "all-linear":
        return wanted
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    last = {name: name.rsplit(".", 1)[-1] for name in linear}
    if wanted in ("attention", "mlp"):
        parents = ("attn", "attention") if wanted == "attention" else ("mlp", "feed_forward", "ffn")
        inside = [n for n in linear if any(p in n.rpartition(".")[0].rsplit(".", 1)[-1] for p in parents)]
        if not inside:
            raise StageError(
                "unsupported", f"target_modules: this model has no modules for '{wanted}'; list their names"
            )
        found = {last[n] for n in inside}
        # PEFT matches by the last part of a name: where that means others too, only whole names will do.
        return sorted(found) if all(n in inside for n in linear if last[n] in found) else sorted(inside)
    asked = set(fit_modules((wanted,) if isinstance(wanted, str) else wanted, last.values()))
    missing = asked - set(last.values())
    if missing:
        message = f"target_modules: the model has no linear module named {', '.join(sorted(missing))}"
        raise StageError("unsupported", f"{message}; it has {', '.join(sorted(set(last.values())))}")
    embedding = model.get_input_embeddings()
    shared = sorted({last[n] for n, module in linear.items() if module.weight is embedding.weight} & asked)
    if shared:
        message = f"target_modules: {shared[0]} shares its weights with the embedding, which a merge would change too"
        raise StageError("unsupported", f"{message}; leave it out")
    return sorted(asked)


def targets_of(model: Any) -> dict[str, Any]:
    """Return `linear`: the names of linear modules that can get an adapter; `shared`: those that share their weights with the
    embedding; `absent`: presets that mean no module of this model.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    embedding = model.get_input_embeddings()
    shared = {name.rpartition(".")[2] for name, module in linear.items() if module.weight is embedding.weight}
    absent = []
    for preset in ("attention", "mlp"):
        try:
            target_modules(model, preset)
        except StageError:
            absent.append(preset)
    names = {name.rpartition(".")[2] for name in linear} - shared
    return {"linear": sorted(names), "shared": sorted(shared), "absent": absent}
