"""The checkerboard: uniform on every other square, convolved with a normal.

Noise adds to the normal, so q(x_t) has a closed form: with S = alpha_t^2 std^2 + sigma_t^2,

    q(x_t) = 1/2 sum_{p in even, odd} A_p(x) A_p(y),    A_p = mean over i = p (mod 2) of A_i
    A_i(x) = (Phi((x - alpha_t a_i) / sqrt(S)) - Phi((x - alpha_t a_{i+1}) / sqrt(S))) / (alpha_t w)

where column i is [a_i, a_{i+1}], of width w. A square (i, j) is full where i + j is even.
Derivation: (toy.8), (toy.9).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from jaxtyping import Float, Float64
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from diffusion_math.checks import Number, checked, require, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.schedule import Schedule, Time, coefficients


@final
@checked
@dataclass(frozen=True)
class Checkerboard:
    """x_0 = u + std z, u uniform on the full squares of a board about the origin.

    Methods take x as `(batch, 2)` in any floating dtype and t as a number, `()` or `(batch,)`;
    computations are in float64.

    Attributes:
        squares: the number per side, even and at least 2.
        width: w > 0, of one square.
        std: > 0, of the normal.

    Raises:
        ValueError: an argument is outside these ranges; x has another shape.

    Derivation: (toy.7).

    >>> import torch
    >>> import diffusion_math as dm
    >>> board = dm.densities.Checkerboard(squares=4, width=1.0, std=0.05)
    >>> on_and_off = torch.tensor([[0.5, 0.5], [0.5, 1.5]])
    >>> board.log_density(dm.VPLinear(), on_and_off, 0)
    tensor([ -2.0794, -54.2121], dtype=torch.float64)
    >>> board.denoiser(dm.VPLinear())(on_and_off, torch.tensor(0.1))
    tensor([[0.5177, 0.5177],
            [0.5827, 1.3877]])
    """

    squares: int = 4
    width: Number = 1.0
    std: Number = 0.05

    def __post_init__(self) -> None:
        whole("squares", self.squares, 2)
        require(self.squares % 2 == 0, "squares", "an even number", self.squares)
        require(0 < self.width < math.inf, "width", "a positive number", self.width)
        require(0 < self.std < math.inf, "std", "a positive number", self.std)

    @checked
    def log_density(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float64[Tensor, " batch"]:
        """log q(x_t) at x: the module's formula, in logarithms throughout.

        Derivation: (toy.9).
        """
        return self._parts(schedule, x, t)[0]

    @checked
    def score(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float[Tensor, "batch 2"]:
        """The gradient of `log_density` in x, like x: (alpha_t E[u given x_t] - x) / S.

        Derivation: (toy.10).
        """
        _, u, alpha_t, S = self._parts(schedule, x, t)
        return ((alpha_t * u - x.to(u)) / S).to(x)

    @checked
    def posterior_mean(
        self, schedule: Schedule, x: Float[Tensor, "batch 2"], t: Time
    ) -> Float[Tensor, "batch 2"]:
        """The mean of x_0 given x_t, like x: (sigma_t^2 E[u given x_t] + alpha_t std^2 x) / S.

        Derivation: (toy.11).
        """
        _, u, alpha_t, S = self._parts(schedule, x, t)
        softened = alpha_t * self.std**2 / S
        return ((1 - alpha_t * softened) * u + softened * x.to(u)).to(x)

    @checked
    def denoiser(self, schedule: Schedule) -> Denoiser:
        """`posterior_mean` under `schedule`: the optimal denoiser for this data."""
        return partial(self.posterior_mean, schedule)

    @checked
    def sample(self, generator: torch.Generator, n: int) -> Float64[Tensor, "n 2"]:
        """`n` independent samples of x_0: a random full square, a point in it, plus a normal."""
        odd = torch.randint(2, (n, 1), generator=generator, device="cpu")
        pair = torch.randint(self.squares // 2, (n, 2), generator=generator, device="cpu")
        inside = torch.rand(n, 2, generator=generator, dtype=torch.float64, device="cpu") - 0.5
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64, device="cpu")
        return self._middles()[2 * pair + odd] + self.width * inside + self.std * z

    def _middles(self) -> Float64[Tensor, " squares"]:
        """The centres of the columns, equal to those of the rows."""
        places = torch.arange(self.squares, dtype=torch.float64, device="cpu")
        return self.width * (places - (self.squares - 1) / 2)

    def _parts(
        self, schedule: Schedule, x: Tensor, t: Time
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log q(x_t), `(batch,)`; E[u given x_t], `(batch, 2)`; alpha_t and S."""
        require(x.ndim == 2 and x.shape[1] == 2, "x", "shape (batch, 2)", tuple(x.shape))
        points = x.to(torch.float64)
        alpha_t, sigma_t = coefficients(schedule, t, points)
        S = alpha_t.square() * self.std**2 + sigma_t.square()
        middles, unit = self._middles().to(x.device), S.sqrt()[..., None]
        c = (points[..., None] - alpha_t[..., None] * middles) / unit
        log_mean, offset = _over_interval(c, alpha_t[..., None] * self.width / unit)
        # (batch, 2 axes, columns) -> (batch, 2 axes, 2 parities, columns of that parity)
        log_A = torch.stack([log_mean[..., p::2] for p in (0, 1)], dim=2)
        u = middles + self.width * offset
        u_given = log_A.softmax(3) * torch.stack([u[..., p::2] for p in (0, 1)], dim=2)
        log_joint = log_A.logsumexp(3).sum(1)
        r = log_joint.softmax(1)[:, None]
        norm = math.log(2) + 2 * math.log(self.squares // 2)
        log_q = log_joint.logsumexp(1) - norm - S.log().reshape(-1)
        return log_q, (u_given.sum(3) * r).sum(2), alpha_t, S


def _over_interval(c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """log of the normal density's mean over [c - h/2, c + h/2], and an offset k within +-1/2.

    k is the mean of v given c = h v + z, for v uniform on [-1/2, 1/2]: the logarithm's slope in c
    is h k - c. Long intervals near by have differences of Phi, taken in the lower tail. Where those
    cancel, in short intervals and far ones, the integral is taken from the nearer edge on, where
    the mass is: by Gauss and Legendre's rule, exact to rounding however short or far.
    Derivation: (toy.12), (toy.13), (toy.14), (toy.15), (toy.16).
    """
    side = _side(c)
    near = side * c - h / 2
    summed = (h <= 1) | (near >= 8)
    log_long, k_long = _by_tails(torch.where(summed, 0.0, c), torch.where(summed, 2.0, h))
    log_sum, k_sum = _from_edge(torch.where(summed, near, 8.0), torch.where(summed, h, 1.0))
    return torch.where(summed, log_sum, log_long), torch.where(summed, side * k_sum, k_long)


def _side(c: Tensor) -> Tensor:
    """1 or -1, for c = 0 too, where the slopes that `c.sign()` would give are wrong."""
    return torch.where(c < 0, -1.0, 1.0)


def _by_tails(c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Both by Phi. Derivation: (toy.13), (toy.14)."""
    side = _side(c)
    low, high = -side * c - h / 2, -side * c + h / 2
    log_high = torch.special.log_ndtr(high)
    log_mass = log_high + torch.log(-torch.expm1(torch.special.log_ndtr(low) - log_high))
    log_normal = -(high.square() + math.log(2 * math.pi)) / 2
    slope = -side * torch.exp(log_normal - log_mass) * -torch.expm1(-side * c * h)
    return log_mass - h.log(), (c + slope) / h


def _from_edge(near: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Both by a sum over w, the share of the interval from its edge at `near` deviations.

    It goes as far as e^-40 of the mass. Derivation: (toy.15), (toy.16).
    """
    points, weights = (torch.from_numpy(part).to(h.device) for part in leggauss(24))
    reach = 40 / (near * h).clamp(min=40)
    w = reach[..., None] * (points + 1) / 2
    mass = weights / 2 * torch.exp(-(near[..., None] + h[..., None] * w / 2) * h[..., None] * w)
    total = mass.sum(-1)
    log_mean = (reach * total).log() - (near.square() + math.log(2 * math.pi)) / 2
    return log_mean, 0.5 - (mass * w).sum(-1) / total
