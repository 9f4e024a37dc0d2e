"""Where the results may be that somebody meant who named another place: the folder above, one beside, or one below."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from autotune.errors import nearest
from autotune.paths import exists, is_file, is_folder

_LOOKED_AT, _SHOWN = 2000, 5
"""Entries of a folder that are looked at, and results folders that are named at most."""
_SWEEPS = (".yaml", ".yml", ".toml", ".json")


def remedy_for(place: Path, otherwise: str = "name a results folder or its results.csv") -> str:
    """Return what to name instead of a place that holds no results of a sweep."""
    if is_folder(place):
        if below := _results_in(place):
            return f"name one of the results folders in it: {_listed(below)}"
    elif not exists(place):
        beside = _results_in(place.parent)
        if near := nearest(place.name, [folder.name for folder in beside]):
            return f"did you mean {place.parent / near}?"
        if beside:
            return f"name one of these: {_listed(beside)}"
    if above := next((folder for folder in place.absolute().parents[:3] if is_file(folder / "results.csv")), None):
        return f"name the results folder itself: {_short(above)}"
    if place.suffix.lower() in _SWEEPS and is_file(Path("results") / place.stem / "results.csv"):
        return f"name its results folder: {Path('results') / place.stem}"
    return otherwise


def _results_in(folder: Path) -> list[Path]:
    """Return the results folders in a folder; none where it cannot be read."""
    try:
        return sorted(one for one in islice(folder.iterdir(), _LOOKED_AT) if is_file(one / "results.csv"))
    except (OSError, ValueError):
        return []


def _listed(folders: list[Path]) -> str:
    return ", ".join(map(str, folders[:_SHOWN])) + ", ..." * (len(folders) > _SHOWN)


def _short(folder: Path) -> str:
    """Return a folder as seen from here, where it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
