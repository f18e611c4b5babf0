"""Where grids are tuned and tested: a mixture whose flow is exact, and the embedded model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffusion_math.denoiser import Denoiser
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.fitting.grids import distances
from diffusion_math.fitting.weights import FinePath
from diffusion_math.grid import uniform_log_snr
from diffusion_math.noise import start_noise, zeros
from diffusion_math.sample import final, trajectory
from diffusion_math.schedule import Discrete, Schedule
from diffusion_math.solvers.exponential import multistep
from diffusion_math.solvers.step import Step
from experiments.common.statistics import seeded
from sd.pipeline import TextToImage
from sd.shapes import accuracy

FINE = 6
"""Steps of the fine path between two nodes of the teacher's grid."""
FINE_ORDER = 3
"""Order of the fine path's solver."""


@dataclass(frozen=True, eq=False)
class Side:
    """Starts, and the ends of their exact flows.

    path: the fine path of the first starts; path_denoise: the denoiser for these.
    doubts: for each start the error of its end, estimated from half as many steps: their
    difference over 2^FINE_ORDER - 1.
    """

    denoise: Denoiser
    path_denoise: Denoiser
    starts: Tensor
    ends: Tensor
    path: FinePath
    doubts: Tensor

    @property
    def nodes(self) -> Tensor:
        """Times of the fine path that published methods choose from."""
        return self.path.times[self._picked]

    @property
    def teacher(self) -> list[Tensor]:
        """The path's states there."""
        return [self.path.states[k] for k in self._picked]

    @property
    def _picked(self) -> list[int]:
        last = len(self.path.times) - 1
        return [*range(0, last, FINE), last]


@dataclass(frozen=True, eq=False)
class FittingProblem:
    """A test problem: a denoiser under a schedule, with training and test starts.

    groups: groups of channels, each with its own weights.
    """

    name: str
    title: str
    schedule: Schedule
    train: Side
    test: Side
    groups: int = 1


def mixture(train: int, test: int, fit: int, nodes: int, seed: int) -> FittingProblem:
    """Eight diagonal Gaussians in 16 dimensions under Stable Diffusion's schedule."""

    def normal(part: int, *shape: int) -> Tensor:  # seeded by its low 32 bits alone
        return torch.randn(shape, generator=seeded(8 * seed, part), dtype=torch.float64)

    spread = 0.05 + 0.3 * torch.rand((8, 16), generator=seeded(8 * seed, 1), dtype=torch.float64)
    data = GaussianMixture(normal(2, 8) / 2, normal(3, 8, 16), spread)
    schedule = Discrete.scaled_linear()
    denoise = data.denoiser(schedule)
    title = "Eight Gaussians in 16 dimensions, exact"
    sides = [
        side(schedule, denoise, denoise, normal(part, count, 16), nodes, fine)
        for part, count, fine in ((4, train, fit), (5, test, 0))
    ]
    return FittingProblem("mixture", title, schedule, *sides)


def model(pipeline: TextToImage, scale: float, count: int, fit: int, nodes: int) -> FittingProblem:
    """The text-to-image model, guided at every noise level.

    The test side has other seeds and other prompts. Each channel of the latents has its own
    weights.
    """
    shape = pipeline.config.latent_shape

    def of(part: int, first: int, fine: int) -> Side:
        contexts = pipeline.encode_prompts(["", *accuracy.fresh_prompts(part, count)])
        every, some = (
            pipeline.denoiser((contexts[:1], contexts[1 : 1 + rows]), scale)
            for rows in (count, fine)
        )
        starts = start_noise(range(first, first + count), shape).to(pipeline.device)
        return side(pipeline.schedule, every, some, starts, nodes, fine)

    title = f"The embedded model, guided with w = {scale:g}"
    return FittingProblem(
        "model", title, pipeline.schedule, of(3, 1000, fit), of(4, 2000, 0), shape[0]
    )


def side(
    schedule: Schedule, denoise: Denoiser, some: Denoiser, starts: Tensor, nodes: int, fine: int
) -> Side:
    """The flow from these starts, on a grid uniform in log-SNR.

    The path of the first `fine` starts is stored; `some` is their denoiser.
    """
    many = uniform_log_snr(schedule, FINE * (nodes - 1) + 1)  # the last step goes to 0
    states, ends = fine_path(denoise, schedule, starts, many, fine)
    half = uniform_log_snr(schedule, FINE * (nodes - 1) // 2 + 1)
    _, rough = fine_path(denoise, schedule, starts, half, 0)
    doubts = distances(rough, ends) / (2**FINE_ORDER - 1)
    return Side(denoise, some, starts, ends, FinePath(many, states), doubts)


def fine_path(
    denoise: Denoiser, schedule: Schedule, starts: Tensor, grid: Tensor, fine: int
) -> tuple[list[Tensor], Tensor]:
    """The states of the first `fine` starts by a third-order solver, and the ends of all."""
    path, states = trajectory(multistep(schedule, order=FINE_ORDER), denoise, starts, grid), []
    with torch.no_grad():
        for state in path:
            states.append(state.x[:fine].clone())
            end = state.x
    return states, end


def nfe(make: Callable[[Schedule], Step], schedule: Schedule, grid: Tensor) -> int:
    """The NFE of a solver on a grid, counted with a denoiser that returns 0."""
    evaluated = []

    def zero(x_t: Tensor, t: Tensor) -> Tensor:
        evaluated.append(t)
        return torch.zeros_like(x_t)

    final(make(schedule), zero, torch.ones(1, 1, dtype=torch.float64), grid, zeros)
    return len(evaluated)
