"""The bytes of a file as memory-mapped tensors, whose pages are released after use."""

import mmap
from pathlib import Path
from typing import final

import torch
from torch import Tensor

__all__ = ["Mapped"]


@final
class Mapped:
    """A private memory map of a file: writes to tensors do not change the file."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:  # the map lives as long as its last tensor
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._last = slice(0, 0)

    def read(self, start: int, count: int, dtype: torch.dtype) -> Tensor:
        """A flat tensor of `count` entries from byte `start`; releases the pages of the last read.

        Released pages are read again when they are used again.
        """
        self._let_go(self._last)
        self._last = slice(start, start + count * dtype.itemsize)
        if not count:
            return torch.empty(0, dtype=dtype, device="cpu")
        return torch.frombuffer(self._data, dtype=dtype, count=count, offset=start)

    def release(self) -> None:
        """Release all pages."""
        self._let_go(slice(0, len(self._data)))

    def _let_go(self, span: slice) -> None:
        if hasattr(self._data, "madvise") and span.stop > span.start:
            first = span.start - span.start % mmap.PAGESIZE
            self._data.madvise(mmap.MADV_DONTNEED, first, span.stop - first)
