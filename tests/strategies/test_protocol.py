"""One contract for all strategies, and what is particular to each."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from fakes import next_of, score_of
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from autotune.candidate import Candidate, Recipe, Session
from autotune.metrics import Direction
from autotune.space.adapters import lora_impossible
from autotune.space.domains import Choice, Domain, Range
from autotune.space.space import Space
from autotune.strategies.baselines import Left, Random, drawn
from autotune.strategies.named import make_strategy
from autotune.strategies.optuna_samplers import POPULATION, Sampled
from autotune.strategies.protocol import Proposal, Strategy, Told
from autotune.sweepfile.schema import STRATEGIES

DEFAULTS = {"batch_size": 8, "max_length": 128, "steps": 30}
RECIPES = (
    Recipe(precision="fp32"),
    Recipe(precision="int8", algorithm="default", block_size=32, accuracy_level=4, symmetric=True),
    Recipe(precision="int4", algorithm="k_quant", block_size=32, accuracy_level=4),
)
OBJECTIVES: dict[str, Direction] = {"accuracy": "maximize", "size_mb": "minimize"}
DIRECTIONS = list(OBJECTIVES.values())
CONDITIONAL: dict[str, Domain] = {
    "r": Choice((16, 4)),
    "double_quant": Choice((False, True)),
    "quantized_base": Choice(("none", "nf4")),
}
"""double_quant means something under nf4 alone: of the 2 x 2 x 2 combinations 6 are different."""
WIDE: dict[str, Domain] = {
    "r": Range(4, 64, log=True, integer=True),
    "alpha_over_r": Range(0.1, 4.0),
    "learning_rate": Range(1e-4, 1e-2, log=True),
    "dropout": Choice((0.0, 0.05, 0.1)),
    "target_modules": Choice(("attention", ("q_proj", "v_proj"))),
    "dora": Choice((False, True)),
    "quantized_base": Choice(("none", "nf4", "int8")),
    "double_quant": Choice((False, True)),
    "batch_size": Range(1, 8, integer=True),
}
SAMPLED = ["tpe", "nsga2", "gp"]
WHOLE = [name for name in STRATEGIES if name != "frontier"]
"""They ask for whole candidates; what `frontier` asks for is in test_frontier.py."""
OPEN = [name for name in WHOLE if name != "grid"]
every = pytest.mark.parametrize("name", WHOLE)


def space_of(lora: Mapping[str, Domain] | None, recipes: tuple[Recipe, ...] = RECIPES) -> Space:
    return Space(lora, recipes, (), DEFAULTS, "cpu")


def take_with(strategy: Strategy, workers: int, rng: random.Random, most: int = 1000) -> list[Candidate]:
    """Ask and tell with so many in flight, which end in a random order, until nothing is left. Returns them as asked."""
    taken: list[Candidate] = []
    pending: list[Proposal] = []
    while True:
        asked = strategy.ask(min(workers - len(pending), most - len(taken)), tuple(pending))
        pending += asked
        taken += [proposal.candidate for proposal in asked]
        assert len(pending) <= workers
        if not pending:
            return taken
        ended = pending.pop(rng.randrange(len(pending)))
        strategy.tell(ended, told_of(ended.candidate))


def make(name: str, space: Space, seed: int = 0) -> Strategy:
    return make_strategy(name, space, OBJECTIVES, seed)


def told_of(candidate: Candidate) -> Told:
    """Every third candidate fails; the rest have two values, and a limit that some of them break."""
    if int(candidate.id, 16) % 3 == 0:
        return Told(None, {})
    size = {"fp32": 540.0, "int8": 267.0, "int4": 90.0}[candidate.recipe.precision if candidate.recipe else "fp32"]
    return Told((score_of(candidate.lora, candidate.recipe), size), {"size_mb <= 300": size - 300})


def take(strategy: Strategy, most: int = 1000) -> list[Candidate]:
    """Ask and tell until nothing is left."""
    taken: list[Candidate] = []
    while len(taken) < most and (proposal := next_of(strategy)) is not None:
        taken.append(proposal.candidate)
        strategy.tell(proposal, told_of(proposal.candidate))
    return taken


# --- the contract ----------------------------------------------------------------------------------------------------


@every
def test_lesson_1_a_finite_space_is_visited_whole_each_candidate_once_and_then_ends(name: str) -> None:
    space = space_of(CONDITIONAL)
    taken = take(make(name, space))
    assert len(taken) == 18
    assert Counter(c.id for c in taken) == Counter(c.id for c in space.grid())
    assert {c.recipe for c in taken} == set(RECIPES)


@every
def test_lesson_5_what_means_nothing_makes_no_candidate(name: str) -> None:
    taken = take(make(name, space_of(CONDITIONAL)))
    without = [c for c in taken if c.lora and c.lora.quantized_base == "none"]
    assert len(without) == 6
    assert all(c.lora and c.lora.double_quant is None for c in without)


@pytest.mark.parametrize("name", OPEN)
def test_every_choice_of_a_wide_space_is_visited(name: str) -> None:
    count = 12 if name == "gp" else 24  # from 11 on a draw of gp takes a second
    taken = take(make(name, space_of(WIDE)), count)
    assert len({c.id for c in taken}) == count
    assert {c.recipe for c in taken} == set(RECIPES)
    loras = [c.lora for c in taken if c.lora]
    for field, count in (
        ("target_modules", 2),
        ("dora", 2),
        ("quantized_base", 3),
        ("dropout", 3),
        ("double_quant", 3),
    ):
        assert len({getattr(lora, field) for lora in loras}) == count, field


@every
def test_recipes_alone_and_adapters_alone(name: str) -> None:
    assert {c.recipe for c in take(make(name, space_of(None)))} == set(RECIPES)
    alone = take(make(name, space_of({"r": Choice((4, 8))}, ())))
    assert sorted(c.lora.r for c in alone if c.lora) == [4, 8]
    assert all(c.recipe is None for c in alone)
    fixed = take(make(name, space_of({"r": Choice((4,))}, ())))
    assert [c.kind for c in fixed] == ["adapter"]


@every
@pytest.mark.parametrize("kill", [1, 7, 12, 17])
def test_a_killed_sweep_goes_on_without_repeats(name: str, kill: int) -> None:
    space = space_of(CONDITIONAL)
    before = take(make(name, space), kill)
    again = make(name, space)
    for candidate in before:
        again.replay(candidate, told_of(candidate))
    after = take(again)
    assert Counter(c.id for c in before + after) == Counter(c.id for c in space.grid())
    if name in ("random", "grid"):
        assert before + after == take(make(name, space))


@every
def test_a_whole_replay_ends_at_once(name: str) -> None:
    space = space_of(CONDITIONAL)
    strategy = make(name, space)
    for candidate in space.grid():
        strategy.replay(candidate, told_of(candidate))
    assert next_of(strategy) is None


@every
def test_a_candidate_outside_todays_space_is_known_and_teaches_nothing(name: str) -> None:
    space = space_of({"r": Choice((4, 8)), "steps": Choice((30,))})
    other_value = space_of({"r": Choice((4, 64)), "steps": Choice((30,))})
    other_fixed = space_of({"r": Choice((4, 8)), "steps": Choice((60,))})
    other_recipe = space_of({"r": Choice((4, 8)), "steps": Choice((30,))}, (Recipe(precision="int8"),))
    strategy = make(name, space)
    inside = list(space.grid())[:2]
    for outside in (other_value, other_fixed, other_recipe, space_of(None), space_of({"r": Choice((4, 8))}, ())):
        for candidate in outside.grid():
            if candidate.id not in {c.id for c in space.grid()}:
                strategy.replay(candidate, Told((0.99, 1.0), {"a": -1.0}))
    for candidate in inside:
        strategy.replay(candidate, told_of(candidate))
    if isinstance(strategy, Sampled):
        assert len(strategy._study.trials) == 2
    assert {c.id for c in take(strategy)} == {c.id for c in space.grid()} - {c.id for c in inside}


@every
def test_what_cannot_run_here_is_never_proposed(name: str) -> None:
    space = space_of({"r": Choice((4, 8)), "dtype": Choice(("fp16", "fp32"))})
    assert {c.lora.dtype for c in take(make(name, space)) if c.lora} == {"fp32"}
    if name != "grid":
        wide = space_of({"learning_rate": Range(1e-4, 1e-2, log=True), "dtype": Choice(("fp16", "fp32"))})
        assert all(c.lora and not lora_impossible(c.lora, "cpu") for c in take(make(name, wide), 14))


@pytest.mark.parametrize("name", OPEN)
def test_a_range_of_whole_numbers_ends_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.strategies.baselines._DRAWS", 300)
    taken = take(make(name, space_of({"r": Range(4, 6, integer=True)}, RECIPES[:1])), 30)
    assert sorted(c.lora.r for c in taken if c.lora) == [4, 5, 6]


@pytest.mark.parametrize("name", OPEN)
def test_seeds_decide(name: str) -> None:
    space = space_of(WIDE)
    first = take(make(name, space, seed=1), 12)
    assert first == take(make(name, space, seed=1), 12)
    assert first != take(make(name, space, seed=2), 12)


@pytest.mark.parametrize("name", OPEN)
def test_a_space_too_large_to_count_is_not_enumerated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Space, "grid", lambda self: pytest.fail("enumerated"))
    many = {"r": Choice(tuple(range(1, 200))), "batch_size": Choice(tuple(range(1, 200)))}
    assert len(take(make(name, space_of(many)), 12)) == 12


# --- several in flight -----------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("workers", [2, 4, 16])
def test_with_many_in_flight_a_finite_space_is_visited_whole_each_candidate_once(name: str, workers: int) -> None:
    space = space_of(CONDITIONAL)
    taken = take_with(make(name, space), workers, random.Random(workers))
    assert Counter(c.id for c in taken) == Counter(c.id for c in space.grid())


@pytest.mark.parametrize("name", ["random", "grid"])
@pytest.mark.parametrize("workers", [2, 5, 16])
def test_a_plain_strategy_proposes_the_same_with_any_number_of_workers(name: str, workers: int) -> None:
    for space, most in ((space_of(CONDITIONAL), 1000), (space_of(WIDE), 40)):
        if name == "grid" and space.size() is None:
            continue
        alone = take(make(name, space), most)
        assert take_with(make(name, space), workers, random.Random(workers), most) == alone


@every
def test_there_is_nothing_to_propose_while_all_that_is_left_is_pending_and_more_after_a_change(name: str) -> None:
    space = space_of({"r": Choice((4, 8))}, RECIPES[:2])
    strategy = make(name, space)
    pending = strategy.ask(10, ())
    assert len({proposal.candidate.id for proposal in pending}) == 4
    assert strategy.ask(3, pending) == []
    assert strategy.ask(0, pending) == []
    for proposal in reversed(pending):
        strategy.tell(proposal, told_of(proposal.candidate))
    assert strategy.ask(3, ()) == []


@every
def test_what_an_earlier_run_began_may_be_pending_and_is_told(name: str) -> None:
    """The loop tries what was lost again: a proposal that this strategy did not make."""
    space = space_of(CONDITIONAL)
    strategy = make(name, space)
    first = next(space.grid())
    stranger = Proposal(first)
    taken = [proposal.candidate for proposal in strategy.ask(30, [stranger])]
    assert len(taken) == 17
    assert first not in taken
    strategy.tell(stranger, told_of(first))
    assert first not in [proposal.candidate for proposal in strategy.ask(30, ())]


@pytest.mark.parametrize("name", SAMPLED)
def test_pending_trials_run_in_the_study(name: str) -> None:
    strategy = make(name, space_of(WIDE))
    pending = strategy.ask(4, ())
    assert [trial.state for trial in study_of(strategy).trials if not trial.state.is_finished()] == [
        TrialState.RUNNING
    ] * 4
    for proposal in reversed(pending):
        strategy.tell(proposal, Told((0.5, 1.0), {}))
    assert Counter(trial.state for trial in study_of(strategy).trials)[TrialState.COMPLETE] == 4


def test_tpe_draws_apart_from_what_is_running() -> None:
    """With the constant liar, eight draws at once lie further from one another than eight that do not know of each other."""
    space = space_of({"learning_rate": Range(1e-5, 1e-1, log=True)}, ())

    def spread(told_of_each_other: bool, seed: int) -> float:
        strategy = make_strategy("tpe", space, {"accuracy": "maximize"}, seed)
        rng = random.Random(seed)
        for _ in range(20):
            candidate = drawn(space, rng)
            strategy.replay(candidate, Told((score_of(candidate.lora, None),), {}))
        asked: list[Proposal] = []
        for _ in range(8):
            asked += strategy.ask(1, asked if told_of_each_other else ())
        rates = sorted(math.log10(p.candidate.lora.learning_rate) for p in asked if p.candidate.lora)
        return rates[-2] - rates[1]

    apart = [[spread(knows, seed) for seed in range(6)] for knows in (True, False)]
    assert sum(apart[0]) > 1.2 * sum(apart[1])


# --- what the samplers are told --------------------------------------------------------------------------------------


def study_of(strategy: Strategy) -> Any:
    assert isinstance(strategy, Sampled)
    return strategy._study


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("replayed", [False, True])
def test_no_values_are_told_as_pruned_and_limits_as_constraints(name: str, replayed: bool) -> None:
    strategy = make(name, space_of(CONDITIONAL))
    for told in (Told((0.5, 100.0), {"size_mb <= 90": 10.0}), Told(None, {"size_mb <= 90": -1.0}), Told(None, {})):
        proposal = next_of(strategy)
        assert proposal is not None
        if replayed:
            strategy.replay(proposal.candidate, told)
        else:
            strategy.tell(proposal, told)
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    ended = [trial for trial in study_of(strategy).trials if trial.state in states]
    assert [trial.state for trial in ended] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [trial.constraints for trial in ended] == [{"size_mb <= 90": 10.0}, {"size_mb <= 90": -1.0}, {}]
    assert ended[0].values == [0.5, 100.0]


def test_known_draws_are_forgotten() -> None:
    strategy = make("tpe", space_of(CONDITIONAL))
    take(strategy)
    states = Counter(trial.state for trial in study_of(strategy).trials)
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == 18
    assert set(states) <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


def test_tpe_keeps_away_from_a_rank_that_always_fails() -> None:
    """As in shared/facts.md, in short: told as PRUNED. At random, 15 of 60 candidates would have that rank."""
    space = space_of({"r": Choice((4, 8, 16, 32)), "learning_rate": Range(1e-4, 1e-2, log=True)}, ())
    visits = []
    for seed in range(5):
        strategy, failed = make("tpe", space, seed), 0
        for _ in range(60):
            proposal = next_of(strategy)
            assert proposal is not None
            lora = proposal.candidate.lora
            assert lora is not None
            failed += lora.r == 32
            strategy.tell(proposal, Told(None if lora.r == 32 else (score_of(lora, None), 1.0 * lora.r), {}))
        visits.append(failed)
    assert sum(visits) / 5 < 10


def test_tpe_learns_the_objective_and_the_limit() -> None:
    space = space_of({"r": Choice((4, 8, 16)), "learning_rate": Range(1e-4, 1e-2, log=True)}, RECIPES)

    def search(limited: bool, seed: int) -> list[Candidate]:
        strategy = make_strategy("tpe", space, {"accuracy": "maximize"}, seed)
        taken: list[Candidate] = []
        for _ in range(50):
            proposal = next_of(strategy)
            assert proposal is not None
            candidate = proposal.candidate
            assert candidate.recipe is not None
            gap = 1.0 if candidate.recipe.precision == "fp32" else -1.0
            told = Told((score_of(candidate.lora, candidate.recipe),), {"size_mb <= 300": gap} if limited else {})
            strategy.tell(proposal, told)
            taken.append(candidate)
        return taken

    def mean(part: list[Candidate]) -> float:
        return sum(score_of(c.lora, c.recipe) for c in part) / len(part)

    free = [search(False, seed) for seed in range(3)]
    limited = [search(True, seed) for seed in range(3)]
    for taken in free + limited:
        assert mean(taken[-20:]) > mean(taken[:10]) + 0.02
    over = [sum(c.recipe == RECIPES[0] for taken in many for c in taken[-30:]) for many in (free, limited)]
    assert over[1] < over[0] / 2  # fp32 is the most accurate, and over the limit


def test_generations_of_nsga2_go_on_after_a_replay() -> None:
    space = space_of(WIDE)
    rng = random.Random(0)
    strategy = make("nsga2", space)
    for number in range(25):
        strategy.replay(drawn(space, rng), Told((number / 25, 1.0), {}) if number % 5 else Told(None, {}))
    take(strategy, 12)
    generations = Counter(t.system_attrs["NSGAIISampler:generation"] for t in study_of(strategy).trials
                          if t.state == TrialState.COMPLETE)  # fmt: skip
    assert generations[0] == generations[1] == POPULATION
    assert set(generations) == {0, 1, 2}


# --- drawing ---------------------------------------------------------------------------------------------------------


def test_grid_goes_through_all_recipes_of_an_adapter_first() -> None:
    space = space_of({"r": Choice((16, 4))})
    assert [(c.lora.r, c.recipe) for c in take(make("grid", space)) if c.lora] == [
        (r, recipe) for r in (16, 4) for recipe in RECIPES
    ]  # fmt: skip


def test_random_goes_on_as_if_undisturbed_even_where_one_is_forgotten() -> None:
    """A lost candidate is not replayed: it is drawn again at its place, and the rest follows as before."""
    space = space_of(CONDITIONAL)
    calm = take(Random(space, 3), 10)
    again = Random(space, 3)
    for candidate in calm[:2] + calm[3:6]:
        again.replay(candidate, Told(None, {}))
    assert take(again, 5) == [calm[2], *calm[6:10]]


def test_draws_are_uniform() -> None:
    space = space_of(WIDE)
    rng = random.Random(0)
    many = [drawn(space, rng) for _ in range(3000)]
    loras = [c.lora for c in many if c.lora]
    assert abs(Counter(c.recipe for c in many)[RECIPES[0]] - 1000) < 100
    assert abs(sum(lora.learning_rate < 1e-3 for lora in loras) - 1500) < 120  # half of them in half of the decades
    assert abs(sum(lora.alpha / lora.r < 2.05 for lora in loras) - 1500) < 120
    counts = Counter(lora.batch_size for lora in loras)
    assert set(counts) == set(range(1, 9))
    assert max(counts.values()) < 1.35 * min(counts.values())
    ranks = Counter(lora.r for lora in loras)
    assert (min(ranks), max(ranks)) == (4, 64)
    assert ranks[4] > ranks[64] > 0
    assert abs(sum(n for r, n in ranks.items() if r < 16) - 1500) < 150


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.floats(1e-3, 1.0), factor=st.floats(1.01, 100), log=st.booleans())
def test_every_candidate_of_a_space_can_be_replayed_into_it(seed: int, low: float, factor: float, log: bool) -> None:
    """What a row says is what the sampler would have drawn: the inverse, through the text of results.csv."""
    lora = WIDE | {"alpha_over_r": Range(low, low * factor, log=log)}
    space = space_of(lora)
    candidate = drawn(space, random.Random(seed))
    again = Candidate.from_columns({name: str(value) for name, value in candidate.columns().items()})
    assert again.id == candidate.id
    strategy = make("tpe", space)
    assert isinstance(strategy, Sampled)
    params = strategy._params(again)
    assert params is not None
    strategy.replay(again, Told((0.5, 1.0), {}))
    study = study_of(strategy)
    study.enqueue_trial(params)
    assert strategy._candidate(study.ask()).id == candidate.id
    assert candidate not in strategy._left


def test_the_end_of_a_range_can_be_replayed() -> None:
    """0.7 x 3 / 3 is below 0.7 by one bit: it is in the range all the same."""
    space = space_of({"r": Choice((3, 7)), "alpha_over_r": Range(0.7, 1.1)}, ())
    strategy = make("tpe", space)
    assert isinstance(strategy, Sampled)
    assert 0.7 * 3 / 3 < 0.7
    for value in (0.7, 1.1):
        for r in (3, 7):
            assert strategy._params(space.candidate({"r": r, "alpha_over_r": value}, None)) is not None
    assert strategy._params(space.candidate({"r": 3, "alpha_over_r": 0.69}, None)) is None


def test_what_is_left_of_a_space() -> None:
    space = space_of(CONDITIONAL)
    left = Left(space)
    seen = set()
    while (candidate := left.draw(f"seed {len(seen)}")) is not None:
        assert candidate in left
        left.remove(candidate)
        assert candidate not in left
        seen.add(candidate.id)
    assert left.none()
    assert len(seen) == 18


def test_a_proposal_is_data() -> None:
    candidate = next(space_of(CONDITIONAL).grid())
    assert Proposal(candidate) == Proposal(candidate, None)


SESSIONS = (None, Session(threads=1), Session(threads=2, arena=False))


@every
def test_sessions_are_searched_and_an_earlier_run_is_known(name: str) -> None:
    whole = Space({"r": Choice((4, 8))}, RECIPES[:2], (), DEFAULTS, "cpu", SESSIONS)
    strategy, seen = make(name, whole), []
    for _ in range(7):
        proposal = next_of(strategy)
        assert proposal is not None
        seen.append(proposal.candidate)
        strategy.tell(proposal, told_of(proposal.candidate))
    again = make(name, whole)
    for candidate in seen:
        again.replay(candidate, told_of(candidate))
    while (proposal := next_of(again)) is not None:
        seen.append(proposal.candidate)
        again.tell(proposal, told_of(proposal.candidate))
    assert len(seen) == len({candidate.id for candidate in seen}) == 2 * 2 * 3
    assert {candidate.session for candidate in seen} == set(SESSIONS)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_session_that_is_searched_no_more_teaches_nothing(name: str) -> None:
    old = Candidate(recipe=RECIPES[0], session=Session(threads=64))
    for sessions in ((), SESSIONS):
        strategy = make(name, Space(None, RECIPES, (), DEFAULTS, "cpu", sessions))
        strategy.replay(old, Told((0.5, 540.0), {}))
        assert isinstance(strategy, Sampled)
        assert strategy._number() == 0
        strategy.replay(Candidate(recipe=RECIPES[0]), Told((0.5, 540.0), {}))
        assert strategy._number() == 1
