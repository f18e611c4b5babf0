"""Gaussians with a full covariance: densities, distances, conditioning, products.

`gaussian.Gaussian` is the diagonal case, for events of any shape. Distances between nearly equal
Gaussians are computed from the difference of the covariances, without cancellation; W2 from a
difference of matrix roots, which is accurate for nearly singular covariances too.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import checked, require, same_shape, symmetric
from diffusion_math.densities._matrix_roots import polar, root

__all__ = [
    "Multivariate",
    "condition",
    "cross_entropy",
    "fisher_divergence",
    "kl",
    "product",
    "wasserstein2",
]


@final
@checked
@dataclass(frozen=True, eq=False)
class Multivariate:
    """N(mean, covariance), or a batch of them, in float64.

    A singular covariance is valid: such a Gaussian can be sampled from and has W2 distances, but
    no density. Raises ValueError where shapes disagree, a number is not finite, or a covariance is
    not symmetric or has a negative eigenvalue (beyond rounding).

    Attributes:
        mean: `(*batch, D)`.
        covariance: `(*batch, D, D)`.

    >>> import torch
    >>> import diffusion_math as dm
    >>> covariance = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> q = dm.densities.multivariate.Multivariate(torch.zeros(2), covariance)
    >>> q.sample(torch.tensor([1.0, 0.0])), q.score(torch.tensor([1.0, 0.0]))
    (tensor([1.3660, 0.3660], dtype=torch.float64), tensor([-0.6667,  0.3333], dtype=torch.float64))
    >>> q.log_density(torch.zeros(2)), q.entropy()
    (tensor(-2.3872, dtype=torch.float64), tensor(3.3872, dtype=torch.float64))
    """

    mean: Float[Tensor, "*batch D"]
    covariance: Float[Tensor, "*batch D D"]

    @torch.inference_mode(False)  # usable outside too
    def __post_init__(self) -> None:
        given, wanted = self.covariance, (*self.mean.shape, self.mean.shape[-1])
        for name in ("mean", "covariance"):
            value = getattr(self, name).to(torch.float64, copy=True)
            require(bool(value.isfinite().all()), name, "finite numbers", value)
            object.__setattr__(self, name, value)
        require(given.shape == wanted, "covariance", f"shape {tuple(wanted)}", tuple(given.shape))
        symmetric("covariance", given)
        C = self.covariance
        values = torch.linalg.eigvalsh(C)
        size = C.diagonal(dim1=-2, dim2=-1).abs().amax(dim=-1, keepdim=True)
        valid = bool((values >= -1e-12 * size).all())
        require(valid, "covariance", "no negative eigenvalue", values)

    @checked
    def sample(self, z: Float[Tensor, "*batch D"]) -> Float64[Tensor, "*batch D"]:
        """mean + C^{1/2} z: a sample where z, of mean's shape, is standard normal.

        Derivation: (multivariate.2).
        """
        same_shape("z", z, self.mean)
        return self.mean + (root(self.covariance) @ z.to(self.mean)[..., None])[..., 0]

    @checked
    def log_density(self, x: Float[Tensor, "*batch D"]) -> Float64[Tensor, "*batch"]:
        """log N(x; m, C) = -((x - m)^T C^-1 (x - m) + log det(2 pi C)) / 2, by Cholesky.

        Derivation: (multivariate.1).
        """
        L = _cholesky("covariance", self.covariance)
        return -(_squared(L, x.to(self.mean) - self.mean) + _log_det(L)) / 2 - self._constant

    @checked
    def score(self, x: Float[Tensor, "*batch D"]) -> Float64[Tensor, "*batch D"]:
        """grad_x log N(x; m, C) = -C^-1 (x - m) (claim C21). Derivation: (multivariate.2)."""
        L = _cholesky("covariance", self.covariance)
        difference = (x.to(self.mean) - self.mean)[..., None]
        return -torch.cholesky_solve(difference, L)[..., 0]

    def entropy(self) -> Float64[Tensor, "*batch"]:
        """-E[log N] = (D + log det(2 pi C)) / 2, in nats. Derivation: (multivariate.3)."""
        D = self.mean.shape[-1]
        return D / 2 + self._constant + _log_det(_cholesky("covariance", self.covariance)) / 2

    @property
    def _constant(self) -> float:
        return self.mean.shape[-1] / 2 * math.log(2 * math.pi)


@checked
def kl(q: Multivariate, p: Multivariate) -> Float64[Tensor, "*batch"]:
    """KL(q || p) in nats (claim C10: never negative).

        (m_q - m_p)^T C_p^-1 (m_q - m_p) / 2 + sum_i (d_i - log(1 + d_i)) / 2

    d_i are the eigenvalues of L^-1 (C_q - C_p) L^-T, C_p = L L^T: equal Gaussians give 0 exactly.
    Infinite where C_q is singular. Raises ValueError where shapes differ or C_p is singular.
    Derivation: (multivariate.5).

    >>> import torch
    >>> from diffusion_math.densities.multivariate import Multivariate, kl
    >>> q = Multivariate(torch.zeros(2), torch.eye(2))
    >>> p = Multivariate(torch.ones(2), 2 * torch.eye(2))
    >>> kl(q, p), kl(q, q)
    (tensor(0.6931, dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    same_shape("p.mean", p.mean, q.mean)
    L = _cholesky("p.covariance", p.covariance)
    d = torch.linalg.eigvalsh(_whitened(L, q.covariance - p.covariance)).clamp(min=-1)
    nats: Tensor = (_squared(L, q.mean - p.mean) + (d - torch.log1p(d)).sum(-1)) / 2
    return nats


@checked
def cross_entropy(q: Multivariate, p: Multivariate) -> Float64[Tensor, "*batch"]:
    """-E_q[log p] = (m^T C_p^-1 m + tr(C_p^-1 C_q) + log det(2 pi C_p)) / 2 at m = m_q - m_p.

    It is q's entropy plus KL(q || p), in nats. Raises ValueError where shapes differ or C_p is
    singular. Derivation: (multivariate.4).

    >>> import torch
    >>> from diffusion_math.densities.multivariate import Multivariate, cross_entropy
    >>> q = Multivariate(torch.zeros(2), torch.eye(2))
    >>> p = Multivariate(torch.ones(2), 2 * torch.eye(2))
    >>> cross_entropy(q, p)
    tensor(3.5310, dtype=torch.float64)
    """
    same_shape("p.mean", p.mean, q.mean)
    L = _cholesky("p.covariance", p.covariance)
    trace = _whitened(L, q.covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (_squared(L, q.mean - p.mean) + trace + _log_det(L)) / 2 + p._constant


@checked
def wasserstein2(q: Multivariate, p: Multivariate) -> Float64[Tensor, "*batch"]:
    """The 2-Wasserstein distance, singular covariances included.

        W2^2 = norm(m_q - m_p)^2 + min over orthogonal U of norm(A - B U)_F^2
        A A^T = C_q,    B B^T = C_p

    The minimum, at the polar factor U of B^T A, equals tr(C_q + C_p - 2 (A C_p A)^{1/2}) for the
    symmetric root A. Raises ValueError where shapes differ. Source: Dowson & Landau 1982; Bhatia,
    Jain & Lim (arXiv:1712.01504). Derivation: (multivariate.6), (multivariate.7).

    >>> import torch
    >>> from diffusion_math.densities.multivariate import Multivariate, wasserstein2
    >>> q = Multivariate(torch.zeros(2), torch.eye(2))
    >>> p = Multivariate(torch.ones(2), 4 * torch.eye(2))
    >>> wasserstein2(q, p)
    tensor(2., dtype=torch.float64)
    """
    same_shape("p.mean", p.mean, q.mean)
    A, B = root(q.covariance), root(p.covariance)
    spread = A - B @ polar(B.mT @ A)
    distance: Tensor = torch.cat([q.mean - p.mean, spread.flatten(-2)], -1).norm(dim=-1)
    return distance


@checked
def fisher_divergence(q: Multivariate, p: Multivariate) -> Float64[Tensor, "*batch"]:
    """E_q norm(grad log q - grad log p)^2, what explicit score matching measures (claim C24).

        norm(C_p^-1 (m_q - m_p))^2 + norm(L^-1 (C_q - C_p) C_p^-1)_F^2,    C_q = L L^T

    Raises ValueError where shapes differ or a covariance is singular. Derivation: (multivariate.8).

    >>> import torch
    >>> from diffusion_math.densities.multivariate import Multivariate, fisher_divergence
    >>> q = Multivariate(torch.zeros(2), torch.eye(2))
    >>> p = Multivariate(torch.ones(2), 2 * torch.eye(2))
    >>> fisher_divergence(q, p)
    tensor(1.0000, dtype=torch.float64)
    """
    same_shape("p.mean", p.mean, q.mean)
    L, P = _cholesky("q.covariance", q.covariance), _cholesky("p.covariance", p.covariance)
    shift = p.score(q.mean)
    change = torch.linalg.solve_triangular(L, q.covariance - p.covariance, upper=False)
    change = torch.cholesky_solve(change.mT, P)
    return shift.square().sum(-1) + change.square().sum((-2, -1))


@checked
def condition(
    joint: Multivariate, known: list[int], value: Float[Tensor, "*batch known"]
) -> Multivariate:
    """The distribution of the other entries, in their order, given that those `known` are `value`.

        N(m_a + C_ab C_bb^-1 (value - m_b), C_aa - C_ab C_bb^-1 C_ba)

    Raises ValueError unless `known` are distinct, some but not all, and C_bb is not singular.
    Derivation: (multivariate.9).

    >>> import torch
    >>> from diffusion_math.densities.multivariate import Multivariate, condition
    >>> joint = Multivariate(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 1.0]]))
    >>> q = condition(joint, known=[1], value=torch.tensor([3.0]))
    >>> q.mean, q.covariance
    (tensor([3.], dtype=torch.float64), tensor([[1.]], dtype=torch.float64))
    """
    D = joint.mean.shape[-1]
    valid = 0 < len(set(known)) == len(known) < D and all(0 <= i < D for i in known)
    require(valid, "known", f"distinct entries among 0..{D - 1}, some but not all", known)
    other = [i for i in range(D) if i not in known]
    C = joint.covariance
    L = _cholesky("covariance of the known", C[..., known, :][..., known])
    link = C[..., known, :][..., other]
    gain = torch.cholesky_solve(link, L).mT
    difference = value.to(joint.mean) - joint.mean[..., known]
    mean = joint.mean[..., other] + (gain @ difference[..., None])[..., 0]
    return Multivariate(mean, _even(C[..., other, :][..., other] - gain @ link))


@checked
def product(q: Multivariate, p: Multivariate) -> tuple[Multivariate, Float64[Tensor, "*batch"]]:
    """The Gaussian proportional to the product of two densities, and the log of the constant.

        N(x; q) N(x; p) = exp(c) N(x; m, C),    c = log N(m_q; m_p, C_q + C_p)
        C = C_q - C_q (C_q + C_p)^-1 C_q,    m = m_q + C_q (C_q + C_p)^-1 (m_p - m_q)

    One of the two may be singular. Raises ValueError where shapes differ or both are.
    Derivation: (multivariate.10), (multivariate.11).

    >>> import torch
    >>> from diffusion_math.densities.multivariate import Multivariate, product
    >>> q = Multivariate(torch.zeros(1), torch.eye(1))
    >>> p = Multivariate(torch.ones(1), torch.eye(1))
    >>> both, log_constant = product(q, p)
    >>> both.mean, both.covariance
    (tensor([0.5000], dtype=torch.float64), tensor([[0.5000]], dtype=torch.float64))
    """
    same_shape("p.mean", p.mean, q.mean)
    total = Multivariate(p.mean, q.covariance + p.covariance)
    L = _cholesky("the sum of the covariances", total.covariance)
    gain = torch.cholesky_solve(q.covariance, L).mT
    mean = q.mean + (gain @ (p.mean - q.mean)[..., None])[..., 0]
    return Multivariate(mean, _even(gain @ p.covariance)), total.log_density(q.mean)


def _cholesky(name: str, C: Tensor) -> Tensor:
    L: Tensor
    L, info = torch.linalg.cholesky_ex(C)
    require(not bool(info.any()), name, "a matrix that is not singular", C)
    return L


def _whitened(L: Tensor, C: Tensor) -> Tensor:
    """L^-1 C L^-T."""
    half = torch.linalg.solve_triangular(L, C, upper=False)
    return _even(torch.linalg.solve_triangular(L, half.mT, upper=False))


def _squared(L: Tensor, x: Tensor) -> Tensor:
    """x^T (L L^T)^-1 x."""
    z: Tensor = torch.linalg.solve_triangular(L, x[..., None], upper=False)
    return z.square().sum((-2, -1))


def _log_det(L: Tensor) -> Tensor:
    """log det(L L^T)."""
    return 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _even(C: Tensor) -> Tensor:
    return (C + C.mT) / 2
