"""What each recipe costs in score, learned from adapters that were built in several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from autotune.strategies.frontier.priors import Drop


def drops_of(
    crossed: Iterable[Mapping[str, float]], prior: Mapping[str, Drop]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each recipe costs in score, and the standard deviation of what it costs an adapter not yet seen in it.

    `crossed`: of each adapter its scores by recipe; `prior`: what each recipe is thought to cost. A score is taken to be
    what the adapter is worth, of which nothing is known, less what the recipe costs, and luck: the posterior of a linear
    model with normal noise.
    """
    names = list(prior)
    place = {name: number for number, name in enumerate(names)}
    means, deviations, own = np.array(list(prior.values())).T
    precision, pulled = np.diag(deviations**-2), means * deviations**-2
    for scores in crossed:
        where = [place[name] for name in scores]
        values = np.array(list(scores.values()))
        # What the adapter is worth is integrated out: only differences between its recipes say something.
        known = own[where] ** -2
        differences = np.diag(known) - np.outer(known, known) / known.sum()
        precision[np.ix_(where, where)] += differences
        pulled[where] -= differences @ values
    covariance = np.linalg.inv(precision)
    found, spreads = covariance @ pulled, np.sqrt(np.diag(covariance) + own**2)
    return dict(zip(names, found.tolist(), strict=True)), dict(zip(names, spreads.tolist(), strict=True))
