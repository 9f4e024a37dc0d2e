"""The benchmark of the search: a table that is made of real stages and survives a kill, a replay that charges what
stages take, and peers that run through it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TONES
from hypothesis import given
from hypothesis import strategies as st

from autotune import strategies
from autotune.analysis.pareto import hypervolume
from autotune.candidate import Candidate
from autotune.strategies.protocol import Outcomes, Proposal, Strategy, Told, Whole
from benchmarks.search import choices, compare, oracle, peers, report, signals, synthetic
from benchmarks.search.replay import DIRECTIONS, Conditions, Run, Truth, World, chosen_of, replay
from benchmarks.search.rows import RowFile, key_of, pack_labels, pack_nats, unpack_labels, unpack_nats
from benchmarks.search.table import Table, drawn, from_rows, load, over_seeds, quiet

ROOT = Path(oracle.__file__).parents[2]


@pytest.fixture(scope="module")
def table() -> Table:
    return from_rows(synthetic.rows(items=200, test=100))


@pytest.fixture(scope="module")
def truth(table: Table) -> Truth:
    return Truth(table)


# --- Rows ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 15), min_size=1))
def test_labels_survive_packing(labels: list[int]) -> None:
    assert unpack_labels(pack_labels(labels)).tolist() == labels


@given(st.lists(st.floats(0, 4000), min_size=1))
def test_nats_survive_packing_within_their_rounding(values: list[float]) -> None:
    found = unpack_nats(pack_nats(values))
    assert np.all(np.abs(found - values) <= 0.003 + 0.022 * np.array(values))


def test_more_labels_than_a_digit_holds_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 16 labels"):
        pack_labels([16])


def test_a_half_written_row_is_cut_off_and_no_row_is_written_twice(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    rows = RowFile(file)
    rows.append({"kind": "header"})
    rows.append({"kind": "train", "adapter": "a", "seed": 0, "rung": 1.0})
    with file.open("a", encoding="utf-8") as stream:
        stream.write('{"kind":"train","adap')
    again = RowFile(file)
    assert again.rows == rows.rows
    assert file.read_bytes().endswith(b"}\n")
    with pytest.raises(ValueError, match="there already"):
        again.append({"kind": "train", "adapter": "a", "seed": 0, "rung": 1.0, "seconds": 2})
    assert again.find(kind="train", adapter="a", seed=0, rung=1.0) == rows.rows[1]
    assert again.find(kind="train", adapter="a", seed=1, rung=1.0) is None


def test_several_processes_write_one_table(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    first, second = RowFile(file), RowFile(file)
    first.append({"kind": "header"})
    second.append({"kind": "merge", "adapter": "a", "seed": 0})
    with file.open("a", encoding="utf-8") as stream:  # a third was killed
        stream.write('{"kind":"merge","adap')
    first.append({"kind": "merge", "adapter": "b", "seed": 0})
    with pytest.raises(ValueError, match="there already"):
        second.append({"kind": "merge", "adapter": "b", "seed": 0})
    assert first.rows == second.rows == RowFile(file).rows
    assert len(first.rows) == 3


# --- The table ----------------------------------------------------------------------------------------------------


def test_the_space_of_a_table_is_its_pairs(table: Table) -> None:
    assert len(table.adapters) == 24
    pairs = {table.candidate(a, r).id for a in range(24) for r in range(len(table.recipes))}
    assert {candidate.id for candidate in table.space.grid()} == pairs
    assert table.place(table.candidate(3, 2)) == (3, 2)


def test_an_unfinished_table_is_a_smaller_full_grid() -> None:
    rows = synthetic.rows(items=50, test=20)
    adapters = list(rows[0]["adapters"])
    late = set(adapters[19:])  # of the last eight, which share a learning rate, three are there
    part = from_rows([row for row in rows if row.get("adapter") not in late])
    assert len(part.adapters) == 16
    assert {lora.learning_rate for lora in part.adapters} == {1e-3, 1e-2}
    assert len(list(part.space.grid())) == 16 * 5


def test_a_table_of_too_few_rows_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match="begins with its header"):
        from_rows([])
    with pytest.raises(ValueError, match="not far enough: 0 whole adapters"):
        from_rows(synthetic.rows(items=20, test=10)[:6])


def test_truth_is_the_mean_over_items_and_seeds(table: Table) -> None:
    rows = synthetic.rows(items=200, test=100)
    gold = {split: unpack_labels(text) for split, text in rows[0]["gold"].items()}
    name = Candidate(lora=table.adapters[7]).id
    recipe = str(table.recipes[2])
    scores = [r for r in rows if r["kind"] == "score" and r.get("adapter") == name and r.get("recipe") == recipe]
    assert {row["seed"] for row in scores} == {0, 1, 2}
    hits = sum(int((unpack_labels(row["predicted"]) == gold[row["split"]]).sum()) for row in scores)
    assert table.truth[7, 2] == pytest.approx(hits / (3 * 300))


def test_test_items_shift_no_adapter_against_another() -> None:
    rows = synthetic.rows(items=200, test=100)
    gold = unpack_labels(rows[0]["gold"]["test"])
    for row in rows:  # test is made easy for all that have it
        if row.get("split") == "test" and row["kind"] == "score":
            row["predicted"] = pack_labels(gold.tolist())
    easy = from_rows(rows)
    with_test = [a for a, seeds in enumerate(easy.seeds) if len(seeds) > 1]
    plain = from_rows([row for row in rows if row.get("split") != "test"])
    alive = [a for a in range(24) if easy.seeds[a]]
    moved = easy.truth[alive] - plain.truth[alive]
    assert 0 < len(with_test) < len(alive)
    assert moved.min() > 0.02
    assert abs(moved[[a in with_test for a in alive]].mean() - moved.mean()) < 0.01


def test_costs_come_from_the_quiet_half() -> None:
    assert quiet([(2.0, 0.0), (1.0, 3.0)]) == 1.0  # what disturbs only adds
    assert quiet([(10.0, 3.0), (1.0, 0.0), (2.0, 0.1), (3.0, 0.2), (50.0, None)]) == 2.0


# --- The replay ---------------------------------------------------------------------------------------------------


def test_a_stage_is_paid_once(table: Table) -> None:
    costs, world = table.costs, World(table, Conditions(seed=1))
    first = world.measure(Proposal(table.candidate(0, 1))).seconds
    score_s = costs.load_s[1] + table.items * costs.item_s[1]
    assert first == pytest.approx({
        "start": costs.start_s, "train": costs.call_s + 90 * costs.step_s[0], "merge": costs.merge_s,
        "build": costs.build_s[1], "check": 4.0, "time": costs.time_s[1], "score": score_s,
    })  # fmt: skip
    again = world.measure(Proposal(table.candidate(0, 1)))
    assert again.seconds == {}
    assert again.values is not None
    other = world.measure(Proposal(table.candidate(0, 2))).seconds
    assert set(other) == {"build", "check", "time", "score"}  # trained and merged already
    third = world.measure(Proposal(table.candidate(1, 2))).seconds
    assert set(third) == {"train", "merge", "build", "check", "score"}  # the graph was timed
    assert world.clock == pytest.approx(sum(sum(s.values()) for s in (first, other, third)))


def test_without_a_cache_everything_is_paid_again(table: Table) -> None:
    world = World(table, Conditions(cache=False))
    first, again = (world.measure(Proposal(table.candidate(0, 1))).seconds for _ in range(2))
    assert again == pytest.approx({name: s for name, s in first.items() if name != "start"})


def test_training_goes_on_from_the_rung_that_was_reached(table: Table) -> None:
    costs, world = table.costs, World(table, Conditions(training=10.0))
    adapter = Candidate(lora=table.adapters[2])
    shares = [world.measure(Proposal(adapter, rung=rung)).seconds["train"] for rung in (1 / 9, 1 / 3, 1.0)]
    assert shares == pytest.approx([10 * (costs.call_s + steps * costs.step_s[2]) for steps in (10, 20, 60)])


def test_an_adapter_alone_is_scored_on_a_build_at_full_precision(table: Table) -> None:
    costs, adapter = table.costs, Candidate(lora=table.adapters[5])
    world = World(table, Conditions())
    few = world.measure(Proposal(adapter, rung=1 / 9, items=30))
    assert few.items == 50  # up to the end of a block
    scored = costs.load_s[0] + 50 * costs.item_s[0]
    expected = {"merge": costs.merge_s, "build": costs.build_s[0], "score": scored}
    assert {n: few.seconds[n] for n in expected} == pytest.approx(expected)
    assert "check" not in few.seconds
    more = world.measure(Proposal(adapter, rung=1 / 9, items=100)).seconds
    assert more == pytest.approx({"build": costs.build_s[0], "score": scored})  # it was not kept
    last = world.measure(Proposal(adapter, items=100)).seconds
    assert set(last) == {"train", "merge", "build", "score"}
    pair = world.measure(Proposal(table.candidate(5, 0))).seconds  # its build is there
    assert set(pair) == {"time", "score"}


def test_a_loop_of_a_users_own_neither_checks_nor_times_in_several_processes(table: Table) -> None:
    costs, world = table.costs, World(table, Conditions(tool=False))
    told = world.measure(Proposal(table.candidate(0, 1), items=30))
    assert told.items == 30
    assert "check" not in told.seconds
    assert told.seconds["time"] == pytest.approx(costs.time_s[1] / len(table.processes_ms[1]))
    assert told.measured["itl_ms_p50"] in table.processes_ms[1]


def test_the_untouched_model_is_paid_for_and_is_no_candidate(table: Table) -> None:
    world = World(table, Conditions())
    candidate, told = world.measure_untouched()
    assert candidate == Candidate(recipe=table.recipes[0])
    assert told.items == table.items
    assert set(told.seconds) == {"start", "build", "check", "time", "score"}
    assert world.clock == pytest.approx(sum(told.seconds.values()))
    assert not world.done


def test_items_are_scored_in_blocks_of_a_fixed_order(table: Table) -> None:
    costs, world = table.costs, World(table, Conditions(seed=4))
    part = world.measure(Proposal(table.candidate(5, 0), items=50))
    assert part.values is None
    assert part.outcomes is not None
    assert part.measured["accuracy"] == part.outcomes.right.mean()
    assert world.recommended() == []
    whole = world.measure(Proposal(table.candidate(5, 0)))
    assert whole.outcomes is not None
    assert whole.outcomes.right[:50].tolist() == part.outcomes.right.tolist()
    assert whole.seconds == pytest.approx({"score": costs.load_s[0] + (table.items - 50) * costs.item_s[0]})
    assert whole.outcomes.loss is not None
    assert whole.outcomes.loss[whole.outcomes.right == 1].mean() < whole.outcomes.loss[whole.outcomes.right == 0].mean()
    assert world.recommended() == [(5, 0)]


def test_a_recipe_is_built_and_timed_without_scoring(table: Table) -> None:
    told = World(table, Conditions()).measure(Proposal(Candidate(recipe=table.recipes[3]), items=0))
    assert set(told.seconds) == {"start", "build", "check", "time"}
    assert set(told.measured) == {"itl_ms_p50", "size_mb"}
    assert told.outcomes is None


def test_a_diverging_adapter_costs_and_yields_nothing(table: Table) -> None:
    adapter = next(iter(table.ended))
    told = World(table, Conditions()).measure(Proposal(table.candidate(adapter, 0)))
    assert told.values is None
    assert told.measured == {}
    assert set(told.seconds) == {"start", "train"}
    early = World(table, Conditions()).measure(Proposal(Candidate(lora=table.adapters[adapter]), rung=1 / 9))
    assert "accuracy" in early.measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rung": 1 / 3}, "built at rung 1 only"),
        ({"rung": 0.5}, "the table has the rungs"),
        ({"items": 10**6}, "items must be 0 to 200"),
    ],
)
def test_what_no_tool_could_do_is_refused(table: Table, change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        World(table, Conditions()).measure(replace(Proposal(table.candidate(0, 0)), **change))  # type: ignore[arg-type]
    stranger = table.adapters[0].model_copy(update={"r": 5})
    with pytest.raises(ValueError, match="no such candidate"):
        World(table, Conditions()).measure(Proposal(Candidate(lora=stranger)))


def test_seeds_see_other_items_and_latencies_and_one_seed_always_the_same(table: Table) -> None:
    def seen(seed: int) -> tuple[float, ...] | None:
        return World(table, Conditions(seed)).measure(Proposal(table.candidate(7, 2))).values

    assert seen(3) == seen(3)
    found = [values for values in map(seen, range(20)) if values]
    assert len({values[0] for values in found}) > 5
    assert len({values[1] for values in found}) > 5
    assert np.mean([values[0] for values in found]) == pytest.approx(table.truth[7, 2], abs=0.03)


def test_the_volume_of_a_set_is_that_of_its_best_pair_in_each_recipe(table: Table, truth: Truth) -> None:
    pairs = [(0, 1), (7, 1), (7, 2), (None, 3), (16, 4)]
    points = [(truth.accuracy(p), float(table.latency_ms[p[1]]), float(table.size_mb[p[1]])) for p in pairs]
    assert truth.volume(pairs) == pytest.approx(hypervolume(points, table.reference, DIRECTIONS))
    assert 0 < truth.volume(pairs) < truth.best
    assert truth.volume([]) == 0


def test_who_knows_the_table_pays_least(table: Table, truth: Truth) -> None:
    costs = [truth.clairvoyant(share) for share in (0.5, 0.9, 0.99)]
    assert costs == sorted(costs)
    cheapest = table.costs.call_s + 90 * min(table.costs.step_s.values())
    assert cheapest < costs[0] < costs[-1] < truth.everything_s() < truth.everything_s(cache=False)


def test_a_sweep_has_models_of_its_own(table: Table) -> None:
    chosen = [drawn(table, seed) for seed in range(8)]
    several = [a for a, seeds in enumerate(table.seeds) if len(seeds) > 1]
    assert several
    for one in chosen:
        assert all(len(seeds) == min(1, len(table.seeds[a])) for a, seeds in enumerate(one.seeds))
        for a in several:
            assert one.truth[a].tolist() == table.truth_of[a, one.seeds[a][0]].tolist()
    assert len({one.seeds for one in chosen}) > 1
    means = np.array([np.mean([table.truth_of[a, seed] for seed in table.seeds[a]], axis=0) for a in several])
    assert table.truth[several] == pytest.approx(means)
    assert over_seeds(chosen[0], table).truth[several] == pytest.approx(means)


def test_parts_of_a_table_lack_a_level_each(table: Table) -> None:
    levels = sum(len(values) for values in peers.axes(table).values())
    parts = [drawn(table, seed, part=True) for seed in range(levels)]
    assert len({part.adapters for part in parts}) == levels
    for part in parts:
        assert 0 < len(part.adapters) < len(table.adapters)
        assert {candidate.lora for candidate in part.space.grid()} == set(part.adapters)
        world = World(part, Conditions(0))
        for adapter, lora in enumerate(part.adapters):
            told = world.measure(Proposal(part.candidate(adapter, 0)))
            whole = table.number[Candidate(lora=lora).id]
            assert (told.values is None) == (not table.seeds[whole])


def test_rows_of_another_machine_are_taken_over_but_for_its_pace(tmp_path: Path) -> None:
    rows = synthetic.rows(items=20, test=10)
    costs = [row for row in rows if row["kind"] in ("cost", "start", "time")]
    half = [row for row in rows if row["kind"] not in ("cost", "start", "time")][: len(rows) // 2]
    mine, theirs = RowFile(tmp_path / "mine.jsonl"), RowFile(tmp_path / "theirs.jsonl")
    for row in half:
        mine.append(row)
    for row in rows:
        theirs.append(row)
    assert oracle.merge(mine, theirs) == len(rows) - len(costs) - len(half) > 0
    assert {key_of(row) for row in mine.rows} == {key_of(row) for row in rows} - {key_of(row) for row in costs}
    assert oracle.merge(mine, theirs) == 0
    other = RowFile(tmp_path / "other.jsonl")
    other.append(rows[0] | {"model": "another"})
    with pytest.raises(SystemExit, match="no table of the same inputs"):
        oracle.merge(mine, other)


def test_replays_are_kept_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.jsonl"
    arguments = ["--table", "synthetic", "--strategy", "random", "frontier", "--jobs", "1", "--runs", str(file)]
    assert compare.main([*arguments, "--seeds", "1"]) == 0
    first = capsys.readouterr().out
    lines = file.read_text(encoding="utf-8")
    file.write_text(lines + lines[:50], encoding="utf-8")  # it was killed meanwhile
    assert compare.main([*arguments, "--seeds", "1"]) == 0
    assert capsys.readouterr().out == first
    assert compare.main([*arguments, "--seeds", "2"]) == 0
    assert len({task for task, _, _ in compare.kept(file)}) == 6


def test_replays_of_other_code_or_of_another_table_are_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs.jsonl"
    arguments = ["--table", "synthetic", "--strategy", "random", "in-turn", "--seeds", "1", "--jobs", "1"]
    assert compare.main([*arguments, "--runs", str(file)]) == 0
    first = capsys.readouterr().out
    of_the_tool = compare.made_by("synthetic", "random")
    assert len({of_the_tool, *(compare.made_by("synthetic", name) for name in ("frontier", "in-turn", "gp"))}) == 4
    assert of_the_tool != compare.made_by("xed", "random")
    file.write_text(file.read_text(encoding="utf-8").replace(of_the_tool, "0" * 16), encoding="utf-8")
    assert compare.main([*arguments, "--runs", str(file)]) == 0
    again = capsys.readouterr()
    assert again.out.splitlines()[:20] == first.splitlines()[:20]  # longest decisions differ
    assert "1 replays are left out" in again.err
    assert len(list(compare.kept(file))) == 3


@pytest.mark.parametrize("name", choices.LISTED)
def test_choices_are_those_of_the_list(name: str) -> None:
    choices.check([name])


def test_every_strategy_of_the_tool_has_a_list_or_counts_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of a strategy's code shows in what its replays are made by: by its choices, or by its bytes."""
    copy = tmp_path / "strategies"
    shutil.copytree(Path(str(strategies.__file__)).parent, copy)
    (copy / "baselines.py").write_text("changed", encoding="utf-8")
    names = [name for name in (*compare.DEFAULT, "grid") if name not in peers.OUTSIDE]
    before = {name: compare.made_by("synthetic", name) for name in names}
    monkeypatch.setattr(strategies, "__file__", str(copy / "__init__.py"))
    compare.made_by.cache_clear()
    same = {name for name in names if compare.made_by("synthetic", name) == before[name]}
    compare.made_by.cache_clear()
    assert same == set(choices.LISTED)
    assert {"gp", "grid"} == set(names) - same


def test_what_replays_are_made_by_follows_the_list_and_our_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("frontier", "random", "optuna-tpe-warm", "optuna-tpe")
    before = {name: compare.made_by("synthetic", name) for name in names}
    entries = [dict(entry) for entry in choices.listed()["frontier"]]
    entries[0]["sha256"] = "0" * 64
    changed = choices.listed() | {"frontier": entries}
    monkeypatch.setattr(choices, "listed", lambda: changed)
    monkeypatch.setattr(compare, "prior_mean", lambda lora, shift=0.0: 1.0)
    compare.made_by.cache_clear()
    after = {name: compare.made_by("synthetic", name) for name in names}
    compare.made_by.cache_clear()
    assert [name for name in names if after[name] != before[name]] == ["frontier", "optuna-tpe-warm"]


def test_a_changed_choice_is_said_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a list that is not current no replay is kept or taken."""
    entries = [dict(entry) for entry in choices.listed()["random"]]
    first = entries[0]["first"].split()
    entries[0]["first"] = " ".join([first[0], "99:9", *first[2:]])
    entries[1]["sha256"] = "0" * 64
    monkeypatch.setattr(choices, "listed", lambda: {"random": [*entries[:2], entries[2] | {"seed": 7}]})
    file = tmp_path / "runs.jsonl"
    with pytest.raises(SystemExit) as stopped:
        compare.main(["--table", "synthetic", "--strategy", "random", "--seeds", "1", "--runs", str(file)])
    assert (stopped.value.code, file.exists()) == (2, False)
    said = capsys.readouterr().err
    assert f"random on phrase_tone, seed 0, training x 1: choice 2 was 99:9, and is {first[1]}" in said
    assert "random on snips, seed 0, training x 1: a choice after the first 40 (120 choices before, 120 now)" in said
    assert "random on xed, seed 0, training x 1: is not in choices.json" in said
    assert "random on xed, seed 7: is replayed no more" in said
    assert "python -m benchmarks.search.choices --write" in said


def test_another_prior_changes_a_choice_of_frontier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.strategies.frontier.priors.BEST_RATE", 1e-4)
    monkeypatch.setattr(choices, "entries_of", choices.entries_of.__wrapped__)
    with pytest.raises(choices.ChangedError, match=r"frontier on snips, seed 0, training x 1: choice 1 was"):
        choices.check(["frontier"])


def test_what_is_reached_must_be_kept() -> None:
    none = np.zeros(0)
    volumes = np.array([0, 0.96, 0.9, 0.97])
    run = Run(np.array([0, 10, 20, 30.0]), volumes, np.array([0, 0.9, 0.96, 0.96]), np.zeros(4), 3, none, {}, {}, none)
    assert run.of_settings().reached_s(0.95) == 20
    assert run.reached_s(0.95) == 30
    assert run.reached_s(0.9) == 10
    assert run.reached_s(0.98) == float("inf")
    assert run.at(np.array([5.0, 10.0, 99.0])).tolist() == [0.0, 0.96, 0.97]


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2", "optuna-tpe", "optuna-tpe-cache"])
def test_every_peer_runs_through_the_replay(table: Table, truth: Truth, name: str) -> None:
    run = replay(table, truth, peers.strategy(name), Conditions(2, cache=name not in peers.WITHOUT_CACHE), 2000.0)
    assert run.hv[-1] > 0.5
    assert run.at_s[-1] <= 2000 + 400  # the last candidate may end later
    assert np.all(np.diff(run.at_s) > 0)


@pytest.mark.parametrize("name", ["frontier", *peers.LEVERS])
def test_frontier_finds_the_front_without_any_of_its_levers(table: Table, truth: Truth, name: str) -> None:
    run = replay(table, truth, peers.strategy(name), Conditions(3), 0.4 * truth.everything_s())
    assert run.hv[-1] > 0.8
    assert np.all(np.diff(run.at_s) > 0)


def test_levers_do_what_they_say(table: Table, truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.strategies.frontier.proposals.LEAST_ITEMS", 10)
    asked: dict[str, list[Proposal]] = {}

    def heard(name: str) -> Callable[[Table, int], Strategy]:
        def make(table: Table, seed: int) -> Strategy:
            strategy = peers.strategy(name)(table, seed)
            ask = strategy.ask

            def remembered(n: int, pending: Sequence[Proposal]) -> list[Proposal]:
                proposals = ask(n, pending)
                asked.setdefault(name, []).extend(proposals)
                return proposals

            strategy.ask = remembered  # type: ignore[method-assign]
            return strategy

        return make

    for name in ("frontier", "frontier-without-rungs", "frontier-without-gate"):
        replay(table, truth, heard(name), Conditions(0), 0.3 * truth.everything_s())
    assert any(proposal.rung < 1 for proposal in asked["frontier"])
    assert all(proposal.items is None for proposal in asked["frontier"] if proposal.candidate.recipe)
    assert all(proposal.rung == 1 for proposal in asked["frontier-without-rungs"])
    crossed: dict[str, set[str]] = {}
    for proposal in asked["frontier-without-gate"][:-1]:
        if proposal.candidate.recipe is not None:
            lora = str(proposal.candidate.lora)
            crossed.setdefault(lora, set()).add(str(proposal.candidate.recipe))
    assert [len(recipes) for recipes in crossed.values()][:-1] == [len(table.recipes)] * (len(crossed) - 1)


def test_frontier_begins_where_most_is_to_be_gained_and_asks_for_nothing_twice(table: Table, truth: Truth) -> None:
    asked: list[Proposal] = []

    class Heard:
        def __init__(self, table: Table, seed: int) -> None:
            self.inner = peers.strategy("frontier")(table, seed)
            self.replay = self.inner.replay

        def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
            proposals = self.inner.ask(n, pending)
            asked.extend(proposals)
            return proposals

        def tell(self, proposal: Proposal, told: Told) -> None:
            self.inner.tell(proposal, told)

    run = replay(table, truth, Heard, Conditions(1), 0.2 * truth.everything_s())
    first = asked[0].candidate
    assert first.recipe is not None
    assert (first.recipe.precision, asked[0].rung, asked[0].items) == (
        "int4",
        1,
        None,
    )  # small and fast, as it is thought
    assert any(proposal.rung < 1 and proposal.candidate.recipe is None for proposal in asked)
    done = [(p.candidate.id, p.rung, p.items) for p in asked]
    assert len(done) == len(set(done))
    assert run.hv[-1] > 0.5


def test_the_whole_table_measured_picks_within_noise_and_has_nearly_the_whole_front(table: Table, truth: Truth) -> None:
    run = replay(table, truth, peers.strategy("grid"), Conditions(5), float("inf"))
    assert run.asked == 120
    assert run.hv[-1] > 0.97
    assert truth.regret(None, ()) > 0.5
    assert truth.regret((int(np.nanargmax(table.truth[:, 1])), 1), ()) < 0.05


def test_a_pick_is_judged_long_before_everything_is_measured(table: Table, truth: Truth) -> None:
    ideal = truth.clairvoyant(0.95)
    run = replay(table, truth, peers.strategy("in-turn"), Conditions(1), float("inf"))
    early, later = run.picks
    known = (run.finished_s <= 3 * ideal).sum(), (run.finished_s <= 10 * ideal).sum()
    assert 0 < known[0] < known[1] < 60
    assert early[0][0] > 0
    assert later != early
    at_the_end = replay(table, truth, peers.strategy("in-turn"), Conditions(1), 2 * ideal)
    assert at_the_end.finished_s[-1] <= 3 * ideal
    assert at_the_end.picks[0] == at_the_end.picks[1]


def test_the_winner_of_a_replay_keeps_its_limits(table: Table, truth: Truth) -> None:
    world = World(table, Conditions(0))
    for adapter in (0, 5, 7):
        for recipe in range(5):
            world.measure(Proposal(table.candidate(adapter, recipe)))
    _, small, fast = truth.limits()
    for limits, values in ((small, table.size_mb), (fast, table.latency_ms)):
        choice, pairs = chosen_of(table, world.done, limits)
        assert choice.winner is not None
        assert values[pairs[choice.winner.id][1]] <= np.median(values) * 1.05


def test_one_replay_of_a_cost_blind_strategy_serves_all_proportions(table: Table, truth: Truth) -> None:
    plain = replay(table, truth, peers.strategy("random"), Conditions(3), float("inf"), factors=(1.0, 10.0))
    dear = replay(table, truth, peers.strategy("random"), Conditions(3, training=10.0), float("inf"))
    told = plain.with_training(10.0)
    assert told.at_s == pytest.approx(dear.at_s)
    assert told.finished_s == pytest.approx(dear.finished_s)
    assert told.picks == dear.picks
    assert Run.of_plain(json.loads(json.dumps(plain.plain()))).with_training(10.0).picks == dear.picks
    assert told.spent == pytest.approx(dear.spent)
    assert told.hv.tolist() == dear.hv.tolist()


class Climber(Whole):
    """A strategy that uses all of the seam: rungs, some of the items, footprints."""

    def __init__(self, table: Table) -> None:
        loras = [Candidate(lora=lora) for lora in table.adapters]
        self.queue = [Proposal(Candidate(recipe=recipe), items=0) for recipe in table.recipes]
        self.queue += [Proposal(lora, rung=1 / 9, items=60) for lora in loras]
        self.table, self.best, self.most = table, loras[0], -1.0
        self.told: list[Told] = []

    def ask(self, n: int, pending: Sequence[Proposal]) -> list[Proposal]:
        if not self.queue and not pending and not any(told.values for told in self.told):
            self.queue = [Proposal(Candidate(lora=self.best.lora, recipe=recipe)) for recipe in self.table.recipes]
        now, self.queue = self.queue[:n], self.queue[n:]
        return now

    def tell(self, proposal: Proposal, told: Told) -> None:
        self.told.append(told)
        if proposal.candidate.kind == "adapter" and told.measured["accuracy"] > self.most:
            self.best, self.most = proposal.candidate, told.measured["accuracy"]

    def replay(self, candidate: Candidate, told: Told) -> None: ...


def test_a_strategy_may_use_rungs_and_some_of_the_items(table: Table, truth: Truth) -> None:
    made: list[Climber] = []

    def make(table: Table, seed: int) -> Climber:
        made.append(Climber(table))
        return made[0]

    run = replay(table, truth, make, Conditions(0), float("inf"))
    assert run.asked == 5 + 24 + 5
    partial = [told for told in made[0].told if told.outcomes is not None and told.values is None]
    assert all(isinstance(told.outcomes, Outcomes) and len(told.outcomes.right) == 100 for told in partial)
    best, _ = table.place(made[0].best)
    assert run.hv[-1] == pytest.approx(truth.volume([(best, recipe) for recipe in range(5)]) / truth.best)


@pytest.mark.parametrize(("name", "package"), [("mo-asha", "syne_tune"), ("primo", "neps")])
def test_published_schedulers_run_at_the_tables_rungs(table: Table, truth: Truth, name: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is an extra of this benchmark alone")
    run = replay(table, truth, peers.strategy(name), Conditions(0), 400.0)
    assert run.asked > 3


def test_the_comparison_writes_its_tables_and_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--table", "synthetic", "--seeds", "2", "--strategy", "random", "grid", "--jobs", "1"]
    assert compare.main([*arguments, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "search.md").read_text(encoding="utf-8") == text
    assert "## synthetic, training charged 10 times as long" in text
    assert text.count("| clairvoyant |") == 2
    with (tmp_path / "search.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 2 * report.POINTS
    for name in ("random", "grid"):
        own = [float(row["hv_median"]) for row in rows if row["strategy"] == name and row["training"] == "1.0"]
        assert own[0] < 0.5 < 0.9 < own[-1]


@pytest.mark.parametrize(("shared", "timings"), [(True, 2), (False, 3)])
def test_a_graph_is_timed_once_unless_timings_are_not_shared(table: Table, shared: bool, timings: int) -> None:
    world = World(table, Conditions(0, timing_shared=shared))
    for adapter, recipe, items in ((0, 0, 10), (0, 0, None), (0, 1, 10), (1, 1, 10)):
        world.measure(Proposal(table.candidate(adapter, recipe), items=items))
    assert world.spent["time"] == pytest.approx(sum(table.costs.time_s[:2]) + (timings - 2) * table.costs.time_s[1])


def test_the_headline_sets_frontier_against_its_peers_and_its_levers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["frontier", "optuna-tpe", "random", "frontier-without-prior"]
    arguments = ["--table", "synthetic", "--seeds", "1", "--strategy", *named, "--jobs", "1", "--out", str(tmp_path)]
    assert compare.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("| table | training |"))
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("| synthetic | x")]
    once, tenfold, *by_settings = rows
    assert [row[-2] for row in by_settings] == ["0 of 1 missed"] * 2
    best = head.split("|").index(" the best peer ")
    assert (once[2], tenfold[2]) == ("x 1", "x 10")
    for row in (once, tenfold):
        times, peer = row[best].rsplit(" ", 1)
        assert peer in ("(optuna-tpe)", "(random)")  # no lever is a peer
        assert float(times.split()[1]) > 1
    without = [line for line in lines if line.startswith("| frontier-without-prior | ") and "[" in line]
    ratios = [float(line.split("|")[3].split()[0]) for line in without if "(" not in line]
    assert len(ratios) == 2
    assert min(ratios) > 1
    assert (tmp_path / "search.csv").read_text(encoding="utf-8").count("without") == 0


def test_medians_count_misses_as_never() -> None:
    times = np.array([1.0, 2.0, np.inf, np.inf, np.inf])
    assert report.quantile(times, 0.5) == float("inf")
    assert report.quantile(times, 0.25) == 2.0
    low, high = report.median_interval(times)
    assert low <= 2.0
    assert high == float("inf")
    ratio, low, high = report.ratio_interval(np.full(9, 30.0), np.full(9, 10.0))
    assert (ratio, low, high) == (3.0, 3.0, 3.0)


# --- The oracle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "adapters"), [("xed", 24), ("snips", 24), ("phrase_tone", 12)])
def test_the_tasks_are_grids_with_enough_adapters_and_recipes(name: str, adapters: int) -> None:
    if name != "phrase_tone" and not (ROOT / "../shared/data").exists():
        pytest.skip("the public data is not there")
    sweep = oracle.load_sweep(str(oracle.task_file(name)))
    found = oracle.adapters_of(sweep)
    assert len(found) == adapters
    assert len(sweep.space.recipes) >= 5
    assert sweep.space.recipes[0].precision == "fp32"
    rates = [lora.learning_rate for lora in found]
    assert max(rates) / min(rates) >= 100
    half = found[:12]  # a table that is half made is a grid of all learning rates
    assert len({(lora.learning_rate, lora.r, lora.target_modules) for lora in half}) == 12


def test_a_task_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(SystemExit, match="no such task: nothing; there are phrase_tone, snips, xed"):
        oracle.task_file("nothing")


@pytest.fixture(scope="module")
def tiny_task(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("task")
    for split, start, count in (("train", 0, 24), ("validation", 100, 24), ("test", 200, 12)):
        rows = [{"text": f"{n} I felt {TONES[n % 4]} today", "tone": TONES[n % 4]} for n in range(start, start + count)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    sweep = {
        "name": "tiny",
        "model": str(tiny_llama),
        "data": {
            "train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl",
            "prompt": "Text: {text}\nTone:", "completion": " {tone}",
        },
        "train": {"max_length": 64, "batch_size": 4},
        "target": {"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 4, "new_tokens": 3}},
        "space": {
            "lora": {"learning_rate": {"choice": [1e-2, 1e-5]}, "r": 2, "steps": 27},
            "build": [{"precision": "fp32"}, {"precision": "int4"}],
        },
        "strategy": "grid",
    }  # fmt: skip
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return file


def making(task: Path, out: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.search.oracle", str(task), "--out", str(out), *options]
    environment = os.environ | {"AUTOTUNE_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
@pytest.mark.marathon
def test_a_table_goes_on_after_a_kill_from_its_rows_alone(
    tiny_task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.jsonl"
    first = making(tiny_task, out, tmp_path / "one")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and first.poll() is None:
        if out.exists() and out.read_bytes().count(b'"kind":"score","adapter"') >= 4:
            break
        time.sleep(0.05)
    assert first.poll() is None, first.communicate()[0]
    first.kill()
    first.communicate()
    before = RowFile(out).rows
    # Another machine: nothing of the first cache is there. Two at once share the adapters that are left.
    both = [making(tiny_task, out, tmp_path / "two", "--threads", "1") for _ in range(2)]
    said = "".join(each.communicate(timeout=500)[0] for each in both)
    assert all(each.returncode in (0, 1) for each in both), said
    assert "h left" in said
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "two"))
    assert oracle.main([str(tiny_task), "--out", str(out)]) == 0
    rows = RowFile(out).rows
    assert rows[: len(before)] == before
    assert len({key_of(row) for row in rows}) == len(rows)
    assert any("threads" in row for row in rows)
    capsys.readouterr()
    assert oracle.main([str(tiny_task), "--out", str(out)]) == 0
    assert "0 known to be missing" in capsys.readouterr().out
    assert RowFile(out).rows == rows

    assert oracle.main([str(tiny_task), "--out", str(out), "--costs"]) == 0
    costs = [row for row in RowFile(out).rows if row["kind"] == "cost"]
    assert [row["stage"] for row in costs] == ["build", "check", "score"] * 2 + ["train", "merge"]
    table = load(out)
    assert min(table.costs.check_s) > 0
    assert list(table.costs.build_s) == [row["seconds"] for row in costs if row["stage"] == "build"]
    assert len(table.adapters) == 2
    assert table.steps == (3, 9, 27)
    assert table.costs.start_s > 0
    assert min(table.costs.item_s) >= 0
    made = {(row["kind"], row.get("seed"), row.get("split")) for row in rows}
    assert {("score", 0, "test"), ("score", 1, "validation"), ("score", 2, "test")} <= made
    near = [a for a, seeds in enumerate(table.seeds) if len(seeds) == 3]
    assert near
    assert table.truth[near].max() == np.nanmax(table.truth)
    assert np.nanmax(table.truth) > table.base_truth[0]
    # Rungs go on from one another: the training of the last rung was charged its own 18 steps.
    curve = [row for row in rows if row["kind"] == "train" and row["rung"] == 1.0]
    assert all(row["step"] == 27 for row in curve)
    truth = Truth(table)
    run = replay(table, truth, peers.strategy("random"), Conditions(0), float("inf"))
    assert run.asked == 4
    assert 0 < run.hv[-1] <= 1


def test_a_table_of_other_inputs_is_not_gone_on_with(
    tiny_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.jsonl"
    assert oracle.main([str(tiny_task), "--out", str(out), "--estimate"]) == 0
    assert "1 rows, " in capsys.readouterr().out
    other = yaml.safe_load(tiny_task.read_text(encoding="utf-8"))
    other["space"]["lora"]["steps"] = 18
    file = tiny_task.with_name("other.yaml")
    file.write_text(yaml.safe_dump(other), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"was made of other inputs \(adapters\)"):
        oracle.main([str(file), "--out", str(out), "--estimate"])


def test_signals_rank_better_the_further_and_the_more(table: Table) -> None:
    rows = signals.study(table, draws=20)
    found = {(row["rung"], row["items"], row["signal"]): row for row in rows}
    most = max(float(row["items"]) for row in rows)
    first, last = found[table.rungs[0], 100, "accuracy"], found[1.0, most, "accuracy"]
    assert float(first["correlation"]) < float(last["correlation"]) > 0.8
    assert float(last["lost"]) < 1.0
    assert float(first["train_s"]) < float(last["train_s"])
    assert float(first["score_s"]) < float(last["score_s"])
    assert "accuracy" in signals.report("made up", table, rows, 20)


def test_ranks_and_their_correlation_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 12).astype(float), rng.integers(0, 6, 12).astype(float)
        assert signals.correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert signals.correlation(np.ones(4), np.arange(4.0)) == 0.0
