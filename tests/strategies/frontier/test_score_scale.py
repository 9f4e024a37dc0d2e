"""Any score as a share."""

from __future__ import annotations

import pytest

from autotune.strategies.frontier.score_scale import ScoreScale


def test_shares_are_themselves() -> None:
    assert ScoreScale("accuracy", "maximize").share(0.62) == 0.62


def test_a_perplexity_counts_in_nats_from_the_untouched_model_down() -> None:
    scale = ScoreScale("perplexity", "minimize")
    scale.add(64.0, untouched=True)
    scale.add(16.0)
    shares = [scale.share(value) for value in (64.0, 32.0, 16.0)]
    assert shares == pytest.approx([0.4, 0.525, 0.65])


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_other_scores_are_measured_against_the_untouched_model_and_the_best(unit: float) -> None:
    up, down = ScoreScale("custom", "maximize"), ScoreScale("custom", "minimize")
    for value, untouched in ((40, True), (60, False), (50, False)):
        up.add(value * unit, untouched)
        down.add(-value * unit, untouched)
    for scale, sign in ((up, 1), (down, -1)):
        shares = [scale.share(sign * value * unit) for value in (40, 50, 60)]
        assert shares == pytest.approx([0.4, 0.525, 0.65])


def test_what_failed_does_not_hide_what_is_good() -> None:
    scale = ScoreScale("custom", "maximize")
    scale.add(40.0, untouched=True)
    for value in (60.0, 20.0):
        scale.add(value)
    assert scale.share(60.0) - scale.share(50.0) == pytest.approx(0.125)
    assert scale.share(-1e9) == 0.05


def test_without_anything_seen_a_score_is_in_the_middle() -> None:
    scale = ScoreScale("custom", "maximize")
    assert 0.05 < scale.share(7.0) < 0.98
    scale.add(7.0)
    assert scale.share(7.0) == 0.4
