"""Prompt accuracy: whether a generated image shows what its prompt says."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sd.shapes.caption import parse
from sd.shapes.data import FRESH, example
from sd.shapes.reader import agrees, describe_image

Generate = Callable[[Sequence[str], Sequence[int]], Sequence[npt.NDArray[Any]]]
"""Prompts and seeds to images, uint8 of shape (width, width, 3)."""


def fresh_prompts(seed: int, count: int, held_out: bool = False) -> list[str]:
    """Prompts outside the training data; with `held_out`, of (color, shape) pairs outside it."""
    return [example(FRESH + seed, index, held_out).caption for index in range(count)]


def matches_prompt(image: npt.NDArray[Any], prompt: str) -> bool:
    """Whether all that the prompt names is in the image, and nothing else.

    Raises ValueError for a prompt outside the grammar of captions.
    """
    asked = parse(prompt)
    if asked is None:
        raise ValueError(f"prompt: wanted a caption of coloured shapes, got {prompt!r}")
    return agrees(describe_image(np.asarray(image)), asked)


def evaluate_prompts(
    generate: Generate, asked: Sequence[str], first_seed: int = 0, batch: int = 50
) -> list[bool]:
    """Whether each prompt is matched; prompt i has seed `first_seed + i`, `batch` at a time."""
    verdicts: list[bool] = []
    for start in range(0, len(asked), batch):
        some = asked[start : start + batch]
        images = generate(some, range(first_seed + start, first_seed + start + len(some)))
        verdicts += [matches_prompt(*pair) for pair in zip(images, some, strict=True)]
    return verdicts
