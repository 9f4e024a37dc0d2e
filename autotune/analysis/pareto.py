"""The Pareto front, and its hypervolume: the volume that the front dominates, bounded by a reference point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autotune.metrics import Direction


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[Direction]) -> bool:
    """Return whether a is nowhere worse than b, and better somewhere."""
    first, second = _losses(a, directions), _losses(b, directions)
    return first != second and all(x <= y for x, y in zip(first, second, strict=True))


def front(points: Sequence[Sequence[float | None]], directions: Sequence[Direction]) -> list[int]:
    """Return the indices of the points that no other dominates, in the order given.

    A point with a missing value (None, or not finite) is never on the front; equal points stay together.
    """
    wrong = next((len(point) for point in points if len(point) != len(directions) or not directions), None)
    if wrong is not None:
        raise ValueError(f"a point needs one value a direction, but got {wrong} for {len(directions)}")
    if not points:
        return []
    values = np.array(points, dtype=np.float64).reshape(-1, len(directions))  # None is nan there
    losses = values * [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    places = np.flatnonzero(np.isfinite(losses).all(axis=1))
    if not places.size:
        return []
    # In this order a point is dominated by an earlier one or by none, so that the front alone must be compared with.
    different, of = np.unique(losses[places] + 0.0, axis=0, return_inverse=True)  # -0 is 0
    best, on_front = np.empty_like(different), np.zeros(len(different), dtype=bool)
    count = 0
    for place, own in enumerate(different):
        if not (best[:count] <= own).all(axis=1).any():
            best[count] = own
            on_front[place] = True
            count += 1
    return [int(place) for place in places[on_front[of.reshape(-1)]]]


def hypervolume(
    points: Sequence[Sequence[float | None]], reference: Sequence[float], directions: Sequence[Direction]
) -> float:
    """Return the exact volume that the points dominate, bounded by `reference`, for any number of objectives.

    A point that is not better than the reference in every objective, or has a missing value, adds nothing.
    Source: a sweep in two dimensions, above that hypervolume by slicing objectives (While, Hingston, Barone
    and Huband, IEEE Trans. Evol. Comput. 10 (2006), 29-38).
    """
    bound = _losses(reference, directions)
    if not all(map(math.isfinite, bound)):
        raise ValueError(f"the reference must be finite, but got {tuple(reference)}")
    boxes = [
        tuple(limit - loss for limit, loss in zip(bound, _losses(known, directions), strict=True))
        for point in points
        if (known := _known(point)) is not None
    ]
    return _union([box for box in boxes if min(box) > 0])


def _known(point: Sequence[float | None]) -> list[float] | None:
    known = [value for value in point if value is not None and math.isfinite(value)]
    return known if len(known) == len(point) else None


def _losses(point: Sequence[float], directions: Sequence[Direction]) -> list[float]:
    """Return the point with every objective to be minimised."""
    if len(point) != len(directions) or not directions:
        raise ValueError(f"a point needs one value a direction, but got {len(point)} for {len(directions)}")
    return [-value if direction == "maximize" else value for value, direction in zip(point, directions, strict=True)]


def _union(boxes: Sequence[tuple[float, ...]]) -> float:
    """Return the volume of the union of boxes that reach from the origin to these corners (all positive)."""
    if not boxes:
        return 0.0
    if len(boxes[0]) == 1:
        return max(boxes)[0]
    volume = area = 0.0
    if len(boxes[0]) == 2:
        height = 0.0
        for x, y in sorted(boxes, reverse=True):
            if y > height:
                volume += x * (y - height)
                height = y
        return volume
    # From the top down: between neighbouring heights the section is the union of all boxes that reach there.
    ordered = sorted(boxes, key=lambda box: box[-1], reverse=True)
    section: list[tuple[float, ...]] = []
    for box, below in zip(ordered, [*(box[-1] for box in ordered[1:]), 0.0], strict=True):
        flat = box[:-1]
        if not any(_covers(other, flat) for other in section):
            section = [other for other in section if not _covers(flat, other)] + [flat]
            area = _union(section)
        volume += area * (box[-1] - below)
    return volume


def _covers(outer: tuple[float, ...], inner: tuple[float, ...]) -> bool:
    return all(x >= y for x, y in zip(outer, inner, strict=True))
