from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.shapes.outline import area
from sd.shapes.render import LINES, coverage, render
from sd.shapes.scene import BACKGROUNDS, COLORS, SHAPES, Scene, Thing, sample_scene

Array = npt.NDArray[Any]
THINGS = st.builds(
    Thing,
    st.sampled_from(SHAPES),
    st.sampled_from(sorted(COLORS)),
    st.just("large"),
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
    st.floats(0.19, 0.36),
)


def inside(shape: str, x: Array, y: Array) -> Array:
    """Membership in a shape of radius 1, from its definition and not from its outline."""
    across, down, from_centre = np.abs(x), np.abs(y), np.hypot(x, y)
    if shape == "circle":
        return from_centre < 1
    if shape == "ring":
        return (from_centre < 1.05) & (from_centre > 0.58)
    if shape == "square":
        return np.maximum(across, down) < np.sqrt(np.pi) / 2
    if shape == "cross":
        long, short = np.maximum(across, down), np.minimum(across, down)
        return (long < 1.05) & (short < 0.36 * 1.05)
    if shape == "triangle":
        y = y - 1.3 / 4  # the centroid lies a quarter of the circumradius below the box's centre
        return np.asarray((y < 1.3 / 2) & (np.sqrt(3) * across - y < 1.3))
    y = y - 1.3 * (1 - np.cos(np.pi / 5)) / 2
    turn = np.mod(np.arctan2(x, -y), 2 * np.pi / 5)
    turn = np.minimum(turn, 2 * np.pi / 5 - turn)  # off the nearest point, at most 36 degrees
    point, waist = 1.3, 1.3 * 0.45
    wedge = np.pi / 5  # a triangle: centre, point at angle 0, waist at angle 36 degrees
    limit = point * waist * np.sin(wedge)
    limit = limit / (waist * np.sin(wedge - turn) + point * np.sin(turn))
    return np.asarray(np.hypot(x, y) < limit)


@given(THINGS)
def test_coverage_is_the_share_of_each_pixel_inside_the_shape(thing: Thing) -> None:
    width, fine = 32, 24
    grid = ((np.arange(width * fine) + 0.5) / fine) * 2 / width - 1
    x, y = np.meshgrid((grid - thing.x) / thing.radius, (grid - thing.y) / thing.radius)
    exact = inside(thing.shape, x, y).reshape(width, fine, width, fine).mean(axis=(1, 3))
    drawn = np.zeros((width, width))
    rows, columns, share = coverage(thing, width)
    drawn[rows, columns] = share
    # A horizontal edge falls between scan lines: half a line. The test's own grid: half a cell, in
    # x and y. A shift by a quarter of a pixel gives 0.25 along every edge.
    assert np.abs(drawn - exact).max() <= 0.5 / LINES + 2 * 0.5 / fine + 1e-9
    assert np.abs(drawn - exact).mean() <= 3e-3


@given(THINGS, st.sampled_from([48, 64, 256]))
def test_coverage_adds_up_to_the_analytic_area(thing: Thing, width: int) -> None:
    _, _, share = coverage(thing, width)
    radius = thing.radius * width / 2
    assert share.min() >= 0 and share.max() <= 1 + 1e-12
    # Half a line's height along the top and the bottom, at most the box's width each.
    bound = 2 * (2 * thing.half_extent[0] * width / 2) * 0.5 / LINES
    assert abs(share.sum() - area(thing.shape) * radius**2) <= bound


@given(THINGS, st.sampled_from(sorted(BACKGROUNDS)))
def test_pixels_are_background_color_or_a_mix_of_both(thing: Thing, background: str) -> None:
    picture = render(Scene((thing,), None, background))
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    rows, columns, share = coverage(thing, 64)
    all_of_it = np.zeros((64, 64))
    all_of_it[rows, columns] = share
    assert (picture[all_of_it == 0] == BACKGROUNDS[background]).all()
    assert (picture[all_of_it > 1 - 1e-9] == COLORS[thing.color]).all()
    ground, color = np.array(BACKGROUNDS[background]), np.array(COLORS[thing.color])
    mix = ground + all_of_it[:, :, None] * (color - ground)
    assert np.abs(picture - mix).max() <= 0.5 + 1e-9  # rounded to the nearest, not cut off


@given(st.integers(0, 2**32))
def test_a_picture_is_its_larger_self_averaged(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed))
    small = render(scene, 64).astype(np.float64)
    large = render(scene, 256).astype(np.float64).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    # Half a scan line of the small picture and of the large, times the greatest contrast, rounded.
    assert np.abs(small - large).max() <= (0.5 + 0.5 / 4) / LINES * 230 + 1


@given(THINGS, st.integers(-3, 3), st.integers(-3, 3))
def test_moving_a_thing_by_whole_pixels_moves_the_picture(
    thing: Thing, right: int, down: int
) -> None:
    moved = replace(thing, x=thing.x + right / 32, y=thing.y + down / 32)
    a = render(Scene((thing,), None, "black")).astype(int)
    b = render(Scene((moved,), None, "black")).astype(int)
    # The move itself is rounded at 1e-16: a corner may change its scan line, one line of a pixel.
    difference = np.abs(np.roll(a, (down, right), axis=(0, 1)) - b)
    assert difference.max() <= 230 / LINES + 1 and np.count_nonzero(difference) <= 3 * 40


def test_a_width_that_shows_nothing_is_refused() -> None:
    scene = sample_scene(np.random.default_rng(0))
    with pytest.raises(ValueError, match="width: wanted at least 8 pixels, got 7"):
        render(scene, 7)
