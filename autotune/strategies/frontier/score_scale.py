"""Any score as a share, the larger the better: what the surrogate's noise and kernel are about."""

from __future__ import annotations

import math

from autotune.metrics import Direction

_SHARES = frozenset({"accuracy", "exact_match", "f1", "f1_micro", "rouge_l"})
_UNTOUCHED, _GAINED = 0.4, 0.25
"""Where the untouched model, and the best so far, are put of a score of unknown scale: what is usual of shares."""
_LEAST, _MOST = 0.05, 0.98


class Scale:
    """The scale of a score. Shares are themselves; others (perplexity, a user's own function, a task of
    lm-evaluation-harness) are measured against the untouched model and the best seen so far.
    """

    def __init__(self, score: str, direction: Direction) -> None:
        self._score, self._sign = score, 1.0 if direction == "maximize" else -1.0
        self._untouched: float | None = None
        self._low = self._high = 0.0
        self._any = False

    def see(self, value: float, untouched: bool = False) -> None:
        """Take in a score, as it was measured."""
        signed = self._signed(value)
        if untouched:
            self._untouched = signed
        self._low = min(self._low, signed) if self._any else signed
        self._high = max(self._high, signed) if self._any else signed
        self._any = True

    def _signed(self, value: float) -> float:
        """Return a score so that more is better; a perplexity as nats, on which its differences are alike."""
        return -math.log(max(value, 1.0)) if self._score == "perplexity" else self._sign * value

    def share(self, value: float) -> float:
        """Return a score as a share, by what was seen until now."""
        if self._score in _SHARES:
            return self._sign * value
        untouched = self._low if self._untouched is None else self._untouched
        # What failed far below says nothing of how far up it goes.
        gained = max(self._high - untouched, (self._high - self._low) / 4)
        share = _UNTOUCHED + (_GAINED * (self._signed(value) - untouched) / gained if gained > 0 else 0.0)
        return min(max(share, _LEAST), _MOST)
