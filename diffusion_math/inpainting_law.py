"""Exact inpainting of Gaussian mixtures, and the exact output of replacement and RePaint.

    conditional       the target p(x_0^u | x_0^m), a mixture again
    log_density       what RePaint with U repetitions samples in the plane; U = 1 is replacement

m are the known entries, u the others. The reverse kernels are exact, so the error is the method's
own. Nothing is sampled: the density of u on nodes is carried from time to time.
Derivation: (inpainting.1).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor
from torch.distributions import Normal

from diffusion_math import gaussian
from diffusion_math.checks import Number, checked, require, strictly_decreasing, whole
from diffusion_math.densities import multivariate
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.gaussian import Gaussian
from diffusion_math.guidance_law import Nodes, box
from diffusion_math.inpainting import check_known
from diffusion_math.schedule import Schedule

__all__ = ["conditional", "log_density"]

POINTS = 32
"""Gauss-Hermite points for the noise of the known coordinate."""
REACH = 7.0
"""Half the width of the nodes, in standard deviations of the outermost component."""


@checked
def conditional(
    mixture: GaussianMixture, known: Float[Tensor, "*event"], mask: Bool[Tensor, "*event"]
) -> GaussianMixture:
    """p(x_0^u | x_0^m), the exact distribution of the entries that are not known.

        w_i' ~ w_i N(x_0^m; m_i^m, C_i^mm)
        N(m_i^u + C_i^um (C_i^mm)^-1 (x_0^m - m_i^m), C_i^uu - C_i^um (C_i^mm)^-1 C_i^mu)

    Args:
        known: x_0; entries outside of the mask have no effect.
        mask: true where an entry is known, for some entries but not all.

    Returns:
        A mixture of as many components with events `(D_u,)`, the entries outside of the mask in
        their order. Its `denoiser` is the exact conditional one.

    Raises:
        ValueError: a shape is not an event's; the mask is not boolean, or has all entries or none;
            some C_i^mm is singular.

    Derivation: (inpainting.7).

    >>> import torch
    >>> import diffusion_math as dm
    >>> known, mask = torch.tensor([0.0, 0.0]), torch.tensor([True, False])
    >>> given = dm.inpainting_law.conditional(dm.DENSITIES["ring"](), known, mask)
    >>> mean, covariance = given.moments()
    >>> mean.abs() < 1e-12, covariance
    (tensor([True]), tensor([[4.0225]], dtype=torch.float64))
    """
    check_known(mixture.means, known, mask)
    require(
        0 < int(mask.sum()) < mask.numel(), "mask", "some entries, not all", f"{int(mask.sum())}"
    )
    places = mask.flatten().nonzero().flatten().tolist()
    means = mixture.means.flatten(1)
    one_each = [mixture.among([i]).moments()[1] for i in range(len(means))]
    joint = Multivariate(means, torch.stack(one_each))
    value = known.to(means).flatten()[places].expand(len(means), len(places))
    seen = Multivariate(means[:, places], joint.covariance[:, places][:, :, places])
    others = multivariate.condition(joint, places, value)
    log_weights = mixture.log_weights + seen.log_density(value)
    return GaussianMixture(log_weights, others.mean, others.covariance)


@checked
def log_density(
    mixture: GaussianMixture,
    known: Number,
    schedule: Schedule,
    grid: Float[Tensor, " nodes"],
    repeats: Sequence[int] = (1,),
    count: int = 200,
) -> tuple[Nodes, Float64[Tensor, "repeats count"]]:
    """The log-density of the unknown coordinate after RePaint with exact kernels, in nats.

        p_s(u') = integral p_t(u) E_k[q(u' | x_t = (k, u))] du,    k ~ q(k_t | k_0)
        p_t(u)  = integral p_s(u') q(u_t = u | u_s = u') du'       before a repetition

    q(u' | x_t) is the exact reverse kernel. The start is u ~ N(0, sigma_T^2). At the last node the
    target is `conditional`'s density at that time.

    Args:
        mixture: in the plane; k is the first coordinate, u the second.
        known: k_0.
        grid: `(nodes,)` strictly decreasing times that end above 0: at 0 a kernel has no width.
        repeats: for each density, RePaint's U >= 1; 1 is the replacement method.
        count: nodes of the line at each time.

    Returns:
        Nodes, `(count, 1)`, at the last time, and a log-density there for each of `repeats`, not
        normalised: the integral of the density differs from 1 by the quadrature's error.

    Raises:
        ValueError: an argument is not as above, or `count` is too small for the narrowest kernel.

    Derivation: (inpainting.8), (inpainting.9), (inpainting.10).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.VPLinear(), dm.DENSITIES["ring"]()
    >>> grid = dm.trailing(schedule, 8)[:-1]
    >>> nodes, (log_p,) = dm.inpainting_law.log_density(ring, 0.0, schedule, grid)
    >>> abs(nodes.integral(log_p.exp()) - 1) < 1e-6
    True
    """
    event = tuple(mixture.means.shape[1:])
    require(event == (2,), "mixture", "events of shape (2,)", f"shape {event}")
    strictly_decreasing("grid", grid)
    require(bool(grid[-1] > 0), "grid", "a last node above 0", float(grid[-1]))
    for each in repeats:
        whole("repeats", each, 1)
    whole("count", count, 2)
    times = grid.to(torch.float64)
    here = _line(mixture, schedule, times[0], count)
    _, sigma = schedule(times[0])
    start = Gaussian(torch.zeros_like(here.x), sigma.square()).log_density(here.x).exp()
    densities = start.expand(len(repeats), count)
    for t, s in pairwise(times):
        there = _line(mixture, schedule, s, count)
        down = _reverse(mixture, known, schedule, t, s, here.x, there.x) * here.cell
        back = gaussian.transition(schedule, there.x, s, t)
        again = (
            Normal(back.mean, back.variance.sqrt()).log_prob(here.x[:, 0]).exp() * there.cell @ down  # type: ignore[no-untyped-call]
        )
        powers = [torch.linalg.matrix_power(again, each - 1) for each in repeats]
        densities = torch.stack(
            [density @ down @ power for density, power in zip(densities, powers, strict=True)]
        )
        here = there
    return here, densities.clamp(min=torch.finfo(torch.float64).tiny).log()


def _reverse(
    mixture: GaussianMixture,
    known: Number,
    schedule: Schedule,
    t: Tensor,
    s: Tensor,
    u: Tensor,
    after: Tensor,
) -> Tensor:
    """E_k[q(u' | x_t = (k, u))] for every u and u' = after, `(len(u), len(after))`."""
    roots, weights = (torch.from_numpy(one) for one in hermegauss(POINTS))
    k = gaussian.marginal(schedule, torch.full_like(roots, float(known)), t).sample(roots)
    x = torch.cartesian_prod(u[:, 0], k).flip(1)  # (k, u), k fastest
    r = mixture.responsibilities(schedule, x, t).reshape(len(u), POINTS, -1)
    r = r * weights[:, None] / math.sqrt(2 * math.pi)
    total = torch.zeros(len(u), len(after), dtype=torch.float64, device="cpu")
    for i in range(len(mixture.means)):
        one = mixture.among([i])
        clean = one.posterior_mean(schedule, x, t)
        mean = gaussian.posterior(schedule, x, clean, t, s).mean[:, 1].reshape(len(u), POINTS, 1)
        variance = one.reverse(schedule, x[0], t, s).moments()[1][1, 1]
        side, width = float(after[1, 0] - after[0, 0]), float(variance.sqrt())
        needed = math.ceil(len(after) * side / width)
        require(side <= width, "count", f"at least {needed} for this grid", len(after))
        kernel = Normal(mean, variance.sqrt()).log_prob(after[:, 0]).exp()  # type: ignore[no-untyped-call]
        total += torch.einsum("up,upa->ua", r[..., i], kernel)
    return total


def _line(mixture: GaussianMixture, schedule: Schedule, t: Tensor, count: int) -> Nodes:
    """Nodes of u at time t that hold every component, and at pure noise the start."""
    noisy = mixture.marginal(schedule, t)
    ends = []
    for i in range(len(noisy.means)):
        mean, covariance = noisy.among([i]).moments()
        reach = REACH * covariance[1, 1].sqrt()
        ends += [float(mean[1] - reach), float(mean[1] + reach)]
    return box([min(ends)], [max(ends)], count)
