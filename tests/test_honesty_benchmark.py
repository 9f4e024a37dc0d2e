"""The error rate of the choice, for each kind of number: `benchmarks/honesty.py` in small."""

from __future__ import annotations

import numpy as np

from autotune.metrics import METRICS
from benchmarks.honesty import CANDIDATES, KINDS, formerly, now

EQUAL = np.zeros(CANDIDATES)


def test_equal_candidates_are_seldom_called_worse_whatever_is_compared() -> None:
    rng = np.random.default_rng(1)
    before = after = sweeps = 0
    for draw in KINDS.values():
        for shared in (0.0, 0.5):
            for _ in range(4):
                sweep = draw(EQUAL, shared, rng)
                before += any(formerly(sweep))
                after += any(now(sweep))
                sweeps += 1
    assert sweeps == 8 * len(KINDS) >= 120
    assert after <= 0.1 * sweeps  # 5 % and its noise
    assert before >= 0.25 * sweeps, "the sweeps would show nothing"


def test_what_is_much_worse_is_found_whatever_is_compared() -> None:
    rng = np.random.default_rng(2)
    worse = np.where(np.arange(CANDIDATES) < 3, 0.0, 4.0)
    for name, draw in KINDS.items():
        found = set().union(*now(draw(worse, 0.5, rng)))
        assert len(found) > CANDIDATES / 2, name
        assert not {"00", "01", "02"} <= found


def test_every_kind_of_score_is_among_those_that_are_simulated() -> None:
    rng = np.random.default_rng(3)
    simulated = {name for draw in KINDS.values() for name in draw(EQUAL, 0.0, rng).objectives}
    alike = {"exact_match": "accuracy", "f1_micro": "accuracy", "rouge_l": "custom"}
    scores = {alike.get(name, name) for name, metric in METRICS.items() if metric.kind == "score"}
    assert scores <= simulated
    assert {METRICS[name].kind for name in simulated} == {"score", "latency", "footprint"}
