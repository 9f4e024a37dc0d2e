"""The `report` command: results folders in, one HTML file out, and the front as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from autotune.durable import write_aside
from autotune.errors import MachineError, Problem, UsageError, printable
from autotune.paths import is_file, is_folder
from autotune.present.select import Selection, targets_of
from autotune.report.data import opened, report_of
from autotune.report.page import page
from autotune.report.picture import draw_front

NAME, COMPARED, PICTURE = "report.html", "comparison.html", "pareto"
_HEAD = 100_000
"""Bytes at the beginning of a page that are searched for its title."""


def write_report(folders: Sequence[Path], to: Path | None = None, say: Callable[[str], None] = print) -> list[Path]:
    """Write the report of one results folder, or a comparison of several. Returns the written files.

    One folder gets its report, `pareto.svg` and `pareto.png`; `say` is told why a picture is missing. A comparison is
    `comparison.html` in the current folder. `to` names another file, or a folder for it. Raises UsageError where a folder
    holds no results or `to` names a file that is no report, MachineError where a file cannot be written.
    """
    file = _place(folders, to)
    found = [(folder, *opened(folder, target), target) for folder in folders for target in _targets(folder)]
    try:
        write_aside(file, page([report_of(*each) for each in found]))
        if len(found) > 1:
            return [file]
        _, sweep, selection, _ = found[0]
        return [file, *_pictures(file, str(sweep["name"]), selection, say)]
    except OSError as error:
        place = error.filename or file
        raise MachineError(
            f"{place}: cannot be written ({error.strerror or error}); name another file with --to"
        ) from None


def _place(folders: Sequence[Path], to: Path | None) -> Path:
    """Return the file to write. Raises UsageError if `to` names an existing file that is no report."""
    name = NAME if len(folders) == 1 else COMPARED
    if to is None:
        return folders[0] / name if len(folders) == 1 else Path(name)
    file = to / name if is_folder(to) else to
    if is_file(file) and not _is_report(file):
        rule = "is there already, and is no report that would be written anew"
        raise UsageError(Problem(rule, "--to", str(file), remedy="name another file, or remove it"))
    return file


def _is_report(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return False
    return not head.strip() or b"autotune report</title>" in head


def _targets(folder: Path) -> list[str] | list[None]:
    """Return the targets of a folder with several, each of which is shown as a sweep of its own; else one None."""
    names = targets_of(folder) if is_file(folder / "results.csv") else []
    return names if len(names) > 1 else [None]


def _pictures(page: Path, title: str, selection: Selection, say: Callable[[str], None]) -> list[Path]:
    """Write the front as SVG and, where Pillow is installed, as PNG, beside a page: of one with another name than the usual
    they have its name too, so that two pages in a folder have their own. Raises OSError.
    """
    folder, name = page.parent, PICTURE if page.name == NAME else f"{page.stem}-{PICTURE}"
    aims = selection.wanted
    scene = draw_front(printable(title), selection.rows, aims.objectives, aims.limits, selection.choice)
    if scene is None:
        say("no picture of the front: fewer than two objectives, or no candidate with both was measured")
        return []
    svg, png = folder / f"{name}.svg", folder / f"{name}.png"
    write_aside(svg, scene.svg())
    try:
        content = scene.png()
    except MachineError as error:
        say(f"{png.name} was not written: {error}")
        return [svg]
    png.write_bytes(content)
    return [svg, png]
