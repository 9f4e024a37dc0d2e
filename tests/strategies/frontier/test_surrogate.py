"""What the surrogate believes: before anything is seen, along a rung, across rates, and of chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.strategies.frontier.constants import CHOICE_CORRELATION, LENGTH_SCALE
from autotune.strategies.frontier.surrogate import SHARED_CHANCE, Array, Observation, Surrogate, variance

RATES = [-1.0, -0.5, 0.0, 0.5]
"""Decades from the usual rate, of four adapters."""
RUNGS = (1 / 9, 1 / 3, 1.0)
LAST = 2


def Seen(adapter: int, rung: int, score: float, items: int) -> Observation:
    return Observation(adapter, rung, score, items, variance(score))


def surrogate(prior: list[float] | None = None) -> Surrogate:
    places: list[tuple[list[float], list[str]]] = [([(rate + 1) / 1.5], ["all-linear"]) for rate in RATES]
    return Surrogate(places, RATES, [prior or [0.0] * len(RATES)], RUNGS)


def believed(*seen: Seen) -> tuple[Array, Array]:
    found = surrogate().posterior(seen)
    return found.mean, found.deviation


def test_before_anything_is_seen_it_is_the_prior() -> None:
    found = surrogate([0.0, 0.1, -0.2, 0.05]).posterior([])
    mean, deviation = found.mean, found.deviation
    assert mean.tolist() == pytest.approx([0.5, 0.6, 0.3, 0.55])
    assert deviation.min() > 0.4
    deviation = surrogate().posterior([]).deviation
    assert deviation[0] > deviation[2]  # further from the usual rate it is less sure


def test_what_was_seen_on_many_items_is_believed() -> None:
    mean, deviation = believed(Seen(2, LAST, 0.7, 100_000))
    assert mean[2] == pytest.approx(0.7, abs=1e-3)
    assert deviation[2] < 0.01
    assert abs(mean[1] - 0.7) < 0.05  # others are on that level, too
    assert 0.03 < deviation[1] < 0.15


def test_few_items_say_less() -> None:
    few, many = (believed(Seen(2, LAST, 0.7, items))[1][2] for items in (100, 1000))
    assert few > 2 * many
    # No item has less chance than its own part of it.
    assert many >= 0.9 * np.sqrt((1 - SHARED_CHANCE) * variance(0.7) / 1000)


def test_what_is_off_the_adapters_own_score_says_less_of_it() -> None:
    exact = Seen(2, LAST, 0.7, 1000)
    near, far = (believed(exact._replace(bias_variance=apart))[1][2] for apart in (0.0, 0.03**2))
    assert far**2 == pytest.approx(near**2 + 0.03**2, rel=0.2)


def test_scores_rise_from_rung_to_rung() -> None:
    mean, deviation = believed(Seen(2, 0, 0.5, 1000))
    assert mean[2] == pytest.approx(0.5 + 2 * 0.09, abs=0.03)
    assert deviation[2] > believed(Seen(2, 1, 0.5, 1000))[1][2] > believed(Seen(2, LAST, 0.5, 1000))[1][2]


def test_one_that_climbed_shows_what_another_will_be() -> None:
    climbed = (Seen(2, 0, 0.4, 1000), Seen(2, LAST, 0.75, 1000))
    mean, deviation = believed(*climbed, Seen(1, 0, 0.3, 1000))
    assert mean[1] < mean[2] - 0.03
    assert deviation[1] < believed(Seen(1, 0, 0.3, 1000))[1][1] / 1.5


def test_a_trend_goes_on_beyond_what_was_seen() -> None:
    """Better and better towards higher rates: the next one is thought to be better still."""
    _, mean, _ = shifted(Seen(0, LAST, 0.5, 10_000), Seen(1, LAST, 0.6, 10_000), Seen(2, LAST, 0.7, 10_000))
    assert mean[3] > mean[2]
    assert mean[3] == mean.max()


def test_adapters_are_compared_on_the_items_that_both_have_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chance that they have in common is in both scores: their difference is believed the more, the more that is."""
    gaps = []
    for share in (0.0, 0.5, 0.9):
        monkeypatch.setattr("autotune.strategies.frontier.surrogate.SHARED_CHANCE", share)
        mean, _ = believed(Seen(1, LAST, 0.62, 100), Seen(2, LAST, 0.7, 100))
        gaps.append(mean[2] - mean[1])
    assert 0 < gaps[0] < gaps[1] < gaps[2] < 0.08


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, LAST), st.floats(-1, 1), st.integers(0, 2000)),
        min_size=1,
        max_size=40,
    )
)
def test_it_can_always_be_computed(observed: list[tuple[int, int, float, int]]) -> None:
    mean, deviation = believed(*(Seen(*one) for one in observed))
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()


@pytest.mark.parametrize("rung", [0, 1])
@pytest.mark.parametrize("known", [(), (Seen(1, LAST, 0.6, 500), Seen(3, 0, 0.3, 125))])
def test_a_look_teaches_what_it_was_said_to(
    rung: int, known: tuple[Observation, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left unsure after it, and what was to be learned, is what was unsure before: whatever comes out."""
    monkeypatch.setattr("autotune.strategies.frontier.surrogate.SHARED_CHANCE", 0.0)
    process, who = surrogate(), np.arange(len(RATES))
    before = process.posterior(known)
    learned = process.information(before, who, rung, variance(0.4) / 250)
    for number in who:
        after = process.posterior([*known, Seen(int(number), rung, 0.4, 250)])
        assert after.deviation[number] ** 2 + learned[number] ** 2 == pytest.approx(before.deviation[number] ** 2)


def test_more_is_learned_further_up_and_on_more_items() -> None:
    process, who = surrogate(), np.array([2])
    before = process.posterior([Seen(1, LAST, 0.6, 500)])
    few, many = (process.information(before, who, 0, 0.1 / items)[0] for items in (50, 500))
    assert few < many < process.information(before, who, 1, 0.1 / 500)[0] < before.deviation[2]


def test_probabilities_have_less_chance_than_right_and_wrong() -> None:
    assert 0 < variance(0.5, smooth=True) < variance(0.5) / 2


def shifted(*seen: Observation) -> tuple[Surrogate, Array, Array]:
    """Two hypotheses: the best rate is the highest, or the lowest."""
    places: list[tuple[list[float], list[str]]] = [([(rate + 1) / 1.5], ["all-linear"]) for rate in RATES]
    process = Surrogate(places, RATES, [[-0.09, -0.06, -0.03, 0.0], [0.0, -0.03, -0.06, -0.09]], RUNGS, (0.8, 0.2))
    found = process.posterior(seen)
    return process, found.mean, found.chances


def test_scores_change_what_the_prior_is_worth() -> None:
    _, before, chances = shifted()
    assert chances.tolist() == pytest.approx([0.8, 0.2])
    assert before.argmax() == 3
    _, after, chances = shifted(Seen(3, LAST, 0.5, 5000), Seen(1, LAST, 0.6, 5000))
    assert chances[1] > 0.3
    assert after.argmax() < 2


def test_hypotheses_that_differ_make_it_less_sure() -> None:
    one, both = surrogate([-0.09, -0.06, -0.03, 0.0]).posterior([]), shifted()[0].posterior([])
    assert both.deviation[0] > one.deviation[0]


def test_a_neighbour_is_no_fresh_ticket() -> None:
    """What an adapter that was never trained may be is the value of its settings, without luck of its own."""
    places: list[tuple[list[float], list[str]]] = [([0.5], []), ([0.5], []), ([0.9], [])]
    process = Surrogate(places, [0.0, 0.0, 0.4], [[0.0] * 3], RUNGS)
    found = process.posterior([Seen(0, LAST, 0.7, 10**9)])
    assert found.deviation[1] < found.deviation[2] / 3
    assert found.mean[1] <= 0.7


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_scales_are_learned_from_the_scores(factor: float) -> None:
    """Scores that differ much more than usual raise the factor of all effects; those that are alike do not lower it."""
    rng = np.random.default_rng(0)
    places: list[tuple[list[float], list[str]]] = [([float(x)], []) for x in np.linspace(0, 1, 24)]
    process = Surrogate(places, np.linspace(-1, 1, 24).tolist(), [[0.0] * 24], RUNGS)
    last = np.full(24, LAST)
    everyone = np.arange(24)
    level = process.kernel.covariance(everyone, last, everyone, last)
    scores = 0.5 + factor * np.linalg.cholesky(level - 0.25 + 1e-9 * np.eye(24)) @ rng.normal(size=24)
    process.posterior([Seen(n, LAST, float(score), 10**7) for n, score in enumerate(scores)], learn=True)
    learned = process.kernel.scales.effects
    assert learned == 1.0 if factor < 1 else learned > 1.4 if factor > 1 else learned < 1.7


def test_similar_settings_are_those_at_small_distances() -> None:
    """By the formula of each parameter: a Gaussian of a number, a correlation of a choice."""
    places: list[tuple[list[float], list[str]]] = [([0.1, 0.5], ["a"]), ([0.3, 0.5], ["b"]), ([0.1, 0.9], ["a"])]
    kernel = Surrogate(places, [0.0] * 3, [[0.0] * 3], RUNGS).kernel
    everyone = np.arange(3)
    found = kernel._similar(everyone, everyone)
    assert found.diagonal().tolist() == pytest.approx([1.0] * 3)
    assert found[0, 1] == pytest.approx(np.exp(-0.5 * (0.2 / LENGTH_SCALE) ** 2) * CHOICE_CORRELATION)
    assert found[0, 2] == pytest.approx(np.exp(-0.5 * (0.4 / LENGTH_SCALE) ** 2))


def test_what_is_learned_depends_on_the_scores_alone() -> None:
    """A resumed sweep has not seen the beliefs of before, and believes the same."""
    scores = [Seen(n, LAST, score, 5000) for n, score in enumerate((0.3, 0.9, 0.4, 0.8))]
    often, once = surrogate(), surrogate()
    often.posterior(scores[::-1], learn=True)
    assert often.posterior(scores, learn=True).mean.tolist() == once.posterior(scores, learn=True).mean.tolist()


@pytest.mark.parametrize(
    ("floor", "level"), [(0.0, 0.25), (0.35, 0.6), (0.5, 0.75), (0.9, 0.95), (1.0, 1.0), (-0.6, -0.35), (-0.1, -0.05)]
)
def test_scores_are_expected_above_the_untouched_model_s_and_below_the_best(floor: float, level: float) -> None:
    process = surrogate()
    before = process.posterior([]).deviation
    process.anchor(floor)
    found = process.posterior([])
    assert process.level == pytest.approx(level)
    assert (found.deviation < before - 0.1).all()


def test_one_score_beside_the_untouched_model_s_tells_a_wrong_rate() -> None:
    """Without that score the level of all scores takes it all."""

    def chances(gained: float, anchored: bool) -> Array:
        process, _, before = shifted()
        if anchored:
            process.anchor(0.4)
        assert before[0] == pytest.approx(0.8)
        return process.posterior([Seen(3, LAST, 0.4 + gained, 5000)]).chances

    assert chances(0.0, anchored=True)[1] > 0.2 > chances(0.4, anchored=True)[1]
    assert chances(0.0, anchored=False)[1] == pytest.approx(chances(0.4, anchored=False)[1], abs=0.04)
