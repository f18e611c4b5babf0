"""Batches of (image, caption) pairs for contrastive training, with hard negatives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sd.shapes.caption import Description, caption, describe, parse
from sd.shapes.data import described
from sd.shapes.render import render
from sd.shapes.scene import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT,
    INVERSE,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    sample_scene,
)

__all__ = ["Pairs", "alter", "contrastive_pairs", "truths"]

GROUP = 4
"""Scenes in a group of nearly alike ones."""

_TURNED = {"left of": "above", "above": "left of", "right of": "below", "below": "right of"}
_ABSENT, _UNSAID = -2, -1


@dataclass(frozen=True)
class Pairs:
    """Images (own, 64, 64, 3) of uint8, their captions, and which caption is true of which image.

    `true[i, j]`: caption j of the batch is true of image i of the batch.
    """

    images: npt.NDArray[np.uint8]
    captions: list[str]
    true: npt.NDArray[np.bool_]


def contrastive_pairs(
    seed: int, step: int, size: int, alike: float, own: slice = slice(None)
) -> Pairs:
    """The pairs of one step: new examples, and a share `alike` in groups of four hard negatives.

    Each group is one scene and three changes of it: colours or shapes swapped between the two
    things, the scene mirrored or turned, one attribute changed. They differ only in the binding of
    colour to shape or of shape to place, which they teach (compare Yuksekgonul et al. 2023,
    arXiv:2210.01936). Held-out pairs never occur. The same arguments give the same pairs.
    Only the pairs in `own` have their image and caption in the result; `true` is of all.

    Raises ValueError for a share outside [0, 1].
    """
    if not 0.0 <= alike <= 1.0:
        raise ValueError(f"alike: wanted a number in [0, 1], got {alike}")
    groups = round(size * alike / GROUP)
    examples = [described(seed, step * size + i) for i in range(size - groups * GROUP)]
    scenes, captions = [scene for scene, _ in examples], [words for _, words in examples]
    rng = np.random.default_rng([seed, step, size])
    for _ in range(groups):
        first = sample_scene(rng)
        for scene in (first, *(alter(first, rng) for _ in range(GROUP - 1))):
            scenes.append(scene)
            captions.append(caption(scene, rng))
    images = [render(scene) for scene in scenes[own]]
    return Pairs(np.stack(images), captions[own], truths(scenes, captions))


def alter(scene: Scene, rng: np.random.Generator) -> Scene:
    """A random scene that differs from the given one in a single respect.

    After twenty changes without an effect, or to a held-out pair, it is a new scene.
    """
    for _ in range(20):
        other = _alter(scene, rng)
        pairs = [(thing.color, thing.shape) for thing in other.things]
        new = describe(other) != describe(scene)
        if new and len(set(pairs)) == len(pairs) and not HELD_OUT.intersection(pairs):
            return other
    return sample_scene(rng)


def _alter(scene: Scene, rng: np.random.Generator) -> Scene:
    """One random change; it may have no effect, or give a held-out pair."""
    things, relation = list(scene.things), scene.relation
    change = int(rng.integers(8 if relation is not None else 4))
    one = int(rng.integers(len(things)))
    if change == 0:
        return replace(scene, background=str(rng.choice(list(BACKGROUNDS))))
    if change == 1:
        things[one] = replace(things[one], color=str(rng.choice(list(COLORS))))
    elif change == 2:
        things[one] = replace(things[one], shape=str(rng.choice(SHAPES)))
    elif change == 3:  # only smaller: a thing that grows might leave the image
        radius = SIZES["small"] / SIZES[things[one].size] * things[one].radius
        things[one] = replace(things[one], size="small", radius=radius)
    elif change == 4:
        a, b = things
        things = [replace(a, color=b.color), replace(b, color=a.color)]
    elif change == 5:
        a, b = things
        things = [replace(a, shape=b.shape), replace(b, shape=a.shape)]
    elif change == 6 and relation is not None:  # mirror
        axis = "x" if relation in ("left of", "right of") else "y"
        things = [replace(thing, **{axis: -getattr(thing, axis)}) for thing in things]
        relation = INVERSE[relation]
    elif relation is not None:  # turn
        things = [replace(thing, x=thing.y, y=thing.x) for thing in things]
        relation = _TURNED[relation]
    return Scene(tuple(things), relation, scene.background)


def truths(scenes: Sequence[Scene], captions: Sequence[str]) -> npt.NDArray[np.bool_]:
    """`[i, j]`: caption j is true of scene i, and has its number of things.

    "a left of b" and "b right of a" are equal. Raises ValueError for text outside the grammar.
    """
    facts = np.array([_code(describe(scene)) for scene in scenes])
    said = []
    for text in captions:
        description = parse(text)
        if description is None:
            raise ValueError(f"captions: wanted captions of coloured shapes, got {text!r}")
        said.append(_code(description))
    claims = np.array(said)
    agree = (claims[None] == facts[:, None]) | (claims[None] == _UNSAID)
    return np.asarray(agree.all(axis=-1))


def _code(description: Description) -> list[int]:
    """A description as integers: -1 for what it does not name, -2 for no second thing."""
    things, relation = description.things, description.relation
    if relation in ("right of", "below"):
        things, relation = things[::-1], INVERSE[relation]
    code = [_UNSAID if description.background is None else _BACKGROUND[description.background]]
    code.append(_ABSENT if relation is None else RELATIONS.index(relation))
    for thing in things:
        size = _UNSAID if thing.size is None else _SIZE[thing.size]
        code += [SHAPES.index(thing.shape), _COLOR[thing.color], size]
    return code + [_ABSENT] * (8 - len(code))


_BACKGROUND = {name: i for i, name in enumerate(BACKGROUNDS)}
_COLOR = {name: i for i, name in enumerate(COLORS)}
_SIZE = {name: i for i, name in enumerate(SIZES)}
