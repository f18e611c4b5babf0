"""Class-index maps: what the renderer draws is what they say, and colours give the classes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.shapes.render import render
from sd.shapes.scene import BACKGROUNDS, COLORS, SHAPES, Scene, Thing, sample_scene
from sd.shapes.semantic import PALETTE, centroids, class_map, classes
from tests.support.chance import rng as generator

SEEDS = st.integers(0, 2**63 - 1)
TABLE = np.array(list(PALETTE.values()), dtype=np.uint8)


def test_the_classes_are_the_background_and_the_shapes() -> None:
    assert tuple(PALETTE) == ("background", *SHAPES)


@given(SEEDS, st.sampled_from([32, 64, 96]))
def test_a_pixel_has_the_class_of_what_covers_half_of_it(seed: int, width: int) -> None:
    """Seen in the image: a pixel is then no farther from the thing's color than from the ground's.

    Colors are rounded to whole levels, so a pixel within a level of the middle may be either.
    """
    scene = sample_scene(np.random.default_rng(seed))
    image, labels = render(scene, width).astype(np.float64), class_map(scene, width)
    ground = np.array(BACKGROUNDS[scene.background], dtype=np.float64)
    covered = np.zeros(labels.shape, dtype=bool)
    for thing in scene.things:
        line = np.array(COLORS[thing.color]) - ground
        share = (image - ground) @ line / (line @ line)
        on_line = np.linalg.norm(image - ground - share[..., None] * line, axis=2) < 2
        own = labels == 1 + SHAPES.index(thing.shape)
        doubt = 2 / np.linalg.norm(line)
        if len({one.shape for one in scene.things}) == len(scene.things):
            assert (share[own] >= 0.5 - doubt).all()
        covered |= on_line & (share > 0.5 + doubt)
    assert (labels[covered] > 0).all()
    assert set(np.unique(labels)) == {0, *(1 + SHAPES.index(one.shape) for one in scene.things)}


def test_a_map_says_neither_colors_nor_the_background() -> None:
    maps = [
        class_map(Scene((Thing("star", color, "large", 0.1, 0.2, 0.3),), None, background))
        for color, background in (("red", "white"), ("blue", "black"))
    ]
    assert np.array_equal(*maps)


@given(SEEDS)
def test_colors_give_the_classes_back(seed: int) -> None:
    """Also where each channel is off by 34: a distance of 59 from the class's color."""
    rng = np.random.default_rng(seed)
    labels = class_map(sample_scene(rng))
    image = TABLE[labels]
    assert np.array_equal(classes(image), labels)
    near = np.clip(image + rng.integers(-34, 35, image.shape), 0, 255).astype(np.uint8)
    assert np.array_equal(classes(near), labels)


def test_a_color_far_from_all_is_named_with_its_place() -> None:
    image = TABLE[np.zeros((64, 48), dtype=int)]
    image[7, 30], image[9, 2] = (128, 0, 0), (90, 90, 90)
    with pytest.raises(
        ValueError, match=r"circle \(255, 0, 0\).*\(128, 0, 0\) in row 7, column 30"
    ):
        classes(image)


@pytest.mark.parametrize("shape", ["circle", "square", "ring", "cross"])
def test_the_centroid_of_a_symmetric_shape_is_its_centre(shape: str) -> None:
    """Up to the pixels that are whole in the map: less than half of one."""
    rng = generator(0)
    for _ in range(20):
        x, y = rng.uniform(-0.5, 0.5, 2)
        scene = Scene((Thing(shape, "red", "large", x, y, 0.34),), None, "white")
        ((found, u, v),) = centroids(class_map(scene))
        assert found == shape and np.hypot(u - 32 * (1 + x), v - 32 * (1 + y)) < 1 / 2


def test_two_regions_of_one_class_are_two() -> None:
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[10:20, 10:20] = labels[40:50, 30:34] = 2
    assert centroids(labels) == [("square", 15.0, 15.0), ("square", 32.0, 45.0)]
    assert centroids(labels * 0) == []
