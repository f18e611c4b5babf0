"""A file of tensors: what it says it holds, and its tensors one at a time."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sd.command_line.terminal import escaped

__all__ = ["Entry", "Source", "checkpoint_error", "option", "printable"]

LONGEST = 600
"""Characters of a line that a file's own words may fill."""


@final
@dataclass(frozen=True)
class Entry:
    """A tensor's shape and type, known before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


@final
@dataclass(frozen=True, eq=False)
class Source:
    """Tensors by name, memory-mapped.

    Attributes:
        path: the file, or the index of several.
        entries: every tensor in it.
        fetch: (name, rows) to those rows of the tensor, mapped, not copied; None is all rows.
        metadata: what the file says of itself.
        aside: what it holds besides tensors, each with a word on what that is.
        release: gives back the memory that tensors took; whoever asks for one again gets it.
    """

    path: Path
    entries: Mapping[str, Entry]
    fetch: Callable[[str, slice | None], Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None

    def starts(self, prefix: str) -> bool:
        """Whether a name starts so."""
        return any(name.startswith(prefix) for name in self.entries)


def checkpoint_error(path: Path | str, what: str) -> ValueError:
    """The one line that says what is wrong with a file."""
    return ValueError(f"checkpoint {printable(str(path))}: {printable(what)}")


def option(name: str, value: str | bool | None = None) -> str:
    """How to give an option: the flag of the command line, and the argument of `load`.

    Args:
        name: vae, config, prediction, ema or variant.
        value: that is advised; None leaves it to the user.
    """
    spelled = f"{name}={'...' if value is None else repr(value)}"
    word = {None: " ...", True: ""}.get(value, f" {value}")
    return f"--{name}{word} ({spelled} in Python)"


def printable(text: str) -> str:
    """A text without what would command a terminal: names come from files of strangers."""
    return escaped(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
