"""Captions of scenes, written and parsed by one small grammar.

prompt     = thing [relation thing] ["on a" background "background"]
thing      = ["a" | "an"] [size] color shape
relation   = "left of" | "right of" | "above" | "below"
"""

from dataclasses import dataclass

import numpy as np

from sd.shapes.scene import BACKGROUNDS, COLORS, RELATIONS, SHAPES, SIZES, Scene

OMIT = 0.3
"""Probability that a caption leaves out a thing's size; and, independently, the background."""

VOCABULARY: tuple[str, ...] = (
    "a", "an", "on", "background", "left", "right", "of", "above", "below",
    *SIZES, *COLORS, *SHAPES, *BACKGROUNDS,
)  # fmt: skip
"""Every word a caption can contain."""


@dataclass(frozen=True)
class Mention:
    """A thing in a caption; `size` is None if the caption does not name it."""

    shape: str
    color: str
    size: str | None = None


@dataclass(frozen=True)
class Description:
    """The content of a caption; None for what it does not name.

    things[0] is `relation` things[1], such as left of it.
    """

    things: tuple[Mention, ...]
    relation: str | None = None
    background: str | None = None


def describe(scene: Scene) -> Description:
    """The full description of the scene."""
    things = tuple(Mention(t.shape, t.color, t.size) for t in scene.things)
    return Description(things, scene.relation, scene.background)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption of the scene; each size and the background is omitted with probability `OMIT`."""
    things = tuple(
        Mention(t.shape, t.color, None if rng.random() < OMIT else t.size) for t in scene.things
    )
    background = None if rng.random() < OMIT else scene.background
    return phrase(Description(things, scene.relation, background))


def phrase(description: Description) -> str:
    """The caption of a description; `parse` is the inverse."""
    words = [_noun(description.things[0])]
    if description.relation is not None:
        words += [description.relation, _noun(description.things[1])]
    if description.background is not None:
        words.append(f"on a {description.background} background")
    return " ".join(words)


def parse(text: str) -> Description | None:
    """The description in a prompt, or None if it is not of this grammar.

    Letter case, spacing, a closing full stop, and the choice between "a", "an" and no article do
    not matter.
    """
    words = text.lower().strip().removesuffix(".").split()
    background = None
    if words[-1:] == ["background"]:
        if words[-4:-2] not in (["on", "a"], ["on", "an"]) or words[-2] not in BACKGROUNDS:
            return None
        background, words = words[-2], words[:-4]
    first, words = _take(words)
    if first is None or not words:
        return None if first is None else Description((first,), None, background)
    relation = next((r for r in RELATIONS if words[: len(r.split())] == r.split()), None)
    if relation is None:
        return None
    second, words = _take(words[len(relation.split()) :])
    if second is None or words:
        return None
    return Description((first, second), relation, background)


def _noun(thing: Mention) -> str:
    words = " ".join(word for word in (thing.size, thing.color, thing.shape) if word is not None)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _take(words: list[str]) -> tuple[Mention | None, list[str]]:
    """The thing that the words begin with, and the words after it."""
    if words and words[0] in ("a", "an"):
        words = words[1:]
    size = words[0] if words and words[0] in SIZES else None
    rest = words[1:] if size else words
    if len(rest) < 2 or rest[0] not in COLORS or rest[1] not in SHAPES:
        return None, words
    return Mention(rest[1], rest[0], size), rest[2:]
