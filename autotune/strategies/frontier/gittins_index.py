"""The worth of each second spent on an adapter whose training may be stopped after a low-fidelity evaluation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autotune.strategies.frontier.constants import GITTINS_NODES, GITTINS_STEPS

Array = NDArray[np.float64]

NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(GITTINS_NODES)
"""Gauss-Hermite nodes of a standard normal variable: (GITTINS_NODES,)."""
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def direct_index(gained: Array, seconds: Array) -> Array:
    """Return the largest gain for each second among several options, each carried out in full. Both: (options, ...)."""
    return np.asarray((gained / seconds).max(axis=0))


def index_with_stop(first_s: Array, gained: Array, seconds: Array, start: Array) -> Array:
    """Return the worth of each second if an evaluation comes first, and decides whether to go on: (adapters,).

    The evaluation takes `first_s` (adapters,), and its outcome is one of `NODES`. Then there are several options, with gains
    and seconds (options, nodes, adapters). `start` is a first guess of the result, (adapters,).

    Source: the index of Gittins (J. R. Stat. Soc. B 41 (1979), 148-177), which is the largest expected gain over expected
    time among all stopping rules, for two steps; computed by the method of Dinkelbach (Management Science 13 (1967), 492-498).
    """
    rate = start
    for _ in range(GITTINS_STEPS):
        net = gained - rate * seconds
        option = net.argmax(axis=0)[None]
        goes_on = np.take_along_axis(net, option, axis=0)[0] > 0
        gain = _WEIGHTS @ np.where(goes_on, np.take_along_axis(gained, option, axis=0)[0], 0.0)
        rest_s = _WEIGHTS @ np.where(goes_on, np.take_along_axis(seconds, option, axis=0)[0], 0.0)
        rate = gain / (first_s + rest_s)
    return rate


def best_pairs(gains: Array, seconds: Array) -> tuple[Array, Array]:
    """Return the summed gains and seconds of an adapter's best pair, of its best two, and so on, by gain for each second.

    `gains`: (deployments, ...), `seconds`: (deployments,). Returns gains and seconds, (deployments, ...) each.
    """
    order = np.argsort(-gains / seconds.reshape(-1, *[1] * (gains.ndim - 1)), axis=0)
    return np.take_along_axis(gains, order, axis=0).cumsum(axis=0), seconds[order].cumsum(axis=0)
