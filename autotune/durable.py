"""Write files so that neither a kill nor a power cut leaves half of one.

A file is written aside, flushed to the disk, and then renamed; the rename is flushed too where the system can do that.
A reader sees the whole old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

ASIDE, GONE = ".new", ".gone"
"""The endings of a file that is being written, and of a folder that is being removed."""
_BUSY_S, _AGAIN_S = 2.0, 0.05
"""Windows cannot rename a file that another process has open: seconds of further attempts, and seconds between them."""


def write_aside(file: Path, content: str, *, sync: bool = True) -> None:
    """Write a text file anew. Raises OSError, which names a file; the old file then stays.

    `sync=False` omits the flush to the disk, for files that are written often and are worthless after a power cut.
    """
    aside = file.with_name(f"{file.name}.{uuid.uuid4().hex[:12]}{ASIDE}")  # some files have several writers at once
    try:
        with aside.open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        put(aside, file, sync=sync)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        error.filename = str(file)  # what somebody named, and not where it is written aside
        raise


def put(aside: Path, place: Path, *, sync: bool = True) -> None:
    """Rename a file, or a folder if `place` does not exist yet, and flush the rename. Raises OSError.

    Its content must have been flushed before.
    """
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            aside.replace(place)
            break
        except PermissionError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(_AGAIN_S)
    if sync:
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def sync_tree(folder: Path) -> None:
    """Flush a folder to the disk with all that is in it. Raises OSError."""
    places = [folder]
    for path in folder.rglob("*"):
        if path.is_dir():
            places.append(path)
        else:
            sync_file(path)
    for place in places:
        sync_folder(place)


def sync_file(file: Path) -> None:
    """Flush a file to the disk that another writer has closed. Raises OSError."""
    how = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY  # Windows flushes only what may be written
    number = os.open(file, how)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def move_away(folder: Path) -> Path:
    """Rename a folder that is to be removed, so that its own name never holds half a folder. Returns the new path.

    Raises OSError where that fails (on Windows: where a file in it is open). A missing folder is no error.
    """
    gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}{GONE}")
    with contextlib.suppress(FileNotFoundError):
        put(folder, gone, sync=False)
    return gone


def remove_tree(folder: Path) -> None:
    """Remove a folder and never leave half of one under its name. Raises as `move_away`."""
    shutil.rmtree(move_away(folder), ignore_errors=True)


def empty_folder(folder: Path) -> Path:
    """Make a folder anew, without its old content, and return it. Raises OSError where the content cannot be removed.

    On Windows a file of a process that has just ended stays open for a moment, so the removal is tried for a while.
    """
    end = time.monotonic() + _BUSY_S
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if sys.platform != "win32" or time.monotonic() > end:
                raise
            time.sleep(_AGAIN_S)


def remove_asides(folders: Iterable[Path]) -> None:
    """Remove the unfinished files of killed processes from folders to which only this process writes."""
    for folder in folders:
        for aside in folder.glob(f"*{ASIDE}"):
            with contextlib.suppress(OSError):
                if aside.is_file():
                    aside.unlink()
