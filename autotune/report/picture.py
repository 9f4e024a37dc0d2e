"""Draws `pareto.svg` and `pareto.png`: a sweep's candidates over its first two objectives, for slides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from autotune.analysis.limits import Limit
from autotune.analysis.pareto import front
from autotune.analysis.selection import Choice
from autotune.metrics import METRICS, Direction
from autotune.present.tables import number, score_text, settings
from autotune.report.scene import Circle, Line, Point, Polygon, Scene, Text
from autotune.results.rows import Trial

WIDTH, HEIGHT = 1200, 760
_LEFT, _RIGHT, _TOP, _BOTTOM = 96.0, 44.0, 108.0, 92.0
_INK, _SOFT, _GRID, _FRONT, _POINT, _OUT, _WINNER, _BASE, _LIMIT = (
    "#1b2430", "#526070", "#dde3ea", "#0b5cad", "#8b98a8", "#c3ccd6", "#c2410c", "#7b3fa0", "#9a4b00",
)  # fmt: skip
_BARS = 60
"""With more candidates, only those on the front have their intervals drawn."""


class _Axis:
    """A linear scale from values to pixels, with a margin around the values."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        low, high = min(values), max(values)
        span = (high - low) or abs(high) * 0.2 or 1.0
        self.low, self.high = low - 0.06 * span, high + 0.06 * span
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self._begin + share * (self._end - self._begin)

    def ticks(self, most: int) -> list[float]:
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step)
        return [round(k * step, 12) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def draw_front(
    name: str,
    rows: Sequence[Trial],
    objectives: Mapping[str, Direction],
    limits: Sequence[Limit],
    choice: Choice,
) -> Scene | None:
    """Return a picture of the candidates over the first two objectives; None with one objective, or no row that has both.

    `rows`: the rows that count, with the untouched model's (trial 0).
    """
    if len(objectives) < 2:
        return None
    (y, way_y), (x, way_x) = list(objectives.items())[:2]
    known = [row for row in rows if row.status == "ok" and row.number(x) is not None and row.number(y) is not None]
    if not known:
        return None
    scene = Scene(WIDTH, HEIGHT)
    across = _Axis([_value(row, x) for row in known], _LEFT, WIDTH - _RIGHT)
    up = _Axis(_with_ends(known, y), HEIGHT - _BOTTOM, _TOP)

    def place(row: Trial) -> Point:
        return across.at(_value(row, x)), up.at(_value(row, y))

    base = next((row for row in known if row.trial == 0), None)
    trials = [row for row in known if row.trial != 0]
    feasible = set(choice.feasible)
    inside = [row for row in trials if row.candidate in feasible]
    best = [inside[i] for i in front([[_value(row, x), _value(row, y)] for row in inside], [way_x, way_y])]
    value = None if base is None else {x: _value(base, x), y: _value(base, y)}

    _frame(scene, across, up, _title(x, way_x), _title(y, way_y))
    for limit in limits:
        axis = across if limit.metric == x else up if limit.metric == y else None
        _bound(scene, limit, axis, limit.metric == x, value)
    for row in known if len(known) <= _BARS else best:
        if (interval := row.interval(y)) is not None:
            px = place(row)[0]
            scene.shapes.append(Line([(px, up.at(interval.low)), (px, up.at(interval.high))], _OUT, 1.5))
    _stairs(scene, sorted(place(row) for row in best), way_x)
    ids = {row.candidate for row in best}
    for row in sorted(trials, key=lambda row: (row.candidate in feasible) + (row.candidate in ids)):
        fill = _FRONT if row.candidate in ids else _POINT if row.candidate in feasible else None
        scene.shapes.append(Circle(place(row), 8 if fill == _FRONT else 6, fill, "#ffffff" if fill else _OUT))
    if base is not None:
        px, py = place(base)
        scene.shapes.append(Polygon([(px, py - 11), (px + 11, py), (px, py + 11), (px - 11, py)], _BASE))
    won = next((row for row in trials if choice.winner is not None and row.candidate == choice.winner.id), None)
    if won is not None:
        scene.shapes.append(Polygon(_star(place(won), 17), _WINNER))
    _words(scene, name, won, objectives)
    _legend(scene, base is not None, len(inside) < len(trials))
    return scene


def _stairs(scene: Scene, corners: Sequence[Point], way_x: Direction) -> None:
    """Draw the front as a stair through its candidates, which come from left to right."""
    if len(corners) < 2:
        return
    steps = [corners[0]]
    for before, corner in pairwise(corners):
        steps += [(corner[0], before[1]) if way_x == "minimize" else (before[0], corner[1]), corner]
    scene.shapes.append(Line(steps, _FRONT, 2.5))


def _value(row: Trial, name: str) -> float:
    """Return a metric that the row is known to have."""
    return float(row.number(name) or 0.0)


def _with_ends(rows: Sequence[Trial], name: str) -> list[float]:
    values = [_value(row, name) for row in rows]
    if len(rows) > _BARS:
        return values
    ends = [end for row in rows for end in row.interval(name) or ()]
    room = 0.5 * (max(values) - min(values))
    return values + [end for end in ends if min(values) - room <= end <= max(values) + room]


def _title(name: str, way: Direction) -> str:
    meaning = METRICS[name].meaning if name in METRICS else name
    return f"{meaning[:70]} ({'more' if way == 'maximize' else 'less'} is better)"


def _frame(scene: Scene, across: _Axis, up: _Axis, below: str, beside_: str) -> None:
    floor = HEIGHT - _BOTTOM
    for tick in across.ticks(8):
        px = across.at(tick)
        scene.shapes.append(Line([(px, _TOP), (px, floor)], _GRID))
        scene.shapes.append(Text((px, floor + 24), number(tick), 15, _SOFT, "middle"))
    for tick in up.ticks(6):
        py = up.at(tick)
        scene.shapes.append(Line([(_LEFT, py), (WIDTH - _RIGHT, py)], _GRID))
        scene.shapes.append(Text((_LEFT - 10, py + 5), f"{tick:g}", 15, _SOFT, "end"))
    scene.shapes.append(Text(((_LEFT + WIDTH - _RIGHT) / 2, floor + 52), below, 16, _INK, "middle"))
    scene.shapes.append(Text((32, (_TOP + floor) / 2), beside_, 16, _INK, "middle", upright=True))


def _bound(scene: Scene, limit: Limit, axis: _Axis | None, of_x: bool, base: Mapping[str, float] | None) -> None:
    """Draw a limit on its axis; nothing if it has none, or lies outside the picture."""
    threshold = limit.threshold(None if base is None else base.get(limit.metric))
    if axis is None or threshold is None or not axis.low <= threshold <= axis.high:
        return
    at = axis.at(threshold)
    ends: list[Point] = [(at, _TOP), (at, HEIGHT - _BOTTOM)] if of_x else [(_LEFT, at), (WIDTH - _RIGHT, at)]
    scene.shapes.append(Line(ends, _LIMIT, 1.5, dashed=True))
    words = (at + 6, _TOP + 14.0) if of_x else (_LEFT + 6, at - 6)
    scene.shapes.append(Text(words, str(limit), 13, _LIMIT))


def _star(centre: Point, radius: float) -> list[Point]:
    found = []
    for i in range(10):
        r, angle = radius * (0.42 if i % 2 else 1.0), math.pi * i / 5 - math.pi / 2
        found.append((centre[0] + r * math.cos(angle), centre[1] + r * math.sin(angle)))
    return found


def _words(scene: Scene, name: str, won: Trial | None, objectives: Mapping[str, Direction]) -> None:
    scene.shapes.append(Text((_LEFT - 60, 44), name, 26))
    if won is None:
        words = "No candidate keeps the limits."
    else:
        words = f"Winner: {settings(won.settings)}: " + ", ".join(score_text(won, metric) for metric in objectives)
    scene.shapes.append(Text((_LEFT - 60, 76), words if len(words) < 150 else words[:147] + "...", 15, _SOFT))


def _legend(scene: Scene, base: bool, outside: bool) -> None:
    y, x = HEIGHT - 16.0, _LEFT - 60
    entries: list[tuple[str, Polygon | Circle]] = [("winner", Polygon(_star((x, y - 5), 10), _WINNER))]
    kinds = [("on the front", _FRONT, "#ffffff"), ("keeps the limits", _POINT, "#ffffff")]
    kinds += [("breaks a limit", None, _OUT)] if outside else []  # type: ignore[list-item]
    entries += [(words, Circle((x, y - 5), 7, fill, line)) for words, fill, line in kinds]
    if base:
        entries.append(("untouched model", Polygon([(x, y - 14), (x + 9, y - 5), (x, y + 4), (x - 9, y - 5)], _BASE)))
    offset = 12.0
    for words, shape in entries:
        moved = (
            Circle((shape.centre[0] + offset, shape.centre[1]), shape.radius, shape.fill, shape.line)
            if isinstance(shape, Circle)
            else Polygon([(px + offset, py) for px, py in shape.points], shape.fill)
        )
        scene.shapes += [moved, Text((x + offset + 16, y), words, 14, _SOFT)]
        offset += 46 + 7.4 * len(words)
