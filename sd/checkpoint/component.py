"""One network in a file: the names of its tensors there, and counts from their shapes."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from sd.checkpoint.component_config import ComponentConfig
from sd.checkpoint.key_map import Skeleton, ema_key, file_key
from sd.checkpoint.tensor_source import Source, checkpoint_error
from sd.validation import MOST_BLOCKS, MOST_LEVELS

__all__ = ["CALLED", "KINDS", "Component"]

KINDS = {"text_encoder": "text encoder", "vae": "VAE", "unet": "U-Net"}
"""The networks of a model, and their names in messages."""
CALLED = {**KINDS, "controlnet": "ControlNet"}
"""All networks, and their names in messages."""
Shape = tuple[int, ...]


@final
@dataclass(frozen=True, eq=False)
class Component:
    """A network's tensors in a source.

    Attributes:
        kind: one of `CALLED`.
        layout: one of `sd.checkpoint.key_map.LAYOUTS` for the kind.
        prefix: the prefix of each name in the file.
        source: the file.
        settings: the component's config.json, in a diffusers folder.
        ema: whether to read the moving averages of the original layout in place of the weights.
    """

    kind: str
    layout: str
    prefix: str
    source: Source
    settings: ComponentConfig | None = None
    ema: bool = False

    @cached_property
    def _places(self) -> dict[str, tuple[str, int | None]]:
        """The cache of `where`."""
        return {}

    @cached_property
    def own(self) -> tuple[str, ...]:
        """The names in the file, without the prefix."""
        start = len(self.prefix)
        return tuple(n[start:] for n in self.source.entries if n.startswith(self.prefix))

    @cached_property
    def skeleton(self) -> Skeleton:
        """The counts of the network, by its names.

        Raises ValueError if they exceed those of any model, since work grows with their product.
        """
        found = self._counts()
        if found.levels > MOST_LEVELS or found.layers > MOST_BLOCKS:
            counted = f"{found.levels} levels of {found.layers} blocks"
            limits = f"{MOST_LEVELS} and {MOST_BLOCKS}"
            raise checkpoint_error(
                self.source.path, f"its {CALLED[self.kind]} has {counted}, above {limits}"
            )
        if self.kind not in ("unet", "controlnet"):
            return found
        modules = [f"down_blocks.{i}.attentions.0" for i in range(found.levels)]
        return replace(found, attention=tuple(self._holds(one, found) for one in modules))

    def attends_in_the_middle(self) -> bool:
        """Whether the middle block of a U-Net has attention."""
        return self._holds("mid_block.attentions.0", self.skeleton)

    def _holds(self, module: str, bones: Skeleton) -> bool:
        """Whether a tensor of our module is in the file."""
        start = file_key(self.kind, self.layout, module, bones).name
        return any(name.startswith(f"{start}.") for name in self.own)

    def _counts(self) -> Skeleton:
        if self.kind == "text_encoder":
            return Skeleton()
        if self.kind == "vae":
            levels, blocks = (
                (r"encoder\.down\.(\d+)\.", r"encoder\.down\.0\.block\.(\d+)\.")
                if self.layout == "original"
                else (
                    r"encoder\.down_blocks\.(\d+)\.",
                    r"encoder\.down_blocks\.0\.resnets\.(\d+)\.",
                )
            )
            return Skeleton(self.count(blocks), self.count(levels))
        if self.layout == "original":
            levels = 1 + self.count(r"input_blocks\.(\d+)\.0\.op\.")
            layers = max(0, self.count(r"input_blocks\.(\d+)\.") - levels) // levels
        else:
            levels = self.count(r"down_blocks\.(\d+)\.")
            layers = self.count(r"down_blocks\.0\.resnets\.(\d+)\.")
        return Skeleton(layers, levels)

    def count(self, pattern: str) -> int:
        """The number of different values of the pattern's group in the names."""
        matches = (re.match(pattern, name) for name in self.own)
        return len({found[1] for found in matches if found})

    def where(self, name: str) -> tuple[str, int | None]:
        """The name of our tensor in the file, and its third if it is packed there."""
        known = self._places.get(name)
        if known is None:
            found = file_key(self.kind, self.layout, name, self.skeleton)
            there = ema_key(found.name) if self.ema else self.prefix + found.name
            known = self._places[name] = (there, found.third)
        return known

    def valid_shapes(self, name: str, shape: Shape) -> tuple[Shape, ...]:
        """The valid shapes in the file for our tensor of that shape, the usual one first."""
        _, third = self.where(name)
        if third is not None:
            return ((3 * shape[0], *shape[1:]),)
        pixelwise = self.kind == "vae" and ".attentions." in name and len(shape) == 2
        if pixelwise and self.layout == "original":
            return ((*shape, 1, 1), (*shape, 1), shape)
        return (shape,)

    def read(self, name: str, shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Our tensor of that shape: memory-mapped, or a copy if dtype or device differ."""
        there, third = self.where(name)
        rows = None if third is None else slice(third * shape[0], (third + 1) * shape[0])
        return self.source.fetch(there, rows).reshape(shape).to(device, dtype)

    def shape(self, name: str) -> Shape | None:
        """The shape in the file of the tensor that contains ours, or None."""
        entry = self.source.entries.get(self.where(name)[0])
        return None if entry is None else entry.shape

    def number(self, what: str, places: Iterable[tuple[str, int]]) -> int:
        """The size of most of these (name, axis), so that one bad tensor does not count."""
        places = list(places)
        sizes = [(self.shape(name), axis) for name, axis in places]
        votes = Counter(s[axis] for s, axis in sizes if s is not None and -len(s) <= axis < len(s))
        if not votes:
            example = self.where(places[0][0])[0] if places else f"every {what}"
            raise checkpoint_error(
                self.source.path,
                f"its {CALLED[self.kind]} does not tell its {what}: {example} is missing",
            )
        return votes.most_common(1)[0][0]
