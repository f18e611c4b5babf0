"""The shapes' outlines in units of the radius, y downwards, bounding box around the origin."""

import math

import numpy as np
import numpy.typing as npt

Vertices = npt.NDArray[np.float64]

_SQUARE = math.sqrt(math.pi) / 2  # half a side: a square of the circle's area
_TRIANGLE = 1.3  # circumradius
_STAR, _STAR_WAIST = 1.3, 0.45  # circumradius; inner over outer radius (0.382 in a pentagram)
_CROSS, _CROSS_ARM = 1.05, 0.36  # half a bar's length; its half width over half its length

ROUND: dict[str, tuple[float, float]] = {"circle": (1.0, 0.0), "ring": (1.05, 0.58)}
"""Shapes between two circles: outer and inner radius."""


def _spikes(radii: list[float]) -> Vertices:
    """Corners at these distances from the centre, at equal angles from the top; then centred."""
    angle = 2 * math.pi * np.arange(len(radii)) / len(radii)
    points = np.stack([np.sin(angle), -np.cos(angle)], axis=1) * np.asarray(radii)[:, None]
    return np.asarray(points - (points.min(axis=0) + points.max(axis=0)) / 2)


def _cross(a: float, w: float) -> Vertices:
    quarter = np.array([[w, -a], [w, -w], [a, -w]])
    corners = [
        quarter @ np.array([[math.cos(q), math.sin(q)], [-math.sin(q), math.cos(q)]])
        for q in (0.0, math.pi / 2, math.pi, 3 * math.pi / 2)
    ]
    return np.concatenate(corners)


POLYGONS: dict[str, Vertices] = {
    "square": _SQUARE * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]),
    "triangle": _spikes([_TRIANGLE] * 3),
    "star": _spikes([_STAR, _STAR * _STAR_WAIST] * 5),
    "cross": _cross(_CROSS, _CROSS * _CROSS_ARM),
}
"""Shapes with straight sides: corners in order, array (corners, 2) of x and y."""


def _half_extent(shape: str) -> tuple[float, float]:
    if shape in ROUND:
        return ROUND[shape][0], ROUND[shape][0]
    half = POLYGONS[shape].max(axis=0)
    return float(half[0]), float(half[1])


HALF_EXTENT: dict[str, tuple[float, float]] = {s: _half_extent(s) for s in (*ROUND, *POLYGONS)}
"""Half the width and half the height of each shape's bounding box."""


def area(shape: str) -> float:
    """Area of a shape of radius 1: pi (R^2 - r^2) of a round one, the shoelace sum of a polygon."""
    if shape in ROUND:
        outer, inner = ROUND[shape]
        return math.pi * (outer**2 - inner**2)
    x, y = POLYGONS[shape].T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
