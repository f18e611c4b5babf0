"""Data, models of their scores and noise, and expectations that are sums over a grid, never draws.

The trapezoid rule on a step h converges as exp(-2 pi d / h), d the distance from the real axis to
the nearest pole of a score: below 1e-11 for the grids here, and what is lost beyond their ends is
below 1e-12.
"""

import math

import torch
from torch import Tensor

from diffusion_math import prediction
from diffusion_math.denoiser import Network
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VE, Schedule
from diffusion_math.score_matching import Score
from tests.support.chance import pinned
from tests.support.mixtures import normal

CLEAN = VE()
KINDS = ("x0", "eps", "v", "flow", "score")


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


LINE = GaussianMixture(tensor(0.0, 0.7), tensor(-0.8, 0.9), tensor([[0.3]], [[0.5]]))
PLANE = GaussianMixture(
    tensor(0.3, 0.0),
    tensor([-0.5, 0.3], [0.6, -0.2]),
    tensor([[0.6, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.5]]),
)


def grid(reach: float, step: float) -> Tensor:
    count = round(2 * reach / step) + 1
    return torch.linspace(-reach, reach, count, dtype=torch.float64)


def samples(data: GaussianMixture) -> tuple[Tensor, Tensor]:
    """Points and weights: an expectation over the data is `weights @ values`."""
    if data.means.ndim == 1:
        x, cell = grid(8, 0.02), 0.02
    else:
        x, cell = torch.cartesian_prod(grid(7, 0.1), grid(7, 0.1)), 0.01
    return x, data.log_density(CLEAN, x, 0).exp() * cell


def noisy_samples(data: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    """The same over x and eps, in one dimension."""
    x, eps = grid(8, 0.08), grid(7.5, 0.1)
    weights = data.log_density(CLEAN, x, 0).exp()[:, None] * torch.exp(-eps.square() / 2)
    pairs = torch.cartesian_prod(x, eps)
    return pairs[:, 0], pairs[:, 1], weights.flatten() * 0.008 / math.sqrt(2 * math.pi)


def score_of(data: GaussianMixture, sigma: float = 0.0) -> Score:
    return lambda x: data.score(CLEAN, x, sigma)


def mlp(x: Tensor, first: Tensor, shift: Tensor, last: Tensor) -> Tensor:
    """A score model without symmetries: its Jacobian is no gradient's."""
    flat = x[:, None].flatten(1)
    return (torch.tanh(flat @ first + shift) @ last - 0.5 * flat).reshape(x.shape)


def weights_of(size: int, hidden: int = 3) -> list[Tensor]:
    g = pinned(7)
    drawn = [normal(g, size, hidden), normal(g, hidden), normal(g, hidden, size)]
    return [(0.6 * p).requires_grad_() for p in drawn]


def saying(schedule: Schedule, kind: str, x0_hat: Tensor, t: Tensor) -> Network:
    """A network of that kind which, in its own words, says x0_hat."""

    def network(x_t: Tensor, time: Tensor) -> Tensor:
        if kind == "x0":
            return x0_hat
        said: Tensor = getattr(prediction, f"{kind}_from_x0")(schedule, x_t, x0_hat, t)
        return said

    return network
