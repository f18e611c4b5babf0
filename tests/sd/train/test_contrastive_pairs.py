"""Hard negatives by hand: each of the eight changes of a scene, and which scene is taken."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sd.shapes.scene import BACKGROUNDS, COLORS, SHAPES, Scene, Thing
from sd.train import contrastive_pairs
from sd.train.contrastive_pairs import alter, truths

A = Thing("ring", "red", "large", -0.5, 0.1, 0.35)
B = Thing("star", "blue", "small", 0.4, -0.2, 0.21)
BESIDE = Scene((A, B), "left of", "gray")
ALONE = Scene((A,), None, "gray")


class Chosen(np.random.Generator):
    """Gives the same change, thing and value again and again."""

    def __init__(self, change: int, thing: int = 0, value: str = "") -> None:
        super().__init__(np.random.PCG64(0))
        self.change, self.thing, self.value = change, thing, value
        self.asked: list[int] = []
        self.options: list[list[str]] = []

    def integers(self, high: int) -> int:
        self.asked.append(high)
        return self.thing if len(self.asked) % 2 == 0 else self.change

    def choice(self, options: Sequence[str]) -> str:
        self.options.append(list(options))
        return self.value


def changed(scene: Scene, change: int, thing: int = 0, value: str = "") -> Scene:
    rng = Chosen(change, thing, value)
    found = alter(scene, rng)
    assert rng.asked == [4 if scene.relation is None else 8, len(scene.things)]
    return found


@pytest.mark.parametrize("scene", [BESIDE, ALONE])
def test_one_attribute_of_one_thing_or_the_background_changes(scene: Scene) -> None:
    rest = scene.things[1:]
    assert changed(scene, 0, value="black") == replace(scene, background="black")
    yellow, cross = replace(A, color="yellow"), replace(A, shape="cross")
    assert changed(scene, 1, value="yellow") == replace(scene, things=(yellow, *rest))
    assert changed(scene, 2, value="cross") == replace(scene, things=(cross, *rest))
    found = changed(scene, 3)
    radius = pytest.approx(0.35 * 0.20 / 0.34, rel=1e-12)
    assert (found.things[0].size, found.things[0].radius) == ("small", radius)
    small = replace(found.things[0], size=A.size, radius=A.radius)
    assert replace(found, things=(small, *rest)) == scene


def test_the_other_thing_can_be_the_one_that_changes() -> None:
    green = replace(BESIDE, things=(A, replace(B, color="green")))
    assert changed(BESIDE, 1, thing=1, value="green") == green


def test_values_are_drawn_from_all_there_are() -> None:
    values = ("black", "green", "cross")
    for change, wanted in enumerate((BACKGROUNDS, COLORS, SHAPES)):
        rng = Chosen(change, 1, values[change])
        alter(BESIDE, rng)
        assert rng.options == [list(wanted)]


def test_colours_or_shapes_are_swapped() -> None:
    colours = (replace(A, color="blue"), replace(B, color="red"))
    shapes = (replace(A, shape="star"), replace(B, shape="ring"))
    assert changed(BESIDE, 4) == replace(BESIDE, things=colours)
    assert changed(BESIDE, 5) == replace(BESIDE, things=shapes)


@pytest.mark.parametrize(
    ("relation", "mirrored", "turned"),
    [
        ("left of", "right of", "above"),
        ("right of", "left of", "below"),
        ("above", "below", "left of"),
        ("below", "above", "right of"),
    ],
)
def test_a_scene_is_mirrored_along_its_relation_or_turned(
    relation: str, mirrored: str, turned: str
) -> None:
    """Mirrored: the coordinate of the relation gets the other sign. Turned: x and y swap."""
    scene = replace(BESIDE, relation=relation)
    sign = (-1, 1) if relation in ("left of", "right of") else (1, -1)
    flipped = tuple(replace(t, x=sign[0] * t.x, y=sign[1] * t.y) for t in (A, B))
    assert changed(scene, 6) == replace(scene, things=flipped, relation=mirrored)
    swapped = tuple(replace(t, x=t.y, y=t.x) for t in (A, B))
    assert changed(scene, 7) == replace(scene, things=swapped, relation=turned)


@pytest.mark.parametrize(
    ("scene", "change", "value"),
    [
        (BESIDE, 0, "gray"),  # as it was
        (replace(BESIDE, things=(A, replace(A, color="blue", x=0.4))), 1, "blue"),  # two alike
        (ALONE, 1, "green"),  # a held-out pair
    ],
)
def test_after_twenty_useless_changes_a_new_scene_is_drawn(
    scene: Scene, change: int, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(contrastive_pairs, "sample_scene", lambda rng: given.append(rng) or ALONE)
    rng = Chosen(change, 0, value)
    assert alter(scene, rng) is ALONE
    assert (len(rng.asked), given) == (2 * 20, [rng])


def test_below_is_above_the_other_way_round() -> None:
    scene = Scene((A, B), "above", "gray")
    claims = {
        "a blue star below a red ring": True,
        "a red ring above a blue star": True,
        "a red ring below a blue star": False,
        "a blue star right of a red ring": False,
    }
    assert truths([scene], list(claims))[0].tolist() == list(claims.values())
    other = Scene((B, A), "below", "gray")
    assert truths([other], list(claims))[0].tolist() == list(claims.values())
