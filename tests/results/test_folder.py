"""A sweep's folder: held by one process, never mixed with another sweep, and whole at any moment."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from autotune.candidate import Session
from autotune.errors import UsageError
from autotune.present.explained import explain
from autotune.present.select import as_json, select
from autotune.providers import PROVIDERS
from autotune.results import record as record_module
from autotune.results.folder import read_results, read_running, read_sweep
from autotune.results.loading import load_script
from autotune.results.record import NOTE_S, Record
from autotune.results.rows import CurvePoint, Finalist, Trial
from autotune.results.table import Table, read_table
from autotune.sweepfile.resolve import parse_sweep
from autotune.sweepfile.schema import Sweep
from tests.bad_inputs import write_model

DOCUMENT: dict[str, Any] = {
    "name": "fake",
    "model": "smollm2-135m-instruct",
    "data": {"train": "train.jsonl", "validation": "validation.jsonl", "prompt": "{text}", "completion": " {tone}"},
    "space": {"lora": {"r": {"choice": [4, 8]}, "steps": 10}, "build": [{"precision": "int8"}]},
    "strategy": "random",
    "budget": {"trials": 6},
}
ROW = Trial({"candidate": "a", "trial": 1, "attempt": 1, "kind": "pair", "status": "ok", "accuracy": 0.5})


def sweep_of(**keys: Any) -> Sweep:
    return parse_sweep(DOCUMENT | keys)


# --- one process -----------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_by_name(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from autotune.results.record import Record
from autotune.sweepfile.resolve import parse_sweep
with Record(Path({str(tmp_path)!r}), parse_sweep({DOCUMENT!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        with pytest.raises(UsageError, match=f"another process is at work in this folder: process {process.pid} on "):
            Record(tmp_path, sweep_of())
        assert read_running(tmp_path) is not None
        process.kill()  # no farewell: the lock goes with the process, its note stays
    assert read_running(tmp_path) is not None
    with Record(tmp_path, sweep_of()):
        running = read_running(tmp_path)
        assert running is not None
        assert running["pid"] == os.getpid()
    assert read_running(tmp_path) is None


def test_a_process_that_has_said_nothing_of_itself_yet_is_refused_too(tmp_path: Path) -> None:
    with FileLock(str(tmp_path / ".lock")), pytest.raises(UsageError) as error:
        Record(tmp_path, sweep_of())
    assert "another process is at work in this folder: it has just begun; wait for it" in str(error.value)


def begun(folder: Path, sweep: Sweep) -> None:
    """Leave a folder with one row in it."""
    with Record(folder, sweep) as record:
        record.results.append(ROW)


def test_a_refused_sweep_leaves_the_folder_free(tmp_path: Path) -> None:
    begun(tmp_path, sweep_of())
    with pytest.raises(UsageError, match="seed: differs"):
        Record(tmp_path, sweep_of(seed=1))
    assert read_running(tmp_path) is None
    with Record(tmp_path, sweep_of()):
        pass


def test_a_folder_without_rows_may_be_used_by_another_sweep(tmp_path: Path) -> None:
    with Record(tmp_path, sweep_of()):
        pass
    with Record(tmp_path, sweep_of(seed=1)):
        pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be written"):
        Record(file / "results", sweep_of())

    def held(self: Table, text: str) -> None:
        raise PermissionError(13, "in use by another program", str(self.file))

    folder = tmp_path / "results"
    with monkeypatch.context() as patch:
        patch.setattr(Table, "_append", held)
        with pytest.raises(UsageError, match=r"results\.csv: the results folder cannot be written .in use"):
            Record(folder, sweep_of())
    with Record(folder, sweep_of()):
        pass


# --- one sweep -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", "another/model"),
        ("data", DOCUMENT["data"] | {"train": "other.jsonl"}),
        ("data", DOCUMENT["data"] | {"completion": " {label}"}),
        ("target", {"provider": "cpu", "threads": 2}),
        ("objectives", {"size_mb": "minimize"}),
        ("seed", 7),
    ],
)
def test_another_sweep_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    begun(tmp_path, sweep_of())
    with pytest.raises(UsageError, match=rf"{key}\S*: differs from the sweep whose results are in") as error:
        Record(tmp_path, sweep_of(**{key: value}))
    assert "give the new sweep another --out" in str(error.value)
    assert read_sweep(tmp_path) == json.loads(json.dumps(sweep_of().resolved()))


def test_all_differences_are_said_at_once(tmp_path: Path) -> None:
    begun(tmp_path, sweep_of())
    with pytest.raises(UsageError) as error:
        Record(tmp_path, sweep_of(seed=7, model="another/model", target={"provider": "cpu", "threads": 2}))
    assert [problem.key for problem in error.value.problems] == ["model", "seed", "target.threads"]


@pytest.mark.parametrize(
    "change",
    [
        {"limits": ["size_mb <= 100"]},
        {"budget": {"trials": 60, "hours": 2}},
        {"strategy": "tpe"},
        {"space": {"lora": {"r": {"choice": [4, 8, 16]}, "steps": 20}, "build": [{"precision": "int4"}]}},
        {"train": {"time_limit_s": 60}},
    ],
)
def test_what_may_change_may_change(tmp_path: Path, change: dict[str, Any]) -> None:
    with Record(tmp_path, sweep_of()) as record:
        record.results.append(ROW)
    with Record(tmp_path, sweep_of(**change)) as record:
        assert len(record.results.rows) == 1
    assert read_sweep(tmp_path) == json.loads(json.dumps(sweep_of(**change).resolved()))


def test_lesson_4_other_content_under_the_same_name_is_refused(tmp_path: Path) -> None:
    digests = {"model": "m", "train": "t", "validation": "v"}
    with Record(tmp_path, sweep_of()) as record:
        record.check_inputs(digests)
        record.check_inputs(digests | {"train": "edited"})  # no row yet: nothing to mix up
        record.check_inputs(digests)
        record.results.append(ROW)
        record.check_inputs(digests)
        with pytest.raises(UsageError, match="the content of train and validation has changed"):
            record.check_inputs(digests | {"train": "edited", "validation": "edited"})
    with Record(tmp_path, sweep_of()) as record:
        with pytest.raises(UsageError, match="the content of model has changed"):
            record.check_inputs(digests | {"model": "edited"})
        (tmp_path / "inputs.json").write_text("damaged", encoding="utf-8")
        record.check_inputs(digests)


def test_other_test_items_are_told_until_finalists_were_scored_on_them_and_then_refused(tmp_path: Path) -> None:
    digests = {"model": "m", "train": "t", "validation": "v", "test": "before"}
    with Record(tmp_path, sweep_of()) as record:
        assert record.check_inputs(digests) == ""
        record.results.append(ROW)
        assert record.check_inputs(digests) == ""
        assert "the items of test are others than before" in record.check_inputs(digests | {"test": "after"})
        assert record.check_inputs(digests | {"test": "after"}) == ""
        record.keep_outcomes("a", "test", "choice", {"ids": ["1"], "right": [1]})
        with pytest.raises(
            UsageError, match=r"the content of test has changed since the finalists .* `autotune score`"
        ):
            record.check_inputs(digests)
        assert record.check_inputs(digests | {"test": "after"}) == ""


def test_test_items_that_were_never_noted_are_taken(tmp_path: Path) -> None:
    """As in results of an earlier version, which did not note them."""
    with Record(tmp_path, sweep_of()) as record:
        record.check_inputs(DIGESTS)
        record.results.append(ROW)
        record.keep_outcomes("a", "test", "choice", {"ids": ["1"], "right": [1]})
        assert record.check_inputs(DIGESTS | {"test": "any"}) == ""


def moved(root: Path) -> Sweep:
    """The sweep, with its model and data at other paths than in DOCUMENT, below `root`."""
    root.mkdir()
    write_model(root / "model")
    for split in ("train", "validation"):
        (root / f"{split}.jsonl").touch()
    data = DOCUMENT["data"] | {split: str(root / f"{split}.jsonl") for split in ("train", "validation")}
    return sweep_of(model=str(root / "model"), data=data)


DIGESTS = {"model": "m", "train": "t", "validation": "v"}


def test_what_lies_elsewhere_now_is_known_by_its_content(tmp_path: Path) -> None:
    """Results, model and data are moved to another place or machine, where the sweep file names other paths."""
    folder, elsewhere = tmp_path / "results", moved(tmp_path / "elsewhere")
    with Record(folder, sweep_of()) as record:
        record.check_inputs(DIGESTS)
        record.results.append(ROW)
        record.note_settings()
    with Record(folder, elsewhere) as record:
        record.check_inputs(DIGESTS)
        record.note_settings()
    assert read_sweep(folder) == json.loads(json.dumps(elsewhere.resolved()))
    with Record(folder, elsewhere) as record:
        record.check_inputs(DIGESTS)


@pytest.mark.parametrize("changed", ["model", "train", "validation"])
def test_another_content_at_another_path_is_refused_by_name_and_changes_nothing(tmp_path: Path, changed: str) -> None:
    folder, elsewhere = tmp_path / "results", moved(tmp_path / "elsewhere")
    with Record(folder, sweep_of()) as record:
        record.check_inputs(DIGESTS)
        record.results.append(ROW)
        record.note_settings()
    with Record(folder, elsewhere) as record, pytest.raises(UsageError) as error:
        record.check_inputs(DIGESTS | {changed: "another"})
    assert [problem.key for problem in error.value.problems] == ["model", "data.train", "data.validation"]
    assert read_sweep(folder) == json.loads(json.dumps(sweep_of().resolved()))


def test_a_path_is_no_excuse_for_another_setting_or_where_no_content_was_noted(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "results", moved(tmp_path / "elsewhere")
    begun(folder, sweep_of())  # no digests of its inputs
    with pytest.raises(UsageError, match="model: differs from the sweep whose results are in"):
        Record(folder, elsewhere)
    with Record(folder, sweep_of()) as record:
        record.check_inputs(DIGESTS)
    with pytest.raises(UsageError, match="seed: differs from the sweep whose results are in"):
        Record(folder, elsewhere.model_copy(update={"seed": 7}))


@pytest.mark.parametrize("content", ["", "just text", "[1, 2]", "{name: [", "\x00"])
def test_a_damaged_sweep_file_is_a_usage_error_or_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.yaml").write_text(content, encoding="utf-8")
    try:
        with Record(tmp_path, sweep_of()):
            assert read_sweep(tmp_path) is not None
    except UsageError as error:
        assert "sweep.yaml" in str(error)  # noqa: PT017 - one of two right outcomes


# --- what it keeps ---------------------------------------------------------------------------------------------------


def test_outcomes_stand_beside_their_items(tmp_path: Path) -> None:
    with Record(tmp_path, sweep_of()) as record:
        for name in ("a", "b"):
            record.keep_outcomes(name, "validation", "choice", {"ids": ["1", "2"], "predicted": [0, 1], "gold": [0, 0]})
        record.keep_outcomes("a", "test", "choice", {"ids": ["3"], "predicted": [0], "gold": [0]})
    folder = tmp_path / "outcomes"
    assert sorted(p.name for p in folder.iterdir()) == [
        "a.json", "a.test.json", "b.json", "items.test.json", "items.validation.json",
    ]  # fmt: skip
    kept = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    assert kept == {"metric": "choice", "split": "validation", "predicted": [0, 1], "gold": [0, 0]}


def test_a_curve_is_kept_once_over_resumes(tmp_path: Path) -> None:
    curve = [[1, 1.5, 1e-3], [2, 1.25, 5e-4]]
    for _ in range(2):
        with Record(tmp_path, sweep_of()) as record:
            record.keep_curve("adapter", curve)
            record.keep_curve("adapter", curve)
            assert record.curves.rows == []
    rows = read_table(tmp_path / "curves.csv", CurvePoint)
    assert [(row["adapter"], row["step"], row["train_loss"], row["learning_rate"]) for row in rows] == [
        ("adapter", 1, 1.5, 1e-3), ("adapter", 2, 1.25, 5e-4),
    ]  # fmt: skip


def test_finalists_are_written_anew(tmp_path: Path) -> None:
    with Record(tmp_path, sweep_of()) as record:
        for count in (2, 1):
            rows = [{"role": "winner", "candidate": f"{n}", "split": "test"} for n in range(count)]
            record.write_finalists(list(map(Finalist, rows)))
    assert len(read_table(tmp_path / "finalists.csv", Finalist)) == 1


def model_in(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("model.onnx", "manifest.json", "optimizer.safetensors", "state.json"):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_best_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Record(tmp_path / "out", sweep_of()) as record:
        best = record.folder / "best"
        record.keep_best(
            {"onnx": model_in(tmp_path / "1", "one"), "adapter": model_in(tmp_path / "2", "two")}, {"n": 1}
        )
        assert sorted(p.relative_to(best).as_posix() for p in best.rglob("*.*")) == [
            "adapter/model.onnx", "candidate.json", "onnx/model.onnx",
        ]  # fmt: skip

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("shutil.copytree", full)
            with pytest.raises(OSError, match="No space"):
                record.keep_best({"onnx": model_in(tmp_path / "3", "three")}, {"n": 2})
        assert (best / "onnx" / "model.onnx").read_text(encoding="utf-8") == "one"
        record.keep_best({"onnx": model_in(tmp_path / "4", "four")}, {"n": 3})
        assert (best / "onnx" / "model.onnx").read_text(encoding="utf-8") == "four"
        assert json.loads((best / "candidate.json").read_text(encoding="utf-8")) == {"n": 3}
        assert not (best / "adapter").exists()
        assert [p.name for p in record.folder.glob(".best*")] == []


def test_a_kill_while_best_is_replaced_loses_nothing_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Record(tmp_path / "out", sweep_of()) as record:
        record.keep_best({"onnx": model_in(tmp_path / "1", "one")}, {})
        replace = os.replace

        def killed(aside: Path, place: Path) -> None:
            if Path(aside).name == ".best.new":
                raise KeyboardInterrupt
            replace(aside, place)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                record.keep_best({"onnx": model_in(tmp_path / "2", "two")}, {})
        assert not (record.folder / "best").exists()
    with Record(tmp_path / "out", sweep_of()) as record:
        assert (record.folder / "best" / "onnx" / "model.onnx").read_text(encoding="utf-8") == "one"
        assert [p.name for p in record.folder.glob(".best*")] == []
        record.keep_best({"onnx": model_in(tmp_path / "3", "three")}, {})
        assert (record.folder / "best" / "onnx" / "model.onnx").read_text(encoding="utf-8") == "three"
        assert [p.name for p in record.folder.glob(".best*")] == []


# --- what it spent ---------------------------------------------------------------------------------------------------


def test_the_hours_of_a_run_that_is_killed_count(tmp_path: Path) -> None:
    """Also those of the stage that was at work."""
    now = [0.0]
    killed = Record(tmp_path, sweep_of(), lambda: now[0])
    killed.busy(trial=1, candidate="a", stage="finetune", since=5.0)
    while now[0] < 5 * 3600:
        now[0] += 10.0
        killed.still_busy()
    running = read_running(tmp_path)
    assert running is not None
    assert [running[name] for name in ("trial", "candidate", "stage", "since")] == [1, "a", "finetune", 5.0]
    killed._lock.release()  # as the end of its process would
    with Record(tmp_path, sweep_of(), lambda: now[0]) as record:
        assert 5 * 3600 - NOTE_S <= record.spent_s() <= 5 * 3600
        assert [row["ended"] for row in record.runs.rows] == ["killed"]


@pytest.mark.parametrize("moment", ["after its row", "before its own note"])
def test_the_hours_of_a_run_are_counted_once_whenever_a_kill_comes(tmp_path: Path, moment: str) -> None:
    now = [0.0]
    first = Record(tmp_path, sweep_of(), lambda: now[0])
    now[0] = 100.0
    first.busy(stage="finetune")
    noted = (tmp_path / "running.json").read_bytes()
    if moment == "after its row":  # and before running.json is removed
        first.close()
        first._lock.release()
    else:  # the next run has counted it, and is killed before it notes that it runs itself
        first._lock.release()
        Record(tmp_path, sweep_of(), lambda: now[0])._lock.release()
        (tmp_path / "running.json").write_bytes(noted)
    with Record(tmp_path, sweep_of(), lambda: now[0]) as record:
        assert record.spent_s() == 100.0
        assert len(record.runs.rows) == 1


def test_it_is_noted_once_a_minute_and_trouble_with_that_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    notes: list[float] = []

    def held(file: Path, text: str, sync: bool) -> None:
        assert not sync  # it is written at every stage, and only `status` reads it
        notes.append(now[0])
        raise PermissionError(13, "in use", str(file))

    with Record(tmp_path, sweep_of(), lambda: now[0]) as record, monkeypatch.context() as patch:
        patch.setattr(record_module, "write_aside", held)
        while now[0] < 200:
            now[0] += 0.5
            record.still_busy()
    assert notes == [60.0, 120.0, 180.0]


# --- what it gives back ----------------------------------------------------------------------------------------------


def test_the_last_attempt_counts_and_the_untouched_model_stays(tmp_path: Path) -> None:
    with Record(tmp_path, sweep_of()) as record:
        base = Trial({"candidate": "base", "trial": 0, "attempt": 1, "kind": "base", "status": "ok"})
        for row in (base, ROW | {"status": "lost"}, ROW | {"attempt": 2}, base | {"trial": 2, "attempt": 2}):
            record.results.append(row)
    rows = read_results(tmp_path)
    assert rows == read_results(tmp_path / "results.csv")
    assert [(row["candidate"], row["trial"], row["attempt"], row["status"]) for row in rows] == [
        ("base", 0, 1, "ok"), ("a", 1, 2, "ok"), ("base", 2, 2, "ok"),
    ]  # fmt: skip


def test_no_results_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results here"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        read_results(tmp_path / "nothing.csv")
    assert read_sweep(tmp_path) is None
    assert read_running(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_note_of_a_running_sweep_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "running.json").write_text(content, encoding="utf-8")
    assert read_running(tmp_path) is None


# --- what is damaged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [1]\n", "name: is damaged: it must be a text, got [1]"),
        ("objectives: 7\n", "objectives: is damaged: it must be a mapping of metrics"),
        ("objectives: [accuracy]\n", "objectives: is damaged"),
        ("objectives: {accuracy: up}\n", "objectives: is damaged"),
        ("limits: 7\n", "limits: is damaged: it must be a list of texts"),
        ("limits: [7]\n", "limits: is damaged"),
        ("budget: 3\n", "budget: is damaged"),
        ("budget: {trials: x}\n", "budget: is damaged"),
        ("seed: !!int ''\n", "cannot be read"),
        ("a: &a [*a]\n", "cannot be read"),
        ("[" * 100_000, "cannot be read (nested deeper"),
        ("\0", "cannot be read"),
    ],
)
def test_a_damaged_sweep_is_refused_in_words(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_sweep(tmp_path)
    (problem,) = caught.value.problems
    assert says in str(problem)
    assert problem.remedy


@pytest.mark.parametrize(
    "note",
    ['{"pid": 1}', '{"pid": "1", "host": "h", "started": 1}', '{"pid": 1, "host": "h", "started": NaN}', "[]", "[" * 100_000,
     '{"pid": true, "host": "h", "started": 1}', '{"pid": 1, "host": 2, "started": 1}', '{"pid": 1e99, "host": "h", "started": 1}'],
)  # fmt: skip
def test_a_damaged_note_is_none(tmp_path: Path, note: str) -> None:
    (tmp_path / "running.json").write_text(note, encoding="utf-8")
    assert read_running(tmp_path) is None


def test_of_a_note_only_what_is_sound_is_kept(tmp_path: Path) -> None:
    note = {"pid": 1, "host": "h", "started": 1.5, "since": "soon", "trial": -1, "stage": "build", "other": []}
    (tmp_path / "running.json").write_text(json.dumps(note), encoding="utf-8")
    assert read_running(tmp_path) == {"pid": 1, "host": "h", "started": 1.5, "stage": "build"}


@pytest.mark.parametrize("content", ["[]", "7", "null", "[" * 100_000, "{"])
def test_damaged_digests_of_inputs_are_written_anew(tmp_path: Path, content: str) -> None:
    with Record(tmp_path, sweep_of()) as record:
        record.results.append(ROW)
        (tmp_path / "inputs.json").write_text(content, encoding="utf-8")
        record.check_inputs({"model": "a"})
        assert json.loads((tmp_path / "inputs.json").read_text(encoding="utf-8")) == {"model": "a"}


@pytest.mark.parametrize("name", ["", "../../x", "/etc/x", "a/b", "..", "a\\b", "a\x1b", "a" * 65])
def test_a_candidate_cannot_name_a_file_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "results.csv").write_text(f"candidate,trial\n{name},1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="candidate: must be the name of a candidate"):
        read_results(tmp_path)


def test_best_is_served_as_it_was_measured(tmp_path: Path) -> None:
    source = model_in(tmp_path / "1", "one")
    there = {"log_id": "x", "provider_options": [{"cuda": {"enable_cuda_graph": "1", "a": "0"}}]}
    config = {"model": {"decoder": {"session_options": there, "filename": "model.onnx"}}, "search": {"top_k": 50}}
    (source / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    session = Session(threads=2, arena=False, provider_options="a=1 b=2")
    with Record(tmp_path / "out", sweep_of()) as record:
        best = record.folder / "best"

        def shipped() -> dict[str, Any]:
            settings = json.loads((best / "onnx" / "genai_config.json").read_text(encoding="utf-8"))
            assert settings["search"] == {"top_k": 50}
            found: dict[str, Any] = settings["model"]["decoder"]["session_options"]
            return found

        record.keep_best({"onnx": source}, {"n": 1}, session, PROVIDERS["cuda"])
        assert shipped() == {
            "log_id": "x", "intra_op_num_threads": 2, "enable_cpu_mem_arena": False,
            "provider_options": [{"cuda": {"enable_cuda_graph": "1", "a": "1", "b": "2"}}],
        }  # fmt: skip
        about = json.loads((best / "candidate.json").read_text(encoding="utf-8"))
        assert about == {
            "n": 1, "session": {"threads": 2, "arena": False, "provider_options": "a=1 b=2"},
            "provider": "cuda", "install": PROVIDERS["cuda"].install,
        }  # fmt: skip
        assert (best / "load.py").read_text(encoding="utf-8") == load_script(PROVIDERS["cuda"])
        record.keep_best({"onnx": source}, {"n": 1}, Session(threads=1))
        assert shipped() == there | {"intra_op_num_threads": 1}
        record.keep_best({"onnx": source}, {"n": 1}, Session())
        assert shipped() == there
    assert json.loads((source / "genai_config.json").read_text(encoding="utf-8")) == config, "the cache's stays"


def test_workloads_in_another_order_are_another_sweep(tmp_path: Path) -> None:
    workloads = {"chat": {}, "long": {"prompt_tokens": 512}}
    begun(tmp_path, sweep_of(target={"workloads": workloads}))
    Record(tmp_path, sweep_of(target={"workloads": workloads}, limits=["itl_ms_p50@long <= 9"]))._lock.release()
    turned = dict(reversed(workloads.items()))
    with pytest.raises(
        UsageError, match=r"target\.workloads: differs .* set target\.workloads back to \['chat', 'long'\]"
    ):
        Record(tmp_path, sweep_of(target={"workloads": turned}))


# --- what spreadsheets and data frames leave of it -------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


def edited(folder: Path, change: Callable[[list[list[str]]], list[list[str]]], delimiter: str = ",") -> Path:
    """Return a copy of the example's folder whose results.csv somebody has edited."""
    copy = folder / "copy"
    shutil.copytree(EXAMPLE, copy)
    with (copy / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = change(list(csv.reader(stream)))
    with (copy / "results.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return copy


def with_cell(column: str, text: Callable[[str], str]) -> Callable[[list[list[str]]], list[list[str]]]:
    def change(rows: list[list[str]]) -> list[list[str]]:
        place = rows[0].index(column)
        return [rows[0], *([*row[:place], text(row[place]), *row[place + 1 :]] for row in rows[1:])]

    return change


@pytest.mark.parametrize(
    ("change", "delimiter", "told"),
    [
        (list, ";", "its cells are separated by semicolons, as a spreadsheet may save it; restore the file"),
        (list, "\t", "its cells are separated by tabs"),
        (lambda rows: rows[1:], ",", "begins with a row, and not with the names of its columns"),
        (lambda rows: [["<<<<<<< HEAD"], *rows], ",", "holds a merge of git that was left unfinished"),
        (with_cell("status", str.upper), ",", "got 'OK'; did you mean 'ok'?"),
        (with_cell("status", lambda _: "good"), ",", "got 'good'; restore the file, or read it by the version"),
        (lambda rows: [*rows, ["Total", *([""] * (len(rows[0]) - 1))]], ",", "status: row of Total: must be one of ok"),
        (with_cell("accuracy_low", lambda _: "0.99"), ",", "accuracy_low must be at most accuracy_high"),
        (with_cell("accuracy", lambda _: "nan"), ",", "got 'nan'; leave the cell empty: nothing was measured"),
        (with_cell("size_mb", lambda cell: cell.replace(".", ",")), ",", "a spreadsheet has rewritten the numbers"),
        (with_cell("size_mb", lambda _: "3.Apr"), ",", "a spreadsheet has taken the number for a date"),
    ],
)  # fmt: skip
def test_a_table_that_was_edited_by_mistake_is_refused(
    change: Callable[[list[list[str]]], list[list[str]]], delimiter: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        read_results(edited(tmp_path, change, delimiter))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [rows[0], *sorted(rows[1:], reverse=True)],
        lambda rows: [*rows, *rows[1:4]],
        lambda rows: [["" if n == 0 else str(n), *row] for n, row in enumerate(rows)],
        lambda rows: [[cell.upper() if cell in ("true", "false") else cell for cell in row] for row in rows],
        with_cell("accuracy_n", lambda cell: f"{cell}.0"),
        with_cell("attempt", lambda cell: f"{cell}.0"),
    ],
)
def test_rows_mean_the_same_in_another_order_twice_or_as_a_data_frame_writes_them(
    change: Callable[[list[list[str]]], list[list[str]]], tmp_path: Path
) -> None:
    def by_name(folder: Path) -> dict[object, Trial]:
        return {row.candidate: Trial({k: v for k, v in row.cells.items() if k}) for row in read_results(folder)}

    assert by_name(edited(tmp_path, change)) == by_name(EXAMPLE)
    first, second = select(EXAMPLE), select(tmp_path / "copy")
    assert first.choice.winner is not None
    assert second.choice.winner is not None
    assert second.choice.winner.id == first.choice.winner.id
    assert second.notes == ()


def test_what_is_missing_of_a_folder_is_told_beside_the_choice(tmp_path: Path) -> None:
    folder = edited(tmp_path, list)
    sweep = (folder / "sweep.yaml").read_text(encoding="utf-8")
    (folder / "results.csv").write_bytes((folder / "results.csv").read_bytes()[:-20])
    assert "Note: the last line of results.csv has no end, and is left out" in explain(select(folder))
    (folder / "sweep.yaml").write_text(sweep.replace("limits:", "limitz:"), encoding="utf-8")
    assert any(note.startswith("sweep.yaml has no limits") for note in select(folder).notes)
    assert not any("no limits" in note for note in select(folder, ["size_mb <= 100"]).notes)
    (folder / "sweep.yaml").unlink()
    assert "no limits or objectives of the sweep are known" in json.loads(as_json(select(folder)))["notes"][0]
