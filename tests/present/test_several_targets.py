"""A sweep with several targets, really run: export and score ask which, and take what belongs to it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import Ran, TinySweep

from autotune.cli import main
from autotune.errors import Exit
from autotune.present.explained import explain_targets
from autotune.present.select import selections
from autotune.results.folder import read_results

pytestmark = pytest.mark.usefixtures("keeps_workers")


@pytest.fixture(scope="module")
def both(tiny_sweep: TinySweep, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter and the builds of the tiny sweep, for one target with one thread and for one with two."""
    sweep = yaml.safe_load(tiny_sweep.file.read_text(encoding="utf-8"))
    target = sweep.pop("target")
    sweep["targets"] = {
        "small": target | {"limits": ["size_mb <= 0.5"]},
        "large": target | {"threads": 2, "arena": False},
    }
    sweep["space"]["lora"]["quantized_base"] = "none"
    sweep["space"]["build"] = [{"precision": "fp32"}, {"precision": "int4"}]
    sweep["objectives"] = {"accuracy": "maximize"}
    file = tiny_sweep.file.with_name("both.yaml")
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    out = tmp_path_factory.mktemp("both") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signal.signal", lambda *_: None)
        patch.setattr("sys.excepthook", sys.excepthook)
        assert main(["run", str(file), "--out", str(out)]) in (Exit.OK, Exit.NO_FEASIBLE)
    return out


@pytest.mark.parametrize("command", ["export", "score"])
def test_without_a_target_nothing_is_chosen(
    command: str, both: Path, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    more = ["--to", tmp_path / "x"] if command == "export" else ["--data", both.parent / "none.csv"]
    ran = autotune(command, both, *more)
    assert ran.code == Exit.USAGE
    assert "these results are of several targets: large, small; name one with --target" in ran.err
    ran = autotune(command, both, *more, "--target", "larg")
    assert ran.code == Exit.USAGE
    assert "no such target in these results" in ran.err
    assert "did you mean 'large'?" in ran.err


def test_export_takes_the_winner_of_the_target(both: Path, autotune: Callable[..., Ran], tmp_path: Path) -> None:
    ran = autotune("export", both, "--to", tmp_path / "x", "--target", "large", "--items", 4)
    assert ran.code == Exit.OK, ran.err
    best = json.loads((both / "best" / "large" / "candidate.json").read_text(encoding="utf-8"))
    about = json.loads((tmp_path / "x" / "candidate.json").read_text(encoding="utf-8"))
    assert about["candidate"] == best["candidate"]
    assert about["task"]["threads"] == 2
    assert about["session"] == best["session"]


def test_a_candidate_says_its_target_itself(both: Path, autotune: Callable[..., Ran], tmp_path: Path) -> None:
    rows = {(row.target, row.trial): row for row in read_results(both)}
    assert rows["small", 1].candidate != rows["large", 1].candidate
    row = rows["large", 2]
    ran = autotune("export", both, "--to", tmp_path / "x", "--candidate", row.candidate, "--items", 0)
    assert ran.code == Exit.OK, ran.err
    about = json.loads((tmp_path / "x" / "candidate.json").read_text(encoding="utf-8"))
    assert (about["candidate"], about["task"]["threads"]) == (row.candidate, 2)


def test_score_takes_the_winner_of_the_target_and_best_of_it(
    both: Path, tiny_sweep: TinySweep, autotune: Callable[..., Ran]
) -> None:
    data = tiny_sweep.file.with_name("validation.jsonl")
    one = autotune("score", both, "--data", data, "--target", "large", "--json")
    other = autotune("score", both / "best" / "large", "--data", data, "--json")
    assert (one.code, other.code) == (Exit.OK, Exit.OK), one.err + other.err
    assert json.loads(one.out)["value"] == json.loads(other.out)["value"]
    assert json.loads(one.out)["difference"] == json.loads(other.out)["difference"]


def test_what_is_dear_is_done_once_for_both_targets(both: Path) -> None:
    rows = [row for row in read_results(both) if row.trial]
    assert len(rows) == 4
    assert len({row.adapter for row in rows}) == 1
    assert sum(row.cost_s("train") is not None for row in rows) == 0  # the tiny sweep has trained it
    assert sum(row.cost_s("merge") is not None for row in rows) <= 1
    assert {row.cost_s("build") for row in rows} == {
        None
    }  # nor are builds made again: both targets run those of the CPU
    builds = {(row["build_precision"], row["built"]) for row in rows}
    assert len(builds) == 2
    assert {(row.target, row["build_precision"]) for row in rows} == {
        (target, precision) for target in ("small", "large") for precision in ("fp32", "int4")
    }


def test_what_holds_for_the_whole_folder_is_said_once_and_the_rest_with_its_target(
    both: Path, autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(both, folder)
    table = (folder / "results.csv").read_text(encoding="utf-8")
    (folder / "results.csv").write_text(table + "half a line", encoding="utf-8")
    ran = autotune("select", folder)
    head = ran.out[: ran.out.index("Target ")]
    assert ran.out.count("Note: the last line of results.csv has no end") == 1
    assert "Note: the last line of results.csv has no end" in head
    assert [line for line in ran.out.splitlines() if line.startswith("Target ")] == ["Target large:", "Target small:"]
    chosen = selections(both)
    said = explain_targets({**chosen, "large": replace(chosen["large"], notes=("of large alone",))})
    assert said.startswith("Target large:\nNote: of large alone\n")
    assert explain_targets(chosen).startswith("Target large:\nWinner: ")
    assert "(wonderful)" in explain_targets(chosen, {"large": ["(wonderful)"]}).split("Target small:")[0]


def test_a_plan_of_several_targets_is_one_plan(both: Path, tiny_sweep: TinySweep, autotune: Callable[..., Ran]) -> None:
    file = tiny_sweep.file.with_name("both.yaml")
    ran = autotune("plan", file, "--json", "--set", "space.lora.r=4")
    assert ran.code == Exit.OK, ran.err
    plan = json.loads(ran.out)
    assert (plan["candidates"], plan["trials"], plan["adapters"], plan["trainings"]) == (4, 4, 1, 1)
    # Two recipes of one adapter, whose builds serve both; those of the untouched model are there.
    assert plan["builds"] == 2
    assert list(plan["targets"]) == ["large", "small"]
    assert [len(one["recipes"]) for one in plan["targets"].values()] == [2, 2]
    ran = autotune("plan", file)
    assert ran.code == Exit.OK, ran.err
    assert "on cpu (large) and cpu (small)" in ran.out
    assert "target large:" in ran.out
    assert "measures 4 (every candidate of the space is measured) of 4 candidates" in ran.out
    assert max(map(len, ran.out.splitlines())) < 160
