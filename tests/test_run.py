"""The `run` command on functions as stages: what it writes and prints, and what stops it with a clear word."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import FakeStages, inputs_in, make_sweep
from waiting import until

from autotune import machine
from autotune import run as run_module
from autotune.data.schema import Dataset, LeftOut
from autotune.errors import Exit, Interrupted, MachineError, UsageError
from autotune.execution import engines
from autotune.execution import threads as threads_module
from autotune.execution.stop import Stop, stop_on_signals
from autotune.pipeline.inputs import Inputs
from autotune.present.data import data_lines
from autotune.present.terminal import lasting_messages
from autotune.results import record as record_module
from autotune.results.folder import read_running
from autotune.results.record import Record
from autotune.results.rows import CommandRun, Finalist, Trial
from autotune.results.table import Table, read_table
from autotune.run import RunOptions, run_command
from autotune.stages.jobs import ScoreJob
from autotune.stages.protocol import Job
from autotune.sweepfile.schema import Sweep

DATA = Dataset(train=(), validation=(), test=(), labels=(" fear", " joy"), left_out=(), files={})


class Command:
    """`autotune run` in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file, self.out = folder / "sweep.yaml", folder / "out"
        self.stages = FakeStages(folder / "cache")
        self.inputs = inputs_in(folder, test=True)
        resolved = make_sweep(objectives={"accuracy": "maximize", "size_mb": "minimize"}).resolved()
        self.file.write_text(yaml.safe_dump(resolved), encoding="utf-8")

        def prepare(sweep: Sweep, do: Any, cache: Path, *, away: bool = False) -> tuple[Sweep, Dataset, Inputs]:
            return sweep, DATA, self.inputs

        monkeypatch.setattr(run_module, "prepare", prepare)
        monkeypatch.setattr(engines, "Stages", lambda *_: self.stages)

    def __call__(self, **options: Any) -> Exit:
        return run_command(RunOptions(str(self.file), self.out, **options))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, monkeypatch)


def test_what_a_stop_has_done_to_a_stage_is_no_trouble_of_the_machine(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C goes to all processes of a terminal: a stage of the preparation may end before the tuner looks for the request."""
    asked = [True]

    def lost(*_: object, **__: object) -> None:
        if asked:
            signal.raise_signal(signal.SIGINT)
        raise MachineError("this machine could not be looked at: probe: the worker process was lost")

    monkeypatch.setattr(run_module, "prepare", lost)
    with pytest.raises(Interrupted):
        command(trials=3)
    assert "probe: the worker process was lost" in capsys.readouterr().err
    asked.clear()
    with pytest.raises(MachineError):
        command(trials=3)
    assert [run.ended for run in read_table(command.out / "runs.csv", CommandRun)] == ["interrupted", "stopped"]


def test_trouble_of_the_machine_that_ends_a_training_is_told_as_such(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tuner itself asks a training to stop then: that is no request of the user."""

    @contextlib.contextmanager
    def stopped(say: Any) -> Iterator[Stop]:
        with stop_on_signals(say) as stop:
            stop.file.touch()
            yield stop

    def gone(*_: object, **__: object) -> None:
        raise MachineError("the cache is gone")

    monkeypatch.setattr(run_module, "stop_on_signals", stopped)
    monkeypatch.setattr(run_module, "prepare", gone)
    with pytest.raises(MachineError, match="the cache is gone"):
        command(trials=3)


def test_a_run_writes_its_files_and_says_what_it_chose(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(trials=3) == Exit.OK
    out, err = capsys.readouterr()
    assert out.startswith("Winner: ")
    assert "winner on test: accuracy 0." in out
    assert "base on test: accuracy 0.400" in out
    assert f"The winner is in {command.out / 'best'}" in out
    assert re.search(r"3 trials in \d+ s \(budget.trials is reached\); the tuner's own cost: ", err)
    assert sorted(p.name for p in command.out.iterdir() if not p.name.startswith(".")) == [
        "best", "curves.csv", "finalists.csv", "front.csv", "inputs.json", "machine.json", "outcomes", "results.csv",
        "runs.csv", "sweep.yaml", "timeline.csv",
    ]  # fmt: skip
    assert len(read_table(command.out / "results.csv", Trial)) == 4
    assert len(read_table(command.out / "finalists.csv", Finalist)) == 2
    front = read_table(command.out / "front.csv", Trial)
    assert front
    assert all(row["status"] == "ok" for row in front)
    assert set(json.loads((command.out / "machine.json").read_text(encoding="utf-8"))) == {
        "hardware",
        "python",
        "packages",
    }
    assert command(trials=5) == Exit.OK
    assert [row["trials"] for row in read_table(command.out / "runs.csv", CommandRun)] == [3, 2]


def test_exit_codes_and_words_where_nothing_keeps_the_limits(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(trials=2, sets=["limits=['accuracy >= 0.99']"]) == Exit.NO_FEASIBLE
    out = capsys.readouterr().out
    assert out.startswith("No candidate keeps the limits.")
    assert "misses 'accuracy >= 0.99' by " in out
    assert "best" not in out


def interrupt(job: Job) -> None:
    if isinstance(job, ScoreJob):
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_the_folder_free(command: Command) -> None:
    command.stages.trouble = interrupt
    with pytest.raises(KeyboardInterrupt):
        command()
    assert read_running(command.out) is None
    command.stages.trouble = lambda job: None
    assert command() == Exit.OK


def test_a_full_disk_has_a_clear_word(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    append = Table._append

    def full(self: Table, text: str) -> None:
        if text.count(",") > 50 and not text.startswith("candidate"):
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(text[:20])  # what still fitted
            raise OSError(28, "No space left on device", str(self.file))
        append(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(Table, "_append", full)
        with pytest.raises(MachineError, match=r"results\.csv: No space left on device; .* run the same command again"):
            command()
    assert command(trials=2) == Exit.OK
    assert [row["trial"] for row in read_table(command.out / "results.csv", Trial)] == [0, 1, 2]


def test_a_full_disk_is_named_where_the_system_names_no_file(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So it is where a file could still be made: the disk may be that of the results, of the cache, or of temporary files."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_module, "keep_texts", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(machine, "free_disk_mb", lambda folder: 0.5 if folder == tmp_path else 1e5)
    with pytest.raises(
        MachineError, match=f"^{re.escape(str(tmp_path))}: No space left on device; .* run the same command"
    ):
        command()


def test_a_results_folder_that_vanishes_has_a_clear_word(command: Command) -> None:
    def remove(job: Job) -> None:
        if isinstance(job, ScoreJob) and len(command.stages.jobs) > 8:
            shutil.rmtree(command.out)

    command.stages.trouble = remove
    with pytest.raises(MachineError, match="No such file or directory"):
        command()
    command.stages.trouble = lambda job: None
    assert command() == Exit.OK


def test_only_results_csv_removed_is_written_anew(command: Command) -> None:
    def remove(job: Job) -> None:
        if isinstance(job, ScoreJob):
            (command.out / "results.csv").unlink(missing_ok=True)

    command.stages.trouble = remove
    assert command(trials=4) == Exit.OK
    assert [row["trial"] for row in read_table(command.out / "results.csv", Trial)] == [0, 1, 2, 3, 4]


def test_edited_data_is_refused(command: Command, tmp_path: Path) -> None:
    assert command(trials=2) == Exit.OK
    edited = {**command.inputs.items, "validation": ("another digest", tmp_path / "v.json")}
    command.inputs = Inputs(**{**vars(command.inputs), "items": edited})
    with pytest.raises(UsageError, match="the content of validation has changed"):
        command(trials=3)
    command.inputs = Inputs(**{**vars(command.inputs), "items": inputs_in(tmp_path).items})  # without test: as before
    assert command(trials=3) == Exit.OK


@contextlib.contextmanager
def unread(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a standard stream be a pipe whose reader has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with monkeypatch.context() as patch, os.fdopen(writing, "w", encoding="utf-8") as stream:
        patch.setattr(sys, name, stream)
        yield


def test_a_result_that_nobody_reads_changes_nothing_in_how_a_sweep_ended(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unread("stdout", monkeypatch):
        assert command(trials=1) == Exit.OK
    assert [row["ended"] for row in read_table(command.out / "runs.csv", CommandRun)] == ["done"]


def test_a_sweep_goes_on_where_nobody_reads_its_messages(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with unread("stderr", monkeypatch), lasting_messages():
        assert command(trials=3) == Exit.OK
    assert capsys.readouterr().out.startswith("Winner: ")
    assert [row["trial"] for row in read_table(command.out / "results.csv", Trial)] == [0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_closed_terminal_asks_for_the_end_though_nobody_can_be_told(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang_up(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGHUP)
        raise MachineError("probe: the worker process was lost")

    monkeypatch.setattr(run_module, "prepare", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup leaves it ignored, and then it is heard by nobody
    try:
        with unread("stderr", monkeypatch), lasting_messages(), pytest.raises(Interrupted):
            command(trials=3)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_front_that_cannot_be_written_hides_no_winner(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def held(self: Path, target: Path) -> Path:
        if target.name == "front.csv":  # as Windows says where a spreadsheet has it open
            raise PermissionError(13, "Permission denied", str(self), None, str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held)
        assert command(trials=2) == Exit.OK
    out, err = capsys.readouterr()
    assert out.startswith("Winner: ")
    assert f"{command.out / 'front.csv'} could not be written (Permission denied)" in err
    assert [(row["trials"], row["ended"]) for row in read_table(command.out / "runs.csv", CommandRun)] == [(2, "done")]
    assert command(trials=2) == Exit.OK
    assert read_table(command.out / "front.csv", Trial)


def test_what_was_spent_is_noted_while_a_stage_is_at_work(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[float] = []

    def look(job: Job) -> None:
        def spent() -> float:
            return float((read_running(command.out) or {"spent_s": before})["spent_s"])

        before = (read_running(command.out) or {})["spent_s"]
        until(lambda: spent() != before, "a later note of what was spent")
        noted.append(spent())

    monkeypatch.setattr(threads_module, "_POLL_S", 0.01)
    monkeypatch.setattr(record_module, "NOTE_S", 0.0)
    command.stages.trouble = look
    assert command(trials=1) == Exit.OK
    assert noted == sorted(set(noted))


def test_a_second_run_is_refused(command: Command) -> None:
    assert command(trials=1) == Exit.OK
    sweep = make_sweep(objectives={"accuracy": "maximize", "size_mb": "minimize"})
    with Record(command.out, sweep), pytest.raises(UsageError, match="another process is at work"):
        command()


def test_the_data_in_a_few_lines() -> None:
    examples = ("train.csv:3", "train.csv:9")
    left = LeftOut(split="train", reason="the same as an item of test", rows=7, examples=examples)
    lines = data_lines(DATA.model_copy(update={"left_out": (left,)}))
    assert lines == [
        "data: 0 train; 2 labels",
        "data: 7 rows of train left out: the same as an item of test (train.csv:3, train.csv:9, ...)",
    ]
