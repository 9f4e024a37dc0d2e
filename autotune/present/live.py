"""The live view of a sweep in a terminal: some lines at its bottom, drawn over themselves, below what was said so far.

rich owns the lines, and what others write to stdout or stderr meanwhile appears above them. A change of the terminal's width
lets most terminals break the lines drawn before anew, which rich does not reckon with: `_Refold` does.

It is imported only where the view is shown: nothing else needs rich.
"""

from __future__ import annotations

import contextlib
import os
import sys
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderHook, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.text import Text

from autotune.errors import printable
from autotune.present.so_far import Doing, Picture, SoFar, stage_name
from autotune.present.tables import duration, number, score_text, settings
from autotune.present.terminal import around_stops
from autotune.scheduler.events import BestSoFar
from autotune.secrets import redact

EVERY_S = 0.5
"""Seconds between two redraws."""
_LABEL, _STAGE, _TIME = 10, 11, 7
"""Columns of a line's label, of a stage's name, and of a time."""
_NARROW, _NARROW_LABEL = 60, 7
"""A view with fewer columns is narrow; the columns of its labels then."""
_BAR = 24
"""The most columns of the bar."""
_LEAST_WORKERS, _MOST_TARGETS = 1, 6


def view_lines(picture: Picture, width: int, height: int) -> list[Text]:
    """Return a sweep at one moment in lines, none wider than `width` and together lower than `height`."""
    below = [*_found(picture), _left(picture)]
    room = max(_LEAST_WORKERS, height - 2 - len(below))
    body = [*_workers(picture, room, width < _NARROW), *below]
    label = _NARROW_LABEL if width < _NARROW else _LABEL
    lines = [_head(picture, width), *(_text((f"{name:<{label}}", "dim")).append(line) for name, line in body)]
    lines = lines[: max(1, height - 1)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
        line.truncate(max(1, width - 1), overflow="ellipsis")
    return lines


def _text(*parts: str | tuple[str, str]) -> Text:
    """Return a line of styled parts, without secrets and control characters."""
    line = Text()
    for part in parts:
        content, style = part if isinstance(part, tuple) else (part, "")
        line.append(printable(redact(content)), style)
    return line


def _head(picture: Picture, width: int) -> Text:
    trials, hours = picture.budget.trials, picture.budget.hours
    if trials is not None:
        share, done = picture.trials / trials, f"{picture.trials} of {trials} trials"
    else:
        share = 0.0 if hours is None else picture.spent_s / (hours * 3600)
        done = f"{picture.trials} trial{'s' * (picture.trials != 1)}"
    name = picture.sweep
    room = min(_BAR, width - 5 - len(name) - len(done))
    if room < 6 or (trials is None and hours is None):
        return _text((name, "bold"), "  ", done)
    full = round(room * min(1.0, max(0.0, share)))
    return _text((name, "bold"), "  ", ("━" * full, "green"), ("─" * (room - full), "dim"), "  ", done)


def _workers(picture: Picture, room: int, narrow: bool) -> list[tuple[str, Text]]:
    """Return a line for each worker; with more than `room`, the last line sums up the others."""
    if not picture.begun:
        return [("worker", _text("preparing model and data"))]
    shown = picture.workers if len(picture.workers) <= room else picture.workers[: room - 1]
    one = len(picture.workers) == 1
    labels = ("worker" if one else f"{'worker ' * (not narrow)}{place}" for place in range(1, len(shown) + 1))
    lines = [(label, _worker(picture, doing)) for label, doing in zip(labels, shown, strict=True)]
    rest = picture.workers[len(shown) :]
    if rest:
        stages = [stage_name(doing.stage) if doing is not None else "idle" for doing in rest]
        each = ", ".join(f"{stages.count(name)} {name}" for name in dict.fromkeys(stages))
        lines.append((f"{len(rest)} {'more' if shown else 'workers'}", _text(each)))
    return lines


def _worker(picture: Picture, doing: Doing | None) -> Text:
    if doing is None:
        return _text(("idle", "dim"))
    trial = f"[{doing.trial}]" if doing.trial else "[-]"
    first, _, more = stage_name(doing.stage).partition(" on ")
    waits = picture.waits(doing)
    state = "waits" if waits else duration(max(0.0, picture.now - doing.since))
    about = "  ".join(
        part for part in (f"on {more}" * bool(more), f"on {doing.host}" * bool(doing.host), doing.settings) if part
    )
    return _text(
        f"{trial:<5} ", (f"{first:<{_STAGE}}", "cyan"), (f"{state:>{_TIME}}", "yellow" if waits else ""), f"  {about}"
    )


def _found(picture: Picture) -> list[tuple[str, Text]]:
    counts = [f"{count} {name}" for name, count in picture.counts.items()]
    failures = ", ".join(f"{count} {name}" for name, count in picture.failures.items() if name != "failed")
    so_far = _text(", ".join(counts) or "no candidate has ended", f" ({failures})" * bool(failures))
    so_far.highlight_regex(r"\d+ failed", "red")
    lines = [("so far", so_far)]
    if len(picture.standings) == 1:
        (standing,) = picture.standings
        front, best = _front(picture, standing), _best(picture, standing)
        return [*lines, ("front", _text(front)), *zip(("best", ""), best, strict=True)]
    for standing in picture.standings[:_MOST_TARGETS]:
        front = f"  (front {len(standing.front)})" * bool(standing.front)
        name, values = _best(picture, standing)
        lines.append(("best", _text((f"{standing.target}  ", "bold")).append(name).append(f"  {values}{front}")))
    left = len(picture.standings) - _MOST_TARGETS
    return [*lines, *([("", _text(f"and {left} more targets"))] if left > 0 else [])]


def _best(picture: Picture, standing: BestSoFar) -> tuple[Text, Text]:
    """Return two lines: the best candidate so far, and its values. Without one the second is empty, so that the view keeps its
    height.
    """
    best = standing.best
    if best is None:
        return _text("no candidate keeps the limits" if picture.counts.get("measured") else "none yet"), _text()
    name = settings(best.settings) or "the untouched model"
    first, *others = picture.objectives
    # Names of metrics hold their units; the interval of the first is what decides.
    rest = (f"{other} {number(best[other])}" for other in others if best[other] is not None)
    return _text((best.candidate[:8], "bold green"), f"  {name}"), _text(", ".join([score_text(best, first), *rest]))


def _front(picture: Picture, standing: BestSoFar) -> str:
    """Return a line with the size of the front so far, and its range in each objective."""
    if not standing.front:
        return "none yet"
    parts = []
    for name in picture.objectives:
        known = sorted(value for row in standing.front if (value := row.number(name)) is not None)
        if known:
            low, high = number(known[0]), number(known[-1])
            parts.append(f"{name} {low}" + (f"\N{EN DASH}{high}" if high != low else ""))
    return f"{len(standing.front)}: {', '.join(parts)}"


def _left(picture: Picture) -> tuple[str, Text]:
    trials, hours = picture.budget.trials, picture.budget.hours
    left = "not known yet" if picture.left_s is None else f"about {duration(picture.left_s)}"
    count = max(0, trials - picture.trials) if trials is not None else 0
    rest = [f"{count} trial{'s' * (count != 1)}"] if trials is not None else []
    rest += [duration(max(0.0, hours * 3600 - picture.spent_s))] if hours is not None else []
    budget = f"; of the budget {' and '.join(rest)}" if rest else ""
    return "left", _text(left, budget, (f"  ({duration(picture.spent_s)} gone)", "dim"))


class LiveView:
    """The view, a context manager: while it is open, it is redrawn twice a second, and messages appear above it."""

    def __init__(self, so_far: SoFar, console: Console | None = None) -> None:
        """`console`: rich's console of the terminal; default: stderr."""
        self._so_far = so_far
        self.console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._refold = _Refold(self.console)
        self._live = Live(
            get_renderable=self._drawn, console=self.console, refresh_per_second=1 / EVERY_S, transient=True
        )
        self._stops = around_stops(self._leave, self._come_back)

    def __enter__(self) -> Self:
        self._live.start()
        self.console.push_render_hook(self._refold)
        self._stops.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stops.__exit__(None, None, None)
            self._live.refresh()  # by the width that the terminal has now
        finally:  # Ctrl-C once more must not leave the cursor hidden
            self.console.pop_render_hook()
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a lasting line above the view."""
        self._live.refresh()  # by the width that the terminal has now
        self.console.print(Text(text))

    def _leave(self) -> None:
        """Give the terminal back to the shell: show the cursor, on a new line."""
        self._write("\x1b[?2026l\x1b[?25h\r\n")

    def _come_back(self) -> None:
        """Take the terminal again: the next drawing overwrites new empty lines, and not the shell's output."""
        self._write("\n" * (self._refold.forget() - 1) + "\r\x1b[?25l")

    def _write(self, codes: str) -> None:
        """Write codes past rich and Python's buffers: a signal may come while either is at work."""
        with contextlib.suppress(OSError, ValueError):
            os.write(self.console.file.fileno(), codes.encode("ascii"))

    def _drawn(self) -> Group:
        width, height = self.console.size
        lines = view_lines(self._so_far.picture(), width, height)
        self._refold.next = [cell_len(line.plain) for line in lines]
        return Group(*lines)


class _Refold(RenderHook):
    """It runs when rich has said where the cursor goes, and puts it right where the terminal became narrower since the last
    drawing. What is drawn reaches the terminal at once, in those that know how (DEC mode 2026): then nothing flickers.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.next: list[int] = []
        """The width in cells of each line of the next drawing."""
        self._before: list[int] = []
        """The width in cells of each line on the screen."""

    def forget(self) -> int:
        """Reckon no longer with the lines that stand there. Returns how many they are."""
        count, self._before = len(self._before), []
        return count

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed, behind what erases the rows that the lines before take now beyond one each."""
        width = max(1, self._console.width)
        rows = sum(max(1, -(-cells // width)) for cells in self._before)
        erased = [_erase(rows, len(self._before))] if rows > len(self._before) else []
        self._before = [min(cells, width) for cells in self.next]
        return [_Code("\x1b[?2026h"), *erased, *renderables, _Code("\x1b[?2026l")]


def _erase(rows: int, lines: int) -> Control:
    """Return what erases so many rows, the cursor being in the last, and leaves it in the last row that `lines` take from there."""
    up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
    down = [(ControlType.CURSOR_DOWN, lines - 1)] if lines > 1 else []
    return Control(ControlType.CARRIAGE_RETURN, *(up * (rows - 1)), (ControlType.ERASE_IN_LINE, 2), *down)


class _Code:
    """A control code that rich does not define."""

    def __init__(self, code: str) -> None:
        self._segment = Segment(
            code, None, [(ControlType.BELL,)]
        )  # consoles of Windows without such codes ring no bell

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the code to rich."""
        yield self._segment
