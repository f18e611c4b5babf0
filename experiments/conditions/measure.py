"""Scenes, prompts that agree with their maps or contradict them, and the images of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL.Image import Image
from tqdm import tqdm

from experiments.common.model import draw
from sd import control_map
from sd.control import Control
from sd.networks.controlnet import ControlNet
from sd.pipeline import TextToImage
from sd.shapes.accuracy import matches_prompt
from sd.shapes.caption import Description, Mention, parse, phrase
from sd.shapes.data import FRESH, described
from sd.shapes.placement import NEAR, placement_errors, shows_map
from sd.shapes.scene import COLORS, HELD_OUT, SHAPES, Scene
from sd.shapes.semantic import class_map

SEED = FRESH + 17
"""The data set of the scenes: no other experiment evaluates on it."""


@dataclass(frozen=True)
class Case:
    """A map's scene, and a prompt; the place in the list is the seed of the noise."""

    scene: Scene
    prompt: str
    seed: int

    @property
    def hint(self) -> Image:
        """The map as an image."""
        return control_map.of_scene(self.scene)


@dataclass(frozen=True)
class Outcome:
    """One image: whether it shows its prompt, whether its map, and each thing's distance from its
    place in the map, in pixels."""

    image: Image
    prompt: bool
    map: bool
    errors: list[float]

    @property
    def placed(self) -> list[bool]:
        """Whether each thing is in its place."""
        return [error <= NEAR for error in self.errors]


def agreeing(count: int) -> list[Case]:
    """Scenes with their own captions."""
    return [Case(*described(SEED, index), index) for index in range(count)]


def other_shapes(case: Case) -> Case:
    """The same with a prompt whose things have other shapes, of (color, shape) pairs that training
    has, and not two of one pair."""
    said, rng = _read(case), np.random.default_rng([SEED, case.seed, 1])
    things: list[Mention] = []
    for thing in said.things:
        pairs = [(one.color, one.shape) for one in things]
        free = [
            shape
            for shape in SHAPES
            if shape not in {one.shape for one in said.things}
            and (thing.color, shape) not in HELD_OUT
            and (thing.color, shape) not in pairs
        ]
        things.append(replace(thing, shape=free[int(rng.integers(len(free)))]))
    return replace(case, prompt=phrase(replace(said, things=tuple(things))))


def other_number(case: Case) -> Case:
    """The same with a prompt of the first of two things, or of another thing right of the one."""
    said, rng = _read(case), np.random.default_rng([SEED, case.seed, 2])
    (first, *rest) = said.things
    if rest:
        return replace(case, prompt=phrase(Description((first,), None, said.background)))
    pairs = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if (color, shape) not in HELD_OUT and color != first.color
    ]
    color, shape = pairs[int(rng.integers(len(pairs)))]
    things = (replace(first, size=None), Mention(shape, color))
    return replace(case, prompt=phrase(Description(things, "left of", said.background)))


def mapped(
    pipeline: TextToImage, network: ControlNet, cases: Sequence[Case], bar: "tqdm[Any]"
) -> list[Outcome]:
    """The images of the prompts with the maps, at the model's own setting."""
    found = []
    for case in cases:
        control = Control(network, case.hint)
        found += draw(pipeline, [case.prompt], [case.seed], bar, controls=[control])
    return _read_images(found, cases)


def plain(pipeline: TextToImage, cases: Sequence[Case], bar: "tqdm[Any]") -> list[Outcome]:
    """The images of the same prompts and noise without the maps, compared with the maps too."""
    prompts, seeds = [case.prompt for case in cases], [case.seed for case in cases]
    return _read_images(draw(pipeline, prompts, seeds, bar), cases)


def _read_images(images: Sequence[Image], cases: Sequence[Case]) -> list[Outcome]:
    found = []
    for image, case in zip(images, cases, strict=True):
        pixels, labels = np.asarray(image), class_map(case.scene)
        right, errors = matches_prompt(pixels, case.prompt), placement_errors(pixels, labels)
        found.append(Outcome(image, right, shows_map(pixels, labels), errors))
    return found


def _read(case: Case) -> Description:
    said = parse(case.prompt)
    assert said is not None  # a caption of the data set
    return said
