"""Logs without secrets: libraries write to them by themselves."""

from __future__ import annotations

import threading
from pathlib import Path

from autotune.secrets import redact_file


class CleanLogs:
    """Takes secrets out of what is written to logs.

    A log is read from its beginning at first, because a run of the command that was killed may have left some.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clean: dict[Path, int] = {}
        """Of each log how many bytes of it hold no secrets."""

    def clean(self, log: Path) -> None:
        """Take secrets out of what was written to a log since the last time."""
        with self._lock:
            self._clean[log] = redact_file(log, self._clean.get(log, 0))

    def clean_all(self) -> None:
        """Do so for every log that was written."""
        for log in list(self._clean):
            self.clean(log)
