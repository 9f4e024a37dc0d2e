"""The made-up worlds by name: `grid-low-0` is a grid, its best rates ten times lower than guessed, the first of its kind.

A name stands for one world, the same on every machine: its numbers are drawn by its name. Any number after the kind is a
world. A world does not depend on what `frontier` guesses today: the guess that it is right or wrong against is written here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from autotune.space.domains import Choice, Domain, Range
from autotune.space.space import Space
from benchmarks.search.landscape import REFERENCE_STEPS, Array, Landscape, Settings, settings_of
from benchmarks.search.made_table import MadeTable, made_table, measured, volume

GUESS = math.log10(1.3e-3 * (1 + 50 / REFERENCE_STEPS))
"""log10 of the rate that `frontier` thought best at alpha over rank 2 when the worlds were made (28 November 2026)."""
SHAPES = ("grid", "wide")
KINDS = {
    "right": "the best rates are those that frontier guesses",
    "low": "the best rates are ten times lower than guessed",
    "high": "the best rates are ten times higher than guessed",
    "rank": "a higher rank is better, and needs a lower rate",
    "recipe": "adapters trained at a high rate lose more to quantisation",
    "noisy": "the same settings differ by several points between training seeds",
    "bad": "nearly all settings are no better than the untouched model",
    "narrow": "good rates span a quarter of a decade",
    "small": "120 validation items instead of 500",
}
DEFAULT = tuple(
    f"{shape}-{kind}-{number}" for shape, numbers in (("grid", 2), ("wide", 1)) for kind in KINDS for number in range(numbers)
)  # fmt: skip
MINUTES = {"grid": 60, "wide": 240}
"""How long a sweep goes on, by shape."""
_LEVELS = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_DRAWS, _ROUNDS, _NEAR = 8192, 24, 512
"""For the best known of a wide space: random settings, rounds of refinement, and settings tried in each."""
SCHEDULES = ("linear", "cosine", "constant")
BASES = ("none", "nf4")


@dataclass(frozen=True)
class MadeUp:
    """One world."""

    name: str
    shape: str
    kind: str
    landscape: Landscape
    space: Space
    items: int

    @property
    def budget_s(self) -> float:
        """Seconds that a sweep goes on."""
        return 60.0 * MINUTES[self.shape]

    def table(self, sweep: int) -> MadeTable:
        """Return the table of a sweep with this seed."""
        return made_table(self.name, self.landscape, self.space, self.items, sweep)


@cache
def world_of(name: str) -> MadeUp:
    """Return a world by its name. Raises ValueError where there is no such name."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] not in SHAPES or parts[1] not in KINDS or not parts[2].isdecimal():
        raise ValueError(
            f"world {name}: a name is SHAPE-KIND-NUMBER, with a shape of {', '.join(SHAPES)} and a kind of {', '.join(KINDS)}"
        )
    shape, kind, number = parts
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    land = _landscape(kind, rng)
    space = _grid(int(number), rng) if shape == "grid" else _wide()
    items = 120 if kind == "small" else 500
    return MadeUp(name, shape, kind, land, space, items)


def _landscape(kind: str, rng: np.random.Generator) -> Landscape:
    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    usual = Landscape(
        rate=GUESS + between(-0.2, 0.2), base=between(-1.0, -0.7), gain=between(1.3, 2.3), chance=between(0.1, 0.25),
        alpha_power=between(0.4, 0.9), rate_by_rank=between(-0.08, 0.0), rate_by_batch=between(0.05, 0.25),
        rate_by_attention=between(0.1, 0.4), rate_by_steps=between(-0.25, -0.05), below=between(0.5, 0.9),
        margin=between(0.4, 0.7), edge=between(0.08, 0.2), diverges=between(0.5, 1.2), edge_by_alpha=between(0.0, 0.25),
        rank_loss=between(0.08, 0.25), attention_loss=between(0.03, 0.15), overfit=between(0.02, 0.1),
        rate_noise=between(0.05, 0.25), dora=between(-0.03, 0.06), quantized=between(0.01, 0.1),
        decay=between(-3, -1), drop=between(0.6, 1.5), drop_by_rate=between(0.0, 0.5), luck=between(0.02, 0.05),
    )  # fmt: skip
    match kind:
        case "low":
            return replace(usual, rate=usual.rate - 1)
        case "high":
            return replace(usual, rate=usual.rate + 1)
        case "rank":
            return replace(
                usual, rate_by_rank=-between(0.2, 0.3), rank_loss=between(0.35, 0.5), margin=between(0.3, 0.45)
            )
        case "recipe":
            return replace(usual, drop_by_rate=between(2.0, 3.0), drop=between(1.2, 1.8), below=between(0.3, 0.4))
        case "noisy":
            return replace(usual, luck=between(0.12, 0.18), rounding=0.06)
        case "bad":
            return replace(
                usual, margin=between(0.1, 0.2), edge=0.06, below=between(1.8, 2.4), rank_loss=between(0.3, 0.5),
                attention_loss=between(0.5, 0.7), rate_by_rank=-between(0.1, 0.15), rate=usual.rate + between(-0.6, 0.5),
            )  # fmt: skip
        case "narrow":
            return replace(usual, margin=between(0.1, 0.15), edge=0.05, below=between(1.8, 2.5), diverges=0.4)
        case _:
            return usual


def _fixed(**values: float | str | bool) -> dict[str, Domain]:
    return {name: Choice((value,)) for name, value in ({"max_length": 128} | values).items()}


def _grid(number: int, rng: np.random.Generator) -> Space:
    """Return a space of 36 to 64 adapters."""
    first = int(rng.integers(0, 2))
    rates = Choice(_LEVELS[first : first + 7])
    lora: dict[str, Domain] = _fixed(batch_size=8, steps=int(rng.choice([45, 60, 90])))
    if number % 2 == 0:
        lora |= {
            "r": Choice((4, 16, 64)),
            "target_modules": Choice(("attention", "all-linear")),
            "learning_rate": rates,
        }
    else:
        lora |= {
            "r": Choice((8, 32)), "alpha_over_r": Choice((1.0, 4.0)),
            "target_modules": Choice(("attention", "all-linear")), "learning_rate": rates,
        }  # fmt: skip
    return Space(lora, measured().recipes)


def _wide() -> Space:
    """Return a space of twelve settings, continuous where they are."""
    lora = _fixed() | {
        "r": Choice((2, 4, 8, 16, 32, 64)),
        "alpha_over_r": Range(0.5, 8.0, log=True),
        "learning_rate": Range(1e-5, 1e-1, log=True),
        "target_modules": Choice(("attention", "all-linear")),
        "dropout": Range(0.0, 0.3),
        "schedule": Choice(SCHEDULES),
        "warmup": Range(0.0, 0.3),
        "steps": Range(30, 120, log=True, integer=True),
        "batch_size": Choice((4, 8, 16, 32)),
        "dora": Choice((False, True)),
        "quantized_base": Choice(BASES),
        "weight_decay": Range(1e-4, 0.3, log=True),
    }
    return Space(lora, measured().recipes)


@cache
def best_known(name: str) -> tuple[float, tuple[float, ...]]:
    """Return the best hypervolume of a world, by the truth of settings (no luck), and the best accuracy in each recipe."""
    world = world_of(name)
    if world.shape == "grid":
        loras = [one.lora for one in replace(world.space, recipes=()).grid() if one.lora is not None]
        most = world.landscape.accuracies(settings_of(loras)).max(axis=1)
    else:
        most = _refined(world)
    return volume(world.table(0), most.tolist()), tuple(most.tolist())


def columns(space: Space, count: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return random settings of a space as columns of numbers; of choices the places."""
    found = {}
    for name, domain in space.searched.items():
        if isinstance(domain, Choice):
            found[name] = rng.integers(0, len(domain.values), count).astype(float)
        elif domain.log:
            found[name] = np.exp(rng.uniform(math.log(domain.low), math.log(domain.high), count))
        else:
            found[name] = rng.uniform(domain.low, domain.high, count)
    return found


def settings_at(space: Space, places: Mapping[str, Array]) -> Settings:
    """Return the settings at places as `columns` has them."""

    def values(name: str) -> Array:
        domain = space.searched[name]
        if not isinstance(domain, Choice):
            return np.round(places[name]) if domain.integer else places[name]
        codes: dict[str, tuple[float, ...]] = {
            "target_modules": tuple(float(one == "attention") for one in domain.values),
            "quantized_base": tuple(float(one != "none") for one in domain.values),
        }
        numbers = codes.get(name) or tuple(float(one) if isinstance(one, int | float) else 0.0 for one in domain.values)
        return np.asarray(np.array(numbers)[places[name].astype(int)])

    schedules = space.searched["schedule"]
    assert isinstance(schedules, Choice)
    schedule = np.array([str(one) for one in schedules.values])[places["schedule"].astype(int)]
    return Settings(
        values("learning_rate"), values("r"), values("alpha_over_r"), values("target_modules"), values("dropout"),
        (schedule == "constant").astype(float), (schedule == "cosine").astype(float), values("warmup"), values("steps"),
        values("batch_size"), values("dora"), values("quantized_base"), values("weight_decay"),
    )  # fmt: skip


def _refined(world: MadeUp) -> Array:
    """Return the best accuracy in each recipe of a wide space: random settings, then steps around the best."""
    rng, space = np.random.default_rng(0), world.space
    pool = columns(space, _DRAWS, rng)
    right = world.landscape.accuracies(settings_at(space, pool))
    best = {name: column[right.argmax(axis=1)] for name, column in pool.items()}
    most = right.max(axis=1)
    for turn in range(_ROUNDS):
        size = 0.3 * 0.85**turn
        for r in range(len(most)):
            near = _around(space, {name: float(column[r]) for name, column in best.items()}, size, rng)
            own = world.landscape.accuracies(settings_at(space, near))[r]
            place = int(own.argmax())
            if own[place] > most[r]:
                most[r] = own[place]
                for name, column in near.items():
                    best[name][r] = column[place]
    return np.asarray(most)


def _around(space: Space, centre: Mapping[str, float], size: float, rng: np.random.Generator) -> dict[str, Array]:
    """Return settings near one: each parameter moves in every other draw. `size`: as a share of its range."""
    near = {}
    for name, domain in space.searched.items():
        moves = rng.uniform(size=_NEAR) < 0.5
        if isinstance(domain, Choice):
            moved = rng.integers(0, len(domain.values), _NEAR).astype(float)
        else:
            low, high, here = domain.low, domain.high, centre[name]
            if domain.log:
                low, high, here = math.log(low), math.log(high), math.log(here)
            moved = np.clip(here + size * (high - low) * rng.normal(size=_NEAR), low, high)
            moved = np.exp(moved) if domain.log else moved
        near[name] = np.where(moves, moved, centre[name])
    return near
