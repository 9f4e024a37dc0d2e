"""Questions about paths that people type: what cannot be a path, or cannot be looked at, is not there."""

from __future__ import annotations

from pathlib import Path


def is_file(path: Path) -> bool:
    """Whether there is such a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, a folder without permission, a NUL
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is anything of that name."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def size_mb(folder: Path) -> float:
    """Return the size of the files in a folder and below it, 10^6 bytes. Raises OSError."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
