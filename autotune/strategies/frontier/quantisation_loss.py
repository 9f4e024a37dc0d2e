"""The quantisation loss of each recipe, learned from adapters that were measured in several recipes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from autotune.strategies.frontier.priors import QuantisationLoss


def posterior_losses(
    crossed: Iterable[Mapping[str, float]], prior: Mapping[str, QuantisationLoss]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the expected loss of each deployment (a share), and the standard deviation of the loss of an adapter that was
    not measured in it.

    `crossed`: the scores of each adapter, by deployment; `prior`: the prior of each deployment's loss. It is the posterior
    of a linear model with normal noise: a score is the adapter's own, which has a flat prior, less the deployment's loss.
    """
    names = list(prior)
    place = {name: number for number, name in enumerate(names)}
    means, deviations, own = np.array(list(prior.values())).T
    precision, weighted = np.diag(deviations**-2), means * deviations**-2
    alike: dict[tuple[str, ...], list[list[float]]] = {}
    for scores in crossed:
        alike.setdefault(tuple(scores), []).append(list(scores.values()))
    for measured, each in alike.items():
        where = [place[name] for name in measured]
        # The adapter's own score is integrated out, so that only differences between its deployments count.
        known = own[where] ** -2
        differences = np.diag(known) - np.outer(known, known) / known.sum()
        precision[np.ix_(where, where)] += len(each) * differences
        weighted[where] -= differences @ np.sum(each, axis=0)
    covariance = np.linalg.inv(precision)
    losses, spreads = covariance @ weighted, np.sqrt(np.diag(covariance) + own**2)
    return dict(zip(names, losses.tolist(), strict=True)), dict(zip(names, spreads.tolist(), strict=True))
