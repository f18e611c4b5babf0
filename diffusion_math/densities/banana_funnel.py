"""Banana and funnel: 2D densities whose second coordinate is normal given the first.

    x_0 = (u, w),    u ~ N(0, s^2),    w given u ~ N(f(u), g(u))

The banana bends f, the funnel widens g. Given x_t = (x, y), u is normal again, so that with
S = alpha_t^2 s^2 + sigma_t^2, V(u) = alpha_t^2 g(u) + sigma_t^2,

    q(x_t) = N(x; 0, S) E N(y; alpha_t f(u), V(u)),    u ~ N(alpha_t s^2 x / S, s^2 sigma_t^2 / S)

At t = 0 the u in the mean is x itself and q is a closed form. At t > 0 the mean is one integral
over a normal, by the trapezoid rule: exact to rounding where log q > -50. It omits e^-98 of
the normal, and its error falls faster than any power of the step. The step is 0.15 standard
deviations, or less where f or g changes faster than that at a point's mass (`_halvings`).
Derivation: (toy.18), (toy.19).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffusion_math._batching import in_blocks, places
from diffusion_math.checks import Number, checked, finite, require
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule, Time, coefficients

_REACH, _CELLS = 14.0, 186  # standard deviations to each side, and how many steps between
_SHARP = 4.0  # how many deviations of N(y; alpha f, V) a step of u's own deviation may go over
_GROWS = 2.5  # and by how much log V may grow over it, at the step of 0.15
_NEGLIGIBLE = 45.0  # nats below the largest, beyond which cells are left as they are
_FINEST = 12  # halvings of the step


@final
@checked
@dataclass(frozen=True, eq=False)
class Ribbon:
    """x_0 = (u, w) with u ~ N(0, s^2), w ~ N(f(u), g(u)), exact at every noise level.

    Methods take x as `(batch, 2)` in any floating dtype and t as a number, `()` or `(batch,)`;
    computations are in float64.

    Attributes:
        std: s > 0.
        across: u -> (f(u), f'(u), g(u), g'(u)), each like u, with g > 0; f' and g monotone over
            0.15 deviations of u given x_t.

    Raises:
        ValueError: std is not positive and finite; x has another shape; at t > 0, f or g changes
            more than 16,000 times faster than the noise's width allows.

    Derivation: (toy.17).

    >>> import torch
    >>> import diffusion_math as dm
    >>> banana = dm.densities.banana()
    >>> x0 = banana.sample(torch.Generator().manual_seed(0), 1000)
    >>> banana.score(dm.VPLinear(), x0, 0.5).shape
    torch.Size([1000, 2])
    >>> banana.posterior_mean(dm.VPLinear(), torch.ones(1, 2), 0.5)
    tensor([[0.4905, 0.1721]])
    """

    std: Number
    across: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]

    def __post_init__(self) -> None:
        require(0 < self.std < math.inf, "std", "a positive number", self.std)

    @checked
    def log_density(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float64[Tensor, " batch"]:
        """log q(x_t) at x: the module's formula. Derivation: (toy.19)."""
        return self._given(schedule, x, t, lambda at: at.log.logsumexp(1))

    @checked
    def score(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float[Tensor, "batch 2"]:
        """The gradient of `log_density` in (x, y), like x.

            d/dy = -E (y - alpha f) / V,    d/dx = -x / S + alpha s^2 / S E dlog N(y; alpha f, V)/du
            dlog N/du = (y - alpha f) alpha f' / V + ((y - alpha f)^2 / V - 1) alpha^2 g' / (2 V)

        E is over u given x_t. Derivation: (toy.20), (toy.21).
        """

        def score(at: _Joint) -> Tensor:
            r, z, a = at.log.softmax(1), at.difference / at.V, at.alpha
            by_u = z * a * at.slope + (z * at.difference - 1) * a**2 * at.growth / (2 * at.V)
            along = (a * self.std**2 * (r * by_u).sum(1, keepdim=True) - at.x) / at.S
            return torch.cat([along, -(r * z).sum(1, keepdim=True)], dim=1)

        return self._given(schedule, x, t, score).to(x)

    @checked
    def posterior_mean(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float[Tensor, "batch 2"]:
        """The mean of x_0 given x_t = (x, y), like x; x itself at t = 0.

        E (u, f + alpha g (y - alpha f) / V),    u given x_t

        Derivation: (toy.22).
        """

        def mean(at: _Joint) -> Tensor:
            r, w = at.log.softmax(1), at.f + at.alpha * at.g * at.difference / at.V
            return torch.stack([(r * at.u).sum(1), (r * w).sum(1)], dim=1)

        return self._given(schedule, x, t, mean).to(x)

    @checked
    def denoiser(self, schedule: Schedule) -> Denoiser:
        """`posterior_mean` under `schedule`: the optimal denoiser for this data."""
        return partial(self.posterior_mean, schedule)

    @checked
    def sample(self, generator: torch.Generator, n: int) -> Float64[Tensor, "n 2"]:
        """`n` independent samples of x_0: u = s z_1, w = f(u) + sqrt(g(u)) z_2.

        Derivation: (toy.17).
        """
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64, device="cpu")
        u = self.std * z[:, 0]
        f, _, g, _ = self.across(u)
        return torch.stack([u, f + g.sqrt() * z[:, 1]], dim=1)

    def _given(
        self, schedule: Schedule, x: Tensor, t: Time, of: "Callable[[_Joint], Tensor]"
    ) -> Tensor:
        """`of` applied to the joint density of u and each row, in blocks of equal step."""
        require(x.ndim == 2 and x.shape[1] == 2, "x", "shape (batch, 2)", tuple(x.shape))
        points = x.to(torch.float64)
        levels = (level.expand(len(x), 1) for level in coefficients(schedule, t, points))
        rows = torch.cat([points, *levels], dim=1)
        halvings = in_blocks(self._halvings, rows.detach(), _CELLS)
        parts = []
        for k in torch.unique(halvings).tolist() or [0]:
            cells = _CELLS * 2**k
            at = partial(self._joint, cells=cells)
            alike = rows[halvings == k]
            parts.append(in_blocks(lambda some, at=at: of(at(some)), alike, cells))  # type: ignore[misc]
        return torch.cat(parts)[places(halvings)]

    def _joint(self, rows: Tensor, cells: int) -> "_Joint":
        """At rows of (x, y, alpha, sigma)."""
        x, y, alpha, sigma = torch.split(rows, 1, dim=1)
        S = alpha.square() * self.std**2 + sigma.square()
        z = torch.linspace(-_REACH, _REACH, cells + 1, dtype=torch.float64, device=rows.device)
        z = z if bool((sigma > 0).any()) else z.new_zeros(1)  # at t = 0, u is known
        u = alpha * self.std**2 / S * x + sigma * self.std / S.sqrt() * z
        f, slope, g, growth = self.across(u)
        V, difference = alpha.square() * g + sigma.square(), y - alpha * f
        squares = x.square() / S + difference.square() / V
        log = (-z.square() / 2).log_softmax(0) - (squares + (4 * math.pi**2 * S * V).log()) / 2
        return _Joint(log, u, x, alpha, S, V, difference, f, slope, g, growth)

    def _halvings(self, rows: Tensor) -> Tensor:
        """How often the step is halved, so that it exceeds neither `_SHARP` nor `_GROWS`.

        Only for cells that may hold mass: a cell's mass has a bound by its ends, from which
        y - alpha f moves by at most alpha |f'| du in between, f' and g being monotone there.
        """
        at = self._joint(rows, _CELLS)
        if at.u.shape[1] == 1:
            return rows.new_zeros(len(rows), dtype=torch.int64)
        z = torch.linspace(-_REACH, _REACH, _CELLS + 1, dtype=torch.float64, device=rows.device)
        z2 = z.square()
        du = at.u.diff(dim=1)
        moved = at.alpha * _larger(at.slope.abs()) * du
        nearest = (_smaller(at.difference.abs()) - moved).clamp(min=0)
        least = (_smaller(z2) + nearest.square() / _larger(at.V) + _smaller(at.V.log())) / 2
        found = ((z2 + at.difference.square() / at.V + at.V.log()) / 2).amin(1, keepdim=True)
        bends = moved / _smaller(at.V).sqrt()
        grows = _larger(at.alpha.square() * at.growth.abs() / at.V) * du
        cell = 2 * _REACH / _CELLS
        sharp = (1 + (bends / cell).square()).sqrt() / _SHARP + grows / cell / _GROWS
        sharp = torch.where(least < found + _NEGLIGIBLE, sharp, 0).amax(1)
        halvings = sharp.clamp(min=1).log2().ceil().long()
        wanted = f"a ribbon that noise resolves with steps of {cell:g} / 2^{_FINEST} deviations"
        require(bool((halvings <= _FINEST).all()), "across", wanted, f"2^{int(halvings.max())}")
        return halvings


def _smaller(nodes: Tensor) -> Tensor:
    """Of the two ends of each cell."""
    return torch.minimum(nodes[..., 1:], nodes[..., :-1])


def _larger(nodes: Tensor) -> Tensor:
    return torch.maximum(nodes[..., 1:], nodes[..., :-1])


@dataclass(frozen=True, eq=False)
class _Joint:
    """log q(u, x_t) at the nodes u, `(batch, nodes)`, and its parts."""

    log: Tensor
    u: Tensor
    x: Tensor
    alpha: Tensor
    S: Tensor
    V: Tensor
    difference: Tensor
    f: Tensor
    slope: Tensor
    g: Tensor
    growth: Tensor


@checked
def banana(bend: Number = 0.4, std: Number = 1.2, thickness: Number = 0.25) -> Ribbon:
    """The banana: N(0, I) bent along a parabola, by a map of constant Jacobian.

    (u, w) = (std z_1, bend (u^2 - std^2) + thickness z_2)

    Its mean is the origin. Raises ValueError unless std > 0, thickness > 0 and bend is finite.
    Derivation: (toy.24).
    Source: Haario, Saksman and Tamminen (1999), Computational Statistics 14(3), upside down.

    >>> import torch
    >>> import diffusion_math as dm
    >>> banana = dm.densities.banana(bend=0.4, std=1.2, thickness=0.25)
    >>> banana.log_density(dm.VPLinear(), torch.tensor([[0.0, -0.576], [0.0, 1.0]]), 0)
    tensor([ -0.6339, -20.5041], dtype=torch.float64)
    """
    finite("bend", bend)
    require(0 < thickness < math.inf, "thickness", "a positive number", thickness)

    def across(u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        f = bend * (u.square() - std**2)
        return f, 2 * bend * u, torch.full_like(u, thickness**2), torch.zeros_like(u)

    return Ribbon(std, across)


@checked
def funnel(std: Number = 1.2) -> Ribbon:
    """Neal's funnel: a normal with log-normal variance, N(0, I) under a triangular map.

    (u, w) = (std z_1, e^{u/2} z_2)

    Raises ValueError unless std > 0. Source: Neal (2003), Annals of Statistics 31(3), at std = 3.
    Derivation: (toy.25).

    >>> import torch
    >>> import diffusion_math as dm
    >>> funnel = dm.densities.funnel(std=1.2)
    >>> funnel.log_density(dm.VPLinear(), torch.tensor([[0.0, 0.0], [2.0, 0.0]]), 0)
    tensor([-2.0202, -4.4091], dtype=torch.float64)
    """

    def across(u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nothing, g = torch.zeros_like(u), u.exp()
        return nothing, nothing, g, g

    return Ribbon(std, across)
