"""A made-up table, for tests and until real ones are there: learning curves, costs of precision, and noise.

An adapter has an ability (log-odds of an item of middling difficulty). It grows with training as 1 - exp(-4 speed rung),
where speed goes by the logarithm of the effective learning rate (rate times alpha over rank), best at 2e-3; towards a
ceiling that higher ranks and more modules raise. Far beyond the best rate it falls apart, and at the highest effective
rate training diverges. A recipe takes a fixed amount of ability away. An item is right where ability plus its own noise is
above its difficulty, so that outcomes are paired as real ones are.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Candidate, Recipe
from autotune.space.adapters import resolve_lora
from benchmarks.search.rows import FORMAT, Row, pack_labels, pack_nats

RUNGS = (0.1111, 0.3333, 1.0)
STEPS = (10, 30, 90)
_MADE: tuple[tuple[Recipe, float, float, float, float], ...] = (
    (Recipe(precision="fp32"), 0.00, 34.0, 540.0, 9.0),
    (Recipe(precision="int8"), 0.01, 14.0, 267.0, 10.0),
    (Recipe(precision="int4", algorithm="default", block_size=32), 0.15, 8.0, 86.0, 10.0),
    (Recipe(precision="int4", algorithm="default", block_size=128), 0.30, 6.0, 80.0, 10.0),
    (Recipe(precision="int4", algorithm="k_quant", block_size=32), 0.08, 10.0, 113.0, 32.0),
)
RECIPES = {str(made[0]): made for made in _MADE}
"""Recipe, ability that it costs, milliseconds a token, size in 10^6 bytes, seconds of a build."""
_LABELS = (" fear", " joy", " sadness", " surprise")


def ability(r: int, learning_rate: float, ratio: float, modules: str, rung: float) -> float:
    """Return an adapter's log-odds of an item of middling difficulty at a rung."""
    rate = learning_rate * ratio
    speed = math.exp(-((math.log(rate / 2e-3) / 2.2) ** 2))
    ceiling = 1.2 + 0.05 * math.log2(r) + (0.12 if modules == "all-linear" else 0.0)
    broken = max(0.0, math.log(rate / 1e-2))
    return -0.6 + (ceiling + 0.6) * (1 - math.exp(-4 * speed * rung)) * math.exp(-2 * broken)


def rows(items: int = 400, test: int = 300, seed: int = 0, seeds: int = 3) -> list[Row]:
    """Return the rows of a table of 24 adapters in five recipes, as the oracle would have made them."""
    rng = np.random.default_rng(seed)
    counts = {"validation": items, "test": test}
    gold = {split: rng.integers(0, len(_LABELS), count) for split, count in counts.items()}
    difficulty = {split: rng.normal(0, 1.2, count) for split, count in counts.items()}
    levels: dict[str, tuple[Any, ...]] = {
        "learning_rate": (1e-3, 1e-2, 1e-4),
        "r": (4, 32),
        "alpha_over_r": (1.0, 4.0),
        "target_modules": ("attention", "all-linear"),
    }
    shared = {"batch_size": 8, "max_length": 128, "steps": STEPS[-1]}
    settings = [dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values())]
    loras = [resolve_lora({**shared, **values}) for values in settings]
    names = [Candidate(lora=lora).id for lora in loras]
    plain = {n: v for n, v in loras[0].model_dump(mode="json", exclude_none=True).items() if n not in ("r", "alpha")}
    header: Row = {
        "kind": "header", "format": FORMAT, "task": "synthetic", "rungs": list(RUNGS), "labels": list(_LABELS),
        "gold": {split: pack_labels(values.tolist()) for split, values in gold.items()},
        "adapters": {n: lora.model_dump(mode="json", exclude_none=True) for n, lora in zip(names, loras, strict=True)},
        "recipes": {name: about[0].model_dump(mode="json", exclude_none=True) for name, about in RECIPES.items()},
        "sweep": {"space": {"lora": plain | {name: {"choice": list(v)} for name, v in levels.items()}}},
    }  # fmt: skip
    quiet = {"status": "ok", "load": 2.0, "others": 0.0}
    made: list[Row] = [header, {"kind": "start", "seconds": 8.0, **quiet}]

    def score(able: float, split: str, item_s: float, noise: NDArray[np.float64], **key: Any) -> Row:
        lead = able - difficulty[split] + noise
        right = lead > 0
        predicted = np.where(right, gold[split], (gold[split] + 1) % len(_LABELS))
        loss, load_s = np.log1p(np.exp(-lead)), 1.5
        return {
            "kind": "score", **key, "split": split, "seconds": load_s + item_s * counts[split], "load_s": load_s,
            "predicted": pack_labels(predicted.tolist()), "loss": pack_nats(loss.tolist()),
            "margin": pack_nats(np.abs(lead).tolist()), **quiet,
        }  # fmt: skip

    def noise(scale: float) -> dict[str, NDArray[np.float64]]:
        return {split: rng.normal(0, scale, count) for split, count in counts.items()}

    untouched = noise(0.4)
    for name, (_, drop, ms, size, build_s) in RECIPES.items():
        made.append({"kind": "build", "recipe": name, "seconds": build_s, "size_mb": size, "graph": name, **quiet})
        processes = [{"itl_ms": (ms * (1 + rng.normal(0, 0.02, 64))).round(3).tolist()} for _ in range(5)]
        for process in processes:  # processes differ more than the tokens of one
            process["itl_ms"] = [round(x * (1 + 0.02 * rng.normal()), 3) for x in process["itl_ms"][:1]] * 8
        made.append({"kind": "time", "recipe": name, "seconds": 20.0, "graph": name, "processes": processes, **quiet})
        made.append({"kind": "cost", "stage": "check", "take": 1, "recipe": name, "seconds": 4.0, "others": 0.0})
        own = noise(0.2)
        made.extend(score(-0.9 - drop, split, 0.035, untouched[split] + own[split], recipe=name) for split in counts)
    made.append(score(-0.9, "validation", 0.05, untouched["validation"]))

    final = [ability(v["r"], v["learning_rate"], v["alpha_over_r"], v["target_modules"], 1.0) for v in settings]
    near = sorted(final)[-6]
    for adapter, values, able in zip(names, settings, final, strict=True):
        rate, modules = values["learning_rate"] * values["alpha_over_r"], values["target_modules"]
        step_s = 1.0 if modules == "all-linear" else 0.8
        trait = noise(0.4)
        for s in range(seeds if able >= near else 1):
            luck = rng.normal(0, 0.06)
            whole = True
            for rung, step, before in zip(RUNGS, STEPS, (0, *STEPS), strict=False):
                key: Row = {"adapter": adapter, "seed": s, "rung": rung}
                train: Row = {"kind": "train", **key, "seconds": 4 + step_s * (step - before), **quiet}
                if rate > 3e-2 and modules == "all-linear" and rung == 1.0:
                    made.append(train | {"status": "diverged", "error": "the training loss became nan"})
                    whole = False
                    break
                made.append(train | {"step": step, "step_s": step_s, "loss": 1.0})
                now = ability(values["r"], values["learning_rate"], values["alpha_over_r"], modules, rung) + luck
                own = noise(0.5)
                if rung < 1:
                    made.append(score(now, "validation", 0.05, trait["validation"] + own["validation"], **key))
            if not whole:
                continue
            made.append({"kind": "merge", "adapter": adapter, "seed": s, "seconds": 2.0, **quiet})
            own = noise(0.5)
            for name, (_, drop, _, size, build_s) in RECIPES.items():
                pair: Row = {"adapter": adapter, "seed": s, "recipe": name}
                build = {"seconds": build_s, "size_mb": size, "graph": name}
                made.append({"kind": "build", **pair, **build, **quiet})
                rounding = noise(0.2)
                for split in counts if able >= near else ("validation",):
                    shake = trait[split] + own[split] + rounding[split]
                    made.append(score(now - drop, split, 0.035, shake, **pair, rung=1.0))
    return made
