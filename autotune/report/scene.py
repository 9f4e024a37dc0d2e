"""A picture as a list of shapes, which writes itself as SVG, or as PNG if Pillow is installed."""

from __future__ import annotations

import html
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from autotune.distribution import pip_install
from autotune.errors import MachineError

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
_FINER = 2
"""Pixels of a PNG per unit of the scene. It is drawn twice as fine again and scaled down, which smooths the edges."""
_FONTS = "Inter, Segoe UI, Roboto, Helvetica, Arial, DejaVu Sans, sans-serif"


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[Point]
    colour: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Polygon:
    """A filled area."""

    points: Sequence[Point]
    fill: str


@dataclass(frozen=True)
class Circle:
    """A filled dot, or a ring if `fill` is None."""

    centre: Point
    radius: float
    fill: str | None
    line: str = "#ffffff"


@dataclass(frozen=True)
class Text:
    """A text at a point of its base line; an `upright` one runs from the bottom to the top."""

    at: Point
    words: str
    size: float = 15.0
    colour: str = "#1b2430"
    anchor: Anchor = "start"
    upright: bool = False


@dataclass
class Scene:
    """Shapes on a white ground, in drawing order; sizes in CSS pixels."""

    width: int
    height: int
    shapes: list[Line | Polygon | Circle | Text] = field(default_factory=list)

    def svg(self) -> str:
        """Return the picture as SVG."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONTS}">'
        ground = f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>'
        return "\n".join([head, ground, *map(_element, self.shapes), "</svg>"]) + "\n"

    def png(self) -> bytes:
        """Return the picture as PNG, twice as fine as the scene. Raises MachineError where Pillow is not installed."""
        try:
            image, draw_, font = (
                importlib.import_module(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont")
            )
        except ImportError:
            raise MachineError(f"a PNG needs Pillow, which is not installed: {pip_install('plots')}") from None
        zoom = 2 * _FINER
        canvas = image.new("RGB", (self.width * zoom, self.height * zoom), "#ffffff")
        pen = draw_.Draw(canvas)
        for shape in self.shapes:
            _paint(canvas, pen, image, draw_, font, shape, zoom)
        stream = io.BytesIO()
        size = (self.width * _FINER, self.height * _FINER)
        canvas.resize(size, image.Resampling.LANCZOS).save(stream, "PNG", optimize=True)
        return stream.getvalue()


def _element(shape: Line | Polygon | Circle | Text) -> str:
    match shape:
        case Line():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
            dash = ' stroke-dasharray="7 5"' if shape.dashed else ""
            return (
                f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="{shape.width}"{dash}/>'
            )
        case Polygon():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
            return f'<polygon points="{points}" fill="{shape.fill}"/>'
        case Circle():
            x, y = shape.centre
            kind = (
                f'fill="none" stroke="{shape.line}" stroke-width="2"' if shape.fill is None else f'fill="{shape.fill}"'
            )
            edge = "" if shape.fill is None else f' stroke="{shape.line}" stroke-width="1.5"'
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shape.radius}" {kind}{edge}/>'
        case Text():
            x, y = shape.at
            turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if shape.upright else ""
            style = f'font-size="{shape.size}" fill="{shape.colour}" text-anchor="{shape.anchor}"{turn}'
            return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{html.escape(shape.words)}</text>'


def _paint(canvas: Any, pen: Any, image: Any, draw_: Any, fonts: Any, shape: Any, zoom: int) -> None:
    """Draw one shape with Pillow."""

    def at(point: Point) -> Point:
        return point[0] * zoom, point[1] * zoom

    match shape:
        case Line():
            points = [at(point) for point in shape.points]
            for a, b in pairwise(points):
                for start, end in _dashes(a, b, zoom) if shape.dashed else [(a, b)]:
                    pen.line([start, end], fill=shape.colour, width=max(1, round(shape.width * zoom)))
        case Polygon():
            pen.polygon([at(point) for point in shape.points], fill=shape.fill)
        case Circle():
            (x, y), r = at(shape.centre), shape.radius * zoom
            width = round((2 if shape.fill is None else 1.5) * zoom)
            pen.ellipse([x - r, y - r, x + r, y + r], fill=shape.fill, outline=shape.line, width=width)
        case Text():
            font = fonts.load_default(size=shape.size * zoom)
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
            if not shape.upright:
                pen.text(at(shape.at), shape.words, font=font, fill=shape.colour, anchor=anchor)
                return
            long, high = round(pen.textlength(shape.words, font=font)) + 2 * zoom, round(shape.size * 1.5 * zoom)
            strip = image.new("RGBA", (long, high), (255, 255, 255, 0))
            base = round(shape.size * 1.1 * zoom)
            draw_.Draw(strip).text((zoom, base), shape.words, font=font, fill=shape.colour, anchor="ls")
            turned = strip.rotate(90, expand=True)
            x, y = at(shape.at)
            before = {"start": long, "middle": long / 2, "end": 0.0}[shape.anchor]
            canvas.paste(turned, (round(x - base), round(y - before)), turned)


def _dashes(a: Point, b: Point, zoom: int) -> list[tuple[Point, Point]]:
    """Return the dashes of a line from a to b: 7 units long, 5 apart."""
    length = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5 or 1.0
    found, done = [], 0.0
    while done < length:
        ends = [min(1.0, each / length) for each in (done, done + 7 * zoom)]
        found.append(tuple((a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for t in ends))
        done += 12 * zoom
    return found  # type: ignore[return-value]
