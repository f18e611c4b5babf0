"""Errata of the reverse process: what the product of its steps is (E3), and its times (E5)."""

import math

import torch
from torch import Generator, Tensor
from torch.special import ndtr

from diffusion_math import elbo, loss
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.gaussian import Gaussian
from diffusion_math.noise import from_generator
from diffusion_math.schedule import Discrete
from experiments.common.statistics import kolmogorov_bound, mean_interval, seeded, wilson
from experiments.errata.data import two_gaussians
from experiments.errata.erratum import FALSE_ALARM, Erratum
from experiments.errata.figures import histogram, mark, note
from experiments.plots.charts import Axis, Chart

CHAIN = Discrete(torch.tensor([0.15, 0.85], dtype=torch.float64))  # E3's two steps
STARTS = (-1.0, 0.0, 1.0)  # x_2 of the paths on which E3 shows the product
TABLE = 10  # E5's T


def e3(samples: int, seed: int) -> Erratum:
    """P(x_2) P(x_1 | x_2) P(x_0 | x_1) along a path, beside its integral over x_1 and x_2.

    The chain is the bound's own: exact denoiser, variance beta_t. Samples of it are drawn; the
    integral is the trapezoid rule on a line whose step is a nineteenth of the least deviation:
    exact to rounding for bells, but for the 1e-11 of them beyond the line's ends.
    """
    data = two_gaussians()
    generator = seeded(seed)
    line = torch.linspace(-7, 7, 701, dtype=torch.float64)
    first, last = _step(data, line, 2, 1), _step(data, line, 1, 0)
    at_1 = integrated(first, _normal(line), line)
    density = integrated(last, at_1, line)
    draws = (torch.randn(samples, generator=generator, dtype=torch.float64) for _ in range(3))
    x2, z1, z0 = draws
    x0 = _step(data, _step(data, x2, 2, 1).sample(z1), 1, 0).sample(z0)
    seen = torch.searchsorted(x0.sort().values, line, right=True) / samples
    below = ndtr((line[:, None] - last.mean) / last.variance.sqrt())  # P(x_0 <= a | x_1)
    gap = line[1] - line[0]
    true = (seen - gap * density.cumsum(0) + gap * density / 2).abs().max().item()
    # As a function of x_0 the product is P(x_0 | x_1) times a constant; be it 1, and x_1 the best.
    charitable = (seen[:, None] - below).abs().amax(0).min().item()
    paths = [_path(data, start, line) for start in STARTS]
    masses = [(gap * path.sum()).item() for path in paths]
    limit = kolmogorov_bound(samples, FALSE_ALARM)
    # The running trapezoid sum strays from the integral by h^2 / 12 max|p'|, far below the limit.
    limit += (gap**2 / 12 * (density.diff() / gap).abs().max()).item()
    plain = (seen - gap * torch.stack(paths).cumsum(1)).abs().amax(1)
    return Erratum(
        id="E3",
        of="C09",
        printed="P(x_T) prod P_theta(x_{t-1} | x_t) called P_theta(x_0)",
        true="the joint P_theta(x_{0:T}), whose integral over x_{1:T} is P_theta(x_0)",
        what=f"Kolmogorov distance of {samples} samples of x_0 from the integral; from the product "
        f"along a path, rescaled to area 1 and by the best of all paths, {charitable:.3f}",
        measured=true,
        interval=None,
        true_off=true / limit,
        printed_off=min(charitable, plain.min().item()) / limit,
        bound=f"the Kolmogorov bound at false alarm {FALSE_ALARM:g}, {limit:.4f}",
        charts=[
            _e3_densities(line, x0, density, paths),
            _e3_bound(data, line, density, paths, samples, generator),
        ],
        caption="A two-step chain in one dimension. Left: its samples follow the integral over x_1 "
        "and x_2, whose area is 1; the product is another function of x_0 for every path, of area "
        f"{min(masses):.3f} to {max(masses):.3f}. Right: what training maximises, the ELBO, lies "
        "just below the logarithm of the integral. Of the product it is no lower bound.",
        alt="A histogram with two peaks under the curve of the integral and far above three small "
        "bells of the product; their logarithms, with the bound just below the integral.",
        data={
            "area_of_the_integral": (gap * density.sum()).item(),
            "areas_of_the_product": masses,
            "distance_of_the_product_rescaled": charitable,
            "limit": limit,
        },
    )


def integrated(step: Gaussian, before: Tensor, line: Tensor) -> Tensor:
    """The density of x_s on the line: the integral of p(x_s | x_t) p(x_t) over x_t, trapezoid rule.

    step: p(x_s | x_t) for each x_t of the line; before: p(x_t) there.
    """
    n = len(line)
    means = step.mean.expand(n, n).reshape(-1)
    kernel = Gaussian(means, step.variance).log_density(line.repeat_interleave(n)).exp()
    weighted: Tensor = kernel.reshape(n, n) @ before * (line[1] - line[0])
    return weighted


def _step(data: GaussianMixture, x: Tensor, t: int, s: int) -> Gaussian:
    """P_theta(x_s | x_t) for each x_t."""
    return elbo.reverse_step(CHAIN, data.denoiser(CHAIN), x, t, s)


def _normal(x: Tensor) -> Tensor:
    return Gaussian(torch.zeros_like(x), x.new_ones(())).log_density(x).exp()


def _path(data: GaussianMixture, start: float, line: Tensor) -> Tensor:
    """The product over x_0 on the line, at x_2 = start and x_1 = the mean of its step."""
    x2 = line.new_full((1,), start)
    first = _step(data, x2, 2, 1)
    last = _step(data, first.mean, 1, 0)
    constant = _normal(x2) * first.log_density(first.mean).exp()
    return constant * Gaussian(last.mean.expand_as(line), last.variance).log_density(line).exp()


def _e3_densities(line: Tensor, x0: Tensor, density: Tensor, paths: list[Tensor]) -> Chart:
    product = "printed: product along a path"
    marks = (
        histogram("measured", f"{len(x0)} samples", x0, -2.8, 2.8, 70),
        mark("true", "true: integral over $x_1, x_2$", line, density),
        *(mark("printed", product, line, path, "dashed") for path in paths),
    )
    x, y = Axis("$x_0$", -2.8, 2.8), Axis("density", 0, 0.92)
    return Chart("What the chain draws", x, y, marks, legend="upper left")


def _e3_bound(
    data: GaussianMixture, line: Tensor, density: Tensor, paths: list[Tensor], samples: int,
    generator: Generator,
) -> Chart:  # fmt: skip
    """The ELBO at points of the line, by samples of the bound, beside both logarithms."""
    points = torch.linspace(-2.2, 2.2, 12, dtype=torch.float64)
    draws = max(1000, samples // 10)
    x0 = points.repeat_interleave(draws)
    grid = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    nats = elbo.bound(
        CHAIN, data.denoiser(CHAIN), x0, grid, from_generator(generator),
        log_likelihood=Gaussian.log_density,
    ).nats.reshape(-1, draws)  # fmt: skip
    ends = [mean_interval((-one).tolist()) for one in nats]
    marks = (
        *(mark("printed", "log of the product", line, path.log(), "dashed") for path in paths),
        mark("true", "log of the integral", line, density.log()),
        mark("measured", "ELBO, 95% interval", points, -nats.mean(1), "points", ends),
    )
    x, y = Axis("$x_0$", -2.8, 2.8), Axis("nats", -8.5, 2.4)
    return Chart("What the training bound is a bound of", x, y, marks, legend="upper center")


def e5(samples: int, seed: int) -> Erratum:
    """Training times: those of `uniform_times`, beside Uniform(0, 1), of which no table has one."""
    schedule = Discrete.linear(TABLE)
    generator = seeded(seed)
    ours = loss.uniform_times(schedule, generator, samples)
    printed = torch.rand(samples, generator=generator, dtype=torch.float64)
    limit = kolmogorov_bound(samples, FALSE_ALARM)
    found, off = (_from_uniform(one) for one in (ours, printed))
    shares_with_a_row = [_share_with_a_row(schedule, one[:1000]) for one in (ours, printed)]
    whole = torch.arange(1, TABLE + 1)
    shares = [(ours == t).double().mean().item() for t in whole]
    ends = [wilson(int((ours == t).sum()), samples, 1 - 0.05 / TABLE) for t in whole]
    edges = torch.linspace(0, 1, 21, dtype=torch.float64)
    bars = torch.histogram(printed, edges).hist / samples
    places = Axis("time t", -0.4, TABLE + 0.6, ticks=range(TABLE + 1))
    share = Axis("share of the samples", -0.006, 0.145)
    marks = (
        mark("true", "$1/T$", [0.5, TABLE + 0.5], [1 / TABLE] * 2),
        mark("measured", "samples, 95% intervals, jointly", whole, shares, "points", ends),
    )
    left = Chart("True: a row of the table", places, share, marks, legend="lower right")
    marks = (
        mark("printed", "samples of Uniform(0, 1)", edges, bars, "bars"),
        mark("true", "the table's rows", whole, [0.0] * TABLE, "points"),
    )
    said = note("not one of them has a $\\beta_t$", 1.25, 0.046, "printed")
    right = Chart("Printed: between the rows", places, share, marks, [said], "upper right")
    return Erratum(
        id="E5",
        of="C19",
        printed="t ~ Uniform(0, I)",
        true="t uniform on {1, ..., T}",
        what=f"Kolmogorov distance of {samples} times of ours from uniform on 1..{TABLE}; of the "
        f"printed samples {off:.3f}, of which {shares_with_a_row[1]:.0%} are times of the schedule",
        measured=found,
        interval=None,
        true_off=found / limit,
        printed_off=off / limit,
        bound=f"the Kolmogorov bound at false alarm {FALSE_ALARM:g}, {limit:.4f}",
        charts=[left, right],
        caption=f"{samples} training times for a table of T = {TABLE}. Ours are whole and each as "
        "often as the others. What is printed, Uniform(0, I), is a number between 0 and 1: no row "
        "of the table, and all but clean data.",
        alt="Ten equal shares at the whole times 1 to 10; beside it all draws crowded between 0 "
        "and 1.",
        height=3.9,
        data={
            "shares": shares,
            "share_with_a_row": shares_with_a_row[0],
            "printed_share_with_a_row": shares_with_a_row[1],
            "printed_distance": off,
            "limit": limit,
        },
    )


def _from_uniform(times: Tensor) -> float:
    """Kolmogorov's distance of times from uniform on {1, ..., T}, at and just below each t."""
    ordered, whole = times.sort().values, torch.arange(TABLE + 1, dtype=torch.float64)
    at = torch.searchsorted(ordered, whole, right=True) / len(times) - whole / TABLE
    just_below = torch.searchsorted(ordered, whole[1:]) / len(times) - whole[:-1] / TABLE
    return torch.cat([at, just_below]).abs().max().item()


def _share_with_a_row(schedule: Discrete, times: Tensor) -> float:
    """The share of positive times at which the schedule has coefficients."""

    def has_row(t: float) -> bool:
        try:
            alpha, sigma = schedule(t)
        except ValueError:
            return False
        return math.isfinite(alpha.item()) and sigma.item() > 0

    return sum(map(has_row, times.tolist())) / len(times)
