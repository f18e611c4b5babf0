"""Mixtures with a known coordinate, and each method's KL to the exact conditional."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from diffusion_math import guidance_law, inpainting, inpainting_law
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.grid import uniform_log_snr
from diffusion_math.guidance_law import Nodes
from diffusion_math.noise import Noise, from_generator
from diffusion_math.sample import final
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers.one_step import ddpm
from diffusion_math.solvers.step import Step
from experiments.common.statistics import seeded

SCHEDULE = VPLinear()
END = 0.1
"""sigma / alpha where sampling ends: densities are compared there."""
CELLS = 16
"""Cells of equal probability under the target, in which samples are counted."""
GROUPS = 32
"""Independent groups of samples, from which intervals are made."""
MASK = torch.tensor([True, False])
EXACT = "exact conditional denoiser"

Sample = Callable[[torch.Generator], Tensor]
"""Samples of the unknown coordinate."""


@dataclass(frozen=True)
class InpaintingProblem:
    """A mixture in the plane, and the value of its first coordinate."""

    name: str
    data: GaussianMixture
    known: float

    def values(self) -> Tensor:
        """x_0, with any number in the unknown entry."""
        return torch.tensor([self.known, 0.0], dtype=torch.float64)

    def target(self) -> GaussianMixture:
        """The exact conditional."""
        return inpainting_law.conditional(self.data, self.values(), MASK)


def _problem(
    name: str, means: list[list[float]], covariances: Sequence[object], known: float
) -> InpaintingProblem:
    m, C = (torch.tensor(one, dtype=torch.float64) for one in (means, covariances))
    return InpaintingProblem(name, GaussianMixture(torch.zeros(len(m)), m, C), known)


PROBLEMS = (
    _problem("gaussian", [[0.0, 0.0]], [[[1.0, 0.8], [0.8, 1.0]]], 1.0),
    _problem("one mode of two", [[-1.0, -1.0], [1.0, 1.0]], [0.1, 0.1], 1.0),
    _problem("two modes of three", [[-1.0, -1.0], [1.0, 1.0], [1.0, -0.6]], [0.1] * 3, 0.5),
)
"""One Gaussian of correlation 0.8; two modes, one of them excluded; three, two of them open."""


@dataclass(frozen=True)
class ExactDensity:
    """What RePaint with exact kernels samples; U = 1 is replacement."""

    problem: str
    steps: int
    repeats: int
    kl: float
    mean: float
    variance: float
    mass: float


@dataclass(frozen=True)
class SampledKL:
    """A method with DDPM's steps: KL in cells, with its 95% interval; `nfe` of one group."""

    problem: str
    method: str
    nfe: int
    kl: float
    interval: tuple[float, float]


Curves = tuple[Nodes, Tensor, dict[int, Tensor]]
"""Nodes, the target's log-density there, and that of each U."""


def grid_of(steps: int) -> Tensor:
    """Times uniform in log-SNR, to `END`."""
    log_snr = torch.tensor(-2 * math.log(END), dtype=torch.float64)
    return uniform_log_snr(SCHEDULE, steps, end=float(SCHEDULE.time(log_snr)))


def exact(
    problem: InpaintingProblem, steps: int, repeats: Sequence[int]
) -> tuple[list[ExactDensity], Curves]:
    """The density of every U and its KL to the target, by quadrature."""
    grid = grid_of(steps)
    nodes, found = inpainting_law.log_density(
        problem.data, problem.known, SCHEDULE, grid, repeats, max(220, 6 * steps)
    )
    target = problem.target().log_density(SCHEDULE, nodes.x, grid[-1])
    densities, u = [], nodes.x[:, 0]
    for each, log_p in zip(repeats, found, strict=True):
        p = log_p.exp()
        mean = nodes.integral(p * u)
        kl = guidance_law.kl(nodes, log_p, target)
        spread = nodes.integral(p * (u - mean).square())
        densities.append(
            ExactDensity(problem.name, steps, each, kl, mean, spread, nodes.integral(p))
        )
    return densities, (nodes, target, dict(zip(repeats, found, strict=True)))


def sampled(
    problem: InpaintingProblem, steps: int, shown: int, particles: Sequence[int], n: int, seed: int
) -> tuple[list[SampledKL], dict[str, Tensor]]:
    """All methods with DDPM's steps: KL in cells, and the samples of the unknown coordinate."""
    known, once = problem.values(), ddpm(SCHEDULE)
    denoise = problem.data.denoiser(SCHEDULE)
    rows, ends = [], {}

    def enter(method: str, nfe: int, size: int, run: Sample) -> None:
        u = run(seeded(seed, len(rows)))
        ends[method] = u
        value, interval = kl_in_cells(problem, u.reshape(-1, size), grid_of(steps)[-1])
        rows.append(SampledKL(problem.name, method, nfe, value, interval))

    def inpainted(step: Callable[[list[Noise]], Step], count: int, total: int) -> Sample:
        """Samples of u; the start's known entry is one for each `count` neighbouring rows."""

        def sample(generator: torch.Generator) -> Tensor:
            grid, noise = grid_of(steps), from_generator(generator)
            z = torch.randn(total, 2, generator=generator, dtype=torch.float64)
            z[:, 0] = z[::count, 0].repeat_interleave(count)
            x = SCHEDULE(grid[0])[1] * z
            x = inpainting.joined(SCHEDULE, x, grid[0], known, MASK, z)
            return final(step([noise]), denoise, x, grid, noise)[:, 1]

        return sample

    def conditional(generator: torch.Generator) -> Tensor:
        """DDPM with the exact conditional denoiser."""
        grid = grid_of(steps)
        x = torch.randn(total, 1, generator=generator, dtype=torch.float64)
        given, noise = problem.target().denoiser(SCHEDULE), from_generator(generator)
        return final(once, given, SCHEDULE(grid[0])[1] * x, grid, noise)[:, 0]

    def repaint(repeats: int) -> Callable[[list[Noise]], Step]:
        return lambda noise: inpainting.repaint(once, SCHEDULE, known, MASK, noise * (repeats - 1))

    size = n // GROUPS
    total = size * GROUPS
    enter("replacement", steps, size, inpainted(repaint(1), 1, total))
    enter(f"RePaint, U = {shown}", steps * shown, size, inpainted(repaint(shown), 1, total))
    for count in particles:
        step = inpainting.particles(SCHEDULE, known, MASK, count)
        rows_each = max(1, size // count) * count
        sample = inpainted(lambda _, step=step: step, count, rows_each * GROUPS)  # type: ignore[misc]
        enter(f"SMCDiff, {count} particles", steps * count, rows_each, sample)
    enter(EXACT, steps, size, conditional)
    return rows, ends


def kl_in_cells(
    problem: InpaintingProblem, u: Tensor, t: Tensor
) -> tuple[float, tuple[float, float]]:
    """KL of samples `(groups, n)` to the target over cells of equal probability, and its interval.

    The jackknife over independent groups takes off the bias of the logarithm, and gives the
    standard error: Student's interval at 95%.
    """
    at = torch.bucketize(u.contiguous(), _edges(problem, t))
    counts = torch.nn.functional.one_hot(at, CELLS).sum(1).double()
    groups, whole = len(counts), counts.sum(0)
    left = _to_uniform(whole - counts)
    value = groups * float(_to_uniform(whole)) - (groups - 1) * float(left.mean())
    error = math.sqrt((groups - 1) / groups * float((left - left.mean()).square().sum()))
    half = float(stdtrit(groups - 1, 0.975)) * error
    return value, (value - half, value + half)


def _to_uniform(counts: Tensor) -> Tensor:
    """KL in nats of shares to equal shares, over the last axis."""
    p = counts / counts.sum(-1, keepdim=True)
    return torch.special.xlogy(p, p * CELLS).sum(-1)


def _edges(problem: InpaintingProblem, t: Tensor) -> Tensor:
    """Quantiles of the target at time t, by bisection of its distribution function."""
    noisy = problem.target().marginal(SCHEDULE, t)
    means, deviations = noisy.means[:, 0], noisy.covariances.flatten().sqrt()
    wanted = torch.arange(1, CELLS, dtype=torch.float64) / CELLS
    reach = 10 * deviations.max()
    low = (means.min() - reach).expand(CELLS - 1)
    high = (means.max() + reach).expand(CELLS - 1)
    for _ in range(60):
        middle = (low + high) / 2
        z = (middle[:, None] - means) / deviations
        below = torch.special.ndtr(z) @ noisy.log_weights.exp() < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
