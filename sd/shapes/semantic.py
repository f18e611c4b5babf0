"""Class-index maps of scenes, and the colours that show them as images.

Class 0 is the background and class k is `SHAPES[k - 1]`. A map says which shape is where. It says
nothing of colors and sizes by name, nor of the background's color: those are the prompt's.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sd.shapes.render import coverage
from sd.shapes.scene import SHAPES, Rgb, Scene

Labels = npt.NDArray[np.uint8]

PALETTE: dict[str, Rgb] = {
    "background": (0, 0, 0),
    "circle": (255, 0, 0),
    "square": (0, 255, 0),
    "triangle": (0, 0, 255),
    "star": (255, 255, 0),
    "ring": (255, 0, 255),
    "cross": (0, 255, 255),
}
"""The color of each class in a map, in the order of the classes."""

_FAR = 60.0  # greatest RGB distance from a class's color; two of them differ by at least 255


def class_map(scene: Scene, width: int = 64) -> Labels:
    """The class of each pixel, (width, width): a shape's where it covers at least half of it."""
    labels = np.zeros((width, width), dtype=np.uint8)
    for thing in scene.things:
        rows, columns, share = coverage(thing, width)
        labels[rows, columns][share >= 0.5] = 1 + SHAPES.index(thing.shape)
    return labels


def classes(image: npt.NDArray[Any]) -> Labels:
    """The class of each pixel of a map in the colors of `PALETTE`: the nearest of them.

    Takes an array (height, width, 3) of uint8. Raises ValueError for a color that is far from all,
    such as one that an interpolation has mixed.
    """
    pixels = image.reshape(-1, 3)
    colors, place = np.unique(pixels, axis=0, return_inverse=True)
    known = np.array(list(PALETTE.values()), dtype=np.float64)
    distance = np.linalg.norm(colors[:, None].astype(np.float64) - known, axis=2)
    far = distance.min(axis=1) > _FAR
    if far.any():
        wanted = ", ".join(f"{name} {color}" for name, color in PALETTE.items())
        where = int(np.flatnonzero(far[place.ravel()])[0])
        row, column = divmod(where, image.shape[1])
        got = tuple(int(value) for value in pixels[where])
        raise ValueError(
            f"wanted colors of classes ({wanted}), got {got} in row {row}, column {column}"
        )
    nearest = distance.argmin(axis=1).astype(np.uint8)
    return nearest[place.ravel()].reshape(image.shape[:2])


def centroids(labels: Labels) -> list[tuple[str, float, float]]:
    """Shape and centroid (x, y), in pixels, of each connected region of one class.

    The centre of the pixel in row i and column j is (j + 0.5, i + 0.5).
    """
    found = []
    for number, shape in enumerate(SHAPES, 1):
        regions, count = ndimage.label(labels == number, structure=np.ones((3, 3)))
        for y, x in ndimage.center_of_mass(regions > 0, regions, range(1, count + 1)):
            found.append((shape, float(x) + 0.5, float(y) + 0.5))
    return found
