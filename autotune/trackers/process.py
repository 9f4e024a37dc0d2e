"""A tracker's own process: it reads the tables on request, and logs the new rows.

A client may be slow, hang, print, crash or hold hundreds of megabytes: in this process it costs the sweep nothing. The
first line of stdin describes the sweep, and each further line is a request (`look`, `end`). The process answers each with a
line on stdout; the client's output goes to a log.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from autotune.errors import AutotuneError, printable
from autotune.execution.worker import start
from autotune.results.folder import read_sweep
from autotune.results.rows import Trial
from autotune.secrets import redact, redact_file
from autotune.trackers.clients import open_tracker
from autotune.trackers.feed import Feed, Journal, key_of
from autotune.trackers.tracker import About, Ending, Tracker

_LONGEST = 300
"""Characters that are kept of a client's error."""


def main(arguments: list[str]) -> int:
    """Track a sweep until it ends, or the tuner's process does. `arguments`: the tuner's process id, and the log."""
    parent, log = int(arguments[0]), Path(arguments[1])
    start(parent, math.inf)
    if hasattr(os, "nice"):
        os.nice(10)  # a timing may begin while a row is logged
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        return _track(sys.stdin, answers)
    except Exception as error:  # noqa: BLE001 - clients raise whatever they like, and it ends this tracker alone
        traceback.print_exc()
        missing = _missing(error)
        _answer(answers, note=_said(error), missing=missing)
        return 3 if missing else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        redact_file(log)


def _track(asked: TextIO, answers: TextIO) -> int:
    told = json.loads(asked.readline())
    folder, name = Path(told["folder"]), str(told["name"])
    about = About(str(told["key"]), folder, read_sweep(folder) or {})
    tracker = open_tracker(name, about, told["options"])
    noted = hashlib.sha256(tracker.place.encode()).hexdigest()[:8]
    journal, feed = Journal(about.place / f"{name}-{noted}.done", tracker.fresh), Feed(folder)
    _answer(answers, ready=True)
    for line in asked:
        message = json.loads(line)
        _log(feed, journal, tracker)
        if "end" in message:
            tracker.end(_ending(message, feed, folder))
            _answer(answers, done=True)
            return 0
        _answer(answers, seen=True)
    return 0  # the tuner is gone: what it still wrote is logged by the next run


def _log(feed: Feed, journal: Journal, tracker: Tracker) -> None:
    """Log what is new, and note each row and point in the journal. Of several new attempts at a candidate only the last is logged."""
    rows = [row for row in feed.look() if not journal.has(row)]
    last = {key_of(row): row for row in rows}
    for row in rows:
        if last[key_of(row)] is row:
            tracker.row(row)
        journal.logged(row)
    for adapter, points in feed.curves(journal).items():
        known = journal.points(adapter)
        tracker.curve(adapter, feed.adapters[adapter], points, known)
        journal.drawn(adapter, known + len(points))


def _ending(message: Mapping[str, Any], feed: Feed, folder: Path) -> Ending:
    wanted = {(str(name), False) for name in message["winners"]}
    winners: list[Trial] = [row for row in feed.rows.values() if key_of(row) in wanted]
    files = [folder / name for name in message["files"] if (folder / name).is_file()]
    return Ending(str(message["end"]), winners, message["best"], str(message["text"]), files)


def _answer(stream: TextIO, **said: Any) -> None:
    stream.write(json.dumps(said) + "\n")
    stream.flush()


def _missing(error: BaseException | None) -> str:
    """Return the module that an error says is not installed; empty where it is another error."""
    while error is not None and not isinstance(error, ModuleNotFoundError):
        error = error.__cause__ or error.__context__
    return (error.name or "") if error is not None else ""


def _said(error: BaseException) -> str:
    """Return what went wrong in one line."""
    text = str(error) if isinstance(error, AutotuneError) else f"{type(error).__name__}: {error}"
    line = printable(redact(" ".join(text.split())))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
