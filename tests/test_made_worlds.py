"""Made-up worlds: the same by name everywhere, each as its kind says, their outcomes consistent, and rivals that do what they
are said to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autotune.candidate import Candidate, Lora
from autotune.space.domains import Choice
from autotune.strategies.frontier.priors import prior_mean
from autotune.strategies.protocol import Proposal, Strategy, Told
from benchmarks.search import anytime, kinds, made_replay, rivals, worlds
from benchmarks.search.anytime import Curve
from benchmarks.search.kinds import DEFAULT, GUESS, KINDS, SHAPES, MadeUp, best_known, columns, settings_at, world_of
from benchmarks.search.landscape import RUNGS, Array, Landscape, Settings, normal_below, settings_of
from benchmarks.search.made_replay import Task, play, run
from benchmarks.search.made_table import MadeTable, MadeWorld, made_table
from benchmarks.search.replay import Conditions

NUMBERS = (0, 1, 7, 123)
"""Worlds of each kind that are looked at; the last two are in no default list."""


def adapters(world: MadeUp) -> tuple[Settings, Array]:
    """Return settings of a world, all of a grid and some of a wide space, and their true accuracy in each recipe."""
    if world.shape == "grid":
        found = settings_of([one.lora for one in replace(world.space, recipes=()).grid() if one.lora is not None])
    else:
        found = settings_at(world.space, columns(world.space, 4000, np.random.default_rng(3)))
    return found, world.landscape.accuracies(found)


def best_rate(land: Landscape, r: int = 16, recipe: int = 0) -> float:
    """Return log10 of the best learning rate of ordinary settings, by trying many."""
    rates = np.logspace(-6, 0, 601)
    usual = Lora(
        r=r, alpha=2 * r, dropout=0, target_modules="all-linear", learning_rate=1e-3, schedule="linear", warmup=0.1,
        batch_size=8, accumulation=1, gradient_checkpointing=False, max_grad_norm=1, adam_beta1=0.9, adam_beta2=0.999,
        weight_decay=0, dtype="auto", max_length=128, steps=60,
    )  # fmt: skip
    each = settings_of([usual.model_copy(update={"learning_rate": float(rate)}) for rate in rates])
    return float(np.log10(rates[land.accuracies(each)[recipe].argmax()]))


# --- The generator ------------------------------------------------------------------------------------------------


def test_there_are_worlds_of_every_kind_and_shape() -> None:
    assert len(DEFAULT) >= 24
    assert {(world_of(name).shape, world_of(name).kind) for name in DEFAULT} == {(s, k) for s in SHAPES for k in KINDS}


def test_a_name_is_one_world() -> None:
    before = {name: world_of(name) for name in ("grid-low-0", "wide-bad-5")}
    world_of.cache_clear()
    for name, world in before.items():
        assert world_of(name) == world
    assert world_of("grid-low-0").landscape != world_of("grid-low-1").landscape


@pytest.mark.parametrize("name", ["grid-low", "grid-odd-0", "tall-low-0", "grid-low-x", "grid-low--1", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="SHAPE-KIND-NUMBER"):
        world_of(name)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_best_rate_is_where_the_kind_says(shape: str, number: int) -> None:
    for kind, decades in (("right", 0.0), ("low", -1.0), ("high", 1.0)):
        land = world_of(f"{shape}-{kind}-{number}").landscape
        assert abs(best_rate(land) - GUESS - decades) < 0.5, kind


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_kinds_are_what_they_say(shape: str, number: int) -> None:
    def land(kind: str) -> Landscape:
        return world_of(f"{shape}-{kind}-{number}").landscape

    assert best_rate(land("rank"), r=4) - best_rate(land("rank"), r=64) > 0.6
    assert best_rate(land("recipe")) - best_rate(land("recipe"), recipe=3) > 0.15
    assert best_rate(land("right")) - best_rate(land("right"), recipe=3) < 0.15
    for kind, least, most in (("bad", 0.005, 0.15), ("narrow", 0.005, 0.2), ("right", 0.15, 0.7)):
        world = world_of(f"{shape}-{kind}-{number}")
        right = adapters(world)[1][0]
        untouched = float(world.landscape.accuracy(np.array(world.landscape.base)))
        good = float((right > untouched + 0.5 * (right.max() - untouched)).mean())
        assert least < good < most, kind
    assert world_of(f"{shape}-small-{number}").items == 120


def test_seeds_of_a_noisy_world_differ_by_points() -> None:
    spread = {}
    for kind in ("right", "noisy"):
        world = world_of(f"grid-{kind}-0")
        lora = rivals.favourite(world.space)
        found = []
        for sweep in range(40):
            table = world.table(sweep)
            number, _ = table.place(Candidate(lora=lora))
            found.append(table.true_accuracy((number, 0)))
        spread[kind] = float(np.std(found))
    assert spread["noisy"] > 0.02 > spread["right"] > 0.003


def test_wide_spaces_have_twelve_settings_and_columns_mean_what_adapters_do() -> None:
    world = world_of("wide-right-0")
    assert len(world.space.searched) == 12
    drawn = columns(world.space, 50, np.random.default_rng(1))
    by_columns = world.landscape.accuracies(settings_at(world.space, drawn))
    loras = []
    for n in range(50):
        values = {
            name: domain.values[int(drawn[name][n])] if isinstance(domain, Choice)
            else round(drawn[name][n]) if domain.integer else float(drawn[name][n])
            for name, domain in world.space.searched.items()
        }  # fmt: skip
        lora = world.space.candidate(values, None).lora
        assert lora is not None
        loras.append(lora)
    np.testing.assert_allclose(world.landscape.accuracies(settings_of(loras)), by_columns, rtol=1e-9)


@pytest.mark.parametrize("name", ["grid-rank-1", "wide-right-0", "wide-recipe-0", "wide-bad-3"])
def test_no_setting_is_better_than_the_best_known(name: str) -> None:
    _, most = best_known(name)
    right = adapters(world_of(name))[1].max(axis=1)
    assert np.all(right <= np.array(most) + 1e-9)
    assert np.all(right > np.array(most) - 0.1)


def test_the_normal_distribution_is_right() -> None:
    z = np.array([-6.0, -1.959964, -0.5, 0.0, 1.281552, 8.0])
    np.testing.assert_allclose(normal_below(z), [1e-9, 0.025, 0.3085375, 0.5, 0.9, 1.0], atol=2e-7)


@pytest.mark.parametrize("lead", [-2.0, -0.3, 0.8])
def test_true_accuracy_is_that_of_infinitely_many_items(lead: float) -> None:
    base = world_of("grid-right-0")
    land = replace(base.landscape, base=lead, luck=0.0, rounding=0.0)
    table = made_table("many", land, base.space, 200_000, sweep=1)
    assert table.seen(None, 0, 0).right.mean() == pytest.approx(table.true_accuracy((None, 0)), abs=0.004)
    number, recipe = table.place(Candidate(lora=rivals.favourite(base.space), recipe=table.recipes[3]))
    assert recipe == 3
    assert table.seen(number, 2, 3).right.mean() == pytest.approx(table.true_accuracy((number, 3)), abs=0.004)


def test_high_rates_look_worse_before_their_decay_and_diverge_beyond() -> None:
    land = Landscape(rate=-3.0)
    lora = rivals.favourite(world_of("grid-right-0").space)
    each = settings_of([lora.model_copy(update={"learning_rate": rate}) for rate in (1e-3, 2.5e-3, 1.0)])
    curve = land.abilities(each)
    assert np.all(np.diff(curve[:, 0]) > 0)
    assert (curve[2] - curve[1])[1] > (curve[2] - curve[1])[0]
    assert land.ended(each).tolist() == [-1, -1, 0]


# --- A sweep in a world -------------------------------------------------------------------------------------------


def measure(table: MadeTable, proposals: Sequence[Proposal]) -> list[Told]:
    world = MadeWorld(table, Conditions(seed=table.sweep))
    return [world.measure(proposal) for proposal in proposals]


def two_adapters(world: MadeUp) -> list[Lora]:
    lora = rivals.favourite(world.space)
    return [lora, lora.model_copy(update={"r": 4, "alpha": 8.0})]


def test_outcomes_are_those_of_the_model_whatever_was_asked_before() -> None:
    world = world_of("grid-right-0")
    recipe = world.space.recipes[2]
    pairs = [Proposal(Candidate(lora=lora, recipe=recipe)) for lora in two_adapters(world)]
    forth, back = measure(world.table(5), pairs), measure(world.table(5), pairs[::-1])[::-1]
    for one, other in zip(forth, back, strict=True):
        assert one.outcomes is not None
        assert other.outcomes is not None
        np.testing.assert_array_equal(one.outcomes.right, other.outcomes.right)
    other_sweep = measure(world.table(6), pairs)
    assert other_sweep[0].measured["accuracy"] != forth[0].measured["accuracy"]


def test_a_score_on_some_items_is_of_the_first_of_them() -> None:
    world = world_of("grid-right-0")
    alone = Candidate(lora=rivals.favourite(world.space))
    some, every = measure(world.table(2), [Proposal(alone, rung=RUNGS[1], items=125), Proposal(alone, rung=RUNGS[1])])
    assert some.outcomes is not None
    assert every.outcomes is not None
    assert len(some.outcomes.right) == 125
    assert len(every.outcomes.right) == world.items
    np.testing.assert_array_equal(some.outcomes.right, every.outcomes.right[:125])


def test_items_are_hard_for_all_adapters() -> None:
    world = world_of("grid-right-0")
    told = measure(world.table(2), [Proposal(Candidate(lora=lora)) for lora in two_adapters(world)])
    right = [one.outcomes.right for one in told if one.outcomes is not None]
    assert np.corrcoef(right)[0, 1] > 0.2


def test_an_adapter_is_trained_once_and_costs_by_its_steps() -> None:
    world = world_of("wide-right-0")
    lora = rivals.favourite(world.space).model_copy(update={"steps": 40})
    longer = lora.model_copy(update={"steps": 120})
    table = world.table(0)
    first, second, other = measure(
        table,
        [Proposal(Candidate(lora=lora, recipe=recipe)) for recipe in world.space.recipes[1:3]]
        + [Proposal(Candidate(lora=longer, recipe=world.space.recipes[1]))],
    )
    assert "train" not in second.seconds
    call = table.costs.call_s
    assert (other.seconds["train"] - call) / (first.seconds["train"] - call) == pytest.approx(3)


def test_an_adapter_that_diverges_is_paid_for_and_has_no_score() -> None:
    world = world_of("grid-low-0")
    lora = rivals.favourite(world.space).model_copy(update={"learning_rate": 0.1})
    (told,) = measure(world.table(0), [Proposal(Candidate(lora=lora, recipe=world.space.recipes[1]))])
    assert told.values is None
    assert "accuracy" not in told.measured
    assert told.seconds["train"] > 0


# --- The rivals ---------------------------------------------------------------------------------------------------


def asked_of(strategy: Strategy, table: MadeTable, most: int) -> list[Proposal]:
    """Return what a strategy asks for, one after another."""
    world, found = MadeWorld(table, Conditions(seed=table.sweep)), []
    while len(found) < most and (proposals := strategy.ask(1, ())):
        found += proposals
        strategy.tell(proposals[0], world.measure(proposals[0]))
    return found


@pytest.mark.parametrize("name", ["grid-right-0", "grid-right-1", "wide-right-0"])
def test_the_favourite_is_what_the_prior_thinks_best(name: str) -> None:
    world = world_of(name)
    lora = rivals.favourite(world.space)
    assert world.space.has(lora)
    if world.shape == "grid":
        every = [one.lora for one in replace(world.space, recipes=()).grid() if one.lora is not None]
        assert prior_mean(lora) == pytest.approx(max(map(prior_mean, every)))
    else:
        assert (lora.dropout, lora.schedule, lora.warmup, lora.dora, lora.quantized_base) == (
            0.0,
            "linear",
            0.1,
            False,
            "none",
        )
        near = [lora.model_copy(update={"learning_rate": lora.learning_rate * factor}) for factor in (0.5, 2)]
        assert all(prior_mean(one) < prior_mean(lora) for one in near)


@pytest.mark.parametrize("name", ["tpe-favourite", "two-stages-favourite"])
def test_rivals_that_are_told_so_begin_with_the_favourite(name: str) -> None:
    table = world_of("wide-low-0").table(1)
    count = len(table.recipes) if name == "tpe-favourite" else 1
    first = asked_of(rivals.RIVALS[name](table, 1), table, max(count, rivals.ROUND))
    own = [one.candidate for one in first if one.candidate.lora == rivals.favourite(table.space)]
    assert own[0] == first[0].candidate
    assert len(own) == count


@pytest.mark.parametrize("name", ["grid-noisy-0", "wide-right-0"])
def test_two_stages_cross_the_best_of_the_first(name: str) -> None:
    table = world_of(name).table(3)
    asked = asked_of(rivals.TwoStages(table.space, 3, begun=False), table, rivals.ROUND + 4 * rivals.CROSSED + 1)
    first, crossed, again = asked[: rivals.ROUND], asked[rivals.ROUND : -1], asked[-1]
    recipe = first[0].candidate.recipe
    assert {one.candidate.recipe for one in first} == {recipe}
    seen = []
    for one in first:
        number, place = table.place(one.candidate)
        assert number is not None
        ended = number in table.ended
        seen.append(-1.0 if ended else float(table.seen(number, 2, place).right.mean()))
    best = sorted(range(rivals.ROUND), key=lambda n: -seen[n])[: rivals.CROSSED]
    wanted = {first[n].candidate.lora: 4 for n in best}
    assert Counter(one.candidate.lora for one in crossed) == wanted
    assert recipe not in {one.candidate.recipe for one in crossed}
    assert again.candidate.recipe == recipe


def test_brackets_halve() -> None:
    table = world_of("wide-high-0").table(4)
    asked = asked_of(rivals.Brackets(table, 4), table, 200)
    count, _ = rivals.BRACKETS[0]
    assert [round(1 / one.rung) for one in asked[: count + count // 3]] == [9] * count + [3] * (count // 3)
    low = {one.candidate.lora for one in asked[:count]}
    mid = {one.candidate.lora for one in asked[count : count + count // 3]}
    last = asked[count + count // 3 :][: len(table.recipes)]
    assert len(low) == count
    assert mid < low
    assert len({one.candidate.lora for one in last}) == 1
    assert last[0].candidate.lora in mid
    assert {one.candidate.recipe for one in last} == set(table.recipes)


@pytest.mark.parametrize("name", [*rivals.RIVALS, "random"])
def test_no_rival_asks_twice_and_all_end_on_a_small_grid(name: str) -> None:
    world = world_of("grid-right-0")
    lora = dict(world.space.lora or {}) | {"learning_rate": Choice((1e-4, 1e-3)), "r": Choice((4, 16))}
    table = replace(world, space=replace(world.space, lora=lora)).table(0)
    asked = [(one.candidate.id, one.rung) for one in asked_of(made_replay.strategy(name)(table, 0), table, 500)]
    assert len(asked) == len(set(asked)) < 500
    if name != "brackets":
        assert len(asked) == 8 * len(table.recipes)


def test_brackets_go_on_while_one_waits() -> None:
    table = world_of("grid-right-0").table(0)
    strategy = rivals.Brackets(table, 0)
    count = sum(number for number, _ in rivals.BRACKETS)
    asked = strategy.ask(count, ())
    assert Counter(one.rung for one in asked) == {table.rungs[rung]: number for number, rung in rivals.BRACKETS}
    assert len({one.candidate.id for one in asked}) == count


def test_peers_that_take_choices_have_ranges_in_levels() -> None:
    world = world_of("wide-right-0")
    table = world.table(0)
    asked = asked_of(made_replay.strategy("optuna-tpe-cache")(table, 0), table, 12)
    assert all(one.candidate.lora is not None and world.space.has(one.candidate.lora) for one in asked)
    rates = {one.candidate.lora.learning_rate for one in asked if one.candidate.lora is not None}
    levels = np.logspace(-5, -1, made_replay.LEVELS)
    assert all(np.isclose(levels, rate, rtol=1e-3).any() for rate in rates)


# --- Replays and what is said of them -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frontier", "two-stages-favourite"])
def test_a_replay_is_the_same_again_and_more_workers_measure_more(name: str) -> None:
    def once(workers: int) -> Curve:
        world = world_of("grid-right-0")
        best, _ = best_known(world.name)
        return play(world.table(0), made_replay.strategy(name), 0, best, 900.0, workers)

    one, again, four = once(1), once(1), once(4)
    assert (one.at_s, one.hv, one.asked) == (again.at_s, again.hv, again.asked)
    assert max(one.hv) > 0.5
    assert four.finished > one.finished


def test_a_loop_of_its_own_pays_less() -> None:
    alike, loop = (run(Task("grid-right-0", "crossed", 0, charge)) for charge in worlds.CHARGES)
    assert loop.finished_s[0] < alike.finished_s[0]


def curve(times: Sequence[float], hv: Sequence[float], finished: Sequence[float]) -> Curve:
    return Curve(list(times), list(hv), list(hv), list(finished), len(finished))


def test_ratios_are_to_the_best_rival_that_counts() -> None:
    ours = dict.fromkeys(range(4), curve([10, 50], [0.3, 0.9], [10, 20, 30]))
    early = dict.fromkeys(range(4), curve([10], [0.6], [10, 15, 20]))
    late = dict.fromkeys(range(4), curve([10, 60], [0.8, 1.0], [10, 20, 60]))
    found = anytime.relative({"frontier": ours, "early": early, "late": late}, "frontier", ["early", "late"], 100.0)

    def at(seconds: float) -> tuple[float, str]:
        place = int(np.searchsorted(found.seconds, seconds))
        return float(found.ratio[place]), found.rival[place]

    assert np.isnan(found.ratio[: int(np.searchsorted(found.seconds, 19.9))]).all()
    assert at(30) == (pytest.approx(0.5), "early")
    assert at(55) == (pytest.approx(1.5), "early")  # the better one has not finished its third candidate
    assert at(90) == (pytest.approx(0.9), "late")
    np.testing.assert_allclose(found.high[np.isfinite(found.ratio)], found.ratio[np.isfinite(found.ratio)])
    # Below from 20 to 50, and from 60 to 100, of the moments from 20 on.
    assert found.short == pytest.approx(70 / 80, abs=0.02)


def test_a_difference_within_the_noise_of_seeds_is_not_short() -> None:
    rng = np.random.default_rng(0)
    ours = {s: curve([1], [0.8 + 0.2 * rng.normal()], [1, 1, 1]) for s in range(9)}
    rival = {s: curve([1], [0.85 + 0.2 * rng.normal()], [1, 1, 1]) for s in range(9)}
    assert anytime.relative({"frontier": ours, "r": rival}, "frontier", ["r"], 100.0).short == 0


def test_areas_and_minutes_are_those_of_the_curve() -> None:
    one = curve([10, 50], [0.4, 0.95], [])
    assert anytime.area(one, 100) == pytest.approx(0.4 * 0.4 + 0.5 * 0.95)
    assert anytime.area(one, 30) == pytest.approx(20 / 30 * 0.4)
    assert anytime.area(Curve(), 30) == 0
    assert (one.reached_s(0.3), one.reached_s(0.9), one.reached_s(0.96)) == (10, 50, float("inf"))
    assert curve([10, 50], [0.95, 0.4], []).reached_s(0.9) == float("inf")  # it was lost again


def test_the_command_goes_on_with_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "runs.jsonl", tmp_path / "worlds.md"
    given = ["--worlds", "grid-small-4", "--strategies", "crossed", "random", "--runs", str(file)]
    assert worlds.main([*given, "--seeds", "1"]) == 0
    kept = file.read_text(encoding="utf-8")
    assert len(kept.splitlines()) == 2
    file.write_text(kept[:-40], encoding="utf-8")  # it was killed while it wrote
    assert worlds.main([*given, "--seeds", "2", "--out", str(out)]) == 0
    whole = [line for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}}")]
    assert len(whole) == 4
    assert [json.loads(line)["task"]["seed"] for line in whole] == [0, 0, 1, 1]
    capsys.readouterr()
    assert worlds.main([*given, "--seeds", "2", "--jobs", "0"]) == 0
    assert capsys.readouterr().out == out.read_text(encoding="utf-8")
    assert "| grid small |" in out.read_text(encoding="utf-8")


def test_our_earlier_replays_are_shown_beside_todays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tmp_path / "before.jsonl"
    one = curve([60], [0.5], [60, 70, 80])
    rows = [
        {"task": {"world": "grid-small-4", "strategy": name, "seed": 0}, "made_by": "other code", "run": one.plain()}
        for name in ("frontier", "tpe-favourite")
    ]
    before.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = ["--worlds", "grid-small-4", "--strategies", "crossed", "--seeds", "1", "--beside", str(before)]
    assert worlds.main(given) == 0
    text = capsys.readouterr().out
    assert "| kind | frontier (before) | crossed | frontier (before) / best rival |" in text
    assert "tpe-favourite" not in text  # rivals of other code do not count


def test_replays_of_other_code_are_done_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    task = Task("grid-small-4", "crossed", 0)
    (_, one), *_ = worlds.done([task], 1, file)
    assert worlds.kept(file) == {task: one}
    row = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(row | {"made_by": "0"}) + "\n", encoding="utf-8")
    assert worlds.kept(file) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [(["--worlds", "grid-odd-0"], "SHAPE-KIND-NUMBER"), (["--worlds", "g?d"], "no default world matches"),
     (["--strategies", "tpe-favorite"], "tpe-favorite"), (["--jobs", "0"], "needs it")],
)  # fmt: skip
def test_mistakes_are_told(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        worlds.main(given)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_worlds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert worlds.main(["--list"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(kinds.DEFAULT)
