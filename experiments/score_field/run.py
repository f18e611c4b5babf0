"""Runs the experiment: evaluates the score and the denoiser at each time and checks both."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from diffusion_math.densities.toy import DENSITIES, Density
from diffusion_math.gaussian import marginal
from diffusion_math.schedule import Discrete
from experiments import plots
from experiments.common.quadrature import density_over, score_error
from experiments.common.statistics import normal_interval, seeded
from experiments.output.result import Figure, Heading, Measurement, Result, estimated, table
from experiments.plots import plane
from experiments.plots.charts import Axis, Chart, measured, side_by_side
from experiments.plots.plane import Map
from experiments.score_field import Config

FALSE_ALARM = 1e-8
AGREE = 1e-9  # float64's rounding over the least variance, 0.05^2 or 1 - abar_1
ARROWS = 80  # samples of x_t whose denoised place is shown
TABLES = ("scaled_linear", "linear", "cosine")


class Check(NamedTuple):
    """What was measured at one time.

    gradient: the largest |score - grad log q|, over 1 + the largest gradient. tweedie: the largest
    |alpha E[x_0 | x_t] - x_t - sigma^2 score|, over 1 + the largest |x_t|. pull: the largest mean
    of x_0 - E[x_0 | x_t] times 1 or a coordinate of x_t, in standard errors.
    """

    t: int
    gradient: float
    tweedie: float
    pull: float


def run(config: Config) -> Result:
    schedule: Discrete = getattr(Discrete, config.schedule)()
    times = sorted(set(config.times))
    density = DENSITIES[config.density]()
    generator = seeded(config.seed)
    x_0 = density.sample(generator, config.samples)
    z = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    noisy = {t: marginal(schedule, x_0, t).sample(z) for t in times}
    checks = [_check(density, schedule, x_0, noisy[t], t) for t in times]
    curves = {name: _to_noise(density, getattr(Discrete, name)(), x_0, z) for name in TABLES}
    last = _deviation(density, schedule, x_0, z, int(schedule.T))
    parts = (
        "The score is the direction in which the log-density rises fastest. Here it is exact at "
        "every time. At small t it points to the nearest data; at large t it points to the origin, "
        "as the score -x of N(0, I) does.",
        Heading("The exact score over time"),
        _field(config, schedule, density, noisy),
        Heading("The exact denoiser (Tweedie's formula)"),
        _denoised(config, schedule, density, noisy),
        Heading("Distance from pure noise over time"),
        _noise_figure(config, curves),
        table(
            checks,
            {
                "t": lambda one: one.t,
                "score − gradient": lambda one: f"{one.gradient:.0e}",
                "Tweedie": lambda one: f"{one.tweedie:.0e}",
                "denoiser, standard errors": lambda one: f"{one.pull:.2f}",
            },
            "The largest difference of the score from the gradient, and of Tweedie's two sides, "
            "and the largest of six means that vanish if the denoiser is E[x_0 | x_t].",
        ),
    )
    noise = {name: [one._asdict() for one in line] for name, line in curves.items()}
    checked = [check._asdict() for check in checks]
    data = {"settings": config, "checks": checked, "distance_from_noise": noise}
    rows = _rows(config, checks, last)
    return Result("score-field", "The score, from data to noise", rows, parts, data)


def _check(density: Density, schedule: Discrete, x_0: Tensor, x_t: Tensor, t: int) -> Check:
    alpha_t, sigma_t = schedule(t)
    score = density.score(schedule, x_t, t)
    denoised = density.denoiser(schedule)(x_t, torch.tensor(t, dtype=torch.float64))
    tweedie = (alpha_t * denoised - x_t - sigma_t.square() * score).abs().max()
    # x_0 - E[x_0 | x_t] is orthogonal to every function of x_t.
    tests = torch.stack([torch.ones(len(x_t)).to(x_t), *x_t.mT], dim=1)
    products = ((x_0 - denoised)[:, :, None] * tests[:, None, :]).reshape(len(x_t), -1)
    pulls = products.mean(0) / (products.std(0) / len(x_t) ** 0.5)
    gap = tweedie / (1 + x_t.abs().max())
    off = score_error(density, schedule, x_t, t)
    return Check(t, off, float(gap), float(pulls.abs().max()))


class Deviation(NamedTuple):
    """Root mean square of score + x over q(x_t), a 95% interval of it, and what it can't pass."""

    t: int
    value: float
    low: float
    high: float
    bound: float


def _deviation(density: Density, schedule: Discrete, x_0: Tensor, z: Tensor, t: int) -> Deviation:
    """How far the score of q(x_t) is from that of N(0, I).

    score + x = E[alpha_t x_0 - (alpha_t^2 / sigma_t) eps given x_t], so that by Jensen

        E norm(score + x)^2 <= alpha_t^2 (E norm(x_0)^2 + D alpha_t^2 / sigma_t^2)
    """
    alpha_t, sigma_t = (float(one) for one in schedule(t))
    x_t = marginal(schedule, x_0, t).sample(z)
    squares = (density.score(schedule, x_t, t) + x_t).square().sum(1)
    mean, error = float(squares.mean()), float(squares.std()) / len(x_t) ** 0.5
    low, high = (math.sqrt(max(0.0, end)) for end in normal_interval(mean, error))
    size = float(x_0.square().sum(1).mean()) + x_0.shape[1] * alpha_t**2 / sigma_t**2
    return Deviation(t, math.sqrt(mean), low, high, alpha_t * math.sqrt(size))


def _to_noise(density: Density, schedule: Discrete, x_0: Tensor, z: Tensor) -> list[Deviation]:
    times = sorted({*range(100, int(schedule.T), 100), 20, 50, int(schedule.T)})
    return [_deviation(density, schedule, x_0[:1000], z[:1000], t) for t in times]


def _rows(config: Config, checks: list[Check], last: Deviation) -> tuple[Measurement, ...]:
    # The means are six at each time. They are taken for normal, which is no bound for finite
    # samples: the tail is widened by a tenth.
    limit = 1.1 * float(norm.isf(FALSE_ALARM / (2 * 6 * len(checks))))
    over = f"over {config.samples} samples at each of {len(checks)} times"
    return (
        estimated(
            "score-field",
            "C21: the score is the gradient of log q(x_t). Largest difference of the closed form "
            f"from automatic differentiation, over 1 + the largest gradient, {over}, at most "
            f"{AGREE:g} (rounding)",
            max(check.gradient for check in checks),
            most=AGREE,
        ),
        estimated(
            "score-field-tweedie",
            "Tweedie: alpha_t E[x_0 | x_t] = x_t + sigma_t^2 score. Largest difference "
            f"over 1 + the largest |x_t|, {over}, at most {AGREE:g} (rounding)",
            max(check.tweedie for check in checks),
            most=AGREE,
        ),
        estimated(
            "score-field-denoiser",
            "What Tweedie makes of the score is the mean of x_0 given x_t: x_0 minus it has no "
            f"correlation with 1 and x_t. Largest mean in standard errors {over}, at most "
            f"{limit:.2f} (false alarm {FALSE_ALARM:g})",
            max(check.pull for check in checks),
            most=limit,
        ),
        estimated(
            "score-field-noise",
            f"C21: at t = T the score is -x, that of N(0, I), as far as alpha_T lets it "
            f"({config.schedule}). Root mean square of score + x, at most "
            f"alpha_T (E norm(x_0)^2 + 2 alpha_T^2 / sigma_T^2)^(1/2) = {last.bound:.2g}",
            (last.value, (last.low, last.high)),
            most=last.bound,
        ),
    )


def _window(x: Tensor, share: float) -> float:
    """Half a side of a square about the origin that holds this share of the points, and more."""
    return 9 / 8 * float(torch.quantile(x.abs().amax(1), share))


def _field(
    config: Config, schedule: Discrete, density: Density, noisy: dict[int, Tensor]
) -> Figure:
    maps, arrows = [], []
    for t, x_t in noisy.items():
        line = np.linspace(-1, 1, 201) * _window(x_t, 0.99)
        coarse = np.linspace(line[0], line[-1], 41)
        ys, xs = np.meshgrid(coarse, coarse, indexing="ij")
        at = torch.from_numpy(np.stack([xs.ravel(), ys.ravel()], axis=1))
        score = density.score(schedule, at, t).numpy().reshape(41, 41, 2)
        height = density_over(line, line, density, schedule, t)
        maps.append(Map(f"t = {t}", line, line, height, x_t[:0].numpy()))
        arrows.append((coarse, score))
    return Figure(
        "score-field.png",
        plots.png(plane.streams(maps, arrows)),
        f"The score of the density {config.density} under the "
        f"{config.schedule.replace('_', ' ')} beta schedule: streamlines, colored by the length of "
        "the score, over the log-density (shaded). Each window contains at least 99% of q(x_t).",
        "Streamlines that lead to the parts of the density, and at the last time to the origin.",
    )


def _denoised(
    config: Config, schedule: Discrete, density: Density, noisy: dict[int, Tensor]
) -> Figure:
    reach = max(_window(x_t, 0.9) for x_t in noisy.values())
    line = np.linspace(-reach, reach, 241)
    clean = density_over(line, line, density, schedule, 0)
    maps, ends = [], []
    for t, x_t in noisy.items():
        shown = x_t[x_t.abs().amax(1) < reach][:ARROWS]
        maps.append(Map(f"t = {t}", line, line, clean, shown.numpy()))
        ends.append(density.denoiser(schedule)(shown, torch.tensor(t).double()).numpy())
    return Figure(
        "score-field-denoiser.png",
        plots.png(plane.arrows(maps, ends)),
        f"{ARROWS} samples of x_t (hollow dots), and arrows to E[x_0 | x_t], over the clean "
        "density (shaded). At small t the denoiser removes the noise almost exactly; at large t it "
        "gives the mean of the data.",
        "Arrows from noisy points to their denoised places, long and to the middle at the end.",
    )


def _noise_figure(config: Config, curves: dict[str, list[Deviation]]) -> Figure:
    series = []
    for name, line in curves.items():
        found = [(one.value, (one.low, one.high)) for one in line]
        series.append(measured(name.replace("_", " "), [one.t for one in line], found))
    deviation = Axis("r.m.s. of score + x", scale="log")
    panel = Chart("From the data's score to −x", Axis("time t"), deviation, series)
    return Figure(
        "score-field-noise.png",
        plots.png(side_by_side([panel], 6.2)),
        f"RMS difference of the score of q(x_t) from that of N(0, I) against t, for "
        f"{config.density}, with 95% intervals. It falls with alpha_t; it is not 0 at t = T, since "
        "alpha_T is not 0.",
        "Three falling curves, one for each noise schedule, on a logarithmic scale.",
    )
