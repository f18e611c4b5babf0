import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sd.shapes.caption import describe, parse
from sd.shapes.data import example
from sd.shapes.reader import agrees
from sd.shapes.render import render

NUMBERS = st.integers(0, 2**31)


@given(NUMBERS, NUMBERS, st.booleans())
def test_an_example_is_determined_by_its_number(seed: int, index: int, held_out: bool) -> None:
    one, other = example(seed, index, held_out), example(seed, index, held_out)
    assert (one.scene, one.caption) == (other.scene, other.caption)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.image, render(one.scene))
    asked = parse(one.caption)
    assert asked is not None and agrees(describe(one.scene), asked)


def test_seed_index_and_kind_all_matter() -> None:
    scenes = {example(s, i, h).scene for s in range(10) for i in range(10) for h in (False, True)}
    assert len(scenes) == 200  # positions are continuous: two equal scenes are one scene twice


def test_the_picture_has_the_width_asked_for() -> None:
    assert example(0, 0, width=32).image.shape == (32, 32, 3)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_numbers_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match="seed, index: wanted integers of at least 0"):
        example(seed, index)
