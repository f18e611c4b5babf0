"""What a network is trained on: captioned shapes, or a folder of captioned images."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor

from sd.shapes.caption import caption
from sd.shapes.data import FRESH, described, example, fingerprint
from sd.shapes.scene import Scene
from sd.train.contrastive_pairs import Pairs, contrastive_pairs
from sd.train.folder import Folder

__all__ = ["Own", "Shapes", "Source", "Split", "images"]

Images = UInt8[Tensor, "batch 3 side side"]
JUDGED_PAIRS = 256
"""Pairs in a batch that evaluates the text encoder."""


@runtime_checkable
class Source(Protocol):
    """Numbered images of one size with captions, of which some are for evaluation alone.

    Attributes:
        side: of the images in pixels.
        balanced: whether each image is a few things on a plain background (see `vae_loss`).
        fingerprint: identifies the data.
    """

    @property
    def side(self) -> int: ...

    @property
    def balanced(self) -> bool: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def pairing(self) -> str:
        """Identifies how pairs are made, where that is no part of the fingerprint."""

    def images(self, indices: Sequence[int]) -> Images:
        """The images of these numbers."""

    def order(self, first: int, count: int) -> Sequence[int]:
        """The numbers of examples `first` to `first + count` of an endless training."""

    @property
    def count(self) -> int:
        """The images that a U-Net learns from, by their numbers 0, 1, ..."""

    def chosen(self, rng: np.random.Generator, step: int, size: int) -> npt.NDArray[np.int64]:
        """The numbers below `count` of the images of one step of a U-Net's training."""

    def caption(self, index: int, rng: np.random.Generator) -> str:
        """A caption of image `index`."""

    def pairs(self, step: int, size: int, own: slice = slice(None)) -> Pairs:
        """The pairs of one step of a contrastive training; only those in `own` have images."""

    def fresh(self, count: int) -> Images:
        """At most `count` images outside the training."""

    def judged(self) -> Mapping[str, Callable[[int], Pairs]]:
        """Batches of pairs outside the training, by the name of their figures."""


def images(seed: int, indices: Sequence[int], held_out: bool = False) -> Images:
    """Images of captioned shapes as uint8, shape (batch, 3, height, width)."""
    return _batch([example(seed, index, held_out).image for index in indices])


def scenes(seed: int, count: int) -> list[Scene]:
    """The scenes of the first images of captioned shapes."""
    return [described(seed, index)[0] for index in range(count)]


def _batch(stack: Sequence[npt.NDArray[np.uint8]]) -> Images:
    return torch.from_numpy(np.stack(stack)).permute(0, 3, 1, 2).contiguous()


@final
@dataclass(frozen=True)
class Shapes:
    """The endless data set of captioned shapes with this seed.

    Attributes:
        count: as in `Source`.
        two: the share of images with two things in a U-Net's training.
    """

    seed: int = 0
    count: int = 50_000
    two: float = 0.5
    side: int = 64
    balanced: bool = True

    @property
    def fingerprint(self) -> str:
        return fingerprint()

    @property
    def pairing(self) -> str:
        return _pairing()

    def images(self, indices: Sequence[int]) -> Images:
        return images(self.seed, indices)

    def order(self, first: int, count: int) -> Sequence[int]:
        return range(first, first + count)

    @cached_property
    def scenes(self) -> list[Scene]:
        """The scenes of the images."""
        return scenes(self.seed, self.count)

    @cached_property
    def _by_things(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The images with one thing, and with two."""
        things = np.array([len(scene.things) for scene in self.scenes])
        return np.flatnonzero(things == 1), np.flatnonzero(things == 2)

    def chosen(self, rng: np.random.Generator, step: int, size: int) -> npt.NDArray[np.int64]:
        one, two = self._by_things
        twos = rng.binomial(size, self.two)
        return np.concatenate([rng.choice(two, twos), rng.choice(one, size - twos)])

    def caption(self, index: int, rng: np.random.Generator) -> str:
        return caption(self.scenes[index], rng)

    def pairs(self, step: int, size: int, own: slice = slice(None), alike: float = 0.5) -> Pairs:
        """As `Source.pairs`; a share `alike` is in groups of four hard negatives."""
        return contrastive_pairs(self.seed, step, size, alike, own)

    def fresh(self, count: int) -> Images:
        return images(FRESH, range(count))

    def judged(self) -> Mapping[str, Callable[[int], Pairs]]:
        """Independent images, and groups that differ in a single respect."""
        fresh = partial(Shapes(FRESH).pairs, size=JUDGED_PAIRS)
        return {"fresh": partial(fresh, alike=0.0), "fresh_alike": partial(fresh, alike=1.0)}


class Split(NamedTuple):
    """The images of a training on one's own: of which folder, the share held out, and mirroring."""

    folder: str
    share: float
    flip: bool

    @property
    def written(self) -> str:
        """As the settings of a training have it."""
        return f"{self.folder} {self.share} {self.flip}"

    @classmethod
    def read(cls, text: object) -> "Split | None":
        """The inverse of `written`; None for anything else."""
        folder, *rest = str(text).rsplit(" ", 2)
        if len(rest) != 2 or rest[1] not in ("True", "False"):
            return None
        try:
            return cls(folder, float(rest[0]), rest[1] == "True")
        except ValueError:
            return None


@final
@dataclass(frozen=True)
class Own:
    """A folder's images, some of them held out.

    Attributes:
        folder: the images.
        share: of the images that are held out, rounded; equal images are all in or all out.
        flip: add each image of the training mirrored, under numbers after all others.
        seed: of the order of the images.
    """

    folder: Folder
    share: float = 0.0
    flip: bool = False
    seed: int = 0
    balanced: bool = False
    pairing: str = ""

    @property
    def side(self) -> int:
        return self.folder.side

    @cached_property
    def fingerprint(self) -> str:
        return Split(self.folder.fingerprint, self.share, self.flip).written

    @cached_property
    def _split(self) -> tuple[list[int], list[int]]:
        """The indices of the training, and those held out: those of the first digests."""
        digests = self.folder.digests
        first = sorted(set(digests))
        out = set(first[: round(self.share * len(first))])
        own = [i for i, digest in enumerate(digests) if digest not in out]
        return own, [i for i, digest in enumerate(digests) if digest in out]

    @property
    def trained(self) -> list[int]:
        """The images of the training, by their places in the folder."""
        return self._split[0]

    @property
    def held_out(self) -> list[int]:
        """The images held out, by their places in the folder."""
        return self._split[1]

    @property
    def count(self) -> int:
        """The number of images of the training, mirrored ones among them."""
        return len(self.trained) * (2 if self.flip else 1)

    def images(self, indices: Sequence[int]) -> Images:
        return _batch([self._image(index) for index in indices])

    def order(self, first: int, count: int) -> Sequence[int]:
        """Every image once, in random order, before any comes again."""
        places = (divmod(place, self.count) for place in range(first, first + count))
        return [int(_shuffled(self.seed, epoch, self.count)[at]) for epoch, at in places]

    def chosen(self, rng: np.random.Generator, step: int, size: int) -> npt.NDArray[np.int64]:
        return np.array(self.order(step * size, size))

    def caption(self, index: int, rng: np.random.Generator) -> str:
        """One of the image's captions at random."""
        said = self.folder.captions[self._place(index)]
        return said[int(rng.integers(len(said)))]

    def pairs(self, step: int, size: int, own: slice = slice(None)) -> Pairs:
        """As `Source.pairs`; a caption is true of every image that has it in the folder."""
        rng = np.random.default_rng([self.seed, step, size])
        chosen = self.order(step * size, size)
        said = [self.caption(index, rng) for index in chosen]
        drawn = [self._image(index) for index in chosen[own]]
        return self._pairs([self._place(index) for index in chosen], said, drawn, own)

    def fresh(self, count: int) -> Images:
        some = self.held_out[:count]
        none = torch.zeros((0, 3, self.side, self.side), dtype=torch.uint8, device="cpu")
        return _batch([self.folder.image(index) for index in some]) if some else none

    def judged(self) -> Mapping[str, Callable[[int], Pairs]]:
        """Held-out images with their first captions, if there are two or more."""
        some = self.held_out[:JUDGED_PAIRS]
        said = [self.folder.captions[index][0] for index in some]

        def held_out(step: int) -> Pairs:
            drawn = [self.folder.image(index) for index in some]
            return self._pairs(some, said, drawn, slice(None))

        return {"held_out": held_out} if len(some) > 1 else {}

    def _place(self, index: int) -> int:
        return self.trained[index % len(self.trained)]

    def _image(self, index: int) -> npt.NDArray[np.uint8]:
        image = self.folder.image(self._place(index))
        return image[:, ::-1] if index >= len(self.trained) else image

    def _pairs(
        self,
        places: Sequence[int],
        said: list[str],
        drawn: list[npt.NDArray[np.uint8]],
        own: slice,
    ) -> Pairs:
        true = [[text in self.folder.captions[place] for text in said] for place in places]
        return Pairs(np.stack(drawn), said[own], np.array(true))


@cache
def _pairing() -> str:
    """A digest of groups of hard negatives."""
    alike = contrastive_pairs(0, 0, 32, 1.0)
    digest = hashlib.sha256(alike.images.tobytes() + "\n".join(alike.captions).encode())
    return digest.hexdigest()[:16]


@lru_cache(4)
def _shuffled(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 2, epoch]).permutation(count)
