from collections import Counter
from collections.abc import Sequence

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
from tests.support.chance import Count, rare, rng

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


@pytest.mark.chance(1e-8, "a value a fifth as often as it should be")
def test_every_value_is_drawn_and_none_is_rare() -> None:
    """Fair shares of all values, each count of 10,000 scenes binomial.

    A second thing differs from the first, so the two are counted apart.
    """
    draws = rng(0)
    scenes = [sample_scene(draws) for _ in range(10_000)]
    pairs = {(c, s) for c in COLORS for s in SHAPES} - HELD_OUT
    seconds = [scene.things[1] for scene in scenes if scene.relation]
    choices: list[tuple[Sequence[object], Sequence[object]]] = [
        ([len(s.things) for s in scenes], (1, 2)),
        ([s.background for s in scenes], tuple(BACKGROUNDS)),
        ([s.relation for s in scenes if s.relation], RELATIONS),
        *(([(t.color, t.shape) for t in some], tuple(pairs))
          for some in ([s.things[0] for s in scenes], seconds)),
        *(([t.size for t in some], tuple(SIZES))
          for some in ([s.things[0] for s in scenes], seconds)),
    ]  # fmt: skip
    for found, values in choices:
        counts, share = Counter(found), 1 / len(values)
        assert set(counts) == set(values)
        bound = Count(len(found), share, 1e-9 / len(values))
        assert all(bound.holds(count) for count in counts.values())
        assert rare(bound.misses(share / 5))
    held_out = [drawn(seed, held_out=True) for seed in range(300)]
    first = {(s.things[0].color, s.things[0].shape) for s in held_out if s.relation}
    second = {(s.things[-1].color, s.things[-1].shape) for s in held_out if s.relation}
    assert first >= HELD_OUT and second >= HELD_OUT and first - HELD_OUT and second - HELD_OUT


@pytest.mark.parametrize("relation", RELATIONS)
def test_inverse_is_an_involution_without_fixed_point(relation: str) -> None:
    assert INVERSE[relation] != relation and INVERSE[INVERSE[relation]] == relation
