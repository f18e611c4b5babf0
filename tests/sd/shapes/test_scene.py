from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT,
    INVERSE,
    JITTER,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    sample_scene,
)

SEEDS = st.integers(0, 2**63 - 1)
PIXEL = 2 / 64  # a pixel of the 64 x 64 picture in half widths


def drawn(seed: int, held_out: bool = False) -> Scene:
    return sample_scene(np.random.default_rng(seed), held_out)


@given(SEEDS, st.booleans())
def test_things_are_named_sized_and_fully_inside(seed: int, held_out: bool) -> None:
    scene = drawn(seed, held_out)
    assert scene.background in BACKGROUNDS
    for thing in scene.things:
        assert thing.shape in SHAPES and thing.color in COLORS
        assert abs(thing.radius / SIZES[thing.size] - 1) <= JITTER + 1e-12
        width, height = thing.half_extent
        assert abs(thing.x) + width <= 1 - 1.5 * PIXEL
        assert abs(thing.y) + height <= 1 - 1.5 * PIXEL


@given(SEEDS, st.booleans())
def test_two_things_differ_keep_a_gap_and_stand_in_their_relation(seed: int, held: bool) -> None:
    scene = drawn(seed, held)
    if scene.relation is None:
        assert len(scene.things) == 1
        return
    a, b = scene.things
    assert (a.color, a.shape) != (b.color, b.shape)
    dx, dy = b.x - a.x, b.y - a.y
    along, across = {
        "left of": (dx, dy),
        "right of": (-dx, dy),
        "above": (dy, dx),
        "below": (-dy, dx),
    }[scene.relation]
    assert abs(across) <= 0.4 * along + 1e-12  # never near the diagonal: no other relation fits
    axis = 0 if scene.relation in ("left of", "right of") else 1
    assert along - a.half_extent[axis] - b.half_extent[axis] >= 2 * PIXEL


@given(SEEDS)
def test_held_out_pairs_are_never_in_training_and_always_in_the_held_out_scenes(seed: int) -> None:
    assert not HELD_OUT & {(t.color, t.shape) for t in drawn(seed).things}
    assert HELD_OUT & {(t.color, t.shape) for t in drawn(seed, held_out=True).things}


def test_every_value_is_drawn_and_none_is_rare() -> None:
    scenes = [drawn(seed) for seed in range(3000)]
    things = [thing for scene in scenes for thing in scene.things]
    pairs = Counter((t.color, t.shape) for t in things)
    assert set(pairs) == {(c, s) for c in COLORS for s in SHAPES} - HELD_OUT
    # Fair shares, each count binomial: six standard deviations, 45 counts, false alarm below 1e-7.
    counts = [
        (pairs, len(things), 32),
        (Counter(t.size for t in things), len(things), 2),
        (Counter(s.background for s in scenes), len(scenes), 3),
        (Counter(len(s.things) for s in scenes), len(scenes), 2),
        (Counter(s.relation for s in scenes if s.relation), len(things) - len(scenes), 4),
    ]
    for count, total, kinds in counts:
        mean = total / kinds
        for value in count.values():
            assert abs(value - mean) < 6 * np.sqrt(mean * (1 - 1 / kinds))
    held_out = [drawn(seed, held_out=True) for seed in range(300)]
    first = {(s.things[0].color, s.things[0].shape) for s in held_out if s.relation}
    second = {(s.things[-1].color, s.things[-1].shape) for s in held_out if s.relation}
    assert first >= HELD_OUT and second >= HELD_OUT and first - HELD_OUT and second - HELD_OUT


@pytest.mark.parametrize("relation", RELATIONS)
def test_inverse_is_an_involution_without_fixed_point(relation: str) -> None:
    assert INVERSE[relation] != relation and INVERSE[INVERSE[relation]] == relation
