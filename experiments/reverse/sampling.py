"""Sampling by the true reverse kernels and by Gaussian steps in their place, and its errors."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.grid import trailing
from diffusion_math.metrics import Estimate, energy_distance
from diffusion_math.noise import from_generator
from diffusion_math.sample import trajectory
from diffusion_math.schedule import Schedule
from diffusion_math.solvers.one_step import ddpm
from experiments.common.chains import sample_backward
from experiments.common.statistics import seeded
from experiments.reverse.learned_score import Learned

KERNELS = "true kernels"
EXACT = "Gaussian steps, exact"
LEARNED = "Gaussian steps, learned"

FEW = 50
"""The true kernels are sampled in at most so many steps: they are exact for any number."""


@dataclass(frozen=True)
class SamplingError:
    """The squared energy distance of the samples of one method from fresh data."""

    method: str
    steps: int
    distance: Estimate


@dataclass(frozen=True)
class SamplingErrors:
    """The errors of all methods, of fresh data, and of one normal with the data's moments."""

    errors: tuple[SamplingError, ...]
    floor: Estimate
    one_normal: Estimate

    def of(self, method: str) -> dict[int, Estimate]:
        """The distance by number of steps, of one method, the steps rising."""
        return {one.steps: one.distance for one in self.errors if one.method == method}


def sample_by_gaussian_steps(
    schedule: Schedule, denoise: Denoiser, x: Tensor, grid: Tensor, generator: Generator
) -> list[Tensor]:
    """x at every node of ancestral sampling: N(mu(x_t), beta_hat I) at every step (C09, C20)."""
    noise = from_generator(generator)
    return [state.x for state in trajectory(ddpm(schedule), denoise, x, grid, noise)]


def sampling_errors(
    data: GaussianMixture, learned: Learned, counts: tuple[int, ...], n: int, seed: int
) -> SamplingErrors:
    """Sample from n points of N(0, I) by every method and number of steps; compare with data."""
    schedule = learned.schedule
    fresh = data.sample(seeded(seed, 1), n)
    z = torch.randn(n, 2, generator=seeded(seed, 2), dtype=torch.float64)
    denoisers = {EXACT: data.denoiser(schedule), LEARNED: learned.denoiser()}
    found = []
    for steps in sorted(set(counts)):
        grid = trailing(schedule, steps)
        ends = {
            name: sample_by_gaussian_steps(schedule, denoise, z, grid, seeded(seed, 3))[-1]
            for name, denoise in denoisers.items()
        }
        if steps <= max(FEW, min(counts)):
            ends[KERNELS] = sample_backward(z, data, schedule, grid, seeded(seed, 3))[-1]
        found += [
            SamplingError(method, steps, energy_distance(x, fresh)) for method, x in ends.items()
        ]
    one_normal = z * fresh.std(0) + fresh.mean(0)
    floor = energy_distance(data.sample(seeded(seed, 4), n), fresh)
    return SamplingErrors(tuple(found), floor, energy_distance(one_normal, fresh))


def trajectories(
    data: GaussianMixture, learned: Learned, steps: int, n: int, seed: int
) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """The grid, and the points at each of its nodes by the true kernels and as learned."""
    schedule, grid = learned.schedule, trailing(learned.schedule, steps)
    z = torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)
    by_steps = sample_by_gaussian_steps(schedule, learned.denoiser(), z, grid, seeded(seed, 2))
    return grid, {
        "exact": sample_backward(z, data, schedule, grid, seeded(seed, 1)),
        "learned": by_steps,
    }
