"""What settings are worth in a made-up world: learning curves, divergence, quantisation loss, and luck.

No Gaussian process is behind it. An adapter's ability is that of the untouched model and what it has learned:

    learned = gain * ceiling * (1 - exp(-(2.3 u)^1.3)),   u = v^below * (share of the schedule's learning rate spent) * ...

where v is the effective learning rate over the best one. The best rate moves with rank, batch, modules and steps. Above an
edge, which moves with rank, alpha, batch and warm-up, training is damaged; part of that heals while the rate decays; far
above the edge it diverges. A high rate looks worse before its decay than after it. What a recipe takes away may grow
with the rate at which the adapter was trained. Abilities are in units of the spread of the items' difficulty: an item is
right where ability plus the model's own noise is above its difficulty (probit), or by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Lora

Array = NDArray[np.float64]
RUNGS = (1 / 9, 1 / 3, 1.0)
REFERENCE_STEPS, REFERENCE_RANK, REFERENCE_BATCH = 60, 16, 8
TRAIT, OWN = 0.45, 0.25
"""Standard deviations of what one model makes of an item: at every rung and in every recipe, and in one of them alone."""
DROPS = (0.0, 0.02, 0.20, 0.38, 0.10)
"""Ability that each recipe of the tables takes away from an adapter at the best rate, before the world's factor."""
_SHARP = 1.5
"""How sure a model is of its answers: the slope of the log-odds over the lead."""
_LEAST = -4.0
"""The ability of a broken model: it answers by chance."""


def normal_below(z: Array) -> Array:
    """Return the probability that a standard normal is below z, within 1e-7 (Abramowitz and Stegun, 1964, 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(z))
    weights = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
    tail = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) * sum(w * t ** (n + 1) for n, w in enumerate(weights))
    return np.asarray(np.where(z >= 0, 1 - tail, tail))


def _softplus(z: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, z))


class Settings(NamedTuple):
    """The settings of many adapters as columns: (adapters,) each."""

    learning_rate: Array
    r: Array
    alpha_over_r: Array
    attention: Array
    """1 where only attention has adapters, else 0."""
    dropout: Array
    constant: Array
    cosine: Array
    """1 where that is the schedule; neither: linear."""
    warmup: Array
    steps: Array
    batch_size: Array
    dora: Array
    quantized: Array
    """1 where the base is quantised."""
    weight_decay: Array


def settings_of(loras: Sequence[Lora]) -> Settings:
    """Return the settings of adapters as columns."""
    rows = [
        (
            one.learning_rate, one.r, one.alpha / one.r, one.target_modules == "attention", one.dropout,
            one.schedule == "constant", one.schedule == "cosine", one.warmup, one.steps or REFERENCE_STEPS, one.batch_size,
            one.dora, one.quantized_base != "none", one.weight_decay,
        )
        for one in loras
    ]  # fmt: skip
    return Settings(*np.array(rows, dtype=float).reshape(len(rows), len(Settings._fields)).T)


@dataclass(frozen=True)
class Landscape:
    """The numbers of one world. Decades are of learning rate."""

    rate: float
    """log10 of the best effective rate at the reference rank, batch and steps, on all linear layers."""
    base: float = -0.9
    """Ability of the untouched model."""
    gain: float = 1.7
    chance: float = 0.2
    """The share of items that a model without any ability has right."""
    alpha_power: float = 0.6
    """The effective rate is the rate times (alpha over rank, over 2) to this power."""
    rate_by_rank: float = -0.03
    """Decades by which the best rate moves with a doubled rank; the edge moves with it."""
    rate_by_batch: float = 0.15
    """Decades with a doubled batch."""
    rate_by_attention: float = 0.2
    rate_by_steps: float = -0.15
    """Decades with twice the steps."""
    below: float = 0.7
    """How learning slows below the best rate: its speed goes by the rate to this power."""
    margin: float = 0.5
    """Decades from the best rate to the edge."""
    edge: float = 0.12
    """Decades over which damage grows."""
    diverges: float = 0.7
    """Decades from the edge to where training diverges."""
    edge_by_alpha: float = 0.1
    """Decades that the edge loses with ten times the alpha over rank, besides what the effective rate has."""
    rank_loss: float = 0.15
    """Share of the gain that rank 4 lacks; it halves with four times the rank."""
    attention_loss: float = 0.08
    """Share of the gain that adapters on attention alone lack."""
    overfit: float = 0.05
    """Ability lost with each doubling of exposure beyond the usual one; dropout and decay take from it."""
    rate_noise: float = 0.15
    """Ability hidden by the noise of the rate itself, at the best rate; it shrinks with the rate's decay."""
    dora: float = 0.02
    """Ability that DoRA adds at the reference rank; more below it."""
    quantized: float = 0.04
    """Ability that a quantised base costs; the adapter then loses less to int4."""
    decay: float = -2.0
    """log10 of the best weight decay."""
    drop: float = 1.0
    """Factor on `DROPS`."""
    drop_by_rate: float = 0.3
    """Growth of the drops (natural logarithm) with a decade of rate above the best."""
    luck: float = 0.04
    """Standard deviation of ability between training seeds of one setting; larger near the edge."""
    rounding: float = 0.03
    """The same between builds of one adapter in one recipe, besides a quarter of the drop."""

    def distances(self, s: Settings) -> tuple[Array, Array]:
        """Return the decades by which each adapter is above its best rate, and above its edge."""
        ranks, batches = np.log2(s.r / REFERENCE_RANK), np.log2(s.batch_size / REFERENCE_BATCH)
        best = (
            self.rate + self.rate_by_rank * ranks + self.rate_by_batch * batches
            + self.rate_by_attention * s.attention + self.rate_by_steps * np.log2(s.steps / REFERENCE_STEPS)
        )  # fmt: skip
        rate = np.log10(s.learning_rate) + self.alpha_power * np.log10(s.alpha_over_r / 2)
        warm = np.clip(1.5 * (s.warmup - 0.1), -0.12, 0.15)
        edge = self.margin + warm - self.edge_by_alpha * np.log10(s.alpha_over_r / 2)
        return rate - best, rate - best - edge

    def abilities(self, s: Settings, rungs: Sequence[float] = RUNGS) -> Array:
        """Return the ability of each adapter at each rung, without luck: (rungs, adapters); `_LEAST` at the lowest."""
        above, beyond = self.distances(s)
        speed = 10 ** (self.below * np.minimum(above, 0.0) + 0.2 * np.clip(above, 0.0, 1.0))
        usual = (s.steps / REFERENCE_STEPS) ** 0.8 * (s.batch_size / REFERENCE_BATCH) ** 0.35
        ceiling = (1 - self.rank_loss * np.sqrt(4 / s.r)) * (1 - self.attention_loss * s.attention)
        broken = 1.2 * _softplus(beyond / self.edge)
        exposure = np.log2(usual) + 0.5 * np.log2(s.r / REFERENCE_RANK) + np.maximum(above, -1)
        spared = 1 - 0.5 * np.minimum(1, s.dropout / 0.15) - 0.2 * (s.weight_decay > 0.01)
        overfit = self.overfit * _softplus(2 * exposure) * spared
        fixed = self.dora * s.dora * np.sqrt(REFERENCE_RANK / s.r) - self.quantized * s.quantized
        fixed = fixed - 0.01 * (np.log10(np.maximum(s.weight_decay, 1e-4)) - self.decay) ** 2
        found = []
        for share in rungs:
            linear, cosine = share - share**2 / 2, 0.5 * (share + math.sin(math.pi * share) / math.pi)
            spent = 2 * np.where(s.constant > 0, 0.7 * share, np.where(s.cosine > 0, cosine, linear))
            now = np.where(
                s.constant > 0, 1.0, np.where(s.cosine > 0, 0.5 * (1 + math.cos(math.pi * share)), 1 - share)
            )
            progress = speed * usual * spent * (1 - 0.5 * s.warmup) * (1 - s.dropout)
            learned = 1 - np.exp(-((2.3 * progress) ** 1.3))
            hidden = self.rate_noise * 10 ** (0.7 * np.clip(above, -2, 0.6)) * now
            harm = broken * (0.35 + 0.65 * now) + share * overfit + hidden
            found.append(self.base + self.gain * ceiling * learned + share * fixed - harm)
        return np.asarray(np.maximum(np.array(found), _LEAST))

    def ended(self, s: Settings) -> NDArray[np.int64]:
        """Return the number of the rung that each adapter does not reach, because it diverged; that of none: -1."""
        excess = self.distances(s)[1] - self.diverges
        rung = np.where(excess <= 0, -1, np.where(excess < 0.3, 2, np.where(excess < 0.7, 1, 0)))
        return np.asarray(rung, dtype=np.int64)

    def drops(self, s: Settings) -> Array:
        """Return the ability that each recipe takes from each adapter: (recipes, adapters)."""
        grows = np.exp(self.drop_by_rate * np.clip(self.distances(s)[0], -1.5, 1.0))
        kept = np.where(s.quantized > 0, np.array([1, 1, 0.7, 0.7, 0.7])[:, None], 1.0)
        return np.asarray(self.drop * np.array(DROPS)[:, None] * grows * kept)

    def luck_of(self, s: Settings) -> Array:
        """Return the standard deviation of each adapter's ability between training seeds: (adapters,)."""
        return np.asarray(self.luck * (1 + 1.5 / (1 + np.exp(-(self.distances(s)[1] / self.edge + 1.5)))))

    def accuracy(self, ability: Array) -> Array:
        """Return the true accuracy, over infinitely many items."""
        return np.asarray(self.chance + (1 - self.chance) * normal_below(ability / math.sqrt(1 + TRAIT**2 + OWN**2)))

    def accuracies(self, s: Settings) -> Array:
        """Return the true accuracy of settings in each recipe, without luck: (recipes, adapters); 0 where it diverges."""
        right = self.accuracy(self.abilities(s, RUNGS[-1:]) - self.drops(s))
        return np.asarray(np.where(self.ended(s)[None, :] < 0, right, 0.0))

    def outcomes(self, lead: Array, guess: Array) -> tuple[Array, Array, Array]:
        """Return right (0/1), loss and margin (nats) of items, from the lead of ability over difficulty, and which of them
        a model without ability has right (`guess`, uniform numbers, the same for all models).
        """
        lucky = guess < self.chance
        right = (lead > 0) | lucky
        sure = 1 / (1 + np.exp(-_SHARP * lead))
        probability = np.where(lucky, 0.5 + 0.5 * sure, 0.02 + 0.96 * sure)
        return right.astype(np.float64), -np.log(probability), _SHARP * np.abs(lead)


def step_seconds(lora: Lora, measured: Mapping[tuple[int, str], float]) -> float:
    """Return the seconds of a training step: measured by rank and modules on one task, with the batch, DoRA and a quantised base
    reckoned in (chosen: near to linear in the batch, a third more, a fifth more).
    """
    modules = str(lora.target_modules)
    low, high = measured[4, modules], measured[32, modules]
    own = low + (high - low) * (math.log2(lora.r) - 2) / 3
    own *= math.pow(lora.batch_size / 8, 0.9) * (1.33 if lora.dora else 1)
    return own * (1.2 if lora.quantized_base != "none" else 1)
