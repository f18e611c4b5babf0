"""What classifier-free guidance samples, and the tilted density p(x) p(c | x)^w, as densities.

    guided   the distribution at t = 0 of a guided denoiser's probability flow from pure noise
    tilted   p(x) p(c | x)^w / Z at clean data

Both are exact up to an ODE's tolerance and a sum over nodes, for mixtures in one or two dimensions.
For two Gaussians both have a closed form. The flow is that of rectified flow, alpha = 1 - t and
sigma = t: denoisers are functions of (x_t, t) under `SCHEDULE`. Every schedule whose x_T is pure
noise has the same output distribution.
Derivation: (guidance_law.1), (guidance_law.2).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from diffusion_math import checks, sample
from diffusion_math.checks import Number, checked, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.labelled import Labelled
from diffusion_math.gaussian import Gaussian
from diffusion_math.grid import uniform_log_snr
from diffusion_math.likelihood import flow_log_density
from diffusion_math.schedule import RectifiedFlow
from diffusion_math.solvers.one_step import flow_heun

SCHEDULE = RectifiedFlow()
CLEAN = 1e-5
"""The time used for clean data: densities differ from those at 0 by O(CLEAN^2)."""
GAP = 1e-9
"""Relative time left out on either side of a discontinuity of the flow."""
STEPS = 60
"""The number of Heun steps of `flow_map`."""
RADIUS = 6.0
"""Radius of the ball that holds all but 2e-9 of the noise in one dimension, 1.6e-8 in two."""


@checked
def log_density(
    denoise: Denoiser,
    x: Float64[Tensor, "batch *event"],
    jumps: Sequence[Number] = (),
    rtol: Number = 1e-6,
    atol: Number = 1e-6,
) -> Float64[Tensor, " batch"]:
    """The log-density at `x` of the output of `denoise`'s flow from N(0, I), in nats.

        log p(x) = log N(z; 0, I) + integral of div(eps - x0_hat) dt over t from 0 to 1

    z is the flow's state at t = 1, from x at t = 0.

    Args:
        denoise: of (x_t, t) under `SCHEDULE`.
        x: `(batch, *event)`, clean data.
        jumps: noise levels r = sigma / alpha at which the flow is discontinuous, such as the ends
            of `limited`'s interval; the integrator restarts there. 0 and inf have no effect.
        rtol, atol: as in `likelihood.flow_log_density`.

    Raises:
        ValueError: a jump is negative or NaN, or as `flow_log_density` does.

    Derivation: (guidance_law.1), (guidance_law.3).

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, ring = dm.guidance_law.SCHEDULE, dm.DENSITIES["ring"]()
    >>> x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    >>> guided = dm.cfg(ring.among([0]).denoiser(schedule), ring.denoiser(schedule), scale=2.0)
    >>> dm.guidance_law.log_density(guided, x, rtol=1e-3, atol=1e-3).round(decimals=2)
    tensor([2.6300], dtype=torch.float64)
    """
    after: Callable[[Tensor], Tensor] = _standard_normal
    for s, t in reversed(_pieces(jumps)):
        after = _piece(denoise, after, s, t, rtol, atol)
    alpha = 1 - CLEAN
    return after(alpha * x) + math.prod(x.shape[1:]) * math.log(alpha)


@checked
def flow_map(
    denoise: Denoiser, z: Float64[Tensor, "batch *event"]
) -> Float64[Tensor, "batch *event"]:
    """The flow's clean data from the noise z, by `STEPS` Heun steps.

    Accurate enough to locate the mass; `log_density` integrates the other direction to a tolerance.

    >>> import torch
    >>> import diffusion_math as dm
    >>> denoise = dm.DENSITIES["ring"]().denoiser(dm.guidance_law.SCHEDULE)
    >>> z = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    >>> dm.guidance_law.flow_map(denoise, z)
    tensor([[1.5288, 1.2501]], dtype=torch.float64)
    """
    grid = uniform_log_snr(SCHEDULE, STEPS)
    end = sample.final(flow_heun(SCHEDULE), denoise, z, grid)
    return end


@final
@checked
@dataclass(frozen=True, eq=False)
class Nodes:
    """Quadrature nodes `x`, `(n, D)`, of equal cells of volume `cell` (midpoint rule).

    For smooth densities that vanish at the edge the error falls faster than any power of the side.

    >>> import torch
    >>> import diffusion_math as dm
    >>> nodes = dm.guidance_law.box([0.0], [1.0], count=100)
    >>> round(nodes.integral(nodes.x[:, 0] ** 2), 4)
    0.3333
    """

    x: Float64[Tensor, "n D"]
    cell: float

    @checked
    def integral(self, values: Float64[Tensor, " n"]) -> float:
        """sum of values times cell. Derivation: (guidance_law.4)."""
        return float(values.sum()) * self.cell


@checked
def box(low: Sequence[Number], high: Sequence[Number], count: int) -> Nodes:
    """`count` nodes per side: the centres of equal cells of the box from `low` to `high`.

    Raises ValueError unless low and high have one length, low < high, and count >= 2.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.guidance_law.box([0.0, 0.0], [1.0, 2.0], count=2)
    Nodes(x=tensor([[0.2500, 0.5000],
            [0.2500, 1.5000],
            [0.7500, 0.5000],
            [0.7500, 1.5000]], dtype=torch.float64), cell=0.5)
    """
    checks.whole("count", count, 2)
    valid = len(low) == len(high) > 0 and all(a < b for a, b in zip(low, high, strict=True))
    require(valid, "low, high", "as many numbers, low < high", (tuple(low), tuple(high)))
    sides = [(b - a) / count for a, b in zip(low, high, strict=True)]
    middles = torch.arange(count, dtype=torch.float64, device="cpu") + 0.5
    lines = [a + side * middles for a, side in zip(low, sides, strict=True)]
    mesh = torch.meshgrid(*lines, indexing="ij")
    return Nodes(torch.stack([one.flatten() for one in mesh], dim=1), math.prod(sides))


@checked
def ball(dimensions: int) -> Float64[Tensor, "n D"]:
    """Noise points with norm(z) <= RADIUS whose image bounds the mass, `(n, dimensions)`.

    Two points in one dimension, three circles of 48 points in two. Raises ValueError for others.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.guidance_law.ball(1), dm.guidance_law.ball(2).shape
    (tensor([[-6.],
            [ 6.]], dtype=torch.float64), torch.Size([144, 2]))
    """
    checks.whole("dimensions", dimensions, 1, 2)
    if dimensions == 1:
        return torch.tensor([[-RADIUS], [RADIUS]], dtype=torch.float64, device="cpu")
    angle = torch.arange(48, dtype=torch.float64, device="cpu") * (2 * math.pi / 48)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.cat([RADIUS * part / 3 * circle for part in (1, 2, 3)])


@checked
def around(image: Float64[Tensor, "n D"], count: int) -> Nodes:
    """Nodes where a flow has mass: the `box` of the ball's image, restricted to its convex hull.

    In the plane only nodes inside the convex hull of the image remain. Outside, the density is that
    of a normal beyond RADIUS deviations, and a guided flow is hardest to integrate.

    Args:
        image: `flow_map(denoise, ball(D))`, `(n, D)` of D = 1 or 2.
        count: nodes per side of the box.

    Raises ValueError for other dimensions.

    >>> import torch
    >>> import diffusion_math as dm
    >>> corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    >>> nodes = dm.guidance_law.around(corners, count=10)
    >>> len(nodes.x), round(nodes.cell, 4)
    (55, 0.01)
    """
    from scipy.spatial import Delaunay  # as in `likelihood`: costs more than this package

    checks.whole("image's dimensions", image.shape[1], 1, 2)
    whole = box(image.amin(0).tolist(), image.amax(0).tolist(), count)
    if image.shape[1] == 1:
        return whole
    inside = Delaunay(image.numpy()).find_simplex(whole.x.numpy()) >= 0
    return Nodes(whole.x[torch.from_numpy(inside)], whole.cell)


@checked
def tilted(
    data: Labelled, label: int, scale: Number, x: Float64[Tensor, "batch *event"]
) -> Float64[Tensor, " batch"]:
    """log p(x) + w log p(c | x) at clean data, not normalised, in nats.

    Raises ValueError for an unknown label, or a scale that is negative or not finite.
    Derivation: (guidance_law.2).

    >>> import torch
    >>> import diffusion_math as dm
    >>> data = dm.densities.Labelled(dm.DENSITIES["ring"](), torch.tensor([0, 1] * 4))
    >>> x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    >>> dm.guidance_law.tilted(data, label=0, scale=2.0, x=x)
    tensor([-0.1231], dtype=torch.float64)
    """
    require(0 <= label < data.count, "label", f"one of 0..{data.count - 1}", label)
    _check_scale(scale)
    classifier = data.log_posterior(SCHEDULE, x, 0)[:, label]
    return data.mixture.log_density(SCHEDULE, x, 0) + scale * classifier


@checked
def log_normaliser(nodes: Nodes, log_values: Float64[Tensor, " n"]) -> float:
    """log Z, the logarithm of the integral of exp(log_values). Derivation: (guidance_law.4).

    >>> import torch
    >>> import diffusion_math as dm
    >>> nodes = dm.guidance_law.box([-8.0], [8.0], count=200)
    >>> round(dm.guidance_law.log_normaliser(nodes, -nodes.x[:, 0] ** 2 / 2), 6)
    0.918939
    """
    return float(log_values.logsumexp(0)) + math.log(nodes.cell)


@checked
def kl(nodes: Nodes, log_p: Float64[Tensor, " n"], log_q: Float64[Tensor, " n"]) -> float:
    """KL(p || q) = integral of p (log p - log q), in nats; both normalised, with nodes where p has
    mass.

    Derivation: (guidance_law.5).

    >>> import torch
    >>> import diffusion_math as dm
    >>> nodes, normal = dm.guidance_law.box([-8.0], [8.0], count=200), torch.distributions.Normal
    >>> log_p, log_q = (normal(mean, 1.0).log_prob(nodes.x[:, 0]) for mean in (0.0, 1.0))
    >>> round(dm.guidance_law.kl(nodes, log_p, log_q), 6)
    0.5
    """
    return nodes.integral(log_p.exp() * (log_p - log_q))


@checked
def mode_weights(
    data: Labelled, label: int, nodes: Nodes, log_p: Float64[Tensor, " n"]
) -> Float64[Tensor, " modes"]:
    """The weights of the label's components under p: the mean of P(k | x, c).

        weight_k = integral of p(x) w_k N(x; m_k, C_k) / p(x | c) dx

    For p = p(x | c) these are the components' own weights; their sum is p's mass. log_p is
    normalised. Raises ValueError for an unknown label. Derivation: (guidance_law.6).

    >>> import torch
    >>> import diffusion_math as dm
    >>> ring = dm.DENSITIES["ring"]()
    >>> data = dm.densities.Labelled(ring, torch.tensor([0, 1] * 4))
    >>> nodes = dm.guidance_law.box([-3.0, -3.0], [3.0, 3.0], count=100)
    >>> log_p = data.given(0).log_density(dm.VPLinear(), nodes.x, 0)
    >>> dm.guidance_law.mode_weights(data, 0, nodes, log_p)
    tensor([0.2500, 0.2500, 0.2500, 0.2500], dtype=torch.float64)
    """
    shares = data.given(label).responsibilities(SCHEDULE, nodes.x, 0)
    return (log_p.exp()[:, None] * shares).sum(0) * nodes.cell


@checked
def guided_variance(
    unconditional: Float64[Tensor, "*shape"],
    conditional: Float64[Tensor, "*shape"],
    scale: Number,
    interval: Sequence[Number] = (0.0, math.inf),
) -> Float64[Tensor, "*shape"]:
    """The variance of a guided flow's output where both densities are Gaussian.

        v = v_c ((v_c + a^2) (v_u + b^2) / ((v_u + a^2) (v_c + b^2)))^(w - 1)

    with guidance at a <= r <= b; without an interval v_u^(1 - w) v_c^w. Entry by entry.

    Raises ValueError for a variance that is not > 0, an interval or a scale as in `limited`, `cfg`.
    Derivation: (guidance_law.8), (guidance_law.9).

    >>> import torch
    >>> import diffusion_math as dm
    >>> v_u, v_c = torch.tensor([[2.0], [1.0]], dtype=torch.float64)
    >>> dm.guidance_law.guided_variance(v_u, v_c, scale=3.0)
    tensor([0.2500], dtype=torch.float64)
    """
    checks.same_shape("conditional", conditional, unconditional)
    _check_scale(scale)
    checks.interval("interval", interval)
    for name, value in (("unconditional", unconditional), ("conditional", conditional)):
        require(bool((value > 0).all()), name, "variances > 0", value)
    low, high = interval[0] ** 2, interval[1] ** 2
    ratio = (conditional + low) / (unconditional + low)
    if high < math.inf:
        ratio = ratio * (unconditional + high) / (conditional + high)
    return conditional * ratio ** (scale - 1)


@checked
def gaussian_guided(unconditional: Gaussian, conditional: Gaussian, scale: Number) -> Gaussian:
    """The distribution of a guided flow's output for Gaussian p(x) and p(x | c), by entry.

        variance = v_u^(1 - w) v_c^w
        mean     = m_u + w (m_c - m_u) F((1 - w) / 2, 1; 3/2; 1 - v_c / v_u)

    F is Gauss's hypergeometric function. w = 0 and w = 1 give the two Gaussians themselves.

    Raises ValueError for means of two shapes, a variance that is not > 0, or a scale as in `cfg`.
    Derivation: (guidance_law.8), (guidance_law.10).
    Source: the variance for v_u = 2, v_c = 1, Bradley and Nakkiran (arXiv:2408.09000), section 3.

    >>> import torch
    >>> import diffusion_math as dm
    >>> p = dm.gaussian.Gaussian(torch.zeros(1, dtype=torch.float64), torch.tensor(2.0))
    >>> p_c = dm.gaussian.Gaussian(torch.ones(1, dtype=torch.float64), torch.tensor(1.0))
    >>> output = dm.guidance_law.gaussian_guided(p, p_c, scale=3.0)
    >>> output.mean, output.variance
    (tensor([2.], dtype=torch.float64), tensor([0.2500], dtype=torch.float64))
    """
    from scipy.special import hyp2f1

    checks.same_shape("conditional.mean", conditional.mean, unconditional.mean)
    v_u, v_c = (
        one.variance.to(torch.float64).expand_as(one.mean) for one in (unconditional, conditional)
    )
    variance = guided_variance(v_u, v_c, scale)
    factor = torch.as_tensor(
        hyp2f1((1 - scale) / 2, 1.0, 1.5, (1 - v_c / v_u).numpy()), device="cpu"
    )
    mean = unconditional.mean + scale * (conditional.mean - unconditional.mean) * factor
    return Gaussian(mean, variance)


@checked
def gaussian_tilted(unconditional: Gaussian, conditional: Gaussian, scale: Number) -> Gaussian:
    """The density p(x)^(1 - w) p(x | c)^w, normalised, of two Gaussians, entry by entry.

        1 / variance = (1 - w) / v_u + w / v_c
        mean = variance ((1 - w) m_u / v_u + w m_c / v_c)

    Raises ValueError for means of two shapes, a scale as in `cfg`, or where it has no integral.
    Derivation: (guidance_law.7).

    >>> import torch
    >>> import diffusion_math as dm
    >>> p = dm.gaussian.Gaussian(torch.zeros(1), torch.tensor(2.0))
    >>> p_c = dm.gaussian.Gaussian(torch.ones(1), torch.tensor(1.0))
    >>> tilted = dm.guidance_law.gaussian_tilted(p, p_c, scale=3.0)
    >>> tilted.mean, tilted.variance
    (tensor([1.5000]), tensor([0.5000]))
    """
    checks.same_shape("conditional.mean", conditional.mean, unconditional.mean)
    _check_scale(scale)
    from_u, from_c = (1 - scale) / unconditional.variance, scale / conditional.variance
    precision = from_u + from_c
    require(bool((precision > 0).all()), "scale", "a density with an integral", scale)
    mean = (from_u * unconditional.mean + from_c * conditional.mean) / precision
    return Gaussian(mean, (1 / precision).expand_as(mean))


def _standard_normal(z: Tensor) -> Tensor:
    return Gaussian(torch.zeros_like(z), torch.ones((), dtype=z.dtype, device="cpu")).log_density(z)


def _pieces(jumps: Sequence[Number]) -> list[tuple[float, float]]:
    """Intervals of time on which the flow is smooth, from CLEAN to 1."""
    require(all(r >= 0 for r in jumps), "jumps", "noise levels of at least 0", tuple(jumps))
    cuts = sorted(r / (1 + r) for r in set(jumps) if r < math.inf)
    starts = [CLEAN, *(t * (1 + GAP) for t in cuts)]
    ends = [*(t * (1 - GAP) for t in cuts), 1.0]
    # What lies within the gaps of two jumps, or below CLEAN, is left out with them.
    pieces = ((max(s, CLEAN), t) for s, t in zip(starts, ends, strict=True))
    return [(s, t) for s, t in pieces if s < t]


def _piece(
    denoise: Denoiser,
    after: Callable[[Tensor], Tensor],
    s: float,
    t: float,
    rtol: Number,
    atol: Number,
) -> Callable[[Tensor], Tensor]:
    """x_s -> log p(x_s), where `after` is the log-density of x_t."""

    def at(x_s: Tensor) -> Tensor:
        found = flow_log_density(SCHEDULE, denoise, x_s, after, s, t, rtol=rtol, atol=atol)
        return found.log_density

    return at


def _check_scale(scale: Number) -> None:
    require(math.isfinite(scale) and scale >= 0, "scale", "a finite number of at least 0", scale)
