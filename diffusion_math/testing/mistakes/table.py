"""What a formula depends on where it is no noise level: guidance scales, steps, points."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from diffusion_math.testing.mistakes.levels import Rows

__all__ = ["Table"]


@final
@dataclass(frozen=True, eq=False)
class Table:
    """Named columns with a row for each place, in `Levels`' stead.

    Attributes:
        times: the name of each row, as a message shows it: `w = 7.5`.
        columns: float64, each of shape (len(times),).
        eps: the relative rounding of the columns.
    """

    times: tuple[str, ...]
    columns: Mapping[str, Tensor]
    eps: float = 2.0**-52

    @property
    def rows(self) -> Rows:
        """Every row, which is a place of its own."""
        every = torch.arange(len(self.times), device="cpu")
        return Rows(every, every)

    def at(self, rows: Rows) -> Mapping[str, Tensor]:
        """The columns at these rows."""
        return {name: column[rows.t] for name, column in self.columns.items()}

    def rounding(self, eps: float) -> Tensor:
        """The relative rounding of each row's values."""
        return torch.full((len(self.times),), eps, dtype=torch.float64, device="cpu")

    def nudged(self, eps: float) -> "list[Table]":
        """The same with each column off by its rounding: one at a time, up and down."""
        return [
            replace(self, columns={**self.columns, name: column * (1 + sign * eps)})
            for name, column in self.columns.items()
            for sign in (1, -1)
        ]
