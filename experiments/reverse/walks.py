"""Walks from noise to data by the true reverse kernels and by Gaussian steps in their place."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.reverse_kernel import sample_reverse
from diffusion_math.grid import trailing
from diffusion_math.metrics import Estimate, energy_distance
from diffusion_math.noise import from_generator
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.one_step import ddpm
from experiments.common.statistics import seeded
from experiments.reverse.learned_score import Learned

KERNELS = "true kernels"
EXACT = "Gaussian steps, exact"
LEARNED = "Gaussian steps, learned"

FEW = 50
"""The true kernels are walked up to so many steps: they are exact for any number."""


@dataclass(frozen=True)
class Walk:
    """How far the end of a walk is from fresh data."""

    way: str
    steps: int
    far: Estimate


@dataclass(frozen=True)
class Walks:
    """Every walk, and for comparison fresh data and one normal with the data's moments."""

    walks: tuple[Walk, ...]
    floor: Estimate
    bell: Estimate

    def of(self, way: str) -> dict[int, Estimate]:
        """The distance by number of steps, of one way, the steps rising."""
        return {one.steps: one.far for one in self.walks if one.way == way}


def kernel_walk(
    schedule: Schedule, data: GaussianMixture, x: Tensor, grid: Tensor, generator: Generator
) -> list[Tensor]:
    """x at every node, each drawn from the true q(x_s | x_t) (C08)."""
    path = [x]
    for t, s in pairwise(grid):
        path.append(sample_reverse(data, generator, schedule, path[-1], t, s))
    return path


def gaussian_walk(
    schedule: Schedule, denoise: Denoiser, x: Tensor, grid: Tensor, generator: Generator
) -> list[Tensor]:
    """x at every node of ancestral sampling: N(mu(x_t), beta_hat I) at every step (C09, C20)."""
    noise = from_generator(generator)
    return [state.x for state in trajectory(ddpm(schedule), denoise, x, grid, noise)]


def judge(
    schedule: Schedule,
    data: GaussianMixture,
    learned: Learned,
    counts: tuple[int, ...],
    n: int,
    seed: int,
) -> Walks:
    """Walk n points from N(0, I) in every way and number of steps, and compare with fresh data."""

    fresh = data.sample(seeded(seed, 1), n)
    z = torch.randn(n, 2, generator=seeded(seed, 2), dtype=torch.float64)
    found = []
    for steps in sorted(set(counts)):
        grid = trailing(schedule, steps)
        ends = {
            EXACT: gaussian_walk(schedule, data.denoiser(schedule), z, grid, seeded(seed, 3))[-1],
            LEARNED: gaussian_walk(schedule, learned.denoiser(), z, grid, seeded(seed, 3))[-1],
        }
        if steps <= max(FEW, min(counts)):
            ends[KERNELS] = kernel_walk(schedule, data, z, grid, seeded(seed, 3))[-1]
        found += [Walk(way, steps, energy_distance(x, fresh)) for way, x in ends.items()]
    bell = z * fresh.std(0) + fresh.mean(0)
    floor = energy_distance(data.sample(seeded(seed, 4), n), fresh)
    return Walks(tuple(found), floor, energy_distance(bell, fresh))


def ways(
    schedule: Schedule, data: GaussianMixture, learned: Learned, steps: int, n: int, seed: int
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """The grid, and the points at each of its nodes by the true kernels and as learned."""
    grid = trailing(schedule, steps)
    z = torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)
    second = seeded(seed, 1)
    third = seeded(seed, 2)
    return grid, {
        "exact": kernel_walk(schedule, data, z, grid, second),
        "learned": gaussian_walk(schedule, learned.denoiser(), z, grid, third),
    }
