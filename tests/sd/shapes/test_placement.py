"""The measure of positions, on images whose things are where the map has them, and elsewhere."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.shapes.placement import NEAR, placement_errors, shows_map
from sd.shapes.render import render
from sd.shapes.scene import Scene, Thing, sample_scene
from sd.shapes.semantic import class_map

SEEDS = st.integers(0, 2**63 - 1)
RED = Thing("circle", "red", "small", -0.4, 0.0, 0.2)
BLUE = Thing("square", "blue", "small", 0.4, 0.1, 0.2)
PAIR = Scene((RED, BLUE), "left of", "white")


@given(SEEDS)
def test_the_image_of_a_scene_has_the_places_of_its_map(seed: int) -> None:
    """The reader shares no code with the map: two centroids of one thing differ by rounding."""
    scene = sample_scene(np.random.default_rng(seed))
    image, labels = render(scene), class_map(scene)
    errors = placement_errors(image, labels)
    assert len(errors) == len(scene.things) and max(errors) < 0.7
    assert shows_map(image, labels)


@pytest.mark.parametrize("pixels", [1.0, 3.0, 8.0])
def test_a_moved_thing_is_off_by_as_many_pixels(pixels: float) -> None:
    moved = replace(PAIR, things=(RED, replace(BLUE, y=BLUE.y + pixels / 32)))
    image, labels = render(moved), class_map(PAIR)
    still, off = placement_errors(image, labels)
    assert still < 0.5 and off == pytest.approx(pixels, abs=0.5)
    assert shows_map(image, labels) == (pixels < NEAR)


def test_things_are_paired_with_the_nearest_regions_whatever_their_shapes() -> None:
    """Exchanged shapes are in the places of the map, but do not show it."""
    places = (replace(RED, x=BLUE.x, y=BLUE.y), replace(BLUE, x=RED.x, y=RED.y))
    image, labels = render(replace(PAIR, things=places)), class_map(PAIR)
    assert max(placement_errors(image, labels)) < 0.5
    assert not shows_map(image, labels)


def test_another_number_of_things_is_nowhere() -> None:
    alone = render(Scene((RED,), None, "white"))
    assert placement_errors(alone, class_map(PAIR)) == [math.inf, math.inf]
    assert placement_errors(render(PAIR), class_map(Scene((RED,), None, "white"))) == [math.inf]
    blank = np.full((64, 64, 3), 250, dtype=np.uint8)
    assert placement_errors(blank, class_map(PAIR)) == [math.inf, math.inf]
    assert not shows_map(blank, class_map(PAIR)) and not shows_map(alone, class_map(PAIR))
