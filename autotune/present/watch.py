"""`status --watch`: shows the status until the sweep ends, as a steady view in a terminal, as a line at each change elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from autotune.errors import printable_json, printable_lines
from autotune.present.status import as_text, read_status
from autotune.present.terminal import takes_escapes
from autotune.secrets import redact, redacted

EVERY_S = 2.0
"""Seconds between two readings."""


def watch(
    folder: Path,
    as_json: bool,
    stream: TextIO | None = None,
    every_s: float = EVERY_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show a sweep's status until it no longer runs. Raises UsageError if the folder holds no sweep.

    With `as_json` each reading is one line of JSON. In a terminal the text overwrites itself without being cleared first, so
    that it does not flicker.
    """
    stream = stream or sys.stdout
    in_place, before = takes_escapes(stream) and not as_json, None
    while True:
        status = read_status(folder)
        text = _json_line(status) if as_json else printable_lines(redact(as_text(status)))
        if in_place:
            lines = "".join(f"{line}\x1b[K\n" for line in text.split("\n"))
            stream.write(("\x1b[2J" if before is None else "") + "\x1b[H" + lines + "\x1b[J")
        elif as_json or _lasting(status) != before:
            stream.write(text + "\n")
        before = _lasting(status)
        stream.flush()
        if status["state"] != "running":
            return
        sleep(every_s)


def _json_line(status: dict[str, Any]) -> str:
    return printable_json(json.dumps(redacted(status), ensure_ascii=False))


def _lasting(status: dict[str, Any]) -> str:
    """Return the part of a status whose changes are worth a line: everything but running times."""
    running = {
        name: value for name, value in status.get("running", {}).items() if name in ("stage", "trial", "candidate")
    }
    return json.dumps(status | {"running": running}, sort_keys=True, default=str)
