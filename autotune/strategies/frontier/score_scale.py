"""Scores of any metric as shares, which the surrogate's kernel and noise are made for; a larger share is better."""

from __future__ import annotations

import math
from collections.abc import Mapping

from autotune.metrics import Direction
from autotune.strategies.frontier.constants import BASE_SHARE, GAINED_SHARE, LEAST_GAIN, SHARE_RANGE

_SHARES = frozenset({"accuracy", "exact_match", "f1", "f1_micro", "rouge_l"})
"""The metrics that are shares by themselves."""


class ScoreScale:
    """The scale of a score. A share stays as it is. Any other score (perplexity, a user's own function, a task of
    lm-evaluation-harness) is placed by the untouched model's score and the best score so far.
    """

    def __init__(self, score: str, direction: Direction) -> None:
        self._score, self._sign = score, 1.0 if direction == "maximize" else -1.0
        self._untouched: float | None = None
        self._low = self._high = 0.0
        self._any = False

    def add(self, value: float, untouched: bool = False) -> None:
        """Add a score as it was measured; `untouched`: of the untouched model."""
        signed = self._signed(value)
        if untouched:
            self._untouched = signed
        self._low = min(self._low, signed) if self._any else signed
        self._high = max(self._high, signed) if self._any else signed
        self._any = True

    def _signed(self, value: float) -> float:
        """Return a score of which more is better; a perplexity in nats, whose differences compare."""
        return -math.log(max(value, 1.0)) if self._score == "perplexity" else self._sign * value

    def share(self, value: float) -> float:
        """Return a score as a share, by the scores so far."""
        if self._score in _SHARES:
            return self._sign * value
        untouched = self._low if self._untouched is None else self._untouched
        # Until much is gained the range of the scores sets the scale; failures lie far below, so that only a part of it counts.
        gained = max(self._high - untouched, (self._high - self._low) * LEAST_GAIN)
        share = BASE_SHARE + (GAINED_SHARE * (self._signed(value) - untouched) / gained if gained > 0 else 0.0)
        return min(max(share, SHARE_RANGE[0]), SHARE_RANGE[1])


class ScoreScales:
    """The scale of several scores at once, such as accuracy and F1: the mean of their shares.

    A sweep that names two scores wants models that are good in both, and scores of the same predictions mostly agree. So one
    surrogate of the mean finds what is on the front of both, without a second one.
    """

    def __init__(self, directions: Mapping[str, Direction]) -> None:
        self._scales = [ScoreScale(score, direction) for score, direction in directions.items()]

    def add(self, values: tuple[float, ...], untouched: bool = False) -> None:
        """Add the scores of a model as they were measured; `untouched`: of the untouched model."""
        for scale, value in zip(self._scales, values, strict=True):
            scale.add(value, untouched)

    def share(self, values: tuple[float, ...]) -> float:
        """Return the scores of a model as one share, by the scores so far."""
        shares = [scale.share(value) for scale, value in zip(self._scales, values, strict=True)]
        return sum(shares) / len(shares)
