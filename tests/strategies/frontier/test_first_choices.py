"""The first adapters that `frontier` trains: near its favourite where that has learned much, elsewhere where it has not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from fakes import make_sweep

from autotune.candidate import Candidate, Lora
from autotune.strategies.frontier.constants import RATE_SHIFTS, SHIFT_CHANCES
from autotune.strategies.frontier.priors import decades_from_best, prior_mean, prior_of
from autotune.strategies.frontier.strategy import Frontier, Levers
from autotune.strategies.protocol import Told

RATES = [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
BASE = 0.35


def trained(worth: Callable[[Lora], float], ranks: list[int], rates: list[float], count: int) -> list[Lora]:
    """Return the adapters that are trained first, of a sweep without recipes; `worth` is the accuracy of each."""
    lora: dict[str, Any] = {"r": {"choice": ranks}, "learning_rate": {"choice": rates}, "steps": 300}
    sweep = make_sweep(lora=lora, build=None, objectives={"accuracy": "maximize"})
    strategy = Frontier(sweep.space, sweep.objectives, 0, 1000, Levers(rungs=False))
    strategy.replay(Candidate(), Told(None, {}, {"accuracy": BASE}, items=1000))
    found: list[Lora] = []
    while len(found) < count:
        (proposal,) = strategy.ask(1, ())
        one = proposal.candidate.lora
        assert one is not None
        found.append(one)
        values = {"accuracy": worth(one)}
        seconds = {"train": 60.0, "score": 5.0}
        strategy.tell(proposal, Told(tuple(values.values()), {}, values, None, seconds, 1.0, 1000))
    return found


def apart(one: Lora, other: Lora) -> float:
    """Return the decades between two learning rates."""
    return abs(math.log10(one.learning_rate / other.learning_rate))


@pytest.mark.parametrize("ranks", [[16], [4, 16, 64], [1, 2, 4]])
@pytest.mark.parametrize("learned", [0.25, 0.4, 0.55])
@pytest.mark.parametrize("rates", [RATES, RATES[2:], RATES[:5], RATES[::2]])
def test_after_a_good_favourite_comes_a_neighbour(ranks: list[int], learned: float, rates: list[float]) -> None:
    first, second = trained(lambda _: BASE + learned, ranks, rates, 2)
    step = math.log10(rates[1] / rates[0])
    assert apart(first, second) < 1.2 * step


@pytest.mark.parametrize("ranks", [[16], [4, 16, 64]])
@pytest.mark.parametrize("learned", [0.02, 0.0, -0.1])
def test_after_a_favourite_that_has_learned_nothing_comes_another_rate(ranks: list[int], learned: float) -> None:
    first, second = trained(lambda _: BASE + learned, ranks, RATES, 2)
    assert apart(first, second) > 0.45


@pytest.mark.parametrize("shift", [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("width", [0.35, 0.6])
def test_the_best_rate_is_found_soon_wherever_it_is(shift: float, width: float) -> None:
    """Also where a wrong rate learns nothing: within seven trainings of 21 adapters."""

    def worth(lora: Lora) -> float:
        return BASE + 0.35 * math.exp(-(((decades_from_best(lora) - shift) / width) ** 2)) + 0.002 * math.log2(lora.r)

    found = trained(worth, [4, 16, 64], RATES, 7)
    nearest = min(abs(decades_from_best(lora) - shift) for lora in found)
    assert nearest < 0.3


def test_of_rates_that_seem_as_good_the_lower_is_first() -> None:
    """A rate that is too high costs more than one that is too low."""
    lora: dict[str, Any] = {"r": 16, "learning_rate": {"choice": [1.2e-3, 2.3e-3]}, "steps": 100}
    strategy = Frontier(make_sweep(lora=lora).space, {"accuracy": "maximize"}, 0)
    (first,) = strategy.ask(1, ())
    assert first.candidate.lora is not None
    assert first.candidate.lora.learning_rate == 1.2e-3


def test_hypotheses_are_symmetric_and_leave_a_chance_that_settings_say_nothing() -> None:
    assert len(RATE_SHIFTS) == len(SHIFT_CHANCES)
    assert list(SHIFT_CHANCES) == list(reversed(SHIFT_CHANCES))
    assert [-shift for shift in reversed(RATE_SHIFTS)] == list(RATE_SHIFTS)
    assert 0.9 < sum(SHIFT_CHANCES) < 1


@pytest.mark.parametrize("width", [0, 4096])
def test_a_steep_hypothesis_loses_more_over_fewer_decades(width: int) -> None:
    prior = prior_of(width)
    sweep = make_sweep(lora={"r": 16, "learning_rate": {"choice": RATES}, "steps": 100})
    loras = [one.lora for one in sweep.space.grid() if one.lora is not None]
    usual, steep = [[prior(lora, 0.0, steepness) for lora in loras] for steepness in (1.0, 3.0)]
    assert max(usual) - min(usual) < (max(steep) - min(steep)) / 2
    assert all(one <= other for one, other in zip(steep, usual, strict=True))
    assert usual == [prior(lora) for lora in loras]
    if not width:
        assert usual == [prior_mean(lora) for lora in loras]
