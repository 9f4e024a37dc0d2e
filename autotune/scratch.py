"""Work folders in the system's temporary folder, which go also where their process was killed.

Beside what is worked on, each has a file that its process locks as long as it uses the folder. The system frees that lock
when the process ends, however it ends, and shows it to processes in other containers: whoever can have the lock knows that
the folder is left. One more lock, of this user, is held while a folder and its lock are made, and while others look: a
folder without its lock is never taken for one that is left.

Folders of earlier versions have no such file, and stay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

PREFIX = "autotune-"
OWNER = ".owner"
"""The file that a folder's process locks."""
_WORK = "work"
"""The part of a folder that is handed out, so that nobody who lists it sees the lock."""
_LOCK_S = 60.0
"""Seconds to wait for who makes a folder or looks for left ones just now, which takes milliseconds."""


class Scratch:
    """A work folder, until `remove`. Use it as a context, or keep it. Raises OSError."""

    def __init__(self, kind: str) -> None:
        """`kind`: what it is for, a word for its name."""
        with _alone():
            place = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
            self._lock = _locked(place)
        self.folder = place / _WORK
        self.folder.mkdir()
        self._removing = weakref.finalize(self, _remove, place, self._lock)

    def remove(self) -> None:
        """Remove the folder, as far as that can be done."""
        self._removing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextlib.contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Give a work folder, which is removed in the end. Raises OSError."""
    with Scratch(kind) as made:
        yield made.folder


def left() -> list[Path]:
    """Return the work folders here whose processes have ended without removing them."""
    with contextlib.suppress(OSError, Timeout), _alone():
        return [place for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/") if _is_left(place)]
    return []


def _is_left(place: Path) -> bool:
    """Whether a folder is one of this user's that nobody uses. Ask it while nobody makes one."""
    file = place / OWNER
    try:
        if not file.is_file() or (hasattr(os, "getuid") and place.lstat().st_uid != os.getuid()):
            return False
        lock = FileLock(file)
        lock.acquire(timeout=0)
        lock.release()
    except (OSError, Timeout, NotImplementedError):
        return False
    return True


def _alone() -> FileLock:
    """Return the lock that is held while a folder is made, or left ones are looked for."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return FileLock(Path(tempfile.gettempdir()) / f"{PREFIX}scratch{user}.lock", timeout=_LOCK_S)


def _locked(place: Path) -> FileLock | None:
    """Lock a new folder; None where the file system has no locks: then it stays where its process is killed."""
    lock = FileLock(place / OWNER, thread_local=False)  # another thread may remove the folder
    try:
        lock.acquire(timeout=0)
        return lock
    except (OSError, NotImplementedError):
        with contextlib.suppress(OSError):
            (place / OWNER).unlink(missing_ok=True)
        return None


def _remove(place: Path, lock: FileLock | None) -> None:
    shutil.rmtree(place / _WORK, ignore_errors=True)
    if lock is not None:
        lock.release()  # Windows removes no file that is open
    shutil.rmtree(place, ignore_errors=True)
