"""Random scenes: one or two coloured shapes on a plain background.

Lengths are in half widths of the image: it spans [-1, 1] in x (to the right) and y (downwards).
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sd.shapes.outline import HALF_EXTENT

Rgb = tuple[int, int, int]
T = TypeVar("T")

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "ring", "cross")
COLORS: dict[str, Rgb] = {
    "red": (220, 40, 40),
    "orange": (245, 130, 30),
    "yellow": (245, 205, 40),
    "green": (40, 170, 70),
    "blue": (50, 90, 220),
    "purple": (150, 60, 190),
}
BACKGROUNDS: dict[str, Rgb] = {
    "white": (250, 250, 250),
    "gray": (150, 150, 150),
    "black": (20, 20, 20),
}
SIZES: dict[str, float] = {"small": 0.20, "large": 0.34}
"""Radius of each size in half widths, before the jitter."""
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
INVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {("purple", "star"), ("green", "ring"), ("orange", "cross"), ("blue", "triangle")}
)
"""(color, shape) pairs that no training scene contains; they test composition."""

JITTER = 0.05  # relative, of the radius
MARGIN = 0.05  # between a bounding box and the image's edge: 1.6 px of 64
GAP = 0.0875  # between two bounding boxes along the relation's axis: 2.8 px of 64
SLANT = 0.4  # greatest offset across the relation's axis, in offsets along it
TWO = 0.5  # share of scenes with two things

_PAIRS = tuple((color, shape) for color in COLORS for shape in SHAPES)
_SEEN = tuple(pair for pair in _PAIRS if pair not in HELD_OUT)
_UNSEEN = tuple(sorted(HELD_OUT))
_SIZES = tuple(SIZES)
_BACKGROUNDS = tuple(BACKGROUNDS)


@dataclass(frozen=True)
class Thing:
    """One shape; (x, y) is its bounding box's centre; x, y and radius are in half widths."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def half_extent(self) -> tuple[float, float]:
        """Half the width and half the height of the bounding box, in half widths of the image."""
        width, height = HALF_EXTENT[self.shape]
        return width * self.radius, height * self.radius


@dataclass(frozen=True)
class Scene:
    """One thing, or two, where things[0] is `relation` things[1], such as left of it."""

    things: tuple[Thing, ...]
    relation: str | None
    background: str


def sample_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """Sample a scene.

    Two things never share both color and shape, never touch, and never leave the image. With
    `held_out` at least one thing has a held-out (color, shape) pair; without it none has.
    """
    two = rng.random() < TWO
    first = _pick(rng, _UNSEEN if held_out else _SEEN)
    background = _pick(rng, _BACKGROUNDS)
    if not two:
        a = _thing(rng, first)
        width, height = a.half_extent
        x = rng.uniform(-1 + MARGIN + width, 1 - MARGIN - width)
        y = rng.uniform(-1 + MARGIN + height, 1 - MARGIN - height)
        return Scene((_moved(a, x, y),), None, background)
    second = first
    while second == first:
        second = _pick(rng, _PAIRS if held_out else _SEEN)
    if held_out and rng.random() < 0.5:
        first, second = second, first
    relation = _pick(rng, RELATIONS)
    things = _placed(rng, _thing(rng, first), _thing(rng, second), relation)
    return Scene(things, relation, background)


def _placed(rng: np.random.Generator, a: Thing, b: Thing, relation: str) -> tuple[Thing, Thing]:
    """Both things, placed so that `a` is in the relation to `b`, without rejection."""
    along = 0 if relation in ("left of", "right of") else 1
    sign = 1.0 if relation in ("left of", "above") else -1.0  # of b - a along the axis
    room = 2 - 2 * MARGIN
    reach = [p + q for p, q in zip(a.half_extent, b.half_extent, strict=True)]
    distance = rng.uniform(reach[along] + GAP, room - reach[along])
    slant = min(SLANT * distance, room - reach[1 - along])
    offset = [0.0, 0.0]
    offset[along], offset[1 - along] = sign * distance, rng.uniform(-slant, slant)
    start = []
    for p, q, step in zip(a.half_extent, b.half_extent, offset, strict=True):
        low = max(-1 + MARGIN + p, -1 + MARGIN + q - step)
        high = min(1 - MARGIN - p, 1 - MARGIN - q - step)
        start.append(rng.uniform(low, max(low, high)))  # max: rounding when the room is used up
    return _moved(a, start[0], start[1]), _moved(b, start[0] + offset[0], start[1] + offset[1])


def _thing(rng: np.random.Generator, pair: tuple[str, str]) -> Thing:
    size = _pick(rng, _SIZES)
    radius = SIZES[size] * rng.uniform(1 - JITTER, 1 + JITTER)
    return Thing(pair[1], pair[0], size, 0.0, 0.0, radius)


def _moved(thing: Thing, x: float, y: float) -> Thing:
    return Thing(thing.shape, thing.color, thing.size, x, y, thing.radius)


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]
