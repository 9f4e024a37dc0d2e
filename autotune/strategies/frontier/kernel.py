"""The kernel of the surrogate: the covariance of adapters' scores, and its scales, which are learned from the scores.

The constants of `constants` are where the scales begin. Each is multiplied by a factor that is learned: one of all effects of
settings, one of each adapter's own luck, and one of the length scale of each parameter. Their prior is log-normal around 1, so
that a few scores move them little (maximum a posteriori; Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, chapter 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.candidate import Lora
from autotune.space.domains import Choice
from autotune.space.space import Space
from autotune.strategies.frontier.constants import (
    ADAPTER_SD,
    ADAPTER_SHARED,
    CHOICE_CORRELATION,
    FACTOR_SD,
    FIT_LEAST,
    FIT_MOST,
    FIT_STEPS,
    GROWTH_EXPONENT,
    LENGTH_FACTOR_SD,
    LENGTH_SCALE,
    LEVEL_SD,
    LOG_RATIO,
    RISE_SD,
    RPROP_FIRST,
    RPROP_LESS,
    RPROP_MORE,
    RPROP_MOST,
    RUNG_SD,
    RUNG_TILT_SD,
    SHARED_SD,
    TILT_SD,
    USUAL_DIMENSIONS,
)

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Place = tuple[list[float], list[str]]
"""An adapter's place in the space: numbers as shares of their range, and choices as texts."""


def place_of(lora: Lora, space: Space) -> Place:
    """Return an adapter's place in the space: numbers as shares of their (logarithmic) range, and choices as texts."""
    numbers, choices = [], []
    settings = lora.settings()
    settings["alpha_over_r"] = lora.alpha / lora.r
    for name, domain in space.searched.items():
        value = settings.get(name)
        ends = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
        ordered = [float(end) for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if len(ordered) < len(ends):
            choices.append(str(value))
        elif value is None:  # the adapter has no such parameter: the middle of its range
            numbers.append(0.5)
        else:
            low, high, here = min(ordered), max(ordered), float(value)
            if low > 0 and high / low > LOG_RATIO:
                low, high, here = math.log(low), math.log(high), math.log(max(here, 1e-300))
            share = (here - low) / (high - low) if high > low else 0.0
            numbers.append(share)
    return numbers, choices


@dataclass(frozen=True, eq=False)
class Scales:
    """Factors on the constants."""

    effects: float
    """On the standard deviations of what settings do."""
    luck: float
    """On the standard deviation of an adapter's own luck."""
    lengths: Array
    """On the length scale of each parameter: (parameters,)."""

    @classmethod
    def usual(cls, parameters: int) -> Scales:
        """Return the scales before any score. Where many parameters are searched, lengths grow with the root of their number, so
        that adapters stay related (Hvarfner, Hellsten and Nardi, "Vanilla Bayesian Optimization Performs Great in High
        Dimensions", 2024).
        """
        return cls(1.0, 1.0, np.full(parameters, math.sqrt(max(1.0, parameters / USUAL_DIMENSIONS))))


class Kernel:
    """The covariance of the scores of adapters at rungs, without what their prior mean adds."""

    def __init__(self, places: Sequence[Place], rates: Sequence[float], rungs: Sequence[float]) -> None:
        """`places` of the adapters; `rates`: their learning rates in decades from a usual one; `rungs`: shares of the steps."""
        self.rates = np.array(rates, dtype=float)
        width, named = (len(places[0][0]), len(places[0][1])) if places else (0, 0)
        self._numbers = np.array([numbers for numbers, _ in places], dtype=float).reshape(len(places), width)
        words = np.array([words for _, words in places], dtype=str).reshape(len(places), named)
        self._codes = np.array(
            [np.unique(column, return_inverse=True)[1] for column in words.T], dtype=np.intp
        ).reshape(named, len(places))
        self.last = len(rungs) - 1
        self.grown: Array = np.power(rungs, GROWTH_EXPONENT)
        self.level_sd = LEVEL_SD
        """The standard deviation of the level of all scores (a share)."""
        self._of_rungs = _by_rungs(self.grown)
        self.scales = Scales.usual(width + named)
        levels = [np.arange(codes.max(initial=-1) + 1) for codes in self._codes]
        named_columns = [codes[:, None] == level for codes, level in zip(self._codes, levels, strict=True)]
        owners = [np.arange(width), *(np.full(len(level), width + n) for n, level in enumerate(levels))]
        self._columns: Array = np.concatenate(
            [self._numbers / LENGTH_SCALE, *(math.sqrt(-math.log(CHOICE_CORRELATION)) * one for one in named_columns)],
            axis=1,
        )
        """Coordinates whose squared distances are those of `_apart`, summed: (adapters, columns)."""
        self._owners: Index = np.concatenate(owners).astype(np.intp)
        """The parameter of each column: (columns,)."""

    def __len__(self) -> int:
        """Return the number of adapters."""
        return len(self.rates)

    def _apart(self, a: Index, b: Index) -> Array:
        """Return the squared distances of adapters along each parameter, in length scales: (parameters, a, b)."""
        numbers = (self._numbers[a].T[:, :, None] - self._numbers[b].T[:, None, :]) / LENGTH_SCALE
        differing = self._codes[:, a][:, :, None] != self._codes[:, b][:, None, :]
        return np.concatenate([numbers**2, -2 * math.log(CHOICE_CORRELATION) * differing])

    def _similar(self, a: Index, b: Index) -> Array:
        """Return the correlation of adapters by their settings: (a, b)."""
        columns = self._columns / self.scales.lengths[self._owners]
        one, other = columns[a], columns[b]
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * one @ other.T
        return np.asarray(np.exp(-0.5 * np.maximum(squares, 0.0)))

    def forget(self) -> None:
        """Set the scales to what they are before any score."""
        self.scales = Scales.usual(len(self.scales.lengths))

    def covariance(
        self, a: Index, rungs_a: Index, b: Index, rungs_b: Index, lucky: NDArray[np.bool_] | None = None
    ) -> Array:
        """Return the covariance of the scores of adapters `a` at rungs `rungs_a` with those of `b`: (a, b). `lucky`: for which of
        `a` their own luck counts; None: for all.
        """
        settings, trend, luck, fixed = self._parts(a, rungs_a, b, rungs_b)
        if lucky is not None:
            luck *= lucky[:, None]
        settings *= self._similar(a, b)
        settings += trend
        settings *= self.scales.effects**2
        luck *= self.scales.luck**2
        settings += luck
        settings += fixed
        return settings

    def _parts(self, a: Index, rungs_a: Index, b: Index, rungs_b: Index) -> tuple[Array, Array, Array, Array]:
        """Return what is multiplied by the similarity, and the trend of learning rates, both by the effects' factor; luck; and
        what no factor multiplies: (a, b) each.
        """
        places = rungs_a[:, None] * (self.last + 1) + rungs_b[None, :]
        settings, tilted, lucky, level = (table.take(places) for table in self._of_rungs)
        level += self.level_sd**2
        tilted *= np.outer(self.rates[a], self.rates[b])
        lucky *= a[:, None] == b[None, :]  # luck is an adapter's own
        return settings, tilted, lucky, level

    def own_covariance(self, rung: int, other: int, lucky: NDArray[np.bool_] | bool = True) -> Array:
        """Return the covariance of each adapter's score at one rung with its own at another: (adapters,). `lucky`: for which
        their own luck counts.
        """
        tilt, same = self.rates**2, rung == other
        effects, luck = self.scales.effects**2, self.scales.luck**2
        settings = SHARED_SD**2 + RUNG_SD**2 * same + (TILT_SD**2 + RUNG_TILT_SD**2 * same) * tilt
        own = ADAPTER_SD**2 * (ADAPTER_SHARED + (1 - ADAPTER_SHARED) * same)
        grown = self.grown[rung] * self.grown[other]
        return np.asarray(
            grown * (effects * settings + luck * own * lucky)
            + self.level_sd**2
            + RISE_SD**2 * (self.last - max(rung, other))
        )

    def fit(self, seen: Index, at: Index, residuals: Array, noise: Array) -> None:
        """Learn the scales from scores: maximum a posteriori. They depend on these scores alone, so that a resumed sweep
        has the same.

        `residuals`: (scores,), the scores without their prior means; `noise`: (scores, scores), the covariance of their errors
        and of what is known of their prior means. Of many scores the last `FIT_MOST` are taken.
        """
        if len(seen) < FIT_LEAST:
            return
        seen, at, residuals = seen[-FIT_MOST:], at[-FIT_MOST:], residuals[-FIT_MOST:]
        noise = noise[-FIT_MOST:, -FIT_MOST:]
        similar_part, trend, luck, fixed = self._parts(seen, at, seen, at)
        apart = self._apart(seen, seen)
        usual = Scales.usual(len(apart))

        def slope(factors: Array) -> tuple[float, Array]:
            """Return the negative log posterior of the factors' logarithms, and its gradient."""
            effects, own, lengths = np.exp(2 * factors[0]), np.exp(2 * factors[1]), np.exp(factors[2:]) * usual.lengths
            similar = similar_part * np.exp(-0.5 * np.tensordot(1 / lengths**2, apart, axes=1))
            gram = effects * (similar + trend) + own * luck + fixed + noise
            lower = np.linalg.cholesky(gram)
            inverse = np.linalg.inv(gram)
            weights = inverse @ residuals
            change = 0.5 * (inverse - np.outer(weights, weights))
            spread = np.concatenate([[FACTOR_SD, FACTOR_SD], np.full(len(lengths), LENGTH_FACTOR_SD)])
            value = 0.5 * residuals @ weights + np.log(np.diag(lower)).sum() + 0.5 * ((factors / spread) ** 2).sum()
            of_lengths = np.tensordot(apart, change * effects * similar, axes=2) / lengths**2
            own_slopes = [2 * (change * effects * (similar + trend)).sum(), 2 * (change * own * luck).sum()]
            return float(value), np.concatenate([own_slopes, of_lengths]) + factors / spread**2

        found = minimum(slope, np.zeros(2 + len(usual.lengths)))
        effects, luck, *lengths = np.exp(found)
        # Scores that are all alike say little about settings that were never tried, so this factor is at least 1.
        self.scales = Scales(max(1.0, float(effects)), float(luck), np.array(lengths) * usual.lengths)


def _by_rungs(grown: Array) -> tuple[Array, Array, Array, Array]:
    """Return variances of the parts of a score at every two rungs: settings, slope of the learning rate, luck, and the rises of
    the level: (rungs * rungs,) each. `grown`: how far differences between adapters have grown, (rungs,).
    """
    rungs = np.arange(len(grown))
    same, both = np.equal.outer(rungs, rungs), np.outer(grown, grown)
    # The rise of the level from a rung to the next is random too: two rungs share all rises above the higher one.
    below = len(rungs) - 1 - np.maximum.outer(rungs, rungs)
    parts = (
        both * (SHARED_SD**2 + RUNG_SD**2 * same),
        both * (TILT_SD**2 + RUNG_TILT_SD**2 * same),
        both * ADAPTER_SD**2 * (ADAPTER_SHARED + (1 - ADAPTER_SHARED) * same),
        RISE_SD**2 * below,
    )
    settings, tilted, luck, rises = (np.asarray(part, dtype=float).ravel() for part in parts)
    return settings, tilted, luck, rises


def minimum(slope: Callable[[Array], tuple[float, Array]], begun: Array) -> Array:
    """Return the place of the least value that `FIT_STEPS` steps find; `slope` returns a value and its gradient.

    Each coordinate moves against the sign of its slope: its step grows while the sign stays, and shrinks once it changes
    (Rprop; Igel and Huesken, Neurocomputing 50 (2003), 105-123). A value that cannot be computed ends the descent.
    """
    here, size, before = begun, np.full(len(begun), RPROP_FIRST), np.zeros(len(begun))
    best, least = begun, math.inf
    for _ in range(FIT_STEPS):
        try:
            value, gradient = slope(here)
        except np.linalg.LinAlgError:
            break
        if value < least:
            best, least = here, value
        turned = gradient * before
        size = np.clip(
            np.where(turned > 0, RPROP_MORE * size, np.where(turned < 0, RPROP_LESS * size, size)), 0.0, RPROP_MOST
        )
        before = np.where(turned < 0, 0.0, gradient)
        here = here - np.sign(before) * size
    return best
