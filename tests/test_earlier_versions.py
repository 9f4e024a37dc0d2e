"""Results folders and caches that an earlier version wrote are read, resumed and selected from.

`fixtures/results-718160a` holds two sweeps of the tiny model that commit 718160a ran; its README says how.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import FakeStages, Sweeping

from autotune.cli import main
from autotune.errors import Exit
from autotune.models import digest_folder
from autotune.pipeline.graph import Graph
from autotune.pipeline.inputs import Inputs
from autotune.present.select import as_json, select
from autotune.results.columns import COLUMNS, FINALISTS
from autotune.results.folder import read_results
from autotune.results.judge import candidate_of
from autotune.results.rows import Finalist, Trial
from autotune.results.table import read_table
from autotune.stages.jobs import TimeJob
from autotune.strategies.frontier.transfer import earlier_sweeps
from autotune.sweepfile.resolve import load_sweep
from autotune.sweepfile.schema import Sweep
from benchmarks import cache_keys

OLD = Path(__file__).parent / "fixtures" / "results-718160a"
SWEEPS = ("tpe", "frontier")
WINNERS = {"tpe": "9e81415da554e6c5", "frontier": "1e1847763d2edbcb"}
"""What 718160a printed."""
ROOM = 300_000
"""Bytes that the fixture may take."""


@pytest.fixture
def place(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user who ran 718160a: model, data and results."""
    shutil.copytree(tiny_llama, tmp_path / "model")
    shutil.copytree(OLD, tmp_path / "results")
    for file in OLD.glob("*.jsonl"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the columns and the rows of a table, as text."""
    with file.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    return head, rows


def command(*arguments: object) -> int:
    before = signal.getsignal(signal.SIGTERM)
    try:
        return main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


def sweep_of(place: Path, name: str, trials: int | None = None) -> Sweep:
    """Return the sweep as 718160a resolved it, which is a sweep file, too."""
    file = shutil.copy(place / "results" / name / "sweep.yaml", place / f"{name}.yaml")
    return load_sweep(file, trials=trials)


# --- Read ------------------------------------------------------------------------------------------------------------


def test_the_fixture_is_small_and_names_no_place() -> None:
    files = [path for path in OLD.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert sum(path.stat().st_size for path in files) < ROOM
    assert not [path for path in files if "/tmp/" in path.read_text(encoding="utf-8")]
    assert [path.name for path in files if path.suffix in (".safetensors", ".onnx")] == []


@pytest.mark.parametrize("name", SWEEPS)
def test_select_chooses_as_it_chose_then(name: str) -> None:
    then = json.loads((OLD / f"{name}.selected.json").read_text(encoding="utf-8"))
    now = json.loads(as_json(select(OLD / name)))
    assert now["winner"]["candidate"] == then["winner"]["candidate"] == WINNERS[name]
    assert then["winner"].items() <= now["winner"].items()
    for key in ("front", "feasible", "objectives", "limits", "paired"):
        assert now[key] == then[key]
    assert [(step["metric"], step["leader"], set(step["tied"])) for step in now["steps"]] == [
        (step["metric"], step["leader"], set(step["tied"])) for step in then["steps"]
    ]


@pytest.mark.parametrize("name", SWEEPS)
def test_select_reads_a_lone_table_and_other_limits(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shutil.copy(OLD / name / "results.csv", tmp_path)
    assert command("select", table, "--limit", "size_mb<=0.13", "--prefer", "size_mb") == Exit.OK
    assert "int4 b64" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("name", SWEEPS)
def test_status_says_what_it_said_then(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All but how it ended: 718160a called each sweep stopped that was not running, and its best one the best so far."""
    then = (OLD / f"{name}.status.txt").read_text(encoding="utf-8")
    assert command("status", OLD / name) == Exit.OK
    assert capsys.readouterr().out == then.replace(": stopped,", ": done,").replace("best so far:", "best:")


@pytest.mark.parametrize("name", SWEEPS)
def test_candidates_keep_their_names(name: str) -> None:
    rows = read_results(OLD / name)
    assert len(rows) >= 6
    for row in rows:
        assert candidate_of(row, OLD).id == row["candidate"]
    known = {row["candidate"] for row in rows}
    assert {row["candidate"] for row in read_table(OLD / name / "finalists.csv", Finalist)} <= known
    kinds = {row["kind"] for row in rows}
    assert kinds == ({"base", "pair"} if name == "tpe" else {"base", "pair", "adapter"})


@pytest.mark.parametrize("name", SWEEPS)
def test_columns_come_after_those_of_then(name: str) -> None:
    for table, columns in (("results.csv", COLUMNS), ("finalists.csv", FINALISTS)):
        head, _ = cells(OLD / name / table)
        assert [column.name for column in columns][: len(head)] == head


def test_frontier_learns_from_it(place: Path) -> None:
    model = json.loads((OLD / "tpe" / "inputs.json").read_text(encoding="utf-8"))["model"]
    adapters = {candidate_of(row, OLD).lora for row in read_results(OLD / "tpe") if row["kind"] == "pair"}
    assert len(adapters) >= 4
    for name in ("new", "frontier"):
        found = {one.name: one for one in earlier_sweeps(place / "results" / name, model)}
        assert {lora for lora, _, _ in found["tpe"].adapters} == adapters
        assert {items for _, _, items in found["tpe"].adapters} == {24}
    assert earlier_sweeps(place / "results" / "new", "another model") == []


# --- Resumed ---------------------------------------------------------------------------------------------------------


class OldGraphs(FakeStages):
    """Stages that time graphs of an earlier version, too: they are known by the rows alone."""

    def _processes(self, job: TimeJob, count: int) -> list[dict[str, Any]]:
        if not job.graph.startswith("graph of"):
            job = job.model_copy(update={"graph": f"graph of {next(r for _, r in self._builds.values())}"})
        return super()._processes(job, count)


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_goes_on_in_it(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "results" / name
    ids = json.loads((folder / "outcomes" / "items.validation.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(fakes, "ITEMS", len(ids))
    monkeypatch.setattr(fakes, "ids_of", lambda data: ids)
    head, before = cells(folder / "results.csv")
    sweep = sweep_of(place, name, trials=8)

    sweeping = Sweeping(place, sweep, stages=OldGraphs(place / "cache"))
    folder.rename(sweeping.out)
    summary = sweeping.run()
    assert summary.exit_code == Exit.OK

    new_head, after = cells(sweeping.out / "results.csv")
    assert new_head[: len(head)] == head
    assert len(new_head) > len(head)
    assert [row[: len(head)] for row in after[: len(before)]] == before
    assert {cell for row in after[: len(before)] for cell in row[len(head) :]} == {""}
    rows = read_table(sweeping.out / "results.csv", Trial)
    fresh = rows[len(before) :]
    last = max(int(row[head.index("trial")]) for row in before)
    assert {row["trial"] for row in fresh if int(row["trial"] or 0) > last} == set(range(last + 1, 9))
    assert len({(row["candidate"], row["attempt"]) for row in rows}) == len(rows)
    assert all(row["built"] for row in fresh if int(row["trial"] or 0) > last and row["status"] == "ok")
    assert sum(row["status"] == "ok" for row in fresh) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["frontier", pytest.param("tpe", marks=pytest.mark.marathon)])
def test_a_real_sweep_goes_on_in_it(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "results" / name
    if digest_folder(place / "model", {}) != json.loads((folder / "inputs.json").read_text(encoding="utf-8"))["model"]:
        pytest.skip("with these versions of the packages the tiny model is another one")
    head, before = cells(folder / "results.csv")
    trials = {"tpe": 6, "frontier": 4}[name]
    sweep_of(place, name)
    assert command("run", f"{name}.yaml", "--out", folder, "--trials", trials) == Exit.OK
    assert f"The winner is in {folder / 'best'}" in capsys.readouterr().out
    new_head, after = cells(folder / "results.csv")
    assert new_head[: len(head)] == head
    assert [row[: len(head)] for row in after[: len(before)]] == before
    assert max(int(row[head.index("trial")]) for row in after) == trials


# --- The cache -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEEPS)
def test_results_of_its_rows_are_found_in_its_cache(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json.loads((OLD / "cache.json").read_text(encoding="utf-8"))
    monkeypatch.setattr("autotune.stages.protocol.installed", lambda package: kept["packages"].get(package, ""))
    digests = json.loads((OLD / name / "inputs.json").read_text(encoding="utf-8"))
    items = {split: (digests[split], place / "items.json") for split in ("train", "validation")}
    labels = (" fear", " joy", " sadness", " surprise")
    inputs = Inputs(place / "model", digests["model"], items, dict.fromkeys(items, 24), labels, "cpu", "machine")
    graph = Graph(sweep_of(place, name), inputs)
    measured = [row for row in read_results(OLD / name) if row["status"] == "ok"]
    assert len(measured) >= 4
    for row in measured:
        candidate = candidate_of(row, OLD)
        if candidate.lora is not None:
            assert graph.finetune_job(candidate).key == row["adapter"]
            assert row["adapter"] in kept["keys"]["finetune"]
        assert graph.build_job(candidate).key in kept["keys"]["build"]
        assert graph.score_job(candidate, "validation").key in kept["keys"]["score"]


def test_keys_that_its_cache_has_are_found_or_a_reason_is_given() -> None:
    found = cache_keys.compared()
    assert cache_keys.unexplained(found) == []
    assert set(cache_keys.REASONS) <= {one.name for one in found}
    stages = {one.stage for one in found if not one.differs}
    assert stages == {
        "base", "build", "data", "finetune", "lengths", "merge", "metric", "score", "time", "tiny", "turns",
    }  # fmt: skip
    assert {one.stage for one in found} - stages == {"check", "probe", "task"}


def test_the_table_of_keys_is_current() -> None:
    file = cache_keys.THEN.with_name("cache_keys.md")
    assert file.read_text(encoding="utf-8").rstrip() == cache_keys.table(cache_keys.compared())


def test_a_lost_key_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.stages.jobs.MergeJob.version", 2)
    lost = cache_keys.unexplained(cache_keys.compared())
    assert "merge" in lost
    assert "build, int4" in lost
    assert "finetune, plain" not in lost
    assert "build, untouched model" not in lost
