"""Whether the things of an image stand where a class-index map has them, by the image reader."""

import math
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from sd.shapes.reader import Found, find_things
from sd.shapes.semantic import Labels, centroids

NEAR = 2.0
"""Greatest distance in pixels between centroids at which a thing is in its place."""


def placement_errors(image: npt.NDArray[Any], labels: Labels) -> list[float]:
    """The distance in pixels from each region of a map to its thing in the image.

    Distances are between centroids. Things and regions are paired, whatever their shapes, so that
    the sum of distances is least. All are infinite if the reader finds another number of things
    than the map has regions, or can't read the image.
    """
    regions, things = centroids(labels), _things(image)
    if len(things) != len(regions):
        return [math.inf] * len(regions)
    return min((_distances(order, regions, image) for order in permutations(things)), key=sum)


def shows_map(image: npt.NDArray[Any], labels: Labels) -> bool:
    """Whether the image has the shapes of a map in their places, and nothing else."""
    regions, things = centroids(labels), _things(image)
    if len(things) != len(regions):
        return False
    return any(
        [thing.mention.shape for thing in order] == [shape for shape, *_ in regions]
        and max(_distances(order, regions, image)) <= NEAR
        for order in permutations(things)
    )


def _things(image: npt.NDArray[Any]) -> list[Found]:
    found = find_things(np.asarray(image))
    return [] if found is None else found[1]


def _distances(
    things: tuple[Found, ...], regions: list[tuple[str, float, float]], image: npt.NDArray[Any]
) -> list[float]:
    half = image.shape[0] / 2
    return [
        math.hypot(half * (1 + thing.x) - x, half * (1 + thing.y) - y)
        for thing, (_, x, y) in zip(things, regions, strict=True)
    ]
