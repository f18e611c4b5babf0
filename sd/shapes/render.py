"""Scenes to pixels, anti-aliased by coverage: exact along a scan line, `LINES` lines a row."""

import numpy as np
import numpy.typing as npt

from sd.shapes.outline import POLYGONS, ROUND
from sd.shapes.scene import BACKGROUNDS, COLORS, Scene, Thing

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

LINES = 8
"""Scan lines per row of pixels."""


def render(scene: Scene, width: int = 64) -> Image:
    """Draw the scene: every pixel is background + coverage (color - background), rounded.

    Returns an array (width, width, 3) of uint8. Raises ValueError for a width below 8.
    """
    if width < 8:
        raise ValueError(f"width: wanted at least 8 pixels, got {width}")
    background = np.array(BACKGROUNDS[scene.background], dtype=np.float64)
    image = np.empty((width, width, 3), dtype=np.uint8)
    image[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        rows, columns, share = coverage(thing, width)
        contrast = np.array(COLORS[thing.color], dtype=np.float64) - background
        patch = image[rows, columns]
        patch[:] = np.rint(patch + share[:, :, None] * contrast)
    return image


def coverage(thing: Thing, width: int) -> tuple[slice, slice, Floats]:
    """The share of each pixel that the thing covers, inside its bounding box only.

    Returns the box's rows and columns, cut at the image's edge, and the shares in [0, 1], an
    array (rows, columns).
    """
    half = width / 2
    x, y, radius = half * (1 + thing.x), half * (1 + thing.y), half * thing.radius
    across, down = half * thing.half_extent[0], half * thing.half_extent[1]
    top, bottom = max(0, int(np.floor(y - down))), min(width, int(np.ceil(y + down)))
    left, right = max(0, int(np.floor(x - across))), min(width, int(np.ceil(x + across)))
    lines = (np.arange(top * LINES, bottom * LINES) + 0.5) / LINES
    edges = x + radius * _crossings(thing.shape, (lines - y) / radius)
    # The part of pixel p left of an edge e is clip(e - p, 0, 1); edges 2k and 2k + 1 enclose shape.
    behind = edges[:, :, None] - np.arange(left, right, dtype=np.float64)
    np.minimum(np.maximum(behind, 0.0, out=behind), 1.0, out=behind)
    inside = (behind[1::2] - behind[::2]).sum(axis=0)
    share = inside.reshape(bottom - top, LINES, right - left).mean(axis=1)
    return slice(top, bottom), slice(left, right), share


def _crossings(shape: str, y: Floats) -> Floats:
    """Where the outline crosses the scan lines: an array (even, lines), sorted, padded by inf."""
    if shape in ROUND:
        outer, inner = ROUND[shape]
        far = np.sqrt(np.maximum(outer**2 - y**2, 0.0))
        if inner == 0.0:
            return np.stack([-far, far])
        near = np.sqrt(np.maximum(inner**2 - y**2, 0.0))
        return np.stack([-far, -near, near, far])
    start = POLYGONS[shape]
    end = np.roll(start, -1, axis=0)
    x0, y0, x1, y1 = (column[:, None] for column in (*start.T, *end.T))
    crossed = (y0 <= y) != (y1 <= y)  # half open: a corner counts once
    slope = (x1 - x0) / np.where(y1 == y0, 1.0, y1 - y0)
    edges = np.sort(np.where(crossed, x0 + (y - y0) * slope, np.inf), axis=0)
    most = int(crossed.sum(axis=0).max(initial=0))
    return np.asarray(edges[: max(most, 2)])
