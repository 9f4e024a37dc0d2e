"""Write the results folder of a running sweep: its lock, the sweep as resolved, the tables, outcomes and logs."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from autotune.candidate import Session
from autotune.data.sources import is_local
from autotune.durable import put, remove_asides, write_aside
from autotune.errors import Interrupted, Problem, UsageError
from autotune.models import local_folder
from autotune.providers import Provider
from autotune.results.claim import check_folder
from autotune.results.columns import FINALISTS, Cell, with_workloads, workload_names
from autotune.results.consistency import SETTINGS, differing, fixed_settings, recorded_settings
from autotune.results.folder import (
    TIMINGS,
    check_names,
    read_running,
    read_sweep,
    read_timings,
    that_count,
    turns_file,
    without_blanks,
)
from autotune.results.layout import fill, put_in_place
from autotune.results.rows import CommandRun, CurvePoint, Finalist, Trial
from autotune.results.table import Table, read_table, write_table
from autotune.secrets import redacted
from autotune.sweepfile.schema import Sweep
from autotune.sweepfile.syntax import to_yaml

_OLD = ".best.old"
NOTE_S = 60.0
"""Seconds between two notes that a stage is still at work: a killed run loses at most so much of its wall-clock."""


def iso(time_: datetime) -> str:
    """Return a time in UTC as ISO 8601."""
    return time_.isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> str:
    """Return the time as ISO 8601, UTC."""
    return iso(datetime.now(UTC))


class Record:
    """The results folder of a running sweep, held by this process alone. Raises UsageError."""

    target: str | None = None
    """The target of this view, see `for_target`; None: all targets."""

    def __init__(self, folder: Path, sweep: Sweep, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock, self._began = clock, clock()
        self._started = time.time()
        self._doing: dict[str, Any] = {}
        self._noted = self._began
        """The content of `running.json` for the present stage, and when it was written last."""
        self._spent_before_s = 0.0
        self._lock = FileLock(str(folder / ".lock"))
        try:
            check_folder(folder, sweep.file, local_folder(sweep.model, sweep.root))
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            whole = redacted(sweep.resolved())
            self._moved = self._check_same(whole, sweep)
            """What is named otherwise than with the rows, and must have the same content: see `check_inputs`."""
            self._settings, self._text = fixed_settings(whole), to_yaml(whole)
            self._mend()
            killed = read_running(folder)
            if not self._moved:
                write_aside(folder / "sweep.yaml", self._text)
            every = [one.target for one in sweep.targets.values()] or [sweep.target]
            workloads = [name for target in every for suffix in target.timed for name in workload_names(suffix)]
            self.results = Table(folder / "results.csv", Trial, workloads)
            self.finalists = with_workloads(FINALISTS, workloads)
            """The columns of finalists.csv."""
            self.results.rows = without_blanks(self.results.rows)
            check_names(self.results.rows, self.results.file)
            self.curves = Table(folder / "curves.csv", CurvePoint)
            self.runs = Table(folder / "runs.csv", CommandRun)
            self._count(killed)
            self.busy(stage="start")
            (folder / "outcomes").mkdir(exist_ok=True)
        except Timeout:
            running = read_running(folder)
            who = "it has just begun" if running is None else f"process {running['pid']} on {running['host']}"
            rule = f"another process is at work in this folder: {who}"
            raise UsageError(Problem(rule, file=str(folder), remedy="wait for it, or choose another --out")) from None
        except OSError as error:
            self._lock.release()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # another --out would not help
                error.filename = error.filename or str(folder)
                raise
            rule = f"the results folder cannot be written ({error.strerror or error})"
            remedy = "close what holds its files open, or choose another --out"
            raise UsageError(Problem(rule, file=str(error.filename or folder), remedy=remedy)) from None
        except BaseException:
            self._lock.release()
            raise
        self._timings = {_timed(timing): timing for timing in read_timings(folder)}
        self._curved: dict[str, int] = {}
        """By adapter, the last step of its curve."""
        self._rungs = {_rung(row) for row in self.curves.rows if row.metric is not None}
        """The scores that curves.csv has already."""
        for row in self.curves.rows:
            if row.train_loss is not None:
                self._curved[row.adapter] = max(self._curved.get(row.adapter, 0), row.step or 0)
        self.curves.rows.clear()

    def _mend(self) -> None:
        """Restore a `best/` that a killed run had just moved away, and remove the files that it was writing."""
        with contextlib.suppress(OSError):  # it is done again at the end
            for old in self.folder.glob(f"{_OLD}*"):
                best = self.folder / "best" / old.name.removeprefix(_OLD).removeprefix(".")
                if not best.exists():
                    best.parent.mkdir(exist_ok=True)
                    put(old, best)
            for left in (*self.folder.glob(f"{_OLD}*"), self.folder / ".best.new"):
                shutil.rmtree(left, ignore_errors=True)
        remove_asides([self.folder, self.folder / "outcomes"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                if error is not None:
                    asked = isinstance(error, Interrupted | KeyboardInterrupt)
                    self.close(ended="interrupted" if asked else "stopped")
                (self.folder / "running.json").unlink()
        finally:
            self._lock.release()

    def close(self, stages_s: float | None = None, trials: int | None = None, ended: str = "done") -> float:
        """Write the row of this run of the command. Returns its wall-clock, seconds."""
        wall = self._clock() - self._began
        started = iso(datetime.fromtimestamp(self._started, UTC))
        spent: dict[str, Cell] = {"wall_s": wall, "stages_s": stages_s}
        rows = len(that_count(self.results.rows, self.results.file))
        self.runs.append(CommandRun({"started": started, **spent, "trials": trials, "ended": ended, "rows": rows}))
        return wall

    def _count(self, killed: Mapping[str, Any] | None) -> None:
        """Add up the wall-clock of earlier runs; `killed`: the `running.json` of a last run that was killed."""
        if killed is not None:
            with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):
                started = iso(datetime.fromtimestamp(float(killed["started"]), UTC))
                spent = max(0.0, float(killed.get("spent_s") or 0.0))
                same = (row.wall_s or 0.0 for row in self.runs.rows if row.started == started)
                # Unless it was killed after it had written its row.
                if not any(wall >= float(f"{spent:.6g}") for wall in same):
                    self.runs.append(CommandRun({"started": started, "wall_s": spent, "ended": "killed"}))
        runs = sum(row.wall_s or 0.0 for row in self.runs.rows)
        rows = sum(row.wall_s or 0.0 for row in self.results.rows)
        # Rows overlap where several candidates were under way: they count only where runs.csv was removed.
        self._spent_before_s = runs if self.runs.rows else rows

    def spent_s(self) -> float:
        """Return the wall-clock of this sweep, earlier runs included, seconds."""
        return self._spent_before_s + self._clock() - self._began

    def _check_same(self, settings: Mapping[str, Any], sweep: Sweep) -> list[Problem]:
        """Raise UsageError where the folder holds the rows of another sweep.

        Returns the differences that only the content can tell: a folder or a file here has another path than before, as after
        a move to another place or machine.
        """
        # What was noted with the rows counts: somebody may have changed or removed sweep.yaml since.
        noted, before = recorded_settings(self.folder), read_sweep(self.folder)
        if not (noted or before) or not _has_rows(self.folder / "results.csv"):
            return []
        then, now_ = noted or fixed_settings(before or {}), fixed_settings(settings)
        problems, inputs = [], self._noted_inputs()
        keys = differing(then, now_)
        for key in keys:
            rule = f"differs from the sweep whose results are in {self.folder}"
            remedy = f"give the new sweep another --out, or set {key} back to {then.get(key)!r}"
            problems.append(Problem(rule, key, sweep.file, value=now_.get(key), remedy=remedy))
        if not all(_may_be_moved(key, then.get(key), now_.get(key), sweep.root, inputs) for key in keys):
            raise UsageError(problems)
        return problems

    def check_inputs(self, digests: Mapping[str, str]) -> str:
        """Raise UsageError where model or data have changed under the same names: the rows could not be compared.

        `digests`: of the base model and of each split. Other test items are refused once finalists were scored on test;
        before that they change no result, and a note on them is returned (else an empty text).
        """
        before = self.inputs()
        changed = [name for name, value in digests.items() if before.get(name, value) != value]
        unused = changed == ["test"] and not (self.folder / "outcomes" / "items.test.json").exists()
        if changed and self._moved and not unused:
            raise UsageError(self._moved)
        if changed == ["test"] and not unused:
            rule = "the content of test has changed since the finalists in this folder were scored on it"
            remedy = "put it back, or give the new sweep another --out; `autotune score` scores a winner on other rows"
            raise UsageError(Problem(rule, file=str(self.folder), remedy=remedy))
        if changed and not unused:
            names = " and ".join(filter(None, (", ".join(changed[:-1]), changed[-1])))
            rule = f"the content of {names} has changed since the rows in this folder were measured"
            raise UsageError(Problem(rule, file=str(self.folder), remedy="give the new sweep another --out"))
        self._write_inputs(dict(before) | dict(digests))
        if self._moved:
            write_aside(self.folder / "sweep.yaml", self._text)
        return "the items of test are others than before: no finalist was scored on those" if unused else ""

    def inputs(self) -> dict[str, Any]:
        """Return the content of `inputs.json`, about the inputs of the rows in this folder; empty where there are no rows."""
        return self._noted_inputs() if self.results.rows else {}

    def _noted_inputs(self) -> dict[str, Any]:
        try:
            noted = json.loads((self.folder / "inputs.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            noted = None
        return noted if isinstance(noted, dict) else {}

    def note_settings(self) -> None:
        """Note in `inputs.json` the settings with which the rows are measured. Raises OSError."""
        self.note_input(SETTINGS, self._settings)

    def note_input(self, name: str, value: Any) -> None:
        """Add one more input, as plain data, to `inputs.json`. Raises OSError."""
        file = self.folder / "inputs.json"
        self._write_inputs(json.loads(file.read_text(encoding="utf-8")) | {name: value})

    def _write_inputs(self, inputs: Mapping[str, Any]) -> None:
        write_aside(self.folder / "inputs.json", json.dumps(inputs, indent=1, ensure_ascii=False))

    def busy(self, **what: Any) -> None:
        """Write the present stage into `running.json`, for `status`."""
        self._doing, self._noted = what, self._clock()
        who = {"pid": os.getpid(), "host": socket.gethostname(), "started": self._started}
        running = {**who, "spent_s": self._noted - self._began, **what}
        # Not synced, because it is written at every stage: a power cut may lose the last minutes of the wall-clock.
        write_aside(self.folder / "running.json", json.dumps(redacted(running)), sync=False)

    def still_busy(self) -> None:
        """Update the wall-clock in `running.json` every `NOTE_S`, so that a kill does not lose it."""
        if self._clock() - self._noted >= NOTE_S:
            with contextlib.suppress(OSError):  # a reader holds the file open: the next note will do
                self.busy(**self._doing)

    def for_target(self, name: str) -> Record:
        """Return a view of this record for one of several targets, with the target's rows and the folder of its winner."""
        view = copy.copy(self)
        view.target, view.results = name, OfTarget(self.results, name)
        return view

    @property
    def best(self) -> Path:
        """The folder of the winner: `best/`, or `best/<target>/` if there are several targets."""
        return self.folder / "best" if self.target is None else self.folder / "best" / self.target

    def log(self, name: str) -> Path:
        """Return a candidate's log file."""
        return self.folder / "logs" / f"{name}.log"

    def keep_outcomes(self, candidate: str, split: str, metric: str, outcomes: Mapping[str, Any]) -> None:
        """Write the outcome of every item; the items' ids are written once, into a file of their own.

        Where only some items were scored, `items` in the outcomes lists their places in that file.
        """
        folder = self.folder / "outcomes"
        items = folder / f"items.{split}.json"
        if not items.exists() and "items" not in outcomes:
            write_aside(items, json.dumps(outcomes["ids"]))
        kept = {"metric": metric, "split": split, **{k: v for k, v in outcomes.items() if k != "ids"}}
        name = candidate if split == "validation" else f"{candidate}.{split}"
        write_aside(folder / f"{name}.json", json.dumps(kept, ensure_ascii=False, separators=(",", ":")))

    def keep_turns(self, turns: Mapping[str, Any]) -> None:
        """Write the finalists' timings in turns, so that they can be compared later."""
        write_aside(self.folder / "outcomes" / turns_file(self.target), json.dumps(turns, separators=(",", ":")))

    def keep_timings(self, timings: Iterable[Mapping[str, Any]]) -> None:
        """Write the measurements of the single processes of timings into `timings.jsonl`, each timing once."""
        new = {_timed(timing): dict(timing) for timing in timings}
        if any(self._timings.get(name) != timing for name, timing in new.items()):
            self._timings |= new
            lines = [json.dumps(timing, separators=(",", ":")) + "\n" for timing in self._timings.values()]
            write_aside(self.folder / "outcomes" / TIMINGS, "".join(lines))

    def keep_curve(self, adapter: str, curve: Iterable[Sequence[float]]) -> None:
        """Write an adapter's training curve, (step, loss, learning rate), each step once."""
        known = self._curved.get(adapter, 0)
        for step, loss, rate in curve:
            if step > known:
                cells: dict[str, Cell] = {"step": int(step), "train_loss": float(loss), "learning_rate": float(rate)}
                self.curves.add(CurvePoint({"adapter": adapter, **cells}))
                self._curved[adapter] = int(step)
        self._write_curves()

    def keep_rung(self, adapter: str, step: Cell, metric: str, score: Cell, items: Cell) -> None:
        """Write the score of an adapter without a recipe on validation after a step, once."""
        scored = {"adapter": adapter, "step": step, "metric": metric, "score": score, "score_n": items}
        point = CurvePoint(scored)
        if _rung(point) not in self._rungs:
            self._rungs.add(_rung(point))
            self.curves.add(point)
            self._write_curves()

    def _write_curves(self) -> None:
        self.curves.flush()
        self.curves.rows.clear()  # thousands of adapters have millions of steps, which are not needed in memory

    def write_finalists(self, rows: Sequence[Finalist]) -> None:
        """Write the finalists' table anew; rows of other targets stay. Raises OSError."""
        file, kept = self.folder / "finalists.csv", list(rows)
        if self.target is not None:
            kept = [row | {"target": self.target} for row in rows]
            with contextlib.suppress(UsageError):  # the first of them, or a table that is damaged: it is made again
                kept = [*(row for row in read_table(file, Finalist) if row.target != self.target), *kept]
        write_table(file, self.finalists, kept)

    def keep_best(
        self,
        parts: Mapping[str, Path],
        about: Mapping[str, Any],
        session: Session | None = None,
        provider: Provider | None = None,
    ) -> None:
        """Copy the winner into `best/`, as `layout.fill` does. Raises OSError; the old one then stays."""
        aside = self.folder / ".best.new"
        old = self.folder / (_OLD if self.target is None else f"{_OLD}.{self.target}")
        put_in_place(fill(aside, parts, about, session, provider), self.best, old)


class OfTarget(Table[Trial]):
    """The rows of results.csv for one target; an appended row goes to the whole table."""

    def __init__(self, whole: Table[Trial], target: str) -> None:  # the file is open already
        self.file, self.columns, self._whole = whole.file, whole.columns, whole
        self.rows = [row for row in whole.rows if row.target == target]

    def append(self, row: Trial) -> Trial:
        """Write a row, as the whole table does."""
        kept = self._whole.append(row)
        self.rows.append(kept)
        return kept

    def flush(self) -> bool:
        """Write the waiting rows. Returns whether none waits any more."""
        return self._whole.flush()


def _timed(timing: Mapping[str, Any]) -> str:
    """Return the identity of a timing: what was timed, at which pace, and how often before."""
    return json.dumps(
        [timing.get(name) for name in ("graph", "session", "workload", "pace", "again", "most", "target")]
    )


def _rung(point: CurvePoint) -> tuple[Cell, ...]:
    """Return the identity of a score in curves.csv."""
    return point.adapter, point.step, point.metric, point.score_n


_PLACES = {
    "model": ("model",),
    "data.train": ("train", "validation"),
    "data.validation": ("validation",),
    "data.test": (),
}
"""Settings that name a folder or a file, with the inputs whose digests tell whether it has the same content."""


def _may_be_moved(key: str, then: Any, now_: Any, root: Path, noted: Mapping[str, Any]) -> bool:
    """Whether a setting names a folder or file here that may be the one that it named before, by another path."""
    if key not in _PLACES or not isinstance(then, str) or not isinstance(now_, str):
        return False
    here = local_folder(now_, root) is not None if key == "model" else is_local(now_, root)
    return here and all(isinstance(noted.get(name), str) for name in _PLACES[key])


def _has_rows(table: Path) -> bool:
    try:
        return table.read_bytes().count(b"\n") > 1
    except OSError:
        return False
