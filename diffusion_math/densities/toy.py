"""2D toy densities with exact log-density, score, denoiser and sampler at every q(x_t).

Five are Gaussian mixtures. `banana_funnel` and `checkerboard` have the other three.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from diffusion_math.checks import Number, Registry, checked, require, whole
from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.banana_funnel import banana, funnel
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Schedule, Time


class Density(Protocol):
    """The interface of toy densities; t = 0 gives the data distribution.

    >>> import torch
    >>> import diffusion_math as dm
    >>> schedule, x_t = dm.VPLinear(), torch.ones(1, 2)
    >>> for name, make in dm.DENSITIES.items():
    ...     print(f"{name:13}{make().log_density(schedule, x_t, 0.2).item():6.3f}")
    ...
    ring         -2.679
    grid25       -2.860
    two_moons    -3.434
    pinwheel     -2.736
    spirals      -2.856
    checkerboard -2.615
    banana       -3.217
    funnel       -2.976
    """

    def log_density(self, schedule: Schedule, x: Tensor, t: Time) -> Tensor:
        """log q(x_t) at x, `(batch,)` for x `(batch, 2)` and t a number, `()` or `(batch,)`."""

    def score(self, schedule: Schedule, x: Tensor, t: Time) -> Tensor:
        """The gradient of `log_density` in x, like x."""

    def posterior_mean(self, schedule: Schedule, x: Tensor, t: Time) -> Tensor:
        """E[x_0 | x_t = x], like x."""

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """`posterior_mean` under `schedule`."""

    def sample(self, generator: torch.Generator, n: int) -> Tensor:
        """`n` independent samples of x_0, `(n, 2)` in float64."""


@checked
def ring(modes: int = 8, radius: float = 2.0, std: float = 0.15) -> GaussianMixture:
    """Equal isotropic modes on a circle.

    m_k = radius (cos(2 pi k / modes), sin(2 pi k / modes)),    C_k = std^2 I

    Raises ValueError unless modes >= 1 and std > 0. Derivation: (toy.1).

    >>> import diffusion_math as dm
    >>> ring = dm.densities.ring(modes=8, radius=2.0, std=0.15)
    >>> ring.means.shape, ring.means.norm(dim=1)
    (torch.Size([8, 2]), tensor([2., 2., 2., 2., 2., 2., 2., 2.], dtype=torch.float64))
    """
    whole("modes", modes, 1)
    angles = 2 * math.pi / modes * torch.arange(modes, dtype=torch.float64, device="cpu")
    return _isotropic(radius * _on_circle(angles), std)


@checked
def grid25(spacing: float = 1.0, std: float = 0.1) -> GaussianMixture:
    """Twenty-five equal isotropic modes on a square grid about the origin.

    m_ij = spacing (i, j),    i, j in {-2, .., 2},    C_ij = std^2 I

    Raises ValueError unless std > 0. Derivation: (toy.2).

    >>> import diffusion_math as dm
    >>> dm.densities.grid25(spacing=1.0, std=0.1).means.shape
    torch.Size([25, 2])
    """
    line = spacing * torch.arange(-2, 3, dtype=torch.float64, device="cpu")
    return _isotropic(torch.cartesian_prod(line, line), std)


@checked
def two_moons(modes: int = 32, std: float = 0.1) -> GaussianMixture:
    """Two interleaved half circles of radius 1, each a chain of `modes` equal isotropic modes.

        upper: (cos a - 1/2, sin a - 1/4),    lower: the upper rotated by pi about the origin
        a = pi k / (modes - 1),    k = 0 .. modes - 1,    C_k = std^2 I

    Unlike the usual uniform arc with noise added, this has an exact density at every t.
    Raises ValueError unless modes >= 2 and std > 0. Derivation: (toy.3).

    >>> import torch
    >>> import diffusion_math as dm
    >>> x0 = dm.densities.two_moons(std=0.1).sample(torch.Generator().manual_seed(0), 1000)
    >>> x0.shape, x0.mean(0).round(decimals=1).abs()
    (torch.Size([1000, 2]), tensor([0., 0.], dtype=torch.float64))
    """
    whole("modes", modes, 2)
    angles = torch.linspace(0, math.pi, modes, dtype=torch.float64, device="cpu")
    upper = _on_circle(angles) - torch.tensor([0.5, 0.25], dtype=torch.float64, device="cpu")
    return _isotropic(torch.cat([upper, -upper]), std)


@checked
def pinwheel(
    arms: int = 5, modes: int = 12, radius: float = 2.0, twist: float = 0.25, std: float = 0.1
) -> GaussianMixture:
    """A pinwheel: twisted arms about the origin, each a chain of `modes` elongated modes.

        p(r) = radius r (cos a, sin a),    a = 2 pi k / arms + twist e^r,    r in 1 +- 0.7
        weights as N(r; 1, 0.3^2),    std across the arm, and along it the distance between modes

    Raises ValueError unless arms >= 1, modes >= 2 and std > 0.
    Derivation: (toy.5).
    Source: Johnson et al. (arXiv:1603.06277), the pinwheel data, at twice their radius.

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.densities.pinwheel(arms=5).log_density(dm.VPLinear(), torch.zeros(1, 2), 0.5)
    tensor([-1.9406], dtype=torch.float64)
    """
    whole("arms", arms, 1)
    whole("modes", modes, 2)
    r = 1 + torch.linspace(-0.7, 0.7, modes, dtype=torch.float64, device="cpu").repeat(arms)
    turns = torch.arange(arms, dtype=torch.float64, device="cpu").repeat_interleave(modes) / arms
    angles = 2 * math.pi * turns + twist * r.exp()
    points = radius * r[:, None] * _on_circle(angles)
    # dp/dr, by da/dr = twist e^r
    along = radius * (_on_circle(angles) + (r * twist * r.exp())[:, None] * _leftward(angles))
    return _chain((1 - r).square() / -0.18, points, along * 1.4 / (modes - 1), std)


@checked
def spirals(
    arms: int = 2, modes: int = 32, radius: float = 2.5, turns: float = 1.5, std: float = 0.08
) -> GaussianMixture:
    """Archimedean spirals about the origin, each a chain of `modes` equal elongated modes.

        p(v) = radius v (cos a, sin a),    a = 2 pi (k / arms + turns v),    v = sqrt(1/16 .. 1)

    The square root spaces the modes about equally. std is across the curve; along it the standard
    deviation is the distance between modes. Raises ValueError unless arms >= 1, modes >= 2 and std
    > 0.
    Derivation: (toy.6).

    >>> import torch
    >>> import diffusion_math as dm
    >>> dm.densities.spirals(arms=2).log_density(dm.VPLinear(), torch.zeros(1, 2), 0.5)
    tensor([-1.9010], dtype=torch.float64)
    """
    whole("arms", arms, 1)
    whole("modes", modes, 2)
    v = torch.linspace(1 / 16, 1, modes, dtype=torch.float64, device="cpu").sqrt().repeat(arms)
    firsts = torch.arange(arms, dtype=torch.float64, device="cpu").repeat_interleave(modes) / arms
    angles = 2 * math.pi * (firsts + turns * v)
    points = radius * v[:, None] * _on_circle(angles)
    # dp/dv times dv between modes: v dv = (1 - 1/16) / (2 (modes - 1))
    along = radius * (_on_circle(angles) + (2 * math.pi * turns * v)[:, None] * _leftward(angles))
    step = 15 / 32 / (modes - 1) / v[:, None]
    return _chain(torch.zeros(arms * modes, device="cpu"), points, step * along, std)


DENSITIES: dict[str, Callable[[], Density]] = Registry(
    {
        "ring": ring,
        "grid25": grid25,
        "two_moons": two_moons,
        "pinwheel": pinwheel,
        "spirals": spirals,
        "checkerboard": Checkerboard,
        "banana": banana,
        "funnel": funnel,
    }
)
"""Every density by name, at its default settings."""


def _on_circle(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def _leftward(angles: Tensor) -> Tensor:
    """The direction of increasing angle."""
    return torch.stack([-angles.sin(), angles.cos()], dim=-1)


def _chain(log_weights: Tensor, means: Tensor, along: Tensor, std: Number) -> GaussianMixture:
    """Modes with the standard deviation |along_k| in the direction of along_k, `std` across it.

    Derivation: (toy.4).
    """
    require(0 < std < math.inf, "std", "a positive number", std)
    unit = along / along.norm(dim=1, keepdim=True)
    across = torch.stack([-unit[:, 1], unit[:, 0]], dim=1)
    covariances = sum(v[:, :, None] * v[:, None, :] for v in (along, std * across))
    return GaussianMixture(log_weights, means, torch.as_tensor(covariances, device="cpu"))


def _isotropic(means: Tensor, std: float) -> GaussianMixture:
    require(0 < std < math.inf, "std", "a positive number", std)
    variances = torch.full((len(means),), std**2, dtype=torch.float64, device="cpu")
    return GaussianMixture(torch.zeros(len(means), device="cpu"), means, variances)
