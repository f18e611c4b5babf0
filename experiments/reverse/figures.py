"""The figures of the experiment `reverse`."""

import numpy as np
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.metrics import Estimate
from diffusion_math.schedule import Schedule
from experiments import plots
from experiments.common.quadrature import in_square
from experiments.output.result import Figure
from experiments.plots import GRAY, plane
from experiments.plots.animation import frame, gif
from experiments.plots.charts import Axis, Chart, Series, estimates, line, side_by_side
from experiments.plots.plane import Cloud
from experiments.reverse.learned_score import Point
from experiments.reverse.sampling import EXACT, KERNELS, LEARNED, SamplingErrors

REACH = 3.2
SHOWN = 6
"""Times of the panels: the first, the last, and denser towards the data."""


def divergence(
    targets: dict[str, list[Point]], budgets: dict[int, list[Point]], falling: dict[int, Estimate]
) -> Figure:
    """Over t for every target and every number of updates, and over the updates."""

    def over_t(label: str, points: list[Point]) -> Series:
        values = [(p.divergence, p.error) for p in points]
        return estimates(label, [p.t for p in points], values)

    first = next(iter(targets.values()))
    zero = line("no score at all", [p.t for p in first], [p.size for p in first], GRAY, "--")
    steps = sorted(falling)
    t, divergence = Axis("t", scale="log"), Axis(r"$E\,||S_\theta - S||^2$", scale="log")
    missed = Axis("share of the score missed", scale="log")
    updates = Axis("updates", scale="log", ticks=steps)
    few_and_many = [over_t(f"{k} updates", budgets[k]) for k in (min(budgets), max(budgets))]
    each = estimates("", steps, [falling[k] for k in steps])
    drawing = side_by_side(
        [
            Chart("Four targets", t, divergence, [*map(over_t, targets, targets.values()), zero]),
            Chart("Early and late (eps)", t, divergence, [*few_and_many, zero]),
            Chart("Over training (eps)", updates, missed, [each]),
        ]
    )
    return Figure(
        "reverse-score.png",
        plots.png(drawing),
        "Fisher divergence of learned scores from the exact one, with 95% intervals; the dashed "
        "line is that of the prediction 0. At large t the networks learn nearly all of the score. "
        "At small t, where the loss has a small weight and the score is large, the error may "
        "exceed that of the prediction 0. On the right each point is a separate training.",
        "Log-log curves of the Fisher divergence against time and against training steps.",
    )


def panels(
    schedule: Schedule, data: GaussianMixture, grid: Tensor, paths: dict[str, list[Tensor]]
) -> Figure:
    """Points from noise to data, true kernels above and learned steps below."""
    parts = 1 - (1 - np.linspace(0, 1, min(SHOWN, len(grid)))) ** 1.6
    shown = sorted({round(float(part) * (len(grid) - 1)) for part in parts})
    contours = {k: in_square(data, schedule, grid[k], REACH, 121) for k in shown}
    titles = [[f"t = {float(grid[k]):.2f}" for k in shown], [""] * len(shown)]
    clouds = [
        [Cloud(title, path[k].numpy(), contours[k]) for title, k in zip(row, shown, strict=True)]
        for row, path in zip(titles, paths.values(), strict=True)
    ]
    drawing = plane.clouds(clouds, REACH, names=list(paths))
    return Figure(
        "reverse-plane.png",
        plots.png(drawing),
        f"Samples x_t from the same noise in {len(grid) - 1} steps: by the true reverse kernels "
        "(top) and by Gaussian steps with the learned score (bottom). The lines enclose 50 and 95% "
        "of the exact density of x_t.",
        "Two rows of scatter plots that turn from a round cloud into the density.",
    )


def animation(
    schedule: Schedule, data: GaussianMixture, grid: Tensor, paths: dict[str, list[Tensor]]
) -> Figure:
    """The same, every step a frame; few enough points to keep the file small."""
    frames = []
    for k, t in enumerate(grid):
        contours = in_square(data, schedule, t, REACH, 121)
        panels = [Cloud(name, path[k][:800].numpy(), contours) for name, path in paths.items()]
        frames.append(frame(plane.moment(panels, REACH, f"t = {float(t):.2f}")))
    return Figure(
        "reverse.gif",
        gif(frames, 5.0),
        "From noise to data by the true reverse kernels (left) and by the learned score (right), "
        "over the contours of the exact density of x_t.",
        "An animation of two point clouds that turn from noise into the density.",
    )


def steps(found: SamplingErrors) -> Figure:
    """The error of the samples against the number of steps."""

    def series(method: str, aside: float) -> Series:
        distances = found.of(method)
        at = [aside * steps for steps in distances]  # intervals side by side, not one on another
        return estimates(method, at, distances.values())

    x = Axis("sampling steps", scale="log", ticks=list(found.of(EXACT)))
    y = Axis("squared energy distance from fresh data")
    methods = [series(KERNELS, 0.95), series(EXACT, 1.0), series(LEARNED, 1.05)]
    level = (found.one_normal.value, "one normal with the data's moments")
    title = "Two errors: the Gaussian step, and the network"
    drawing = side_by_side([Chart(title, x, y, methods, levels=[level])], 7.5, 4.8)
    return Figure(
        "reverse-steps.png",
        plots.png(drawing),
        "Squared energy distance of samples from fresh data against the number of steps, with 95% "
        "intervals. The true kernels are exact for any number of steps; their values are sampling "
        "error. Gaussian steps with the exact score have an error that falls with the number of "
        "steps. The distance between the learned and the exact curve is the network's error.",
        "Energy distance against the number of steps for three ways to sample.",
    )
