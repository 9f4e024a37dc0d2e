"""What a second is worth that is spent on something which may be left half-way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
"""Standard normal outcomes that stand for all: (5,)."""
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_TURNS = 6
"""It converges faster than Newton's method."""


def straight(gained: Array, seconds: Array) -> Array:
    """Return the most that a second is worth of several ways, each taken to its end: gains and seconds (ways, ...)."""
    return np.asarray((gained / seconds).max(axis=0))


def looked_first(first_s: Array, gained: Array, seconds: Array, start: Array) -> Array:
    """Return what a second is worth if one looks first, and goes on only where that promises at least as much: (things,).

    A look takes `first_s` (things,) and comes out as one of `NODES`; after it there are several ways on, and what they
    gain and take is (ways, nodes, things). `start` is a rate to begin with, the better the nearer.

    It is the index of Gittins (J. R. Stat. Soc. B 41 (1979), 148-177), the most of expected gain over expected time among
    all rules of when to stop, for two steps; found as Dinkelbach (Management Science 13 (1967), 492-498) does.
    """
    rate = start
    for _ in range(_TURNS):
        net = gained - rate * seconds
        way = net.argmax(axis=0)[None]
        going = np.take_along_axis(net, way, axis=0)[0] > 0
        gain = _WEIGHTS @ np.where(going, np.take_along_axis(gained, way, axis=0)[0], 0.0)
        rest_s = _WEIGHTS @ np.where(going, np.take_along_axis(seconds, way, axis=0)[0], 0.0)
        rate = gain / (first_s + rest_s)
    return rate


def crossed(gains: Array, seconds: Array) -> tuple[Array, Array]:
    """Return what the best of several things gains and takes, the best two, and so on.

    `gains`: (things, ...), `seconds`: (things,). Returns gains and seconds, (things, ...) each.
    """
    order = np.argsort(-gains / seconds.reshape(-1, *[1] * (gains.ndim - 1)), axis=0)
    return np.take_along_axis(gains, order, axis=0).cumsum(axis=0), seconds[order].cumsum(axis=0)
