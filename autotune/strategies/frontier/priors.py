"""Prior knowledge of LoRA settings and recipes: where the search begins, until scores overrule it.

Losses and gains are in units of the score (a share). Sources: Biderman et al., "LoRA Learns Less and Forgets Less" (2024), and
Schulman et al., "LoRA Without Regret" (2025): the best learning rate is about ten times that of full training, higher in
short trainings, and adapters on all linear layers are better than on attention alone. `constants` gives the source of
each number.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from autotune.candidate import BITS, Lora, Recipe
from autotune.strategies.frontier.constants import (
    ALL_LINEAR_GAIN,
    BEST_RATE,
    COARSE_LOSS,
    FOOTPRINT_EXPONENT,
    MIXED_SHARE,
    MOST_RATE_LOSS,
    QUANTISED_BITS,
    RANK_EXPONENT,
    RANK_LOSS,
    RATE_LOSS,
    RATE_WIDTH_ABOVE,
    RATE_WIDTH_BELOW,
    RECIPE_LOSS,
    REFERENCE_ALPHA_OVER_R,
    REFERENCE_BLOCK,
    SCALE_BITS,
    SHORT_STEPS,
    STEEP_WIDTHS,
    UNQUANTISED_BITS,
    USUAL_WIDTH,
    WIDTH_EXPONENT,
)


class Prior(Protocol):
    """What an adapter's settings add to the score, by a hypothesis."""

    def __call__(self, lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:
        """Return what the settings add (a share), if the best learning rate is `shift` decades above the usual one, and a wrong
        rate costs `steepness` times as much as usual.
        """


class QuantisationLoss(NamedTuple):
    """The prior of the score that a recipe loses against the adapter at full precision."""

    mean: float
    deviation: float
    """The standard deviation of the recipe's loss."""
    adapter_deviation: float
    """The standard deviation of one adapter's loss around the recipe's."""


def prior_mean(lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:
    """Return the prior mean of an adapter's settings: what they add to the score (a share), if the best learning rate is
    `shift` decades above the usual one, and a wrong rate costs `steepness` times as much as usual, over fewer decades.
    """
    decades = decades_from_best(lora) - shift
    widths = decades / (RATE_WIDTH_ABOVE if decades > 0 else RATE_WIDTH_BELOW)
    modules = ALL_LINEAR_GAIN if lora.target_modules == "all-linear" else 0.0
    if steepness > 1:
        widths *= STEEP_WIDTHS
    return (
        -steepness * min(RATE_LOSS * widths * widths, MOST_RATE_LOSS)
        - RANK_LOSS * math.pow(lora.r, -RANK_EXPONENT)
        + modules
    )


def prior_of(width: int) -> Prior:
    """Return the prior mean of settings for a model whose hidden states have this width; 0: unknown.

    A wider model wants a lower learning rate. Below `USUAL_WIDTH` nothing was measured, and the usual rate holds.
    """
    known = -WIDTH_EXPONENT * math.log10(max(width, USUAL_WIDTH) / USUAL_WIDTH)

    def prior(lora: Lora, shift: float = 0.0, steepness: float = 1.0) -> float:
        """Return the prior mean of an adapter's settings, if the best learning rate is `shift` decades above this model's."""
        return prior_mean(lora, known + shift, steepness)

    return prior


def decades_from_best(lora: Lora) -> float:
    """Return how many decades an adapter's effective learning rate is above the usual best one; negative: below."""
    best = BEST_RATE * (1 + SHORT_STEPS / lora.steps if lora.steps is not None else 1)
    return math.log10(lora.learning_rate * math.sqrt(lora.alpha / lora.r / REFERENCE_ALPHA_OVER_R) / best)


def prior_loss(recipe: Recipe | None) -> QuantisationLoss:
    """Return the prior of a recipe's quantisation loss."""
    bits = bits_of(recipe)
    mean, deviation, of_adapter = RECIPE_LOSS[bits]
    block = (recipe.block_size if recipe is not None else None) or REFERENCE_BLOCK
    doublings = max(0.0, math.log2(block / REFERENCE_BLOCK)) if recipe is not None and bits == 4 else 0.0
    return QuantisationLoss(mean + COARSE_LOSS * doublings, deviation + COARSE_LOSS * doublings, of_adapter)


def bits_of(recipe: Recipe | None) -> int:
    """Return the bits of most weights."""
    return BITS.get(recipe.precision, UNQUANTISED_BITS) if recipe is not None else UNQUANTISED_BITS


def stored_bits(recipe: Recipe | None) -> float:
    """Return the mean bits that a weight takes on disk, with its block's scale and the layers that are kept at int8."""
    bits = bits_of(recipe)
    if recipe is None or bits > QUANTISED_BITS:
        return float(bits)
    scales = SCALE_BITS / (recipe.block_size or REFERENCE_BLOCK)
    groups = len(recipe.mixed_precision.split(",")) if recipe.mixed_precision else 0
    return bits + scales + groups * MIXED_SHARE * (QUANTISED_BITS - bits)


def relative_footprint(bits: float, reference: float) -> float:
    """Return the predicted ratio of latency and size between builds of `bits` and of `reference` bits."""
    return math.pow(bits / reference, FOOTPRINT_EXPONENT)
