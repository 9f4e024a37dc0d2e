"""The trackers of a running sweep, as a listener of its events: each is a process, which reads the tables after every row.

No tracker can delay the sweep: the sweep waits for none while it runs, and at most two requests to a tracker are open at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autotune.durable import write_aside
from autotune.errors import AutotuneError, Interrupted, MachineError, Problem, UsageError
from autotune.execution.worker import QUIET
from autotune.present.explained import explain
from autotune.present.select import Selection, select, targets_of
from autotune.report.picture import draw_front
from autotune.scheduler.events import Event, RowWritten
from autotune.secrets import redact_file
from autotune.trackers.clients import check_clients, environment

PATIENCE_S, SHORT_S, OPENING_S = 120.0, 10.0, 60.0
"""Seconds that trackers have for the last rows: after a sweep that is done, after an interrupted one; and that a storage has
to open."""
_OPEN = 2
"""Requests to a tracker that may be open at a time."""
_CODE = "import sys; sys.path[:] = {path!r}; from autotune.trackers.process import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Wanted:
    """A tracker that the user asks for."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    must_open: bool = False
    """Whether the sweep begins only when the tracker is open."""


class _Process:
    """A tracker's process."""

    def __init__(self, wanted: Wanted, folder: Path, key: str, say: Callable[[str], None]) -> None:
        self.wanted, self._say = wanted, say
        self._log = folder / "logs" / f"tracker-{wanted.name}.log"
        self._asked = self._answered = 0
        self.failed: dict[str, Any] | None = None
        """The tracker's last answer, if it failed."""
        self._ready, self._open, self._closing, self._done = threading.Event(), False, False, False
        variables = environment(wanted.name, wanted.options) | QUIET
        if wanted.name == "trackio":
            variables.setdefault("TRACKIO_DIR", str(folder.resolve() / "trackers" / "trackio"))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE.format(path=sys.path), str(os.getpid()), str(self._log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        # Not on the command line, which every user of the machine may read: a storage's URL may hold a password.
        self._send({"folder": str(folder), "name": wanted.name, "key": key, "options": dict(wanted.options)})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended, and the reader says why
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:  # something else was printed before its log was open
                continue
            self._answered += "seen" in said
            self._open = self._open or "ready" in said
            self._done = self._done or "done" in said
            if "note" in said:
                self.failed = said
            self._ready.set()
        code = self.process.wait()
        if not self._done and self.failed is None and not self._closing:
            self.failed = {"note": f"its process ended with exit code {code}"}
        self._ready.set()
        if self.failed is not None and self._optional:
            self.warn(self.failed["note"])

    @property
    def _optional(self) -> bool:
        """Whether the sweep goes on without it: a tracker that must open is optional as soon as it has opened."""
        return self._open or not self.wanted.must_open

    def warn(self, why: str) -> None:
        """Print that the sweep goes on without the tracker, and why."""
        remedy = f"the sweep goes on without it, and the same command run again logs what is missing ({self._log})"
        self._say(f"{self.wanted.name}: {why}; {remedy}")

    def opened(self, within_s: float) -> bool:
        """Wait until the tracker is open, or has failed. Returns whether it answered in time."""
        return self._ready.wait(within_s)

    def look(self) -> None:
        """Ask the tracker to log new rows, unless enough requests are open."""
        if self._asked - self._answered < _OPEN:
            self._asked += 1
            self._send({"look": True})

    def end(self, message: Mapping[str, Any]) -> None:
        """Ask the tracker to log the rest and to end. A thread sends it: a tracker that hangs reads nothing, and would block."""
        threading.Thread(target=self._send, args=(message,), daemon=True).start()

    def close(self, until: float) -> None:
        """Wait for the process until that time of the monotonic clock; then kill it."""
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._closing = True
            self.process.kill()
            self.process.wait()
            if self.failed is None and self._optional:
                self.warn("it was too slow with the last rows and was ended")
        self._reader.join(5.0)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        redact_file(self._log)  # one that was killed, or crashed, has not done so


class Trackers:
    """The trackers of one run of the command: a context manager, which ends them."""

    def __init__(self, wanted: Sequence[Wanted], folder: Path, say: Callable[[str], None]) -> None:
        """`say` prints a line, and may be called by other threads."""
        self._wanted, self._folder, self._say = wanted, folder, say
        self._running: list[_Process] = []

    def start(self) -> None:
        """Start the trackers, once this run has locked the results folder.

        Raises UsageError and MachineError where a tracker that must open cannot, OSError.
        """
        if not self._wanted:
            return
        place = self._folder / "trackers"
        place.mkdir(exist_ok=True)
        key = _key(place / "key")
        for (
            wanted
        ) in self._wanted:  # appended one by one: if a later one fails to start, leaving the context ends the others
            self._running.append(_Process(wanted, self._folder, key, self._say))
        for one in self._running:
            if one.wanted.must_open:
                self._check(one)
            one.look()  # rows of earlier runs

    def _check(self, one: _Process) -> None:
        option, value = f"--{one.wanted.name}-storage", one.wanted.options.get("storage")
        if not one.opened(OPENING_S):
            raise MachineError(f"{option}: the storage did not open within {OPENING_S:.0f} s; is its server running?")
        if one.failed is None:
            return
        if missing := one.failed.get("missing"):
            raise MachineError(f"{option}: needs the package {missing}; pip install {missing}")
        rule = f"the storage cannot be opened ({one.failed['note']})"
        remedy = "e.g. sqlite:///study.db, or the name of a file for a journal"
        raise UsageError(Problem(rule, option, "command line", value=value, remedy=remedy))

    def __call__(self, event: Event) -> None:
        """Ask the trackers to log, after each row."""
        if isinstance(event, RowWritten):
            for one in self._running:
                one.look()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._running:
            return
        ended = "done" if error is None else "stopped"
        ended = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else ended
        try:
            message = _ending(self._folder, ended)
        except Exception as trouble:  # noqa: BLE001 - the sweep ends well, whatever its trackers are told
            self._say(f"trackers: the choice and its picture could not be shown ({type(trouble).__name__}: {trouble})")
            message = {"end": ended, "winners": [], "best": [], "text": "", "files": ["results.csv"]}
        for one in self._running:
            one.end(message)
        until = time.monotonic() + (PATIENCE_S if error is None else SHORT_S)
        try:
            for one in self._running:
                one.close(until)
        finally:  # Ctrl-C once more
            for one in self._running:
                one.process.kill()


def wanted_trackers(report_to: Mapping[str, Mapping[str, Any]]) -> list[Wanted]:
    """Return the trackers of the key `report_to`. Raises MachineError where a client is not installed."""
    check_clients(report_to)
    return [Wanted(name, options) for name, options in report_to.items()]


def optuna_mirror(storage: str, studies: Sequence[Mapping[str, Any]]) -> Wanted:
    """Return the tracker that mirrors a sweep in a storage of Optuna; `studies`: as `study.study_of` describes each target."""
    return Wanted("optuna", {"storage": storage, "studies": list(studies)}, must_open=True)


def _key(file: Path) -> str:
    """Return the id of this results folder in trackers, which the first run draws. Raises OSError."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if key := file.read_text(encoding="utf-8").strip():
            return key
    key = uuid.uuid4().hex
    write_aside(file, key + "\n")
    return key


def _ending(folder: Path, ended: str) -> dict[str, Any]:
    """Return the last message to the trackers: how the run ended, the choice so far, and the files that show it."""
    winners, best, texts = [], [], []
    files = ["results.csv", "finalists.csv", "sweep.yaml"]
    with contextlib.suppress(AutotuneError, OSError):
        names = targets_of(folder)
        for target in names if len(names) > 1 else [None]:
            selection = select(folder, target=target)
            winner = selection.choice.winner
            texts += [f"Target {target}:"] * (target is not None) + [explain(selection)]
            winners += [winner.id] if winner is not None else []
            kept = folder / "best" / (target or "")
            best += [kept.resolve().as_uri()] if winner is not None and (kept / "onnx").is_dir() else []
            files += _picture(folder, target, selection)
    return {"end": ended, "winners": winners, "best": best, "text": "\n".join(texts), "files": files}


def _picture(folder: Path, target: str | None, selection: Selection) -> list[str]:
    """Draw the front. Returns the picture's name in the results folder, in a list; an empty list where there is no front."""
    aims = selection.wanted
    title = folder.resolve().name if target is None else f"{folder.resolve().name} on {target}"
    scene = draw_front(title, selection.rows, aims.objectives, aims.limits, selection.choice)
    if scene is None:
        return []
    name = "pareto.svg" if target is None else f"pareto.{target}.svg"
    write_aside(folder / name, scene.svg())
    return [name]
