"""Where the cache lies unless the user says so, and whether it can be used, before a sweep starts."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from autotune.errors import MachineError


def user_folder() -> Path:
    """Return the folder of this user for caches. Raises MachineError where no home folder is known.

    A container that is run as a user of any number has none, nor has a service without HOME.
    """
    try:
        folder = Path(platformdirs.user_cache_dir("autotune", appauthor=False))
    except RuntimeError:
        folder = Path()
    if not folder.is_absolute():  # earlier versions of platformdirs return a path that begins with '~'
        raise MachineError(
            "no home folder is known here, and so no place for the cache: HOME is not set, and the system does not know this user; "
            "set HOME to a folder that can be written, or AUTOTUNE_CACHE to one for the cache"
        )
    return folder


def check_place(root: Path) -> None:
    """Make the folder of the cache. Raises MachineError where that, or writing into it, is not possible."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(root, os.W_OK) else "no permission to write"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise MachineError(f"the cache {root} cannot be written ({why}); name another folder in AUTOTUNE_CACHE")
