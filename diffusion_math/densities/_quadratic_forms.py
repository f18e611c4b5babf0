"""Quadratic forms of many points and many Gaussians, by matrix products where accurate.

For points x_b and Gaussians N(alpha m_k, S_k), with P_k = S_k^-1 diagonal in a known basis,

    energy(x)_bk  = (x_b - alpha m_k)^T P_k (x_b - alpha m_k) / 2
    pull(r, x)_b  = sum_k r_bk P_k (alpha m_k - x_b)

A square expanded about a centre q costs two matrix products, but subtracts terms as large as
|alpha m_k - q|^2 P_k from each other. `forms` bounds that loss beforehand: where it may exceed
`ACCURACY`, differences are taken one Gaussian after the other. The choice depends on the Gaussians
alone, not on x. Both ways are plain tensor operations, so derivatives of any order exist.
Derivation: (mixture.13).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, final

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math._batching import sums
from diffusion_math.checks import require

__all__ = ["ACCURACY", "Differences", "Forms", "Means", "Products", "forms", "spectrum"]

ACCURACY = 1e-11
"""Error allowed to an energy by products, a dimension; relative where that is above 1."""


@final
@dataclass(frozen=True, eq=False)
class Means:
    """The m_k, `(K, D)`, and quantities that do not depend on alpha and P_k."""

    each: Float64[Tensor, "K D"]

    @cached_property
    @torch.inference_mode(False)
    def span(self) -> tuple[Tensor, Tensor]:
        """Centre and half width of the means' bounding box, `(D,)` each."""
        low, high = self.each.amin(0), self.each.amax(0)
        return (low + high) / 2, (high - low) / 2

    @cached_property
    @torch.inference_mode(False)
    def centred(self) -> Tensor:
        """Relative to the centre, `(K, D)`."""
        return self.each - self.span[0]

    @cached_property
    @torch.inference_mode(False)
    def squares(self) -> Tensor:
        """Their squared lengths, `(K,)`."""
        return self.centred.square().sum(1)


def forms(
    alpha: Float64[Tensor, ""],
    means: Means,
    precision: Float64[Tensor, "K _"],
    basis: Float64[Tensor, "K D D"] | None = None,
) -> "Forms":
    """The forms by products if their rounding error is below `ACCURACY`, else by differences.

    Args:
        alpha: the factor of the means.
        means: the m_k.
        precision: eigenvalues of P_k, `(K, 1)` if all are one, else `(K, D)`.
        basis: eigenvectors of P_k in columns; None for the coordinate axes.

    Derivation: (mixture.16).
    """
    centre, reach = (alpha * part for part in means.span)
    # Within 2 reach of the centre a term is at most 9 P reach^2 / 2; farther out an energy is at
    # least a ninth of its largest term. And alpha m_k is rounded by eps |centre|, which moves an
    # energy E by sqrt(2 E P) times as much.
    sharpest = precision.amax(0)
    of_terms = sharpest * reach * (5 * reach + centre.abs())
    of_means = sharpest.sqrt() * (centre.abs() + reach)
    lost = (of_terms + of_means).mean()
    if basis is None and bool(torch.finfo(lost.dtype).eps * lost <= ACCURACY):
        return Products.of(alpha, centre, means, precision)
    rounded = alpha * means.each
    return Differences(rounded, _product_error(alpha, means.each, rounded), precision, basis)


@final
@dataclass(frozen=True, eq=False)
class Products:
    """Expanded about the centre q: energy = p (R |y|^2 / 2 - alpha w^T y + alpha^2 w^T d / 2).

    Here y = x - q, d = m - q / alpha, P = p R and w = R d. The common factor of P_k's entries
    is stored in p, so no term is as large as the means when P_k = p I. Derivation: (mixture.14).
    """

    alpha: Tensor
    centre: Tensor
    scale: Tensor
    relative: Tensor
    weights: Tensor
    constant: Tensor

    @staticmethod
    def of(alpha: Tensor, centre: Tensor, means: Means, precision: Tensor) -> "Products":
        if precision.shape[1] == 1:
            scale, relative = precision[:, 0], torch.ones_like(precision)
            weights, squares = means.centred, means.squares
        else:
            scale, relative = torch.ones_like(precision[:, 0]), precision
            weights = precision * means.centred
            squares = torch.linalg.vecdot(weights, means.centred)
        return Products(alpha, centre, scale, relative, weights, alpha.square() * squares / 2)

    def energy(self, x: Tensor) -> Tensor:
        y = x - self.centre
        squares = y.square()
        if self.relative.shape[1] == 1:
            squares = sums(squares)[:, None]
        linear = torch.addmm(self.constant, self.alpha * y, self.weights.mT, alpha=-1)
        return self.scale * torch.addmm(linear, squares, self.relative.mT, alpha=0.5)

    def pull(self, r: Tensor, x: Tensor) -> Tensor:
        r = r * self.scale
        return self.alpha * (r @ self.weights) - (r @ self.relative) * (x - self.centre)


@final
@dataclass(frozen=True, eq=False)
class Differences:
    """x - alpha m_k to the last bit: alpha m_k is stored with its rounding error.

    Derivation: (mixture.17).
    """

    means: Tensor
    rest: Tensor
    precision: Tensor
    basis: Tensor | None

    def energy(self, x: Tensor) -> Tensor:
        each = [sums(self._difference(x, k).square() * P) / 2 for k, P in enumerate(self.precision)]
        return torch.stack(each, dim=1)

    def pull(self, r: Tensor, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for k, P in enumerate(self.precision):
            scaled = -P * self._difference(x, k)
            scaled = scaled if self.basis is None else scaled @ self.basis[k].mT
            total = total + r[:, k, None] * scaled
        return total

    def _difference(self, x: Tensor, k: int) -> Tensor:
        """x - alpha m_k, in the eigenbasis of P_k."""
        difference = (x - self.means[k]) - self.rest[k]
        return difference if self.basis is None else difference @ self.basis[k]


Forms: TypeAlias = Products | Differences
"""Either has `energy(x)` and `pull(r, x)`."""


def _product_error(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """a b - product exactly, product being a b rounded (Dekker 1971, by Veltkamp's splitting)."""
    high_a, high_b = (x * (2.0**27 + 1) - (x * (2.0**27 + 1) - x) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    return ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b


def spectrum(
    argument: str, C: Float64[Tensor, "K D D"]
) -> tuple[Float64[Tensor, "K D"], Float64[Tensor, "K D D"]]:
    """Eigenvalues, rising, and eigenvectors in columns; below D eps of the largest they are 0.

    That is right of a singular matrix, whose eigenvalues come out as rounding. A matrix that is
    singular in units of its own deviations, C_ij / sqrt(C_ii C_jj), is one by its entries' own say.
    Of another, as diag(1, 1e-18) turned a little, small eigenvalues exist and would be lost.

    Raises ValueError, naming the argument, where they would.
    """
    values, basis = _eigen(C)
    deviations = C.diagonal(dim1=1, dim2=2).abs().sqrt()
    scale = torch.where(deviations > 0, 1 / deviations, 0)
    alike, _ = _eigen(scale[:, :, None] * C * scale[:, None, :])
    there = (values == 0).sum(1) <= (alike == 0).sum(1)
    wanted = "eigenvalues within a factor of 1e15 (a diagonal, given as one, may have any)"
    require(bool(there.all()), argument, wanted, C)
    return values, basis


def _eigen(C: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, those within rounding of the largest as 0 (a diagonal has none), and vectors."""
    values, basis = torch.linalg.eigh(C)
    mixed = (C - torch.diag_embed(C.diagonal(dim1=1, dim2=2))).abs().amax((1, 2)) > 0
    rounding = C.shape[1] * torch.finfo(C.dtype).eps * values.abs().amax(1) * mixed
    return torch.where(values.abs() <= rounding[:, None], 0, values), basis
