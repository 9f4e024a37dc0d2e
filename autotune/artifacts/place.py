"""Check that the folder of the cache can be used, before a sweep starts."""

from __future__ import annotations

import os
from pathlib import Path

from autotune.errors import MachineError


def check_place(root: Path) -> None:
    """Make the folder of the cache. Raises MachineError where that, or writing into it, is not possible."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(root, os.W_OK) else "no permission to write"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise MachineError(f"the cache {root} cannot be written ({why}); name another folder in AUTOTUNE_CACHE")
