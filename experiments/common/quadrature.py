"""Densities of the plane: on a square to be drawn, in cells to be integrated and counted."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.toy import Density
from diffusion_math.schedule import Schedule, Time
from experiments.common.pearson import limit, pearson

LEAST_EXPECTED = 20
"""Draws that a cell must expect to count on its own in `chi_square`."""


def score_error(density: Density, schedule: Schedule, x: Tensor, t: Time) -> float:
    """The largest |score - grad log q_t| over x `(batch, 2)`, over 1 + the largest gradient."""
    at = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(density.log_density(schedule, at, t).sum(), at)
    off = (density.score(schedule, x, t) - gradient).abs().max()
    return float(off / (1 + gradient.abs().max()))


def density_over(first: Any, second: Any, density: Density, schedule: Schedule, t: Time) -> Any:
    """The exact density of x_t on first x second, rows along the second coordinate."""
    ys, xs = torch.meshgrid(torch.from_numpy(second), torch.from_numpy(first), indexing="ij")
    at = torch.stack([xs.flatten(), ys.flatten()], dim=1)
    return density.log_density(schedule, at, t).exp().reshape(len(second), -1).numpy()


def in_square(
    density: Density, schedule: Schedule, t: Time, reach: float, count: int
) -> tuple[Any, Any]:
    """A line from -reach to reach of so many points, and the density of x_t on line x line."""
    line = np.linspace(-reach, reach, count)
    return line, density_over(line, line, density, schedule, t)


class Rule(NamedTuple):
    """Points `(cells * order^2, 2)`, and the area `(cells * order^2,)` that each stands for."""

    points: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Cells:
    """A rectangle of the plane, cut into cells.

    Attributes:
        first, second: `(n + 1,)` and `(m + 1,)`, rising: the cells' edges along each axis.
    """

    first: Tensor
    second: Tensor

    def rule(self, order: int = 6) -> Rule:
        """Gauss and Legendre's points in every cell: polynomials of degree 2 order - 1 are exact.

        The points come cell by cell, the second coordinate's cells running faster.
        """
        nodes, weights = (torch.from_numpy(one) for one in np.polynomial.legendre.leggauss(order))
        (x, by_x), (y, by_y) = (
            (
                (edges[1:] + edges[:-1])[:, None] / 2 + edges.diff()[:, None] / 2 * nodes,
                edges.diff()[:, None] / 2 * weights,
            )
            for edges in (self.first, self.second)
        )
        shape = (len(x), len(y), order, order)
        points = torch.stack(
            [x[:, None, :, None].expand(shape), y[None, :, None, :].expand(shape)], dim=-1
        )
        areas = by_x[:, None, :, None] * by_y[None, :, None, :]
        return Rule(points.reshape(-1, 2), areas.reshape(-1))

    def sums(self, values: Tensor) -> Tensor:
        """Sums over each cell of values at a rule's points, `(n, m)`."""
        return values.reshape(len(self.first) - 1, len(self.second) - 1, -1).sum(2)

    def counts(self, points: Tensor) -> Tensor:
        """How many of the points lie in each cell, `(n, m)`; what lies outside is not counted."""
        n, m = len(self.first) - 1, len(self.second) - 1
        i, j = (
            torch.bucketize(column.contiguous(), edges, right=True) - 1
            for column, edges in zip(points.mT, (self.first, self.second), strict=True)
        )
        inside = (i >= 0) & (i < n) & (j >= 0) & (j < m)
        return torch.bincount((i * m + j)[inside], minlength=n * m).reshape(n, m)


class ChiSquare(NamedTuple):
    """Pearson's statistic of counts in cells, and the value it seldom passes."""

    value: float
    freedom: int
    limit: float

    def __str__(self) -> str:
        return f"{self.value:.0f} of {self.freedom} ({self.limit:.0f})"


def chi_square(
    cells: Cells, points: Tensor, probabilities: Tensor, false_alarm: float
) -> ChiSquare:
    """Are the points independent samples of what has these probabilities in the cells, `(n, m)`?

        sum (seen - expected)^2 / expected

    Cells that expect fewer than `LEAST_EXPECTED` draws are one, with all that is outside; if that
    one expects fewer too, it is part of the cell that expects least. The limit
    is passed with the probability `false_alarm` at most (`pearson.limit`).
    """
    seen, expected = cells.counts(points).double(), len(points) * probabilities
    enough = expected >= LEAST_EXPECTED
    each = torch.stack([seen[enough], expected[enough]])
    rest = len(points) - each.sum(1)
    if rest[1] >= LEAST_EXPECTED or each.shape[1] == 0:
        each = torch.cat([each, rest[:, None]], dim=1)
    else:  # too little for a cell of its own
        each[:, each[1].argmin()] += rest
    return ChiSquare(pearson(*each), each.shape[1] - 1, limit(each[1], false_alarm))


def cells_about(mixture: GaussianMixture, width: float = 2.0, most: int = 1000) -> Cells:
    """Cells that hold all but 1e-12 of a mixture, none wider than `width` of its least deviations.

    But no more than `most` along an axis. A component of a weight below 1e-14 may lie outside.
    """
    heavy = mixture.among((mixture.log_weights > -32.2).nonzero()[:, 0].tolist())
    C = heavy.covariances
    variances = torch.linalg.eigvalsh(C) if C.ndim == 3 else C
    largest, least = float(variances.max()) ** 0.5, float(variances.min()) ** 0.5
    low, high = heavy.means.amin(0) - 8 * largest, heavy.means.amax(0) + 8 * largest

    def edges(a: float, b: float) -> Tensor:
        count = min(most, 1 + int((b - a) / (width * least)))
        return torch.linspace(a, b, count + 1, dtype=torch.float64)

    return Cells(*(edges(float(a), float(b)) for a, b in zip(low, high, strict=True)))
