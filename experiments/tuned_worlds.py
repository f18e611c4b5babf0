"""Where grids are tuned and tested: a mixture whose flow is exact, and the embedded model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_math.denoiser import Denoiser
    from diffusion_math.schedule import Schedule
    from sd.pipeline import TextToImage

FINE = 8
"""Steps of the fine walk between two nodes of the teacher's grid."""


@dataclass(frozen=True, eq=False)
class Side:
    """Starts and where the flow takes them; `teacher` is that walk at `nodes`, and `doubt` what
    half as many steps leave of an error, over 3, what Heun's second order leaves of that."""

    denoise: "Denoiser"
    starts: "Tensor"
    ends: "Tensor"
    nodes: "Tensor"
    teacher: "list[Tensor]"
    doubt: float


@dataclass(frozen=True, eq=False)
class World:
    """A denoiser under a schedule; grids are fitted on `train` and judged on `test`."""

    name: str
    title: str
    schedule: "Schedule"
    train: Side
    test: Side


def mixture(train: int, test: int, nodes: int, seed: int) -> World:
    """Eight diagonal Gaussians in 16 dimensions under Stable Diffusion's schedule."""
    import torch

    from diffusion_math.oracle import GaussianMixture
    from diffusion_math.schedule import Discrete

    def seeded(part: int) -> torch.Generator:  # by its low 32 bits alone
        return torch.Generator().manual_seed(8 * seed + part)

    def normal(part: int, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=seeded(part), dtype=torch.float64)

    spread = 0.05 + 0.3 * torch.rand((8, 16), generator=seeded(1), dtype=torch.float64)
    data = GaussianMixture(normal(2, 8) / 2, normal(3, 8, 16), spread)
    schedule = Discrete.scaled_linear()
    denoise = data.denoiser(schedule)
    title = "Eight Gaussians in 16 dimensions, exact"
    sides = [
        side(schedule, denoise, normal(part, count, 16), nodes)
        for part, count in ((4, train), (5, test))
    ]
    return World("mixture", title, schedule, *sides)


def model(pipeline: "TextToImage", scale: float, train: int, test: int, nodes: int) -> World:
    """The text-to-image model, guided at every level; other prompts and seeds to test on."""
    from diffusion_math.noise import start_noise
    from sd.shapes import judge

    def of(part: int, first: int, count: int) -> Side:
        contexts = pipeline.encode_prompts(["", *judge.prompts(part, count)])
        denoise = pipeline.denoiser((contexts[:1], contexts[1:]), scale)
        seeds = range(first, first + count)
        starts = start_noise(seeds, pipeline.config.latent_shape).to(pipeline.device)
        return side(pipeline.schedule, denoise, starts, nodes)

    title = f"The embedded model, guided with w = {scale:g}"
    return World("model", title, pipeline.schedule, of(3, 1000, train), of(4, 2000, test))


def side(schedule: "Schedule", denoise: "Denoiser", starts: "Tensor", nodes: int) -> Side:
    """The flow from these starts by Heun's steps, uniform in log-SNR."""
    from diffusion_math.grid import uniform_log_snr

    many = uniform_log_snr(schedule, FINE * (nodes - 1) + 1)  # the last step goes to 0
    fine = walk(denoise, schedule, starts, many)
    half = walk(denoise, schedule, starts, uniform_log_snr(schedule, FINE * (nodes - 1) // 2 + 1))
    kept = [*range(0, len(many) - 1, FINE), len(many) - 1]
    doubt = float((half[-1] - fine[-1]).square().mean().sqrt()) / 3
    return Side(denoise, starts, fine[-1], many[kept], [fine[k] for k in kept], doubt)


def walk(
    denoise: "Denoiser", schedule: "Schedule", starts: "Tensor", grid: "Tensor"
) -> "list[Tensor]":
    """The states of a walk by Heun's steps."""
    import torch

    from diffusion_math.sample import trajectory
    from diffusion_math.solver import heun

    with torch.no_grad():
        return [state.x for state in trajectory(heun(schedule), denoise, starts, grid)]


def calls(make: "Callable[[Schedule], object]", schedule: "Schedule", grid: "Tensor") -> int:
    """How often a solver asks the denoiser on a grid, found by asking one of nothing."""
    import torch

    from diffusion_math.sample import trajectory

    asked = 0

    def zero(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return torch.zeros_like(x_t)

    step = make(schedule)
    for _ in trajectory(step, zero, torch.ones(1, 1, dtype=torch.float64), grid):  # type: ignore[arg-type]
        pass
    return asked
