"""Temporary work folders, which are removed even if their process was killed.

Each folder has a lock file beside it, which its process locks as long as it uses the folder. The system frees that lock
when the process ends, however it ends, and shows it to processes in other containers: whoever can take the lock knows that
the folder was abandoned. Another lock, one for each user, is held while a folder and its lock are created, and while
processes look for abandoned folders: so a folder that has no lock yet is not taken for one.

Folders of earlier versions have no such file, and are left alone.
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
"""The subfolder that callers get, so that a listing does not show the lock."""
_LOCK_S = 60.0
"""Seconds to wait for a process that makes a folder or looks for abandoned ones, which takes milliseconds."""


def temporary_folder() -> Path:
    """Return the system's folder for temporary files. Raises OSError where there is none that can be written."""
    return Path(tempfile.gettempdir())


class Scratch:
    """A work folder, until `remove`. Use it as a context, or keep it. Raises OSError."""

    def __init__(self, kind: str) -> None:
        """`kind`: a word for the folder's name."""
        with _alone():
            place = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
            self._lock = _locked(place)
        self.folder = place / _WORK
        self.folder.mkdir()
        self._removing = weakref.finalize(self, _remove, place, self._lock)

    def remove(self) -> None:
        """Remove the folder, and ignore errors."""
        self._removing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextlib.contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """Yield a work folder, and remove it at the end. Raises OSError."""
    with Scratch(kind) as made:
        yield made.folder


def left() -> list[Path]:
    """Return the abandoned work folders: their processes have ended without removing them."""
    with contextlib.suppress(OSError, Timeout), _alone():
        return [place for place in temporary_folder().glob(f"{PREFIX}*/") if _is_left(place)]
    return []


def _is_left(place: Path) -> bool:
    """Whether a folder belongs to this user and is abandoned; to be called while `_alone` is held."""
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
    """Return the lock that is held while a folder is made, or abandoned ones are looked for."""
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    return FileLock(temporary_folder() / f"{PREFIX}scratch{user}.lock", timeout=_LOCK_S)


def _locked(place: Path) -> FileLock | None:
    """Lock a new folder; None where the file system has no locks: the folder of a killed process then stays."""
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
