"""Functions of rows, each row alone: worked on in blocks that fit a cache, and time by time."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Rows", "by_time", "in_blocks", "places"]

Rows: TypeAlias = Callable[[Tensor], Tensor]
"""A function of `(n, D)`, row by row."""

BLOCK = 2**18
"""Numbers in a block of intermediate results: 2 MiB in float64, a core's cache."""


def in_blocks(function: Rows, x: Tensor, width: int) -> Tensor:
    """`function(x)`, for intermediate results of `width` numbers a row, a block at a time."""
    blocks = torch.chunk(x, 1 + len(x) * width // BLOCK)
    return function(x) if len(blocks) == 1 else torch.cat([function(block) for block in blocks])


def by_time(at: Callable[[Tensor], Rows], x: Tensor, t: Tensor, width: int) -> Tensor:
    """`at(t)(x)` in blocks, t of shape `()` or `(batch,)`; rows that share a time go together."""
    if t.ndim == 0:
        return in_blocks(at(t), x, width)
    times, which = torch.unique(t, return_inverse=True)
    parts = [in_blocks(at(time), x[which == i], width) for i, time in enumerate(times)]
    return torch.cat(parts)[places(which)]


def places(group: Tensor) -> Tensor:
    """Where each row went when rows were gathered group by group: gathered[places] is in order."""
    return group.argsort(stable=True).argsort()
