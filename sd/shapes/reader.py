"""The rule-based image reader: describes things and their places from the pixels alone.

It shares no code with the renderer. It unmixes every pixel into background and one color, takes
connected components, and recognises shapes by their moments. With f the share of the color in a
pixel, A = sum f, z = (x + iy) around the centroid (y downwards):

    m   = sum f |z|^2 / A^2              how far the area is spread
    h_k = sum f z^k / A^(1 + k/2)        k-fold asymmetry, k = 2..5

The z^k are harmonic, so an isotropic blur changes neither A nor any h_k (the mean value property):
a blurred image, such as an autoencoder's output, has the same description.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sd.shapes.caption import Description, Mention
from sd.shapes.scene import BACKGROUNDS, COLORS, INVERSE, SIZES

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Of the ideal shapes: area at radius 1, m, Im h_3, Re h_4, Im h_5, and the hole's share of the
# filled area (only a ring has one; its m is (R^2 + r^2) / (2 pi (R^2 - r^2))).
IDEAL: dict[str, tuple[float, float, float, float, float, float]] = {
    "circle": (3.1416, 0.1592, 0.0, 0.0, 0.0, 0.0),
    "square": (3.1416, 0.1667, 0.0, -0.0167, 0.0, 0.0),
    "triangle": (2.1954, 0.1925, 0.0675, 0.0, 0.0, 0.0),
    "star": (2.2350, 0.1974, 0.0, 0.0, -0.0319, 0.0),
    "ring": (2.4068, 0.2989, 0.0, 0.0, 0.0, 0.3051),
    "cross": (2.6037, 0.1864, 0.0, 0.0257, 0.0, 0.0),
}
_SPREAD = np.array([0.03, 0.03, 0.03, 0.03, 0.008, 0.008, 0.012, 0.012, 0.10])
"""The unit of m, of the real and imaginary h_2..h_5 (h_2 as one), and of the hole's share."""
_SHAPE_LIMIT = 1.4  # greatest distance from an ideal, in `_SPREAD`s; two ideals differ by 2.08
_COLOR_LIMIT = 36.0  # greatest RGB distance from a color's line; two colors differ by 76 or more
_GROUND_LIMIT = 40.0  # greatest RGB distance from the background's color
_PURE = 0.75  # least share of a thing's inner pixels that have its color
_STRAY_LIMIT = 30.0  # greatest RGB distance from the ground, of 3 x 3 means, away from any thing
_STRAY = 12.0  # greatest number of pixels (of 64 x 64) that belong neither to ground nor to a thing
_REACH = 2.5  # how far, in pixels of 64, a thing's blurred edge may reach
_SLANT = 0.7  # greatest offset across a relation's axis, in offsets along it
_RADIUS = {"small": (0.15, 0.25), "large": (0.275, 0.42)}  # between the two: no size


@dataclass(frozen=True)
class Found:
    """A thing in the image; (x, y) is its centroid in half widths, from -1 to 1."""

    mention: Mention
    x: float
    y: float


def describe_image(image: npt.NDArray[Any]) -> Description | None:
    """The description of an image, or None if a part of it is unclear.

    Of two things the left or the upper one comes first. Their relation is None if they are diagonal
    to each other, and for three things or more. A size between small and large is None. Takes and
    raises what `find_things` does.
    """
    seen = find_things(image)
    if seen is None:
        return None
    background, found = seen
    if len(found) != 2:
        return Description(tuple(thing.mention for thing in found), None, background)
    a, b = found
    dx, dy = b.x - a.x, b.y - a.y
    relation = None
    if abs(dy) <= _SLANT * abs(dx):
        a, b = (a, b) if dx > 0 else (b, a)
        relation = "left of"
    elif abs(dx) <= _SLANT * abs(dy):
        a, b = (a, b) if dy > 0 else (b, a)
        relation = "above"
    return Description((a.mention, b.mention), relation, background)


def find_things(image: npt.NDArray[Any]) -> tuple[str, list[Found]] | None:
    """The background and all things of an image, at least one; None if a part of it is unclear.

    Takes an array (width, width, 3) of uint8. Raises ValueError for any other kind of array.
    """
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3:
        raise ValueError(f"image: wanted shape (width, width, 3), got {image.shape}")
    if image.dtype != np.uint8 or image.shape[0] < 32:
        got = f"{image.dtype} and width {image.shape[0]}"
        raise ValueError(f"image: wanted uint8 and a width of at least 32, got {got}")
    pixels = image.astype(np.float64)
    background, ground = _ground(pixels)
    found = None if background is None else _things(pixels - ground, ground)
    return (background, found) if background and found else None


def agrees(seen: Description | None, asked: Description) -> bool:
    """Whether `seen` has all that `asked` names, and as many things; the rest is free."""
    if seen is None or len(seen.things) != len(asked.things):
        return False
    if asked.background not in (None, seen.background):
        return False
    for order in permutations(range(len(seen.things))):
        turned = order != tuple(range(len(order)))
        relation = INVERSE[seen.relation] if turned and seen.relation else seen.relation
        if asked.relation in (None, relation) and all(
            _matches(seen.things[i], wanted) for i, wanted in zip(order, asked.things, strict=True)
        ):
            return True
    return False


def _matches(seen: Mention, asked: Mention) -> bool:
    same = (seen.shape, seen.color) == (asked.shape, asked.color)
    return same and asked.size in (None, seen.size)


def _ground(pixels: Floats) -> tuple[str | None, Floats]:
    """Name and measured color of the background, from the image's frame."""
    frame = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    ground = np.median(frame, axis=0)
    names = list(BACKGROUNDS)
    distance = np.linalg.norm(np.array([BACKGROUNDS[n] for n in names]) - ground, axis=1)
    nearest = int(distance.argmin())
    even = np.mean(np.linalg.norm(frame - ground, axis=1) < _GROUND_LIMIT)
    readable = distance[nearest] < _GROUND_LIMIT and even > 0.9
    return (names[nearest] if readable else None), np.asarray(ground)


def _unmix(contrast: Floats, ground: Floats, least: float, most: float) -> tuple[Floats, Floats]:
    """Every pixel as ground + f (color - ground), for each color: the best f, and what is left.

    Both of shape (..., colors); f is between `least` and `most`; what is left is an RGB distance.
    """
    lines = np.array(list(COLORS.values())) - ground
    along, length = contrast @ lines.T, np.sum(lines**2, axis=1)
    share = np.clip(along / length, least, most)
    left = np.sum(contrast**2, axis=-1, keepdims=True) - share * (2 * along - share * length)
    return share, np.sqrt(np.maximum(left, 0.0))


def _things(contrast: Floats, ground: Floats) -> list[Found] | None:
    """All things in an image less its ground; None where one is unclear."""
    scale = contrast.shape[0] / 64
    share, left = _unmix(contrast, ground, 0.0, 1.1)
    best = np.take_along_axis(share, left.argmin(axis=-1)[..., None], axis=-1)[..., 0]
    labels, _ = ndimage.label(best > 0.5, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    labels[np.isin(labels, np.flatnonzero(sizes <= _STRAY * scale**2))] = 0
    if not labels.any():
        return None
    distance, nearest = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    near = distance <= _REACH * scale
    smooth = ndimage.uniform_filter(contrast, (3, 3, 0))  # a ghost is wide, noise is not
    stray = (distance > (_REACH + 1) * scale) & (np.linalg.norm(smooth, axis=-1) > _STRAY_LIMIT)
    if stray.sum() > _STRAY * scale**2:
        return None
    owner = np.where(near, labels[nearest[0], nearest[1]], 0)
    found = []
    for label in np.unique(labels[labels > 0]):
        thing = _thing(contrast, ground, labels == label, owner == label)
        if thing is None:
            return None
        found.append(thing)
    return found


def _thing(contrast: Floats, ground: Floats, solid: Bools, support: Bools) -> Found | None:
    """The thing with the pixels `solid`, whose blurred edges stay within `support`."""
    color = _color(contrast, ground, solid)
    if color is None:
        return None
    line = np.array(COLORS[color]) - ground
    rows, columns = np.nonzero(support)
    share = contrast[rows, columns] @ line / (line @ line)
    half = contrast.shape[0] / 2
    area = float(share.sum())
    x, y = float(share @ columns) / area, float(share @ rows) / area
    z = (columns - x) + 1j * (rows - y)
    filled = ndimage.binary_fill_holes(solid)
    hole = 1 - solid.sum() / filled.sum()
    shape = _shape(share, z, area, float(hole))
    if shape is None:
        return None
    radius = float(np.sqrt(area / IDEAL[shape][0])) / half
    if not min(low for low, _ in _RADIUS.values()) < radius < max(h for _, h in _RADIUS.values()):
        return None
    size = next((s for s in SIZES if _RADIUS[s][0] <= radius <= _RADIUS[s][1]), None)
    return Found(Mention(shape, color, size), (x + 0.5) / half - 1, (y + 0.5) / half - 1)


def _color(contrast: Floats, ground: Floats, solid: Bools) -> str | None:
    """The one color of the thing's inner pixels, or None where they differ or have none."""
    inner = ndimage.binary_erosion(solid)
    pixels = contrast[inner if inner.sum() >= 6 else solid]
    median = np.median(pixels, axis=0)
    _, left = _unmix(median, ground, 0.8, 1.05)
    color = int(left.argmin())
    _, each = _unmix(pixels, ground, 0.7, 1.1)
    pure = np.mean(each.argmin(axis=-1) == color)
    return list(COLORS)[color] if left[color] < _COLOR_LIMIT and pure >= _PURE else None


def features(share: Floats, z: npt.NDArray[np.complex128], area: float, hole: float) -> Floats:
    """m, |h_2|, Re h_3, Im h_3, Re h_4, Im h_4, Re h_5, Im h_5 and the hole's share."""
    m = float(share @ np.abs(z) ** 2) / area**2
    h = [complex(share @ z**k) / area ** (1 + k / 2) for k in (2, 3, 4, 5)]
    parts = [part for value in h[1:] for part in (value.real, value.imag)]
    return np.array([m, abs(h[0]), *parts, hole])


def _shape(share: Floats, z: npt.NDArray[np.complex128], area: float, hole: float) -> str | None:
    """The shape whose ideal moments are nearest, or None where none is near."""
    seen = features(share, z, area, hole)
    distance = {
        name: float(np.linalg.norm((seen - np.array([m, 0, 0, h3, h4, 0, 0, h5, gap])) / _SPREAD))
        for name, (_, m, h3, h4, h5, gap) in IDEAL.items()
    }
    nearest = min(distance, key=lambda name: distance[name])
    return nearest if distance[nearest] < _SHAPE_LIMIT else None
