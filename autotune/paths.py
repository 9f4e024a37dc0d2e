"""Questions about paths that people type: what cannot be a path, or cannot be looked at, is not there."""

from __future__ import annotations

from pathlib import Path

_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}
"""Names that Windows keeps for devices, whatever follows a dot."""
NOT_PORTABLE = (
    "must be a name that Windows takes, too: not that of a device (con, nul, aux, com1, ...), and no dot at its end"
)


def is_portable(name: str) -> bool:
    """Whether every system takes a folder of that name, which consists of letters, digits, '.', '-' and '_'."""
    return name.partition(".")[0].lower() not in _DEVICES and not name.endswith(".")


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
