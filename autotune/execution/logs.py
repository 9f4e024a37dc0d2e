"""Remove secrets from logs: libraries write to them directly."""

from __future__ import annotations

import threading
from pathlib import Path

from autotune.secrets import redact_file


class CleanLogs:
    """Removes secrets from logs after libraries have written to them.

    A log is first read from its beginning, because an earlier run that was killed may have left secrets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clean: dict[Path, int] = {}
        """By log, how many of its first bytes hold no secrets."""

    def clean(self, log: Path) -> None:
        """Remove secrets from the new part of a log."""
        with self._lock:
            self._clean[log] = redact_file(log, self._clean.get(log, 0))

    def clean_all(self) -> None:
        """Remove secrets from every log that was written."""
        for log in list(self._clean):
            self.clean(log)
