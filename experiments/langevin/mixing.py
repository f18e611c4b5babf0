"""Langevin samplers on one density by one budget, and how long a plain chain is held by a mode."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import ncx2
from torch import Tensor

from diffusion_math import langevin
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.langevin import Move, Particles, chain
from diffusion_math.langevin_law import ula_distribution
from diffusion_math.noise import from_generator
from diffusion_math.schedule import VE
from experiments.common.statistics import Interval, seeded
from experiments.langevin.bias import normal

TITLES = {
    "ascent": "gradient ascent",
    "ULA": "Langevin, unadjusted",
    "MALA": "Langevin, Metropolis",
    "BAOAB": "Langevin, underdamped",
    "annealed": "Langevin, annealed",
}
"""The samplers by their short names."""
Shares = dict[str, list[tuple[float, Interval]]]
"""Of every sampler, the share of its particles at each mode, with its interval."""
WEIGHTS = (0.05, 0.25, 0.70)
RADIUS, STD = 2.0, 0.25
SPREAD = 1.5
"""Standard deviation of the start, N(0, SPREAD^2 I)."""
RATE = 0.1
"""Step size in units of a mode's variance."""
FRICTION = 2.0
LEVELS, FIRST, LAST, ANNEALED_RATE = 20, 2.5, 0.15, 0.15
"""The ladder of noise: levels, the first and the last sigma, delta over the last sigma^2."""


def modes() -> GaussianMixture:
    """Three equal round modes at the corners of a triangle, of weights 5, 25 and 70%."""
    angles = math.pi * (0.5 + 2 / 3 * torch.arange(3, dtype=torch.float64))
    means = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(
        torch.tensor(WEIGHTS, dtype=torch.float64).log(), means, torch.full((3,), STD**2)
    )


@dataclass(frozen=True)
class Sampler:
    """A chain of `moves` moves with noise of this seed."""

    name: str
    move: Move
    moves: int
    seed: int

    def trajectory(self, start: Tensor) -> Iterator[Particles]:
        """The states after each move."""
        return chain(self.move, start, self.moves, from_generator(seeded(self.seed)))


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.evaluations = function, 0

    def __call__(self, *given: Tensor) -> Any:
        self.evaluations += 1
        return self.function(*given)


def samplers(
    data: GaussianMixture, budget: int, seed: int
) -> tuple[list[Sampler], dict[str, Counted]]:
    """Ascent, ULA, MALA, annealed Langevin and BAOAB with `budget` evaluations each.

    MALA and BAOAB evaluate once before their first move, so they make one move less. All but
    annealed Langevin take the step size RATE STD^2; BAOAB's h goes as far in one move.
    """
    delta, schedule = RATE * STD**2, VE()
    levels = torch.logspace(math.log10(FIRST), math.log10(LAST), LEVELS, dtype=torch.float64)
    levels = levels[-max(1, min(LEVELS, budget)) :]
    evaluations = {
        name: Counted(lambda x: data.score(schedule, x, 0.0)) for name in ("ascent", "ULA", "BAOAB")
    }
    evaluations["MALA"] = Counted(lambda x: data.log_density_and_score(schedule, x, 0.0))
    evaluations["annealed"] = Counted(lambda x, sigma: data.score(schedule, x, sigma))
    made = {
        "ascent": langevin.ascent(evaluations["ascent"], delta),
        "ULA": langevin.ula(evaluations["ULA"], delta),
        "MALA": langevin.mala(evaluations["MALA"], delta),
        "BAOAB": langevin.baoab(evaluations["BAOAB"], math.sqrt(2 * delta), FRICTION),
        "annealed": langevin.annealed(
            evaluations["annealed"], levels, max(1, budget // len(levels)), ANNEALED_RATE * LAST**2
        ),
    }
    return [
        Sampler(name, move, budget - (name in ("MALA", "BAOAB")), seed + k)
        for k, (name, move) in enumerate(made.items())
    ], evaluations


def nearest_mode(data: GaussianMixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """The distance to the nearest mode and its number, `(batch,)` each."""
    away, mode = (x[:, None] - data.means).norm(dim=2).min(1)
    return away, mode


def trapping_bound(data: GaussianMixture, mode: int, delta: float, moves: int) -> float:
    """What a mode's share of ULA's particles cannot go below, started at N(0, SPREAD^2 I).

    Let c be the modes' variance and Y the chain on N(m_i, c I) with X's start and noises. In the
    ball of radius rho < d/2 about m_i, d the distance to the next mode,

        |S(x) - (m_i - x) / c| <= e = sum_j (w_j / w_i) (d_j / c) exp(-d_j (d_j - 2 rho) / (2 c))

    and a move contracts, so while X stays there |X - Y| <= c e. So X leaves it within k moves only
    if Y leaves the ball of radius R = rho - c e; started within R_0 of m_i it does so with a chance
    of at most sum_k exp(-(R - |E Y_k|)^2 / (2 Var Y_k)), the distribution of Y_k being
    `ula_distribution`'s. In that ball m_i is the nearest mode. The best rho and R_0 of a lattice
    are taken.

    Needs delta <= c. Returns P(start within R_0) (1 - chance of leaving), at least 0.
    """
    c, middle = float(data.covariances[mode]), data.means[mode]
    distances = (data.means - middle).norm(dim=1)
    others = distances > 0
    ratio, distances = (data.log_weights - data.log_weights[mode]).exp()[others], distances[others]
    rho = torch.linspace(0.5, 0.999, 60, dtype=torch.float64)[:, None] * distances.min() / 2
    tilt = ratio * distances / c * torch.exp(-distances * (distances - 2 * rho) / (2 * c))
    radius = (rho[:, 0] - c * tilt.sum(1)).clamp(min=0)[:, None]
    start = torch.linspace(0.05, 0.95, 46, dtype=torch.float64) * radius
    left = torch.zeros_like(start)
    target, point = normal(c), Gaussian(torch.ones(1, 1).double(), torch.zeros(()).double())
    for k in range(1, moves + 1):
        after = ula_distribution(target, delta, point, k)
        reach = (radius - start * after.mean[0, 0]).clamp(min=0)
        left += torch.exp(-reach.square() / (2 * after.variance))
    ball = ncx2.cdf((start / SPREAD).square().numpy(), 2, float(middle @ middle) / SPREAD**2)
    return float((torch.from_numpy(ball) * (1 - left)).clamp(min=0).max())


def states_at(trajectory: Iterator[Particles], at: Sequence[int]) -> dict[int, Particles]:
    """The states after these numbers of moves, and the last."""
    states = {}
    for state in trajectory:
        if state.moves in at:
            states[state.moves] = state
    states[state.moves] = state
    return states
