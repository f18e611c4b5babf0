"""Quadratic forms of many points and many Gaussians: products where they lose nothing.

For points x_b and Gaussians N(alpha m_k, S_k), with P_k = S_k^-1 diagonal in a known basis,

    energy(x)_bk  = (x_b - alpha m_k)^T P_k (x_b - alpha m_k) / 2
    pull(r, x)_b  = sum_k r_bk P_k (alpha m_k - x_b)

A square expanded about a centre q costs two matrix products, but subtracts terms as large as
|alpha m_k - q|^2 P_k from each other. `forms` weighs that loss beforehand: where it may pass
`ACCURACY`, differences are taken one Gaussian after the other. The choice looks at the Gaussians
alone, never at x, and both ways are plain tensor operations, so derivatives of any order exist.
Derivation: (oracle.13).
"""

from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math.rows import sums

__all__ = ["ACCURACY", "Differences", "Forms", "Products", "forms"]

ACCURACY = 1e-11
"""Error allowed to an energy by products, a dimension; relative where that is above 1."""


def forms(
    alpha: Float64[Tensor, ""],
    means: Float64[Tensor, "K D"],
    precision: Float64[Tensor, "K _"],
    basis: Float64[Tensor, "K D D"] | None = None,
) -> "Forms":
    """The forms by products if their rounding stays below `ACCURACY`, else by differences.

    Args:
        alpha: the factor of the means.
        means: `(K, D)`, the m_k.
        precision: eigenvalues of P_k, `(K, 1)` if all are one, else `(K, D)`.
        basis: eigenvectors of P_k in columns; None for the coordinate axes.

    Derivation: (oracle.16).
    """
    low, high = means.amin(0), means.amax(0)
    centre, reach = alpha * (low + high) / 2, alpha * (high - low) / 2
    # Within 2 reach of the centre a term is at most 9 P reach^2 / 2; farther out an energy is at
    # least a ninth of its largest term. And alpha m_k is rounded by eps |centre|, which moves an
    # energy E by sqrt(2 E P) times as much.
    sharpest = precision.amax(0)
    of_terms = sharpest * reach * (5 * reach + centre.abs())
    of_means = sharpest.sqrt() * (centre.abs() + reach)
    lost = (of_terms + of_means).mean()
    if basis is None and bool(torch.finfo(lost.dtype).eps * lost <= ACCURACY):
        apart = alpha * means - centre
        weights = precision * apart
        return Products(centre, precision, weights, torch.linalg.vecdot(weights, apart) / 2)
    rounded = alpha * means
    return Differences(rounded, _product_error(alpha, means, rounded), precision, basis)


@final
@dataclass(frozen=True, eq=False)
class Products:
    """Expanded about the centre q: P |x - q|^2 / 2 - w^T (x - q) + |w|^2 / (2 P), w = P (m - q).

    Derivation: (oracle.14).
    """

    centre: Tensor
    precision: Tensor
    weights: Tensor
    constant: Tensor

    def energy(self, x: Tensor) -> Tensor:
        y = x - self.centre
        squares = y.square()
        if self.precision.shape[1] == 1:
            squares = sums(squares)[:, None]
        linear = torch.addmm(self.constant, y, self.weights.mT, alpha=-1)
        return torch.addmm(linear, squares, self.precision.mT, alpha=0.5)

    def pull(self, r: Tensor, x: Tensor) -> Tensor:
        return r @ self.weights - (r @ self.precision) * (x - self.centre)


@final
@dataclass(frozen=True, eq=False)
class Differences:
    """x - alpha m_k to the last bit, the product alpha m_k being kept with what rounding took.

    Derivation: (oracle.17).
    """

    means: Tensor
    rest: Tensor
    precision: Tensor
    basis: Tensor | None

    def energy(self, x: Tensor) -> Tensor:
        each = [sums(self._apart(x, k).square() * P) / 2 for k, P in enumerate(self.precision)]
        return torch.stack(each, dim=1)

    def pull(self, r: Tensor, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for k, P in enumerate(self.precision):
            scaled = -P * self._apart(x, k)
            scaled = scaled if self.basis is None else scaled @ self.basis[k].mT
            total = total + r[:, k, None] * scaled
        return total

    def _apart(self, x: Tensor, k: int) -> Tensor:
        """x - alpha m_k, in the eigenbasis of P_k."""
        apart = (x - self.means[k]) - self.rest[k]
        return apart if self.basis is None else apart @ self.basis[k]


Forms: TypeAlias = Products | Differences
"""Either has `energy(x)` and `pull(r, x)`."""


def _product_error(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """a b - product exactly, product being a b rounded (Dekker 1971, by Veltkamp's splitting)."""
    high_a, high_b = (x * (2.0**27 + 1) - (x * (2.0**27 + 1) - x) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    return ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b
