"""The data set: an endless, numbered list of captioned images."""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from sd.shapes.caption import caption
from sd.shapes.render import Image, render
from sd.shapes.scene import Scene, sample_scene

FRESH = 1_000_000_000
"""Data sets with this seed or a larger one are for evaluation; no training uses them."""


@dataclass(frozen=True)
class Example:
    """An image (width, width, 3) of uint8, its caption, and the scene that both show."""

    image: Image
    caption: str
    scene: Scene


def example(seed: int, index: int, held_out: bool = False, width: int = 64) -> Example:
    """Example `index` of the data set `seed`: the same arguments always give the same example.

    With `held_out` at least one thing is of a (color, shape) pair that no other example contains.
    Raises ValueError for a negative seed or index.
    """
    scene, words = described(seed, index, held_out)
    return Example(render(scene, width), words, scene)


def described(seed: int, index: int, held_out: bool = False) -> tuple[Scene, str]:
    """The scene and the caption of an example, without its image. Raises as `example`."""
    if seed < 0 or index < 0:
        raise ValueError(f"seed, index: wanted integers of at least 0, got {seed}, {index}")
    rng = np.random.default_rng([seed, index, int(held_out)])
    scene = sample_scene(rng, held_out)
    return scene, caption(scene, rng)


@cache
def fingerprint(count: int = 64) -> str:
    """The first digits of a SHA-256 over `count` examples, which identifies the data set."""
    found = hashlib.sha256()
    for index in range(count):
        one = example(0, index)
        found.update(one.image.tobytes())
        found.update(one.caption.encode())
    return found.hexdigest()[:16]
