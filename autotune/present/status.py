"""The `status` command: reads from a results folder how far its sweep is."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from autotune.errors import Exit, UsageError, printable
from autotune.paths import exists, is_folder
from autotune.present.select import selections
from autotune.present.tables import candidates, duration, settings
from autotune.results.folder import missing_rows, no_sweep, read_results, read_running, read_sweep, that_count
from autotune.results.record import NOTE_S
from autotune.results.rows import CommandRun, Trial
from autotune.results.table import read_table
from autotune.results.trials import Trials

_FAILURES = 3
"""The number of failures that are shown, the latest ones."""
_SILENT = 5
"""A process of another host counts as silent after this many intervals between updates."""


def read_status(folder: Path) -> dict[str, Any]:
    """Return state, counts, the best candidate so far and the running stages, as plain data. Raises UsageError."""
    sweep = read_sweep(folder) if is_folder(folder) else None
    if sweep is None or not {"name", "objectives", "budget"} <= set(sweep):
        raise UsageError(no_sweep(folder, "name a results folder that `autotune run` wrote"))
    if not exists(folder / "results.csv"):
        read_results(folder)  # it says why
    file = folder / "results.csv"
    every = read_table(file, Trial)
    rows = that_count(every, file)
    chosen = selections(folder, rows=rows)
    names = [name for name in chosen if name]
    running = read_running(folder)
    alive = running is not None and _alive(folder, running)
    trials = [row for row in rows if row.trial]
    counts: dict[str, int] = {}
    for row in trials:
        counts[row.status] = counts.get(row.status, 0) + 1
    status: dict[str, Any] = {
        "sweep": sweep["name"],
        "state": "running" if alive else "stopped",
        "trials_done": len(Trials(every)),
        "trials_budget": sweep["budget"].get("trials"),
        "hours_budget": sweep["budget"].get("hours"),
        "status_counts": counts,
        "objectives": list(sweep["objectives"]),
        "best": None,
    }
    if alive and running is not None:
        status["running"] = running
        if (age := _silent_s(folder, running)) is not None:
            status["running"] = running | {"noted_s_ago": round(age)}
    elif ended := _ended(folder):
        status["ended"] = ended
    found = {
        name: one.row(one.choice.winner.id).filled() for name, one in chosen.items() if one.choice.winner is not None
    }
    if names:
        status["best_by_target"] = {name: found.get(name) for name in names}
    else:
        status["best"] = found.get("")
    if len(found) < len(chosen):
        finished = any(one.exit_code == Exit.NO_FEASIBLE for one in chosen.values())
        status["none_because"] = "no candidate keeps the limits" if finished else "no candidate has finished"
    status["notes"] = [missing] if not alive and (missing := missing_rows(folder, rows)) else []
    status["notes"] += dict.fromkeys(note for one in chosen.values() for note in one.doubts)
    status["failures"] = [
        {"candidate": row.candidate, "status": row.status, "error": row.error}
        for row in trials
        if row.status not in ("ok", "over_limit", "stopped")
    ][-_FAILURES:]
    return status


def _ended(folder: Path) -> str:
    """Return how the last run of the command ended, from runs.csv; empty if that is not known."""
    file = folder / "runs.csv"
    if not file.exists():
        return ""
    try:
        runs = read_table(file, CommandRun)
    except UsageError:  # a damaged table says nothing of the candidates
        return ""
    return str(runs[-1].ended or "") if runs else ""


def _alive(folder: Path, running: dict[str, Any]) -> bool:
    """Whether the process that noted itself still works. Of another host's process only its note is known.

    The folder's lock says so, which ends with its process: after a crash another process may have the number.
    """
    try:
        if running["host"] != socket.gethostname():
            return True
        if not psutil.pid_exists(int(running["pid"])):
            return False
        with FileLock(str(folder / ".lock"), timeout=0):
            return False
    except (Timeout, PermissionError):
        return True
    except (OSError, KeyError, ValueError, TypeError):
        return False


def _silent_s(folder: Path, running: dict[str, Any]) -> float | None:
    """Return the seconds since another host's process last updated its note; None for a process of this host, or after a recent
    update.
    """
    if running.get("host") == socket.gethostname():
        return None
    with contextlib.suppress(OSError):
        age = time.time() - (folder / "running.json").stat().st_mtime
        return age if age > _SILENT * NOTE_S else None
    return None


def as_text(status: dict[str, Any]) -> str:
    """Return the status in words."""
    budget = f" of {status['trials_budget']}" if status["trials_budget"] else ""
    counts = ", ".join(f"{count} {name}" for name, count in status["status_counts"].items()) or "none ended yet"
    lines = [
        f"{status['sweep']}: {status.get('ended', status['state'])}, {status['trials_done']}{budget} trials ({counts})"
    ]
    running = status.get("running")
    if running:
        since = running.get("since")
        spent = f" for {duration(time.time() - since)}" if since else ""
        trial = f"trial {running['trial']}, " if running.get("trial") else ""
        lines.append(f"process {running['pid']} on {running['host']}: {trial}{running.get('stage', 'at work')}{spent}")
        if age := running.get("noted_s_ago"):
            lines.append(
                f"nothing was heard of it for {duration(age)}: it may have been killed, or this folder is a copy of one that ran there"
            )
    lines = [printable(line) for line in (*lines, *(f"note: {note}" for note in status.get("notes", ())))]
    for name, cells in (status.get("best_by_target") or {"": status["best"]}).items():
        where = f" on {name}" * bool(name)
        if cells:
            best = Trial(cells)
            lines.append(f"best{'' if status.get('ended') == 'done' else ' so far'}{where}: {settings(best.settings)}")
            lines.append(candidates([best], status["objectives"]))
        else:
            yet = "" if status.get("ended") == "done" else " yet"
            lines.append(f"{status.get('none_because', 'no candidate has finished')}{yet}{where}")
    lines += [
        printable(f"{one['status']}: {str(one['candidate'])[:8]}: {one['error'] or 'see its log'}")
        for one in status.get("failures", ())
    ]
    return "\n".join(lines)
