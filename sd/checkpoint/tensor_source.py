"""A file of tensors: its entries, and access to one tensor at a time."""

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
"""The longest text from a file in a message."""


@final
@dataclass(frozen=True)
class Entry:
    """The shape and dtype of a tensor, known before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


@final
@dataclass(frozen=True, eq=False)
class Source:
    """Tensors by name, memory-mapped.

    Attributes:
        path: the file, or the index of several files.
        entries: all its tensors.
        fetch: (name, rows) to those rows of the tensor, memory-mapped; None gives all rows.
        metadata: the metadata of the file.
        aside: its contents besides tensors, each with a description.
        release: frees the memory of tensors; they can be fetched again.
    """

    path: Path
    entries: Mapping[str, Entry]
    fetch: Callable[[str, slice | None], Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    aside: Mapping[str, str] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None

    def starts(self, prefix: str) -> bool:
        """Whether a name starts with the prefix."""
        return any(name.startswith(prefix) for name in self.entries)


def checkpoint_error(path: Path | str, what: str) -> ValueError:
    """A ValueError of one line with the path of the file."""
    return ValueError(f"checkpoint {printable(str(path))}: {printable(what)}")


def option(name: str, value: str | bool | None = None) -> str:
    """An option for a message: the flag of the command line, and the argument of `load`.

    Args:
        name: vae, config, prediction, ema or variant.
        value: the recommended value; None shows "...".
    """
    spelled = f"{name}={'...' if value is None else repr(value)}"
    word = {None: " ...", True: ""}.get(value, f" {value}")
    return f"--{name}{word} ({spelled} in Python)"


def printable(text: str) -> str:
    """The text without terminal commands, since names come from files of strangers."""
    return escaped(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
