"""A normal along a curve: densities of the plane whose second coordinate hangs on the first.

    x_0 = (u, w),    u ~ N(0, s^2),    w given u ~ N(f(u), g(u))

The banana bends f, the funnel widens g. Given x_t = (x, y), u is normal again, so that with
S = alpha_t^2 s^2 + sigma_t^2, V(u) = alpha_t^2 g(u) + sigma_t^2,

    q(x_t) = N(x; 0, S) E N(y; alpha_t f(u), V(u)),    u ~ N(alpha_t s^2 x / S, s^2 sigma_t^2 / S)

At t = 0 the u in the mean is x itself and q is a closed form. At t > 0 the mean is one integral
over a normal, by the trapezoid rule: exact to rounding where log q > -50. It leaves out e^-98 of
the normal, and its own error falls faster than any power of its step, 0.15 standard deviations.
Derivation: (density.18), (density.19).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math.checks import Number, finite, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule, Time, coefficients

_REACH, _NODES = 14.0, 187  # standard deviations to each side, and how many points between


@final
@dataclass(frozen=True, eq=False)
class Ribbon:
    """x_0 = (u, w) with u ~ N(0, s^2), w ~ N(f(u), g(u)), and what noise makes of it.

    Methods take x as `(batch, 2)` in any floating dtype and t as a number, `()` or `(batch,)`; work
    is in float64.

    Attributes:
        std: s > 0.
        across: u -> (f(u), f'(u), g(u), g'(u)), each like u, with g > 0.

    Raises:
        ValueError: std is not positive and finite; x has another shape.

    Derivation: (density.17).
    """

    std: Number
    across: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

    def __post_init__(self) -> None:
        require(0 < self.std < math.inf, "std", "a positive number", self.std)

    def log_density(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float64[Tensor, " batch"]:
        """log q(x_t) at x: the module's formula. Derivation: (density.19)."""
        return self._joint(schedule, x, t).log.logsumexp(1)

    def score(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float[Tensor, "batch 2"]:
        """The gradient of `log_density` in (x, y), like x.

            d/dy = -E (y - alpha f) / V,    d/dx = -x / S + alpha s^2 / S E dlog N(y; alpha f, V)/du
            dlog N/du = (y - alpha f) alpha f' / V + ((y - alpha f)^2 / V - 1) alpha^2 g' / (2 V)

        E is over u given x_t. Derivation: (density.20), (density.21).
        """
        at = self._joint(schedule, x, t)
        r, z = at.log.softmax(1), at.apart / at.V
        by_u = z * at.alpha * at.slope + (z * at.apart - 1) * at.alpha**2 * at.growth / (2 * at.V)
        along = (at.alpha * self.std**2 * (r * by_u).sum(1, keepdim=True) - at.x) / at.S
        return torch.cat([along, -(r * z).sum(1, keepdim=True)], dim=1).to(x)

    def posterior_mean(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float[Tensor, "batch 2"]:
        """The mean of x_0 given x_t = (x, y), like x; x itself at t = 0.

        E (u, f + alpha g (y - alpha f) / V),    u given x_t

        Derivation: (density.22).
        """
        at = self._joint(schedule, x, t)
        r = at.log.softmax(1)
        w = at.f + at.alpha * at.g * at.apart / at.V
        return torch.stack([(r * at.u).sum(1), (r * w).sum(1)], dim=1).to(x)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """`posterior_mean` under `schedule`: the best denoiser there is for this data."""
        return partial(self.posterior_mean, schedule)

    def sample(self, generator: torch.Generator, n: int) -> Float64[Tensor, "n 2"]:
        """`n` independent draws of x_0: u = s z_1, w = f(u) + sqrt(g(u)) z_2.

        Derivation: (density.17).
        """
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        u = self.std * z[:, 0]
        f, _, g, _ = self.across(u)
        return torch.stack([u, f + g.sqrt() * z[:, 1]], dim=1)

    def _joint(self, schedule: Schedule, x: Tensor, t: Time) -> "_Joint":
        require(x.ndim == 2 and x.shape[1] == 2, "x", "shape (batch, 2)", tuple(x.shape))
        points = x.to(torch.float64)
        alpha, sigma = coefficients(schedule, t, points)
        S = alpha.square() * self.std**2 + sigma.square()
        along, y = points[:, :1], points[:, 1:]
        z = torch.linspace(-_REACH, _REACH, _NODES, dtype=torch.float64, device=x.device)
        z = z if bool((sigma > 0).any()) else z.new_zeros(1)  # at t = 0, u is known
        u = alpha * self.std**2 / S * along + sigma * self.std / S.sqrt() * z
        f, slope, g, growth = self.across(u)
        V, apart = alpha.square() * g + sigma.square(), y - alpha * f
        squares = along.square() / S + apart.square() / V
        log = (-z.square() / 2).log_softmax(0) - (squares + (4 * math.pi**2 * S * V).log()) / 2
        return _Joint(log, u, along, alpha, S, V, apart, f, slope, g, growth)


@dataclass(frozen=True, eq=False)
class _Joint:
    """log q(u, x_t) at the nodes u, `(batch, nodes)`, and what it is made of."""

    log: Tensor
    u: Tensor
    x: Tensor
    alpha: Tensor
    S: Tensor
    V: Tensor
    apart: Tensor
    f: Tensor
    slope: Tensor
    g: Tensor
    growth: Tensor


def banana(bend: Number = 0.4, std: Number = 1.2, thickness: Number = 0.25) -> Ribbon:
    """A normal bent along a parabola: the image of N(0, I) under a map of constant Jacobian.

    (u, w) = (std z_1, bend (u^2 - std^2) + thickness z_2)

    Its mean is the origin. Raises ValueError unless std > 0, thickness > 0 and bend is finite.
    Derivation: (density.24).
    Source: Haario, Saksman and Tamminen (1999), Computational Statistics 14(3), turned over.
    """
    finite("bend", bend)
    require(0 < thickness < math.inf, "thickness", "a positive number", thickness)

    def across(u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f = bend * (u.square() - std**2)
        return f, 2 * bend * u, torch.full_like(u, thickness**2), torch.zeros_like(u)

    return Ribbon(std, across)


def funnel(std: Number = 1.2) -> Ribbon:
    """A normal whose width is log-normal: the image of N(0, I) under a triangular map.

    (u, w) = (std z_1, e^{u/2} z_2)

    Raises ValueError unless std > 0. Source: Neal (2003), Annals of Statistics 31(3), at std = 3.
    Derivation: (density.25).
    """

    def across(u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nothing, g = torch.zeros_like(u), u.exp()
        return nothing, nothing, g, g

    return Ribbon(std, across)
