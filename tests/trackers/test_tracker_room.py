"""Trackers follow a sweep by its tables: nothing is missing, nothing is there twice, and none that fails costs a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from following import ROW, WINNER, Growing, followed, journal_lines, mirror
from waiting import HANG_S, ended, until

from autotune.errors import Exit, MachineError, Problem
from autotune.results.rows import CurvePoint, Trial
from autotune.results.table import Table
from autotune.sweepfile.trackers import TRACKERS, parse_report_to, plain_report_to
from autotune.trackers import clients, listener
from autotune.trackers.feed import Feed, Journal, Tail
from autotune.trackers.listener import Wanted
from autotune.trackers.tracker import metrics_of, params_of, tags_of, title_of

# --- report_to -------------------------------------------------------------------------------------------------------


def problems_in(raw: Any) -> list[str]:
    problems: list[Problem] = []
    parse_report_to(raw, problems)
    return [str(problem) for problem in problems]


def test_every_tracker_is_named_alone_or_with_its_options() -> None:
    raw = [
        "tensorboard",
        {"mlflow": {"uri": "http://tracking.example", "experiment": "tones"}},
        {"wandb": {"mode": "online", "entity": "we"}, "trackio": None},
    ]
    found = parse_report_to(raw, problems := [])
    assert problems == []
    assert set(found) == set(TRACKERS)
    assert found["wandb"] == {"mode": "online", "entity": "we"}
    assert parse_report_to(plain_report_to(found), []) == found
    assert parse_report_to(None, []) == {}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (["mlfow"], "report_to[0]: no such tracker, got 'mlfow'; did you mean 'mlflow'?"),
        (["wandb", "wandb"], "report_to[1]: names wandb twice"),
        ([7], "report_to[0]: must be the name of a tracker"),
        ([{"wandb": {"mod": "online"}}], "report_to[0].wandb.mod: unknown key; did you mean 'mode'?"),
        ([{"wandb": {"mode": "on-line"}}], "report_to[0].wandb.mode: must be offline or online"),
        ([{"mlflow": {"uri": 5000}}], "report_to[0].mlflow.uri: must be a text of one line, got 5000"),
        ([{"mlflow": {"uri": "a\nb"}}], "must be a text of one line"),
        ([{"mlflow": "http://x"}], "report_to[0].mlflow: must be a mapping"),
        ([{"trackio": {"space": "mine"}}], "report_to[0].trackio.space: must be owner/name"),
        ([{}], "report_to[0]: must be the name of a tracker"),
    ],
)
def test_what_is_wrong_is_told_by_key_rule_value_and_remedy(raw: Any, words: str) -> None:
    (problem,) = problems_in(raw)
    assert words in problem
    assert ";" in problem


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems_in(["mlfow", 3, {"wandb": {"mode": "x", "team": "y"}}])) == 4


@pytest.mark.parametrize("name", TRACKERS)
def test_a_client_that_is_missing_is_named_with_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "CLIENTS", {name: ("no-such-distribution",)})
    with pytest.raises(
        MachineError, match=rf"{name} is not installed; pip install {clients.EXTRAS[name]}, or"
    ) as raised:
        clients.check_clients([name])
    assert raised.value.exit_code == Exit.MACHINE


# --- What is told of a row -------------------------------------------------------------------------------------------


def test_numbers_are_metrics_settings_are_parameters_and_texts_are_tags() -> None:
    row = Trial({
        "candidate": "a", "trial": 3, "attempt": 2, "kind": "pair", "status": "ok", "lora_r": 8, "lora_dora": False, "lora_dropout": None,
        "build_precision": "int4", "accuracy": 0.5, "accuracy_low": 0.4, "itl_ms_p50@long": 7.0, "cost_train_s": 3.0, "graph": "g",
        "train_steps": 40, "target": "laptop",
    })  # fmt: skip
    assert params_of(row) == {"lora_r": 8, "lora_dora": False, "build_precision": "int4"}
    assert metrics_of(row) == {
        "accuracy": 0.5, "accuracy_low": 0.4, "itl_ms_p50/long": 7.0, "cost_train_s": 3.0, "train_steps": 40.0,
    }  # fmt: skip
    assert tags_of(row)["status"] == "ok"
    assert tags_of(row)["attempt"] == "2"
    assert "error" not in tags_of(row)
    assert title_of(row).startswith("trial 3: r8")
    assert title_of(row).endswith("on laptop")


def test_secrets_stay_out_of_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Trial({"candidate": "a", "status": "failed", "error": "no luck at https://me:hunter2hunter2@index.example/x"})
    assert "hunter2" not in json.dumps(tags_of(row))


# --- The tables ------------------------------------------------------------------------------------------------------


def test_a_tail_reads_each_row_once_and_half_a_line_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    tail = Tail(file, CurvePoint)
    assert tail.new() == []
    table = Table(file, CurvePoint)
    assert tail.new() == []
    table.append(CurvePoint({"adapter": "a", "step": 1, "train_loss": 0.5}))
    table.append(CurvePoint({"adapter": "a", "step": 2}))
    assert [row.step for row in tail.new()] == [1, 2]
    with file.open("ab") as stream:
        stream.write(b"a,3,0.2")
    assert tail.new() == []
    with file.open("ab") as stream:
        stream.write(b"5,,,,\n")
    (row,) = tail.new()
    assert (row.step, row.train_loss) == (3, 0.25)
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0] + b"b,1,,,,,\n")  # written anew, and shorter
    assert [row.adapter for row in tail.new()] == ["b"]
    file.unlink()
    assert tail.new() == []


def test_a_journal_knows_after_a_crash_what_was_logged(tmp_path: Path) -> None:
    one = Trial({"candidate": "a", "trial": 1, "attempt": 1, "ended": "2026-01-01T00:00:00Z"})
    again, later = one | {"attempt": 2}, one | {"ended": "2026-01-02T00:00:00Z"}
    file = tmp_path / "trackers" / "x.done"
    first = Journal(file)
    first.logged(one)
    first.drawn("adapter", 3)
    first.drawn("adapter", 7)
    with file.open("a", encoding="utf-8") as stream:
        stream.write("curve adap")  # a power cut
    second = Journal(file)
    assert second.has(one)
    assert not second.has(again)
    assert not second.has(later), "results.csv was removed and the candidate measured anew"
    assert second.points("adapter") == 7
    assert not Journal(file, fresh=True).has(one)


def test_a_curve_waits_for_the_row_that_names_its_adapter(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "out")
    growing.write(0, 30)
    feed, journal = Feed(growing.folder), Journal(tmp_path / "journal")
    feed.look()
    assert feed.curves(journal) == {}
    growing.write(11, 30)
    feed.look()
    ((adapter, points),) = feed.curves(journal).items()
    assert len(points) == 30
    journal.drawn(adapter, 30)
    assert feed.curves(journal) == {}


# --- TensorBoard, really written and read ----------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars that TensorBoard reads in a folder, by tag as (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            value = make_ndarray(event.tensor_proto)
            if value.dtype.kind == "f" and value.size == 1:
                found.setdefault(tag, []).append((event.step, float(value)))
    return found


def hyperparameters(folder: Path) -> tuple[dict[str, Any], int]:
    """Return what the HParams page reads of a run: its settings and its status."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(folder)).Reload()
    content = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG])
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return values, end.status


def test_tensorboard_has_every_candidate_and_curve_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    growing = Growing(tmp_path / "out")
    with followed(growing.folder, "tensorboard") as trackers:
        growing.write(4, 50)
        trackers(ROW)
        until(lambda: len(journal_lines(growing.folder, "tensorboard")) >= 4)
    written = {
        file: file.stat().st_mtime_ns
        for file in (growing.folder / "trackers").rglob("events*")
        if "sweep" not in file.parts
    }
    growing.write()  # while no tracker was at work
    with followed(growing.folder, "tensorboard"):
        pass

    board = growing.folder / "trackers" / "tensorboard"
    rows = [row for row in growing.rows if row.trial]
    assert sorted(path.name for path in (board / "candidates").iterdir()) == sorted(row.candidate for row in rows)
    for row in rows:
        folder = board / "candidates" / row.candidate
        read = scalars(folder)
        for name, value in row.values.items():
            assert read[name] == [(row.trial, pytest.approx(value))]
        settings, status = hyperparameters(folder)
        assert settings["status"] == row.status == "ok"
        assert settings["lora_r"] == row["lora_r"]
        assert settings["build_precision"] == row["build_precision"]
        assert status == 1  # STATUS_SUCCESS
    losses: dict[str, list[tuple[int, float]]] = {}
    for point in growing.points:
        losses.setdefault(point.adapter[:16], []).append((point.step or 0, pytest.approx(point.train_loss)))
    assert {path.name: scalars(path)["train_loss"] for path in (board / "adapters").iterdir()} == losses
    assert (growing.folder / "pareto.svg").is_file()
    winner = scalars(board / "sweep")
    assert winner["winner/accuracy"] == [
        (0, pytest.approx(next(row["accuracy"] for row in rows if row.candidate == WINNER)))
    ]
    assert {file: file.stat().st_mtime_ns for file in written} == written, "something was logged twice"
    assert len(journal_lines(growing.folder, "tensorboard")) == len(set(journal_lines(growing.folder, "tensorboard")))


def test_failed_candidates_are_failures_with_their_status(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    growing = Growing(tmp_path / "out")
    growing.write(2, 0)
    table = Table(growing.folder / "results.csv", Trial)
    for place, status in enumerate(("out_of_memory", "stopped", "over_limit", "failed")):
        about = {
            "candidate": f"{place:016x}",
            "trial": place + 2,
            "attempt": 1,
            "kind": "pair",
            "lora_r": 4,
            "error": "why",
        }
        table.append(Trial({**about, "status": status}))
    with followed(growing.folder, "tensorboard"):
        pass
    board = growing.folder / "trackers" / "tensorboard" / "candidates"
    found = [hyperparameters(board / f"{place:016x}") for place in range(4)]
    assert [(values["status"], status) for values, status in found] == [
        ("out_of_memory", 2), ("stopped", 1), ("over_limit", 1), ("failed", 2),
    ]  # fmt: skip
    assert [set(scalars(board / f"{place:016x}")) for place in range(4)] == [set()] * 4, (
        "what was not measured is not there"
    )


def test_a_tracker_whose_store_was_removed_is_told_everything_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    import shutil

    growing = Growing(tmp_path / "out")
    growing.write(4, 0)
    for _ in range(2):
        with followed(growing.folder, "tensorboard"):
            pass
        board = growing.folder / "trackers" / "tensorboard"
        assert len(list((board / "candidates").iterdir())) == 2
        shutil.rmtree(board)


# --- Trackers that fail ----------------------------------------------------------------------------------------------


CRASHES = {
    "raises": "raise RuntimeError('no luck at https://me:hunter2hunter2@place.example')",
    "crashes": "import os; os._exit(9)",
    "hangs": "import time; time.sleep(600)",
}


@pytest.mark.parametrize("how", CRASHES)
def test_a_tracker_that_fails_costs_one_warning(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fails when it is imported: it is the real one's name, in a folder that comes first."""
    fake = tmp_path / "clients" / "tensorboard"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text(CRASHES[how] + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(fake.parent), *sys.path])
    monkeypatch.setattr(listener, "PATIENCE_S", 2.0 if how == "hangs" else HANG_S)
    growing = Growing(tmp_path / "out")
    said: list[str] = []
    with followed(growing.folder, "tensorboard", said=said) as trackers:
        for count in range(300):  # none of these waits
            trackers(ROW)
            growing.write(min(count, 11), 0)
    assert len(said) == 1
    assert "the sweep goes on without it" in said[0]
    assert "\n" not in said[0]
    assert {"raises": "no luck", "crashes": "exit code 9", "hangs": "too slow"}[how] in said[0]
    seen = said[0] + "".join(file.read_text(encoding="utf-8") for file in (growing.folder / "logs").iterdir())
    assert "hunter2" not in seen


def test_two_results_folders_with_one_name_do_not_mix_in_one_folder_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    shown = Wanted("tensorboard", {"folder": str(tmp_path / "shared")})
    one, two = Growing(tmp_path / "one" / "out"), Growing(tmp_path / "two" / "out")
    for growing in (one, two, one):
        growing.write(3, 0)
        with followed(growing.folder, shown):
            pass
    folders = sorted(place.name for place in (tmp_path / "shared").iterdir())
    assert len(folders) == 2
    assert folders[1].startswith(f"{folders[0]}-")
    counts = [len(list((tmp_path / "shared" / name).glob("*/*/*attempt*"))) for name in folders]
    assert counts[0] == counts[1] > 0


def test_a_mirror_that_fails_in_the_middle_is_told(tmp_path: Path) -> None:
    """One that must open is waited for; from then on it is like any other."""
    growing = Growing(tmp_path / "out")
    storage = tmp_path / "study.log"
    said: list[str] = []
    with followed(growing.folder, mirror(str(storage)), said=said) as trackers:
        trackers._running[0].process.kill()
        trackers._running[0].process.wait()
    assert len(said) == 1
    assert said[0].startswith("optuna: its process ended with exit code")
    assert "the sweep goes on without it" in said[0]


def test_the_log_of_a_client_that_was_killed_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "clients" / "tensorboard"
    fake.mkdir(parents=True)
    url = "https://me:hunter2hunter2@place.example"
    (fake / "__init__.py").write_text(f"import time; print({url!r}, flush=True); time.sleep(600)\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(fake.parent), *sys.path])
    monkeypatch.setattr(listener, "PATIENCE_S", 0.0)
    growing = Growing(tmp_path / "out")
    log = growing.folder / "logs" / "tracker-tensorboard.log"
    with followed(growing.folder, "tensorboard", said=[]):
        until(lambda: log.exists() and b"hunter2" in log.read_bytes())
    assert b"place.example" in log.read_bytes()
    assert b"hunter2" not in log.read_bytes()


def test_one_that_fails_leaves_the_others_at_work(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    growing = Growing(tmp_path / "out")
    growing.write()
    (growing.folder / "no folder").write_text("", encoding="utf-8")
    said: list[str] = []
    broken = Wanted("tensorboard", {"folder": str(growing.folder / "no folder" / "x")})
    with followed(growing.folder, broken, "optuna_that_is_not_there", said=said):
        pass
    assert len(said) == 2


def test_trackers_end_with_the_tuner(tmp_path: Path) -> None:
    """A tuner that is killed leaves no process behind."""
    import psutil

    growing = Growing(tmp_path / "out")
    code = (
        "import sys, time; from pathlib import Path; from autotune.trackers.listener import Trackers, Wanted\n"
        "trackers = Trackers([Wanted('tensorboard')], Path(sys.argv[1]), print); trackers.start()\n"
        "print(trackers._running[0].process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(growing.folder)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as tuner:
        assert tuner.stdout is not None
        tracker = psutil.Process(int(tuner.stdout.readline()))
        tuner.kill()
        tuner.wait()
        until(lambda: ended(tracker), "the end of the tracker")


# --- No network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRACKERS)
def test_nothing_in_the_environment_leads_to_the_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_not_for_anybody")
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
    variables = clients.environment(name, {})
    if name == "trackio":
        assert "HF_TOKEN" not in variables
        assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["WANDB_ERROR_REPORTING"] == "false"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    remote = clients.environment("trackio", {"space": "me/tones"})
    assert remote["HF_TOKEN"] == "hf_not_for_anybody"
