"""The images of `experiments.langevin.run`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.langevin import Particles
from diffusion_math.langevin_law import ula_distribution, ula_stationary
from diffusion_math.schedule import VE
from experiments import plots
from experiments.common.quadrature import in_square
from experiments.common.statistics import seeded
from experiments.langevin.bias import MOMENTS, WATCHED, Variance, gains, normal
from experiments.langevin.mixing import TITLES, WEIGHTS, Shares, nearest_mode
from experiments.output.result import Figure
from experiments.plots import plane as plane_plots
from experiments.plots.animation import frame, gif
from experiments.plots.charts import Axis, Chart, dots, line, measured, side_by_side
from experiments.plots.plane import Cloud

SHOWN = 3000
"""Particles shown; the shares count all of them."""
REACH = 3.6


def plane(
    data: GaussianMixture, ends: dict[str, Particles], found: Shares, bounds: Sequence[float]
) -> tuple[Figure, Figure]:
    """The particles of all samplers at the end, and their shares at the modes."""
    count = len(ends["ULA"].x)
    exact = data.sample(seeded(0), count)
    density = in_square(data, VE(), 0.0, REACH, 181)
    panels = [_cloud(data, density, "the density itself", exact[:SHOWN], WEIGHTS)]
    for name, end in ends.items():
        shares = [share for share, _ in found[name]]
        panels.append(_cloud(data, density, name, end.x[:SHOWN], shares))
    drawing = plane_plots.clouds([panels[:3], panels[3:]], REACH, 3.6)
    counted = side_by_side([_shares(found, bounds)], 11.5, 4.6, legend_columns=5)
    return (
        Figure(
            "langevin-plane.png",
            plots.png(drawing),
            f"{min(SHOWN, count)} particles of each sampler after equal numbers of score "
            "evaluations, from the same wide normal start. The lines enclose 50 and 95% of the "
            "density; the numbers are the shares of all particles at each mode. The shares of "
            "annealed Langevin have the lowest error.",
            "Six panels of particles over three modes: the density, ascent collapsed onto three "
            "points, three plain Langevin samplers with equal shares, annealed nearest to it.",
        ),
        Figure(
            "langevin-shares.png",
            plots.png(counted),
            "Share of particles at each mode (the nearest one), with joint 95% intervals for the "
            "three of a sampler, against the true weights (dashed). Black marks are derived lower "
            "bounds for ULA after this number of steps.",
            "Shares with intervals by sampler and mode, and dashed lines at the true weights.",
        ),
    )


def _shares(found: Shares, bounds: Sequence[float]) -> Chart:
    """Shares in percent by sampler and mode, the true weights, and what ULA's can't go below."""
    points, marks, last = [], [], len(found) - 0.5
    for k, (weight, bound) in enumerate(zip(WEIGHTS, bounds, strict=True)):
        aside = 0.2 * (k - 1)
        row = [shares[k] for shares in found.values()]
        at, ula = np.arange(len(found)) + aside, list(found).index("ULA") + aside
        points.append(measured(f"mode {k + 1}", at, row, 0.01, k, ""))
        marks += [
            line("true weight", [-0.5, last], [100 * weight] * 2, k, "--", 1.4),
            line("derived lower bound", [ula - 0.09, ula + 0.09], [100 * bound] * 2, "#222222"),
        ]
    names = [TITLES[name].replace(", ", ",\n") for name in found]
    samplers = Axis("", -0.5, last, ticks=range(len(found)), names=names)
    return Chart("", samplers, Axis("particles nearest to the mode, %", 0), [*points, *marks])


def distributions(stationary: Sequence[Variance], transient: Sequence[Variance]) -> Figure:
    """The step of ascent, the stationary variance and the variance on the way, as predicted."""
    target, one = normal(1.0), torch.ones(1, 1, dtype=torch.float64)
    steps = np.linspace(0.02, 3, 90).tolist()
    size = Axis("step size $\\delta$")
    gain, climbs = Axis("gain of log N(x; 0, 1) at x = 1, nats"), line("", steps, gains(steps, one))
    climbed = Chart("One step of ascent", size, gain, [climbs], levels=[(0.0, "no gain")])
    deltas = np.linspace(0.01, 1.8, 200).tolist()
    curve = [float(ula_stationary(target, delta).variance) for delta in deltas]
    kept = [line("ULA, predicted", deltas, curve, 0)]
    looks = (("ULA", "o", 0.0), ("MALA", "s", -0.025), ("BAOAB", "D", 0.025))
    for k, (name, marker, aside) in enumerate(looks):
        here = [one for one in stationary if one.sampler == name]
        at = [one.delta + aside for one in here]  # so that none hides another
        ends = [one.interval(len(here)) for one in here]
        values = [one.found for one in here]
        kept.append(dots(f"{name}, measured", at, values, ends, k, marker))
    title, y = "The stationary distribution", Axis("variance, target 1", 0.8, 14, "log")
    long_run = Chart(title, size, y, kept, legend="upper left", levels=[(1.0, "")])
    counts = range(1, MOMENTS[-1] + 1)
    passed = []
    for k, delta in enumerate(WATCHED):
        exact = [float(ula_distribution(target, delta, normal(0.0), k).variance) for k in counts]
        here = [one for one in transient if one.delta == delta]
        passed.append(line(f"$\\delta$ = {delta:g}", counts, exact, k))
        passed.append(dots("", [v.moves for v in here], [v.found for v in here], color=k))
    title, y = (
        "The distribution after k moves from 0",
        Axis("variance of ULA, target 1", scale="log"),
    )
    x = Axis("moves k", scale="log", ticks=(1, 2, 4, 8, 16, 32))
    on_the_way = Chart(title, x, y, passed, legend="lower right", levels=[(1.0, "")])
    drawing = side_by_side([climbed, long_run, on_the_way])
    return Figure(
        "langevin-laws.png",
        plots.png(drawing),
        "On N(0, 1). Left: one step of gradient ascent lowers log N for a step size above 2. "
        "Middle: the stationary variance of ULA is 1 / (1 - delta / 2); that of MALA and BAOAB is "
        "1. Right: the variance of ULA after k steps from 0. Lines are exact, dots are measured "
        f"on {stationary[0].chains} chains, with 95% intervals (often smaller than the dots).",
        "Three charts: a parabola crossing zero at 2, a rising curve with dots on it, three "
        "saturating curves with dots on them.",
    )


def animation(
    data: GaussianMixture, watched: dict[str, list[Tensor]], moments: Sequence[int]
) -> Figure:
    """Ascent, ULA and annealed Langevin from one start, side by side."""
    density = in_square(data, VE(), 0.0, REACH, 181)
    frames = []
    for k, moves in enumerate(moments):
        panels = []
        for name in ("ascent", "ULA", "annealed"):
            x = watched[name][k]
            _, mode = nearest_mode(data, x)
            shares = torch.bincount(mode, minlength=len(data.means)).double() / len(x)
            panels.append(_cloud(data, density, name, x[: SHOWN // 2], shares.tolist()))
        title = f"{moves} evaluations of the score"
        frames.append(frame(plane_plots.moment(panels, REACH, title, 3.0)))
    return Figure(
        "langevin.gif",
        gif(frames, seconds=max(1.0, 0.14 * len(frames))),
        "Particles of three samplers. Ascent ends at the modes. ULA spreads around the nearest "
        "mode and stays there. Annealed Langevin moves between the modes first, and its shares "
        "come closest to the weights (5, 25 and 70%).",
        "Animation of three clouds of particles that move onto three modes.",
    )


def _cloud(
    data: GaussianMixture, density: Any, name: str, points: Tensor, shares: Sequence[float]
) -> Cloud:
    """A panel with each mode's share, above the upper modes and below the lower ones.

    Points that fall together are drawn large enough to be seen.
    """
    notes = [
        (x, y + math.copysign(1.05, y), f"{100 * share:.1f}%")
        for (x, y), share in zip(data.means.tolist(), shares, strict=True)
    ]
    size = 9.0 if name == "ascent" else 3.0
    return Cloud(TITLES.get(name, name), points.numpy(), density, notes, size)
