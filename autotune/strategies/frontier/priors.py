"""What is commonly found about LoRA settings and recipes: where a search begins, and what a few scores overrule.

In units of the score (a share). Sources: Biderman et al., "LoRA Learns Less and Forgets Less" (2024), and Schulman et al.,
"LoRA Without Regret" (2025), for rates about ten times those of full training, more in short runs, and all linear layers before attention
alone; for the sizes of the effects, and the part of alpha over rank, our own small sweeps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from autotune.candidate import BITS, Lora, Recipe

_RATE, _RATE_WORTH, _RATE_MOST = 1.3e-3, 0.03, 0.12
"""Effective learning rate (rate times the root of half of alpha over rank) that is best in the long run; what is lost at its
width, and at most."""
_SHORT = 50
"""Steps of a training whose best rate is twice that: short ones want a higher one, half as high again at 100 steps."""
_SLOWER, _FASTER = 0.7, 0.5
"""The widths, in decades: too low a rate learns less, too high a one destroys."""
_RANK_WORTH, _MODULES_WORTH = 0.006, 0.01
"""What doubling the rank is worth, and training all linear layers."""


class Drop(NamedTuple):
    """What a recipe costs in score."""

    mean: float
    spread: float
    """Standard deviation of that guess."""
    own: float
    """Standard deviation by which an adapter's cost is off the recipe's: some bear four bits better."""


_DROP = {
    32: Drop(0.0, 0.005, 0.004),
    16: Drop(0.0, 0.005, 0.004),
    8: Drop(0.003, 0.005, 0.006),
    4: Drop(0.03, 0.03, 0.03),
}
"""By bits. On an easy task four bits may cost nothing."""
_COARSE = 0.01
"""What each doubling of its blocks beyond 32 costs a recipe of four bits."""
_QUANTISED, _SCALE_BITS, _KEPT = 8, 16, 0.15
"""The most bits of quantised weights, the bits of a block's scale, and the share of the weights in each group of layers that
is kept at int8."""
_BY_BITS = 0.7
"""Latency and size go by this power of the bits."""


def worth_of(lora: Lora) -> float:
    """Return what an adapter's settings are worth."""
    decades = decades_of(lora)
    away = decades / (_FASTER if decades > 0 else _SLOWER)
    modules = _MODULES_WORTH if lora.target_modules == "all-linear" else 0.0
    return -min(_RATE_WORTH * away * away, _RATE_MOST) + _RANK_WORTH * math.log2(lora.r) + modules


def decades_of(lora: Lora) -> float:
    """Return by how many decades an adapter's effective learning rate is above the usual best."""
    best = _RATE * (1 + _SHORT / lora.steps if lora.steps is not None else 1)
    return math.log10(lora.learning_rate * math.sqrt(lora.alpha / lora.r / 2) / best)


def drop_of(recipe: Recipe | None) -> Drop:
    """Return what a recipe is thought to cost in score."""
    bits = bits_of(recipe)
    drop, spread, own = _DROP[bits]
    coarse = max(0.0, math.log2((recipe.block_size or 32) / 32)) if recipe is not None and bits == 4 else 0.0
    return Drop(drop + _COARSE * coarse, spread + _COARSE * coarse, own)


def bits_of(recipe: Recipe | None) -> int:
    """Return how many bits most weights have."""
    return BITS.get(recipe.precision, 32) if recipe is not None else 32


def stored_bits(recipe: Recipe | None) -> float:
    """Return how many bits a weight takes, with the scales of its block, and with what is kept more precisely."""
    bits = bits_of(recipe)
    if recipe is None or bits > _QUANTISED:
        return float(bits)
    scales = _SCALE_BITS / (recipe.block_size or 32)
    kept = len(recipe.mixed_precision.split(",")) if recipe.mixed_precision else 0
    return bits + scales + kept * _KEPT * (_QUANTISED - bits)


def larger_by(bits: float, than: float) -> float:
    """Return how many times as large, and slow, a recipe of so many bits is as another."""
    return math.pow(bits / than, _BY_BITS)
