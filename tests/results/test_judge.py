"""From rows to a choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from autotune.analysis.limits import Limit, parse_limit
from autotune.analysis.scores import PARTS, summarise
from autotune.metrics import METRICS, Direction
from autotune.results.judge import base_of, entries_of, entry_of, front_of, judge
from autotune.results.rows import Trial


@dataclass
class Aims:
    objectives: dict[str, Direction] = field(default_factory=lambda: {"accuracy": "maximize", "size_mb": "minimize"})
    limits: tuple[Limit, ...] = ()


def row(name: str, accuracy: float | None, size: float | None, trial: int = 1, **cells: Any) -> Trial:
    interval = (
        {} if accuracy is None else {"accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1, "accuracy_n": 100}
    )
    shared = {
        "candidate": name,
        "trial": trial,
        "kind": "pair",
        "status": "ok",
        "accuracy": accuracy,
        "size_mb": size,
    }
    return Trial({**shared, **interval, **cells})


BASE = row("base", 0.4, 540.0, 0, kind="base")


def keep(folder: Path, name: str, right: int, n: int = 100, metric: str = "choice") -> None:
    (folder / "outcomes").mkdir(exist_ok=True)
    kept = {"metric": metric, "predicted": [1] * right + [0] * (n - right), "gold": [1] * n}
    (folder / "outcomes" / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")


def winner(rows: list[Trial], folder: Path | None = None, *limits: str) -> str | None:
    aims = Aims(limits=tuple(parse_limit(text, METRICS) for text in limits))
    choice = judge(rows, aims, "base", folder)
    return choice.winner.id if choice.winner else None


def test_only_what_was_measured_is_a_value() -> None:
    assert row("a", None, 90.0).values == {"size_mb": 90.0}
    assert row("a", 0.0, 90.0).values == {"accuracy": 0.0, "size_mb": 90.0}
    assert Trial({}).values == {}


def test_lesson_6_rows_without_a_number_or_not_ok_do_not_compete() -> None:
    rows = [BASE, row("none", 0.9, None), row("failed", 0.9, 1.0, status="failed"), row("a", 0.8, 90.0)]
    assert winner(rows) == "a"


def test_items_are_compared_in_pairs_where_they_are_kept(tmp_path: Path) -> None:
    """The same 10 items right beyond the other's: by chance in 2 of 2^10 cases, and unpaired in a tenth of them."""
    rows = [BASE, row("good", 0.80, 267.0), row("small", 0.70, 90.0)]
    assert winner(rows) == "small"
    keep(tmp_path, "good", 80)
    assert winner(rows, tmp_path) == "small"  # one of the two is not enough
    keep(tmp_path, "small", 70)
    assert winner(rows, tmp_path) == "good"
    choice = judge(rows, Aims(), "base", tmp_path)
    assert choice.paired


@pytest.mark.parametrize("content", ["", "[]", "null", "{", '{"metric": "choice"}', '{"metric": "accuracy"}',
                                     '{"metric": "choice", "predicted": 3, "gold": 4}',
                                     '{"metric": "choice", "predicted": [1], "gold": [1, 2]}'])  # fmt: skip
def test_damaged_outcomes_are_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / "a.json").write_text(content, encoding="utf-8")
    assert entry_of(row("a", 0.5, 90.0), tmp_path).outcomes == {}


def test_outcomes_of_another_number_of_items_are_as_none(tmp_path: Path) -> None:
    keep(tmp_path, "a", 5, n=10)
    assert entry_of(row("a", 0.5, 90.0), tmp_path).outcomes == {}
    keep(tmp_path, "a", 50)
    assert set(entry_of(row("a", 0.5, 90.0), tmp_path).outcomes) == {"accuracy"}


def test_limits_refer_to_the_untouched_model() -> None:
    rows = [BASE, row("a", 0.55, 90.0), row("b", 0.65, 300.0)]
    assert winner(rows, None, "accuracy >= base + 0.2") == "b"
    assert winner(rows[1:], None, "accuracy >= base + 0.2") is None


def test_the_untouched_model_competes_only_where_it_was_proposed() -> None:
    rows = [BASE, row("int8", 0.1, 267.0, kind="base")]
    assert winner(rows) == "int8"
    again = row("base", 0.4, 540.0, 1, kind="base")
    assert winner([*rows, again]) == "base"
    assert winner([BASE]) is None


def test_the_base_is_the_row_of_trial_0() -> None:
    assert base_of([row("a", 0.5, 90.0), BASE]) is BASE
    assert base_of([row("a", 0.5, 90.0)]) is None


def test_the_front_has_the_untouched_model_once() -> None:
    objectives = Aims().objectives
    rows = [
        row("base", 0.9, 540.0, 0, kind="base"),
        row("a", 0.8, 90.0),
        row("worse", 0.7, 100.0),
        row("b", 0.95, None),
    ]
    assert [r["candidate"] for r in front_of(rows, objectives)] == ["base", "a"]
    again = row("base", 0.9, 540.0, 4, kind="base")
    assert [(r["candidate"], r["trial"]) for r in front_of([*rows, again], objectives)] == [("a", 1), ("base", 4)]
    assert front_of([row("a", 0.9, 1.0, status="failed")], objectives) == []


@pytest.mark.parametrize(
    "kept",
    ["[" * 100_000, '{"metric": "perplexity", "nll": [1.0, 2.0], "tokens": [0, 1]}',
     '{"metric": "perplexity", "nll": [1%s, 2.0], "tokens": [1, 1]}' % ("0" * 400),
     '{"metric": "perplexity", "nll": [NaN, 2.0], "tokens": [1, 1]}', '{"metric": ["choice"]}', "7"],
)  # fmt: skip
def test_damaged_outcomes_are_not_used(kept: str, tmp_path: Path) -> None:
    (tmp_path / "outcomes").mkdir()
    (tmp_path / "outcomes" / "a.json").write_text(kept, encoding="utf-8")
    assert entry_of(row("a", 0.5, 90.0, perplexity=2.0, perplexity_n=2, accuracy_n=2), tmp_path).outcomes == {}


def keep_nll(folder: Path, name: str, nll: Sequence[float], tokens: Sequence[int]) -> Trial:
    """Keep what the score stage wrote of a candidate; return its row."""
    (folder / "outcomes").mkdir(exist_ok=True)
    kept = {"metric": "perplexity", "nll": [float(x) for x in nll], "tokens": [int(x) for x in tokens]}
    (folder / "outcomes" / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")
    value, interval, n = summarise("perplexity", kept)
    ends = {"perplexity_low": interval.low, "perplexity_high": interval.high, "perplexity_n": n}
    return row(name, None, 100.0, perplexity=value, **ends)


@pytest.mark.parametrize("seed", range(3))
def test_perplexities_are_tested_by_what_they_rank(tmp_path: Path, seed: int) -> None:
    """Each weighs tokens. `short` is better on most items, which are short; on the few long ones chance decides, and
    with them the rank. By items `short` is better with p < 1e-4, so a test by items called it worse, or the other.
    """
    rng = np.random.default_rng(seed)
    tokens = np.array([400] * 20 + [4] * 180)
    luck = rng.normal(0.0, 0.3, 20)
    luck -= luck.mean() - 0.04
    per_token = np.full(200, 1.5)
    short, long = per_token.copy(), per_token.copy()
    short[:20] += luck  # worse on the long ones by 0.04, which is far within their noise
    short[20:] -= 0.3 + rng.normal(0.0, 0.3, 180)
    rows = [keep_nll(tmp_path, "short", short * tokens, tokens), keep_nll(tmp_path, "long", long * tokens, tokens)]
    assert rows[1]["perplexity"] < rows[0]["perplexity"]
    by_items = stats.ttest_rel(short, long)
    assert by_items.statistic < 0
    assert by_items.pvalue < 1e-4
    aims = Aims({"perplexity": "minimize"})
    step = judge(rows, aims, None, tmp_path).steps[0]
    assert (step.leader, step.tied, step.beaten, step.method) == ("long", ("short",), {}, "paired")


def test_a_perplexity_that_is_better_by_tokens_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tokens = rng.integers(1, 300, 200)
    nll = 1.5 * tokens + rng.normal(0, 1, 200) * np.sqrt(tokens)
    rows = [keep_nll(tmp_path, "good", nll, tokens), keep_nll(tmp_path, "bad", nll + 0.05 * tokens, tokens)]
    step = judge(rows, Aims({"perplexity": "minimize"}), None, tmp_path).steps[0]
    assert (step.leader, list(step.beaten), step.method) == ("good", ["bad"], "paired")


def test_macro_f1_is_compared_in_pairs(tmp_path: Path) -> None:
    """The same predictions but for 12 of the rarest label, which macro F1 weighs; by intervals it is a tie."""
    (tmp_path / "outcomes").mkdir()
    gold = [0] * 150 + [1] * 130 + [2] * 20
    rows = []
    for name, rare in (("good", 16), ("bad", 4)):
        predicted = [0] * 130 + [1] * 20 + [1] * 110 + [0] * 20 + [2] * rare + [0] * (20 - rare)
        kept = {"metric": "f1", "predicted": predicted, "gold": gold}
        (tmp_path / "outcomes" / f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")
        value, interval, n = summarise("f1", kept)
        rows.append(row(name, None, 1.0, f1=value, f1_low=interval.low, f1_high=interval.high, f1_n=n))
    step = judge(rows, Aims({"f1": "maximize"}), None, tmp_path).steps[0]
    assert (step.leader, list(step.beaten), step.method) == ("good", ["bad"], "paired")
    assert judge(rows, Aims({"f1": "maximize"}), None).steps[0].method == "intervals"


@pytest.mark.parametrize(("items", "count"), [(30, 30), (PARTS, PARTS), (4 * PARTS, PARTS)])
def test_a_score_of_lm_eval_that_is_no_mean_has_its_parts(tmp_path: Path, items: int, count: int) -> None:
    (tmp_path / "outcomes").mkdir()
    parts = [0.5 + 0.001 * (k % 7) for k in range(count)]
    kept: dict[str, Any] = {"metric": "lm-eval:task", "score": 0.5, "low": 0.4, "high": 0.6, "parts": parts}
    file = tmp_path / "outcomes" / "a.json"
    for change, right in (({}, True), ({"parts": parts[1:]}, False), ({"parts": "x"}, False),
                          ({"parts": [float("nan"), *parts[1:]]}, False), ({"parts": [parts] * count}, False)):  # fmt: skip
        file.write_text(json.dumps(kept | change), encoding="utf-8")
        entry = entry_of(row("a", None, 1.0, lm_eval=0.5, lm_eval_n=items), tmp_path)
        assert set(entry.outcomes) == ({"lm_eval"} if right else set())


def test_a_timing_knows_its_processes() -> None:
    cells: dict[str, Any] = {"itl_ms_p50": 5.0, "itl_ms_p50@long": 9.0, "processes": 7, "processes@long": 12}
    counts = entry_of(row("a", 0.5, 1.0, **cells)).counts
    assert (counts["accuracy"], counts["itl_ms_p50"], counts["load_s"], counts["itl_ms_p50@long"]) == (100, 7, 7, 12)


def test_two_sessions_of_one_graph_are_not_one_timing() -> None:
    def timed(name: str, ms: float, **cells: Any) -> Trial:
        return row(name, 0.8, 90.0, itl_ms_p50=ms, graph="g", **cells)

    aims = Aims({"itl_ms_p50": "minimize", "accuracy": "maximize"})
    rows = [timed("slow", 9.0), timed("fast", 5.0, session_threads=2), timed("same", 9.5)]
    choice = judge(rows, aims, "base")
    assert (choice.winner.id if choice.winner else None, choice.steps[0].tied) == ("fast", ())
    choice = judge([rows[0], rows[2]], aims, "base")
    assert choice.steps[0].tied == ("same",), "one graph in one session has one timing, whatever its noise"
    assert entry_of(rows[0]).graph == "g"
    assert entry_of(row("a", 0.8, 90.0)).graph is None


def test_metrics_of_workloads_are_judged_with_their_intervals() -> None:
    def timed(name: str, ms: float) -> Trial:
        ends: dict[str, Any] = {"itl_ms_p50_low@long": ms - 1, "itl_ms_p50_high@long": ms + 1}
        return row(name, 0.8, 90.0, **{"itl_ms_p50@long": ms}, **ends)

    rows = [timed("a", 9.0), timed("b", 5.0), timed("c", 5.5)]
    assert rows[0].values == {"accuracy": 0.8, "size_mb": 90.0, "itl_ms_p50@long": 9.0}
    aims = Aims(
        {"itl_ms_p50@long": "minimize", "size_mb": "minimize"}, (parse_limit("itl_ms_p50@long <= 5.2", METRICS),)
    )
    choice = judge(rows, aims, "base")
    assert choice.winner is not None
    assert (choice.winner.id, choice.feasible, choice.uncertain) == ("b", ("b",), aims.limits)
    choice = judge(rows, Aims(aims.objectives), "base")
    assert (choice.steps[0].tied, list(choice.steps[0].beaten)) == (("c",), ["a"])
    assert [row["candidate"] for row in front_of(rows, aims.objectives)] == ["b"]


def test_entries_of_rows_with_several_headers_are_those_of_each_row() -> None:
    """What is found of many rows at once is what is found of each alone: values, intervals, counts and what it is served as."""
    rows = [
        Trial({"candidate": "a", "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "accuracy_n": 10}),
        Trial({"candidate": "b", "accuracy": 0.5, "accuracy_low": 0.4, "itl_ms_p50@long": 3.0, "processes@long": 7}),
        Trial({"candidate": "c", "accuracy": None, "accuracy_n": 10, "size_mb": 3, "graph": "g", "session_threads": 2}),
        Trial({"candidate": "d", "graph": "g", "session_threads": None}),
        Trial({"candidate": "e"}),
    ]
    entries = entries_of(rows)
    assert [repr(entry_of(row)) for row in rows] == list(map(repr, entries))
    assert [entry.intervals for entry in entries] == [{"accuracy": (0.4, 0.6)}, {}, {}, {}, {}]
    assert entries[1].counts == {"itl_ms_p50@long": 7}
    assert [entry.graph for entry in entries] == [None, None, "g session_threads=2", "g", None]
    assert entries_of([]) == []
