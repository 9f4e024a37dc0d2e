"""Trouble that a sweep meets at night, provoked for real, and what becomes of it.

Each scenario runs the command on the tiny model, does the harm, and runs the command again. `test_troubles.py` runs
them all; `python -m tests.troubles` prints the table of what the user sees. The harm inside a stage comes from a metric
of the sweep's own: `ACTS` is what it can do.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from _pytest.mark import ParameterSet

from autotune.errors import Exit
from autotune.results.folder import read_results
from autotune.results.rows import CommandRun, CurvePoint, Trial
from autotune.results.table import read_table
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import function_of

ROOT = Path(__file__).parent.parent
LABELS = ("yes", "no", "maybe")
WAIT_S = 900.0

ACTS = '''\
"""A metric that makes trouble: the first line of acts.txt is done when the next scoring begins."""

import ctypes, os, pathlib, resource, shutil, signal, time

HERE = pathlib.Path(__file__).parent
FIRST = None


def judge(prediction, reference, item):
    global FIRST
    FIRST = FIRST or item["id"]
    if item["id"] == FIRST:
        act()
    return float(len(prediction) % 3)


def act():
    file = HERE / "acts.txt"
    what, *rest = file.read_text(encoding="utf-8").split("\\n") if file.exists() else [""]
    file.write_text("\\n".join(rest), encoding="utf-8")
    what, _, where = what.partition(" ")
    if what == "segfault":
        ctypes.string_at(0)
    elif what == "raise":
        raise ValueError("=cmd|' /C calc'!A0 is no number")
    elif what == "nan":
        raise_nan()
    elif what == "sleep":
        time.sleep(600)
    elif what == "memory":
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20) * 64))
    elif what == "rlimit":
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
        try:
            bytearray(1 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    elif what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(3)
    elif what == "touch":
        with open(where, "ab") as stream:
            stream.write(b" ")
    elif what == "remove":
        shutil.rmtree(where)
    elif what == "move":
        os.rename(where, where + ".moved")
    elif what == "note":
        (HERE / "noted").touch()
        end = time.monotonic() + float(where)
        while time.monotonic() < end and not (HERE / "go-on").exists():
            time.sleep(0.01)


def raise_nan():
    raise ArithmeticError("float('nan')")


def nan(prediction, reference, item):
    return float("nan")
'''


@dataclass
class Ran:
    """One run of the command."""

    code: int
    out: str
    err: str

    def line(self, pattern: str) -> str:
        """Return the line of stderr that matches."""
        found = [line.strip() for line in self.err.splitlines() if re.search(pattern, line)]
        assert found, f"nothing like {pattern!r} in:\n{self.err}"
        return found[-1]


@dataclass
class Seen:
    """What a trouble looked like: a line of the table."""

    trouble: str
    provoked: str
    user_sees: str
    row: str
    resume: str


@dataclass
class Place:
    """A folder with a model, data and a sweep."""

    folder: Path
    model: Path
    cache: Path = field(init=False)
    out: Path = field(init=False)

    def __post_init__(self) -> None:
        self.cache, self.out = self.folder / "cache", self.folder / "results"
        rows = [{"text": f"{word} number {n}", "label": word} for n in range(12) for word in LABELS]
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (self.folder / "trouble.py").write_text(ACTS, encoding="utf-8")

    @property
    def data(self) -> Path:
        return self.folder / "data.jsonl"

    def sweep(self, lora: dict[str, Any] | None = None, metric: str = "choice", **changes: Any) -> Path:
        """Write the sweep: the untouched model in two recipes, or adapters in one."""
        space: dict[str, Any] = {"build": [{"precision": "int8"}, {"precision": "int4"}]}
        if lora is not None:
            space = {"lora": {"r": 2, "steps": 2, **lora}, "build": [{"precision": "int4"}]}
        score = "custom" if ":" in metric else "accuracy"
        document = {
            "name": "trouble",
            "model": str(self.model),
            "data": {
                "train": str(self.data), "holdout": 0.4, "metric": metric,
                "prompt": "Text: {text}\nLabel:", "completion": " {label}",
            },
            "target": {"provider": "cpu", "workload": {"prompt_tokens": 8, "new_tokens": 4}, "timing": {"processes": 2, "most": 2, "repeats": 0}},
            "space": space,
            "strategy": "grid",
            "objectives": {score: "maximize", "size_mb": "minimize"},
            "budget": {"trials": 100},
        } | changes  # fmt: skip
        file = self.folder / "sweep.json"
        file.write_text(json.dumps(document), encoding="utf-8")
        return file

    def acts(self, *acts: str) -> None:
        """Say what the metric does when scorings begin, one after another."""
        (self.folder / "acts.txt").write_text("\n".join(acts), encoding="utf-8")

    def start(self, *more: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command."""
        command = [
            sys.executable,
            "-m",
            "autotune",
            "run",
            str(self.folder / "sweep.json"),
            "--out",
            str(self.out),
            *more,
        ]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env={**os.environ, "AUTOTUNE_CACHE": str(self.cache), "PYTHONPATH": paths, **environment},
            start_new_session=True,
        )  # fmt: skip

    def end(self, process: subprocess.Popen[str]) -> Ran:
        """Wait for the command."""
        out, err = process.communicate(timeout=WAIT_S)
        assert "Traceback" not in err, err
        return Ran(process.returncode, out, err)

    def run(self, *more: str, **environment: str) -> Ran:
        """Run the command to its end."""
        return self.end(self.start(*more, **environment))

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that count, by trial."""
        return sorted(read_results(self.out), key=lambda row: (row["trial"], row["attempt"]))

    def every_row(self) -> list[Trial]:
        """Return every row, attempts that were followed by another included."""
        return read_table(self.out / "results.csv", Trial)

    def wait_for(self, file: Path) -> None:
        """Wait until a file is there."""
        end = time.monotonic() + WAIT_S
        while not file.exists():
            assert time.monotonic() < end, f"{file} never came"
            time.sleep(0.02)


def finished(ran: Ran, place: Place, count: int) -> str:
    """Check that a resumed sweep came to its end with so many rows, all well. Returns it in words."""
    assert ran.code == Exit.OK, ran.err
    rows = place.rows()
    assert [row["trial"] for row in rows] == list(range(count)), rows
    assert {row["status"] for row in rows} == {"ok"}, rows
    assert not (place.out / "running.json").exists()
    return f"exit 0, {count} rows, all ok"


def log_of(place: Place, row: dict[str, Any]) -> str:
    return (place.out / "logs" / f"{row['candidate']}.log").read_text(encoding="utf-8")


# --- a candidate's own trouble ---------------------------------------------------------------------------------------

OWN: dict[str, tuple[str, str, str, str]] = {
    "segfault": ("a segmentation fault", "`ctypes.string_at(0)` in a stage", "failed", r"crashed \(SIGSEGV\)"),
    "raise": ("an exception in the user's metric", "`raise ValueError`", "failed", r"trouble:judge raised ValueError"),
    "nan": ("an error without sense in the user's metric", "`raise ArithmeticError`", "failed", "raised ArithmeticError"),
    "sleep": ("a stage that hangs", "`time.sleep(600)`, workers.time_limit_s", "timeout", "score ran past 25 s"),
    "memory": ("a stage that eats the memory", "64 MB after 64 MB, workers.memory_mb", "out_of_memory",
               "score needed more memory than workers.memory_mb = 3000"),
    "rlimit": ("memory that is refused", "RLIMIT_AS, then 1 GB", "out_of_memory", "score ran out of memory"),
    "kill": ("a worker that somebody kills", "SIGKILL to itself", "ok", ""),
    "exit": ("a worker that ends", "`os._exit(3)`", "ok", ""),
}  # fmt: skip


def candidates_own(place: Place) -> list[Seen]:
    """One sweep in which one candidate after another meets trouble in its scoring."""
    rates = [round(0.001 * (n + 1), 4) for n in range(len(OWN) + 1)]
    place.sweep(
        {"learning_rate": {"choice": rates}}, "trouble:judge",
        workers={"time_limit_s": {"score": 25}, "memory_mb": 3000},
    )  # fmt: skip
    acts = ["none"]
    for name in OWN:
        acts += [name, "none"] if name in ("kill", "exit") else [name]
    place.acts(*acts)
    ran = place.run()
    assert ran.code == Exit.OK, ran.err
    rows = place.rows()
    assert len(rows) == len(OWN) + 2
    before = (place.out / "results.csv").read_text(encoding="utf-8")
    again = place.run()
    assert again.code == Exit.OK, again.err
    assert (place.out / "results.csv").read_text(encoding="utf-8") == before  # nothing that ended is done again
    seen = []
    for row, (name, (trouble, how, status, error)) in zip(rows[1:], OWN.items(), strict=False):
        attempts = [r for r in place.every_row() if r["candidate"] == row["candidate"]]
        assert (row["status"], bool(row["error"])) == (status, status != "ok"), (name, row)
        assert re.search(error, row["error"] or ""), (name, row["error"])
        assert "\n" not in (row["error"] or "")
        assert '--- score {"stage"' in log_of(place, row)
        shown = f"`{row['status']}`: {row['error']}"
        if status == "ok":
            assert [r["status"] for r in attempts] == ["lost", "ok"], attempts
            shown = f"`lost`: {attempts[0]['error']}; then, tried again, `ok`"
        line = (
            ran.line(re.escape(str(row["error"] or attempts[0]["error"])[:60]))
            if status != "ok"
            else "a line of progress"
        )
        assert line
        seen.append(Seen(trouble, how, "a line of progress, and the sweep goes on", shown, "not done again"))
    assert rows[0]["status"] == rows[-1]["status"] == "ok"  # what came before and after them
    return seen


def divergence(place: Place) -> list[Seen]:
    """A learning rate at which half precision overflows."""
    place.sweep({
        "learning_rate": {"choice": [0.001, 1.0]}, "dtype": "fp16", "steps": 40, "max_grad_norm": 0.0, "warmup": 0.0,
        "schedule": "constant",
    })  # fmt: skip
    ran = place.run()
    assert ran.code == Exit.OK, ran.err
    row = next(row for row in place.rows() if row["lora_learning_rate"] == 1.0)
    assert row["status"] == "diverged", row
    assert row["accuracy"] is None
    count = len(place.every_row())
    assert place.run().code == Exit.OK
    assert len(place.every_row()) == count
    return [Seen("NaN or divergence", "learning rate 1 in half precision, no clipping", ran.line("diverged: ")[:90],
                 f"`diverged`: {row['error']}", "not done again")]  # fmt: skip


def training_too_slow(place: Place) -> list[Seen]:
    """A training that passes its own time limit."""
    place.sweep({"steps": 5000, "learning_rate": {"choice": [0.001]}}, train={"time_limit_s": 3})
    ran = place.run()
    assert ran.code == Exit.NO_RESULT, ran.err
    row = place.rows()[-1]
    assert row["status"] == "timeout", row
    assert re.search(r"training passed train.time_limit_s = 3 at step \d+ of 5000", row["error"])
    return [Seen("a training that is too slow", "5,000 steps, train.time_limit_s: 3", ran.line("timeout: ")[:100],
                 f"`timeout`: {row['error']}", "not done again; its checkpoint is kept")]  # fmt: skip


def build_wrong(place: Place) -> list[Seen]:
    """A recipe of which the builder passes over a part without a word."""
    ignored = {"precision": "int4", "nodes_to_exclude": "/lm_head/MatMull"}
    place.sweep(space={"build": [ignored, {"precision": "int8"}]})
    ran = place.run()
    assert ran.code == Exit.OK, ran.err
    rows = place.rows()
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"], rows
    assert "/lm_head/MatMull is not left unquantised" in rows[1]["error"]
    assert rows[1]["size_mb"] is None
    count = len(place.every_row())
    assert place.run().code == Exit.OK
    assert len(place.every_row()) == count
    return [Seen("a build that is not what was asked", "a misspelt node, which the builder passes over",
                 ran.line("failed: ")[:100], f"`failed`: {rows[1]['error'][:120]}", "not done again")]  # fmt: skip


def build_refused(place: Place) -> list[Seen]:
    """A model with an activation that the builder does not know, so that no candidate can be built."""
    config = json.loads((place.model / "config.json").read_text(encoding="utf-8"))
    (place.model / "config.json").write_text(json.dumps(config | {"hidden_act": "tanh"}), encoding="utf-8")
    place.sweep()
    ran = place.run()
    assert ran.code == Exit.NO_RESULT, ran.err
    rows = place.rows()
    assert [row["status"] for row in rows] == ["unsupported"] * 3, rows
    assert "tanh activation function is not currently supported" in rows[0]["error"]
    return [Seen("a build that is refused", "a model with an activation that the builder does not know",
                 ran.line("unsupported: ")[:100], f"`unsupported`: {rows[1]['error'][:160]}", "not done again")]  # fmt: skip


# --- the machine's trouble -------------------------------------------------------------------------------------------


def mounted(folder: Path, options: str) -> None:
    """Mount a small disk. Needs root on Linux."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def made_read_only(folder: Path) -> None:
    """Let a folder be read-only to whoever opens something in it from now on, until it is unmounted."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=False)


def disk_strikes(place: Place) -> list[Seen]:
    """The cache's disk fills up in the middle of a stage."""
    mounted(place.cache, "size=100m")
    try:
        place.sweep(metric="trouble:judge")
        (place.cache / "ballast").write_bytes(bytes(shutil.disk_usage(place.cache).free - 200_000))
        ran = place.run()
        assert ran.code == Exit.MACHINE, ran.err
        line = ran.line("autotune: ")
        assert "the disk" in line or "No space left" in line
        (place.cache / "ballast").unlink()
        resume = finished(place.run(), place, 3)
    finally:
        unmount(place.cache)
    return [Seen("the disk is full", "a tmpfs with 0.2 MB free", f"exit 3: {shorter(line, place)}", "none", resume)]


def results_disk_strikes(place: Place) -> list[Seen]:
    """The disk of the results fills up between two candidates."""
    mounted(place.out, "size=2m")
    try:
        place.sweep(metric="trouble:judge")
        place.acts("none", "note 600")
        process = place.start()
        place.wait_for(place.folder / "noted")
        room = shutil.disk_usage(place.out).free
        (place.out / "ballast").write_bytes(bytes(room))
        (place.folder / "go-on").touch()
        ran = place.end(process)
        assert ran.code == Exit.MACHINE, ran.err
        line = ran.line("autotune: ")
        assert str(place.out) in line
        (place.out / "ballast").unlink()
        assert [row["status"] for row in place.rows()] == ["ok"]
        resume = finished(place.run(), place, 3)
    finally:
        unmount(place.out)
    return [Seen("the disk of the results is full", "a tmpfs of 2 MB, filled while a candidate is scored",
                 f"exit 3: {shorter(line, place)}", "the candidate's is not written", resume)]  # fmt: skip


def results_read_only(place: Place) -> list[Seen]:
    """The results folder becomes read-only while the sweep runs, as disks with errors do."""
    place.out.mkdir()
    place.sweep(metric="trouble:judge")
    place.acts("none", "note 600")
    process = place.start()
    place.wait_for(place.folder / "noted")
    made_read_only(place.out)
    (place.folder / "go-on").touch()
    try:
        ran = place.end(process)
    finally:
        unmount(place.out)
    assert ran.code == Exit.MACHINE, ran.err
    line = ran.line("autotune: ")
    assert [row["status"] for row in place.rows()] == ["ok"]
    resume = finished(place.run(), place, 3)
    return [Seen("the results folder becomes read-only", "a read-only mount over it while a candidate is scored",
                 f"exit 3: {shorter(line, place)}", "the candidate's is not written", resume)]  # fmt: skip


def results_vanish(place: Place) -> list[Seen]:
    """Somebody removes the results folder while the sweep runs."""
    place.sweep(metric="trouble:judge")
    place.acts("none", f"remove {place.out}")
    ran = place.run()
    assert ran.code == Exit.MACHINE, ran.err
    line = ran.line("autotune: ")
    resume = finished(place.run(), place, 3)
    return [Seen("the results folder vanishes", "`rm -r` while a candidate is scored", f"exit 3: {shorter(line, place)}",
                 "gone with the folder", resume + "; stages come from the cache")]  # fmt: skip


def cache_vanishes(place: Place) -> list[Seen]:
    """Somebody removes the cache while the sweep runs."""
    place.sweep(metric="trouble:judge")
    place.acts("none", f"remove {place.cache}")
    ran = place.run()
    assert ran.code == Exit.MACHINE, ran.err
    line = ran.line("autotune: ")
    assert [row["status"] for row in place.rows()] == ["ok"]
    resume = finished(place.run(), place, 3)
    return [Seen("the cache vanishes", "`rm -r` while a candidate is scored", f"exit 3: {shorter(line, place)}",
                 "none: not the candidate's doing", resume)]  # fmt: skip


def model_changes(place: Place) -> list[Seen]:
    """A file of the model is changed while the sweep runs, and put back."""
    config = place.model / "config.json"
    kept = config.read_bytes()
    place.sweep(metric="trouble:judge")
    place.acts("none", f"touch {config}")
    ran = place.run()
    assert ran.code == Exit.USAGE, ran.err
    line = ran.line("was changed while the sweep was running")
    assert [row["status"] for row in place.rows()] == ["ok"]
    still = place.run()
    assert still.code == Exit.USAGE
    assert still.line("the content of model has changed since the rows in this folder were measured")
    config.write_bytes(kept)
    resume = finished(place.run(), place, 3)
    return [Seen("the model is changed while the sweep runs", "a byte is added to its config.json",
                 f"exit 2: {shorter(line, place)}", "none", f"refused until it is put back; then {resume}")]  # fmt: skip


def model_vanishes(place: Place) -> list[Seen]:
    """The model's folder is moved away while the sweep runs (a share that goes offline)."""
    place.sweep(metric="trouble:judge")
    place.acts("none", f"move {place.model}")
    ran = place.run()
    assert ran.code == Exit.MACHINE, ran.err
    line = ran.line("is gone or cannot be read")
    assert [row["status"] for row in place.rows()] == ["ok"]
    assert place.run().code == Exit.USAGE  # no such model
    Path(f"{place.model}.moved").rename(place.model)
    resume = finished(place.run(), place, 3)
    return [Seen("the model vanishes", "its folder is moved while a candidate is scored",
                 f"exit 3: {shorter(line, place)}", "none", resume)]  # fmt: skip


def data_changes(place: Place) -> list[Seen]:
    """The data file is changed while the sweep runs: the run has its own copy, the next is refused."""
    kept = place.data.read_text(encoding="utf-8")
    place.sweep(metric="trouble:judge")
    place.acts("none", "note 600")
    process = place.start("--trials", "1")
    place.wait_for(place.folder / "noted")
    place.data.write_text(kept.replace("number 1", "number one"), encoding="utf-8")
    (place.folder / "go-on").touch()
    ran = place.end(process)
    assert ran.code == Exit.OK, ran.err
    again = place.run()
    assert again.code == Exit.USAGE, again.err
    line = again.line("the content of .* has changed")
    place.data.write_text(kept, encoding="utf-8")
    resume = finished(place.run(), place, 3)
    return [Seen("the data are changed while the sweep runs", "the file is rewritten while a candidate is scored",
                 f"the run goes on with what it read; the next: exit 2: {shorter(line, place)}", "as always",
                 f"refused until they are put back; then {resume}")]  # fmt: skip


def cache_damaged(place: Place) -> list[Seen]:
    """Bytes of a build rot in the cache; of another, half is missing."""
    place.sweep()
    assert place.run("--trials", "1").code == Exit.OK
    builds = sorted(place.cache.glob("build/*/model.onnx.data"))
    assert len(builds) == 2
    content = bytearray(builds[0].read_bytes())
    content[len(content) // 2] ^= 1
    builds[0].write_bytes(content)
    builds[1].unlink()
    shutil.rmtree(place.out)
    ran = place.run()
    resume = finished(ran, place, 3)
    assert all("build" not in str(row["cached"]) for row in place.rows())
    assert builds[0].read_bytes() != bytes(content)
    return [Seen("a damaged cache entry", "one bit of a build flipped, a file of another removed", "nothing",
                 "as always: both are built again", resume)]  # fmt: skip


def two_at_once(place: Place) -> list[Seen]:
    """A second process on the same results folder."""
    place.sweep(metric="trouble:judge")
    place.acts("none", "note 600")
    process = place.start()
    place.wait_for(place.folder / "noted")
    second = place.run()
    (place.folder / "go-on").touch()
    assert second.code == Exit.USAGE, second.err
    line = second.line("another process is at work")
    assert f"process {process.pid} on " in line
    resume = finished(place.end(process), place, 3)
    line = re.sub(r"process \d+ on [^;]+", "process 4711 on host", shorter(line, place))
    return [Seen("a second process on one sweep", "the command is started twice", f"exit 2: {line}", "none",
                 f"the first goes on: {resume}")]  # fmt: skip


# --- somebody ends it ------------------------------------------------------------------------------------------------


def stopped_once(place: Place) -> list[Seen]:
    """Ctrl-C or SIGTERM in a training: it keeps a checkpoint, from which the next run goes on."""
    place.sweep({"steps": 200, "learning_rate": {"choice": [0.001]}})
    process = place.start()
    end = time.monotonic() + WAIT_S
    while not list(place.out.glob("logs/*.log")) or "--- finetune" not in "".join(
        file.read_text(encoding="utf-8") for file in place.out.glob("logs/*.log")
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else signal.SIGTERM)
    ran = place.end(process)
    assert ran.code == Exit.INTERRUPTED, ran.err
    assert ran.line("stopping: a training keeps its checkpoint, any other stage ends first")
    line = ran.line("run the same command again to go on")
    (state,) = place.cache.glob("finetune/*.checkpoint/step-*/state.json")
    step = json.loads(state.read_text(encoding="utf-8"))["step"]
    assert 0 < step < 200
    resume = finished(place.run(), place, 2)
    assert len(read_table(place.out / "curves.csv", CurvePoint)) == 200
    assert not list(place.cache.glob("finetune/*.checkpoint"))
    return [Seen("Ctrl-C, SIGTERM, a closed terminal: once", "SIGTERM in a training of 200 steps", f"exit 130: {line}",
                 "none yet", f"goes on from its checkpoint: {resume}")]  # fmt: skip


def stopped_twice(place: Place) -> list[Seen]:
    """The second signal does not wait for the stage at work."""
    place.sweep(metric="trouble:judge")
    place.acts("none", "note 600")
    process = place.start()
    place.wait_for(place.folder / "noted")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert process.poll() is None  # it waits for the scoring
    process.send_signal(signal.SIGTERM)
    ran = place.end(process)
    assert ran.code == Exit.INTERRUPTED, ran.err
    assert not psutil.wait_procs(children, timeout=WAIT_S)[1]
    resume = finished(place.run(), place, 3)
    return [Seen("the same twice", "SIGTERM, SIGTERM while a stage hangs", "exit 130 at once, no process left", "none",
                 resume)]  # fmt: skip


def tuner_killed(place: Place) -> list[Seen]:
    """SIGKILL, and a last line cut in half by the power that went with it."""
    place.sweep(metric="trouble:judge")
    place.acts("none", "none", "note 600")
    process = place.start()
    place.wait_for(place.folder / "noted")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=WAIT_S)[1]
    file = place.out / "results.csv"
    file.write_bytes(file.read_bytes()[:-20])
    resume = finished(place.run(), place, 3)
    runs = read_table(place.out / "runs.csv", CommandRun)
    assert [row["ended"] for row in runs] == ["killed", "done"]
    assert float(str(runs[0]["wall_s"])) > 0
    return [Seen("the tuner is killed, and the last line is half written", "SIGKILL, the file cut by 20 bytes",
                 "no process outlives it", "the half line is dropped", resume)]  # fmt: skip


# --- what may change, and what not -----------------------------------------------------------------------------------


def changes_on_resume(place: Place) -> list[Seen]:
    """Limits, budget, choices and strategy may change; the model, data, provider and objectives may not."""
    place.sweep({"learning_rate": {"choice": [0.001]}})
    assert place.run().code == Exit.OK
    before = (place.out / "results.csv").read_text(encoding="utf-8")
    place.sweep(
        {"learning_rate": {"choice": [0.001, 0.002]}, "r": {"choice": [2, 4]}},
        strategy="tpe",
        limits=["size_mb <= 1e-3"],
    )
    ran = place.run()
    assert ran.code == Exit.NO_FEASIBLE, ran.err
    after = (place.out / "results.csv").read_text(encoding="utf-8")
    assert after.startswith(before)
    assert {(row["lora_r"], row["lora_learning_rate"]) for row in place.rows()[1:]} == {
        (r, rate) for r in (2, 4) for rate in (0.001, 0.002)
    }
    allowed = Seen("limits, budget, choices or strategy are changed between runs", "another sweep file",
                   "exit 4: the old rows are judged by the new limits", "old rows stay, new ones follow", "allowed")  # fmt: skip
    seen = [allowed]
    for name, change in {
        "data.prompt": {"data": {**json.loads(place.sweep({"learning_rate": 0.001}).read_text(encoding="utf-8"))["data"],
                                 "prompt": "{text}"}},
        "objectives": {"objectives": {"size_mb": "minimize"}},
        "target.threads": {"target": {"provider": "cpu", "threads": 1}},
    }.items():  # fmt: skip
        place.sweep({"learning_rate": 0.001}, **change)
        ran = place.run()
        assert ran.code == Exit.USAGE, ran.err
        line = ran.line(f"{name}.*differs from the sweep whose results are in .*; give the new sweep another --out")
        seen.append(Seen(f"{name} is changed between runs", "another sweep file", f"exit 2: {shorter(line, place)[:150]}",
                         "none", "refused by name"))  # fmt: skip
    assert (place.out / "results.csv").read_text(encoding="utf-8") == after
    return seen


def shorter(line: str, place: Place) -> str:
    """Return a line without the folders of this machine."""
    text = line.removeprefix("autotune: ").replace(str(place.folder), "")
    return text.replace(str(place.model), "model")


Scenario = Callable[[Place], list[Seen]]

OF_CANDIDATES: Sequence[Scenario] = (candidates_own, divergence, training_too_slow, build_wrong, build_refused)
OF_THE_MACHINE: Sequence[Scenario] = (
    results_vanish, cache_vanishes, model_changes, model_vanishes, data_changes, cache_damaged, two_at_once,
    stopped_once, stopped_twice, tuner_killed, changes_on_resume,
)  # fmt: skip
WITH_DISKS: Sequence[Scenario] = (disk_strikes, results_disk_strikes, results_read_only)
"""They mount small disks, which needs root on Linux."""


def params(
    scenarios: Sequence[Callable[[Place], object]], fast: Sequence[str], release: Sequence[str] = ()
) -> list[ParameterSet]:
    """Return scenarios as a test's parameters. All but the `fast` ones are slow tests; CI leaves out those of a `release`."""
    slow = (pytest.mark.slow,)
    return [
        pytest.param(
            scenario,
            id=scenario.__name__,
            marks=() if scenario.__name__ in fast else slow + (pytest.mark.marathon,) * (scenario.__name__ in release),
        )
        for scenario in scenarios
    ]


def may_mount() -> bool:
    """Whether this process may mount a disk."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=False, capture_output=True)
        if tried.returncode == 0:
            unmount(Path(folder))
    return tried.returncode == 0


def tiny_model(folder: Path) -> Path:
    """Write the tiny model, one of its own for every scenario: some spoil it."""
    out = folder / "model"
    out.mkdir(parents=True)
    job = TinyJob()
    function_of(job)(job, out)
    return out


def markdown(seen: Sequence[Seen]) -> str:
    """Return the table."""
    lines = ["| trouble | provoked by | what the user sees | the row | on resume |", "|---|---|---|---|---|"]
    for s in seen:
        cells = [cell.replace("|", "\\|") for cell in (s.trouble, s.provoked, s.user_sees, s.row, s.resume)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every scenario and print the table."""
    scenarios = [*OF_CANDIDATES, *OF_THE_MACHINE, *(WITH_DISKS if may_mount() else ())]
    seen = []
    for scenario in scenarios:
        with tempfile.TemporaryDirectory(prefix="trouble-", ignore_cleanup_errors=True) as folder:
            seen += scenario(Place(Path(folder), tiny_model(Path(folder))))
            print(scenario.__name__, file=sys.stderr)  # noqa: T201
    print("# Trouble, and what becomes of it\n\nMade by `python -m tests.troubles`; every line is a test.\n")  # noqa: T201
    print(markdown(seen), end="")  # noqa: T201


if __name__ == "__main__":
    main()
