"""What replacement and RePaint sample in the plane: exact densities, beside p(x_0 | x_0^m).

    conditional    the exact target, a mixture again
    replacement    the distribution of RePaint's method with U repetitions, U = 1 the plain one

The data are a mixture in the plane; the first coordinate, k, is known, the second, u, is not. The
reverse kernels are exact, so what is wrong is the method's own. Nothing is sampled: a density of u
on nodes is carried from step to step. Derivation: (inpainting_law.1), (inpainting_law.2).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from diffusion_math import gaussian
from diffusion_math.checks import Number, checked, require, strictly_decreasing, whole
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.guidance_law import Nodes, box
from diffusion_math.schedule import Schedule

__all__ = ["conditional", "replacement"]

POINTS = 32
"""Gauss-Hermite points for the noise of the known coordinate."""
REACH = 7.0
"""Half the width of the nodes, in standard deviations of the outermost component."""


@checked
def conditional(mixture: GaussianMixture, known: Number) -> GaussianMixture:
    """p(u | k = known), a mixture on the line with events of shape `()`.

        w_i' ~ w_i N(k; m_i^k, C_i^kk)
        N(m_i^u + C_i^uk (k - m_i^k) / C_i^kk,    C_i^uu - C_i^uk^2 / C_i^kk)

    Raises ValueError unless events are of shape `(2,)` and each C_i^kk is positive.
    Derivation: (inpainting_law.1).

    >>> import torch
    >>> import diffusion_math as dm
    >>> given = dm.inpainting_law.conditional(dm.DENSITIES["ring"](), 0.0)
    >>> mean, covariance = given.moments()
    >>> mean.abs() < 1e-12, covariance
    (tensor(True), tensor([[4.0025]], dtype=torch.float64))
    """
    log_w, means, C = _dense(mixture)
    require(bool((C[:, 0, 0] > 0).all()), "mixture", "a spread of the known coordinate", C)
    log_k, mean, variance = _given(log_w, means, C, torch.tensor([float(known)]).double())
    return GaussianMixture(log_k[0], mean[0], variance)


@checked
def replacement(
    mixture: GaussianMixture,
    known: Number,
    schedule: Schedule,
    grid: Float[Tensor, " nodes"],
    repeats: Sequence[int] = (1,),
    count: int = 200,
) -> tuple[Nodes, Float64[Tensor, "repeats count"]]:
    """Densities of u at the last node of the grid, of RePaint's method with exact kernels.

        p_s(u') = integral p_t(u) E_k[q(u' | x_t = (k, u))] du,    k ~ N(alpha_t x_0^k, sigma_t^2)
        p_t(u)  = integral p_s(u') N(u; alpha_{t|s} u', sigma_{t|s}^2) du'     before a repetition

    q is the exact reverse kernel, `GaussianMixture.reverse`. The start is u ~ N(0, sigma_T^2).

    Args:
        known: x_0^k.
        grid: `(nodes,)` strictly decreasing times that end above 0: at 0 each kernel's mass lies on
            few nodes.
        repeats: for each density, U >= 1 steps between neighbouring times; 1 is the replacement
            method.
        count: nodes of the line at each time.

    Returns:
        Nodes, `(count, 1)`, and for each of `repeats` the density of u there. Its integral differs
        from 1 by the error.

    Raises:
        ValueError: an argument is not as above.

    Derivation: (inpainting_law.2), (inpainting_law.3).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> grid = dm.uniform_log_snr(schedule, 20)[:-1]
    >>> nodes, (density,) = dm.inpainting_law.replacement(ring, 0.0, schedule, grid)
    >>> abs(nodes.integral(density) - 1) < 1e-6
    True
    """
    strictly_decreasing("grid", grid)
    require(bool(grid[-1] > 0), "grid", "a last node above 0", float(grid[-1]))
    for each in repeats:
        whole("repeats", each, 1)
    whole("count", count, 2)
    times = grid.to(torch.float64)
    _, sigma = schedule(times[0])
    here = _line(mixture, schedule, times[0], count)
    start = _normal(here.x[:, 0], sigma.new_zeros(()), sigma.square())
    densities = start.expand(len(repeats), count)
    for t, s in pairwise(times):
        there = _line(mixture, schedule, s, count)
        down = _reverse(mixture, known, schedule, t, s, here.x[:, 0], there.x[:, 0]) * here.cell
        link = gaussian.transition(schedule, there.x, s, t)
        up = _normal(here.x[:, 0], link.mean, link.variance) * there.cell
        again = up @ down
        powers = [torch.linalg.matrix_power(again, each - 1) for each in repeats]
        densities = torch.stack(
            [density @ down @ power for density, power in zip(densities, powers, strict=True)]
        )
        here = there
    return here, densities


def _reverse(
    mixture: GaussianMixture,
    known: Number,
    schedule: Schedule,
    t: Tensor,
    s: Tensor,
    u: Tensor,
    after: Tensor,
) -> Tensor:
    """E_k[q(u' | x_t = (k, u))] for every u and u' = after, `(len(u), len(after))`.

    x_s and x_t are jointly Gaussian in each component, so u' given (k, u) is the conditional of a
    Gaussian in three dimensions.
    """
    log_w, means, C = _dense(mixture)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    roots, weights = _hermite()
    k = alpha_t * known + sigma_t * roots
    x = torch.cartesian_prod(u, k).flip(1)  # (k, u), k fastest
    eye = torch.eye(2, dtype=torch.float64)
    at_t, at_s = alpha_t**2 * C + sigma_t**2 * eye, alpha_s**2 * C + sigma_s**2 * eye
    ratio = alpha_t / alpha_s
    gain = torch.linalg.solve(at_t, ratio * at_s).mT[:, 1]  # row u' of Cov(x_s, x_t) Cov(x_t)^-1
    difference = x[:, None] - alpha_t * means
    log_r = log_w + torch.distributions.MultivariateNormal(alpha_t * means, at_t).log_prob(
        x[:, None]
    )
    mean = alpha_s * means[:, 1] + (gain * difference).sum(-1)
    variance = at_s[:, 1, 1] - (gain * ratio * at_s[:, 1]).sum(-1)
    side, narrowest = float(after[1] - after[0]), float(variance.min().sqrt())
    needed = math.ceil(len(after) * side / narrowest)
    require(side <= narrowest, "count", f"at least {needed} for this grid", len(after))
    r = log_r.softmax(1).reshape(len(u), POINTS, -1) * weights[:, None]
    mean = mean.reshape(r.shape)
    total = torch.zeros(len(u), len(after), dtype=torch.float64)
    for i, v in enumerate(variance):
        each = _normal(after, mean[..., i, None], v)
        total += torch.einsum("up,upa->ua", r[..., i], each)
    return total


def _line(mixture: GaussianMixture, schedule: Schedule, t: Tensor, count: int) -> Nodes:
    """Nodes of u at time t that hold every component, and the start's noise."""
    _, means, C = _dense(mixture)
    alpha, sigma = schedule(t)
    spread = REACH * (alpha**2 * C[:, 1, 1] + sigma**2).sqrt()
    centre = alpha * means[:, 1]
    return box([float((centre - spread).min())], [float((centre + spread).max())], count)


def _given(log_w: Tensor, means: Tensor, C: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights and means, `(len(k), K)`, and variances, `(K,)`, of u given each k."""
    slope = C[:, 1, 0] / C[:, 0, 0]
    apart = k[:, None] - means[:, 0]
    log_k = log_w + _normal(k[:, None], means[:, 0], C[:, 0, 0]).log()
    return log_k, means[:, 1] + slope * apart, C[:, 1, 1] - slope * C[:, 0, 1]


def _dense(mixture: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights, means and covariance matrices of a mixture in the plane."""
    event = tuple(mixture.means.shape[1:])
    require(event == (2,), "mixture", "events of shape (2,)", f"shape {event}")
    C = mixture.covariances
    if C.ndim == 1:
        C = C[:, None].expand(-1, 2)
    return mixture.log_weights, mixture.means, torch.diag_embed(C) if C.ndim == 2 else C


def _hermite() -> tuple[Tensor, Tensor]:
    """Points and weights of the mean over a standard normal."""
    points, weights = hermegauss(POINTS)
    scale = math.sqrt(2 * math.pi)
    return torch.from_numpy(points), torch.from_numpy(weights) / scale


def _normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """N(x; mean, variance), entry by entry."""
    return torch.exp(-(x - mean).square() / (2 * variance)) / (2 * math.pi * variance).sqrt()
