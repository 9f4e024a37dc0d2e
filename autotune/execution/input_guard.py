"""Watch the files that all candidates share (model, data): rows that were measured on different content must not stand side
by side.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from autotune.errors import MachineError, Problem, UsageError


class Guard:
    """Remembers files by size and time of change, and raises an error when one has changed."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, int]] = {}

    def watch(self, files: Iterable[Path]) -> None:
        """Remember files as they are now. Raises OSError."""
        self._seen |= {file: _state(file) for file in files}

    def check(self) -> None:
        """Raise UsageError where a file was changed, MachineError where it is gone or cannot be read."""
        for file, seen in self._seen.items():
            try:
                now = _state(file)
            except OSError as error:
                message = f"{file} is gone or cannot be read ({error.strerror or error})"
                raise MachineError(f"{message}; bring it back, then run the same command again") from None
            if now != seen:
                rule = "was changed while the sweep was running"
                remedy = "put it back and run the same command again, or give the new sweep another --out"
                raise UsageError(Problem(rule, file=str(file), remedy=remedy))


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
