"""CPU seconds of computations at rising sizes, and the exponents fitted to them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from scipy.stats import linregress
from tqdm import tqdm

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import VPLinear
from sd.pipeline import TextToImage

PROMPT = "a large red circle left of a small blue square on a white background"
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A computation against one of its sizes.

    Attributes:
        name: the size, such as "points".
        what: the computation and its other sizes.
        sizes: rising.
        make: size -> what is timed.
    """

    name: str
    what: str
    sizes: tuple[int, ...]
    make: Callable[[int], Run]


@dataclass(frozen=True)
class Scaling:
    """seconds = c size^exponent, fitted; `low` and `high` are the 95% interval of the exponent."""

    name: str
    what: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float
    low: float
    high: float


def score(points: int, components: int, dimensions: int) -> Run:
    """The score of a mixture of isotropic Gaussians."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(components, dimensions, generator=generator, dtype=torch.float64)
    x = torch.randn(points, dimensions, generator=generator, dtype=torch.float64)
    data = GaussianMixture(torch.zeros(components), 3 * means, torch.full((components,), 0.25))
    t = torch.tensor(0.3, dtype=torch.float64)
    return lambda: data.score(VPLinear(), x, t)


def cases(pipeline: TextToImage) -> Iterator[Case]:
    """All that is timed; the sizes are where the cost of the arithmetic dominates."""
    unet, config = pipeline.unet, pipeline.config

    def network(pixels: int) -> Run:
        side = math.isqrt(pixels)
        x = torch.zeros(1, config.unet.in_channels, side, side)
        context = torch.zeros(1, config.text.context_length, config.unet.context_width)
        return lambda: unet(x, torch.zeros(1), context)

    def images(prompts: int, steps: int) -> Run:
        given, seeds = [PROMPT] * prompts, list(range(prompts))
        return lambda: pipeline(given, seed=seeds, steps=steps, progress=False)

    doubled = tuple(2**k for k in range(14))
    sides = (16, 24, 32, 48, 64)
    mixture = "score of a mixture"
    yield Case("points", f"{mixture}, 500 components, 2-D", tuple(1000 * k for k in doubled[1:7]),
               lambda n: score(n, 500, 2))  # fmt: skip
    yield Case("components", f"{mixture}, 2,000 points, 2-D", doubled[8:14],
               lambda n: score(2000, n, 2))  # fmt: skip
    yield Case("dimensions", f"{mixture}, 500 points, 500 components", doubled[7:13],
               lambda n: score(500, 500, n))  # fmt: skip
    yield Case("pixels", "pass of the embedded U-Net, latent pixels", tuple(n * n for n in sides),
               network)  # fmt: skip
    yield Case("steps", "an image of the embedded model", (10, 20, 40, 80, 160),
               lambda n: images(1, n))  # fmt: skip
    yield Case("prompts", "images of the embedded model, 4 steps, one batch", doubled[2:7],
               lambda n: images(n, 4))  # fmt: skip


def measured(every: Sequence[Case], rounds: int) -> list[Scaling]:
    """The least CPU seconds of each size over the rounds, each of which runs all sizes once.

    CPU seconds of one thread, and not those of the clock, since others may use the machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return [_measured(case, rounds) for case in tqdm(every, unit="case", disable=None)]
    finally:
        torch.set_num_threads(threads)


def _measured(case: Case, rounds: int) -> Scaling:
    runs = [case.make(size) for size in case.sizes]
    runs[0]()  # warm-up
    times = [[_seconds(run) for run in runs] for _ in range(rounds)]
    least = tuple(min(column) for column in zip(*times, strict=True))
    return Scaling(case.name, case.what, case.sizes, least, *exponent(case.sizes, least))


def _seconds(run: Run) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """The slope of log seconds on log size by least squares, and its 95% interval by Student's t.

    Raises ValueError for fewer than three sizes.
    """
    if len(sizes) < 3:
        raise ValueError(f"sizes: wanted at least 3, got {len(sizes)}")
    fit = linregress([math.log(size) for size in sizes], [math.log(one) for one in seconds])
    half = float(stdtrit(len(sizes) - 2, 0.975)) * float(fit.stderr)
    slope = float(fit.slope)
    return slope, slope - half, slope + half
