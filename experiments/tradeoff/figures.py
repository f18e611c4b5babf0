"""The figures and tables of `tradeoff`: error against seconds, and guidance intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL.Image import Image

from experiments import plots
from experiments.common.statistics import share_of
from experiments.output.result import Figure, Heading, Part, Table, bracketed, table
from experiments.plots.charts import Axis, Chart, Series, side_by_side
from experiments.plots.gallery import image_rows
from experiments.tradeoff.measure import EVERYWHERE, Interval, Point, pareto, rms, words

Way = tuple[str, Interval]


@dataclass(frozen=True)
class Judged:
    """One guidance interval.

    away: RMS distance of its reference ends from those with guidance at every noise level.
    right: for each image whether it shows its prompt.
    """

    interval: Interval
    away: list[float]
    images: list[Image]
    right: list[bool | None]


def parts(
    points: Sequence[Point], judged: Sequence[Judged], scale: float, machine: dict[str, str]
) -> tuple[Part, ...]:
    """The report of one run."""
    solvers = list(dict.fromkeys(point.solver for point in points))
    ways: dict[Way, list[Point]] = {}
    for point in points:
        ways.setdefault((point.grid, point.interval), []).append(point)
    seconds = [second for point in points for second in point.seconds]
    errors = [point.error for point in points if point.error > 0]
    x = Axis(
        "seconds for one image (median, range)", min(seconds) / 1.25, max(seconds) * 1.25, "log"
    )
    y = Axis("RMS error of the latent", min(errors) / 1.8, max(errors) * 1.5, "log")
    charts = [_front(way, some, solvers, x, y) for way, some in ways.items()]
    figure = side_by_side(charts, 6.6, 4.7, legend_columns=len(solvers), columns=2)
    nearest = {way: min(point.error for point in some) for way, some in ways.items()}
    count = len(points[0].seconds)
    return (
        "Time and error of one image. The error is the RMS distance of the sampled latent from the "
        "exact end of the probability flow that starts at the same noise. Solvers: "
        f"{', '.join(solvers)}, all deterministic; guidance scale w = {scale:g}.",
        _grids(nearest),
        "The machine: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + ".",
        Figure(
            "tradeoff-error.png",
            plots.png(figure),
            f"RMS error of the latent (its variance is about 1) against the median seconds of one "
            f"image, over {count} images, on logarithmic axes. Each dot is a number of steps. "
            "Ringed dots, with their steps, are the Pareto front: no other dot is both faster and "
            "of lower error. Each panel has the exact end of its own guided flow.",
            "Error against seconds on logarithmic axes, a line for each solver, a panel for each "
            "time grid and guidance interval.",
        ),
        _budgets(ways),
        Heading("Guidance in a limited interval"),
        *_limits(ways, judged),
    )


def _grids(nearest: dict[Way, float]) -> str:
    """The lowest error on each grid, and the effect of guidance intervals."""
    whole = {grid: error for (grid, one), error in nearest.items() if one == EVERYWHERE}
    errors = " and ".join(f"{error:.2g} on the {grid} grid" for grid, error in whole.items())
    text = f"The lowest error with guidance at every noise level is {errors}."
    if "trailing" in whole:
        text += (
            " The last step of the trailing grid goes from t = T / steps to clean data, and takes "
            "the posterior mean for the flow with every solver."
        )
    if len(nearest) > len(whole):
        text += (
            " With a guidance interval, guidance acts at noise levels σ/α inside it only. Outside, "
            "the conditional prediction alone is used, which halves the cost. A step over an end "
            "of the interval has order 1."
        )
    return text


def _front(way: Way, points: Sequence[Point], solvers: Sequence[str], x: Axis, y: Axis) -> Chart:
    lines = []
    for name in solvers:
        own = [point for point in points if point.solver == name]
        medians, ranges = zip(*(point.time for point in own), strict=True)
        lines.append(Series(name, medians, [point.error for point in own], across=ranges))
    chosen = [points[i] for i in best(points)]
    marks = [(point.time[0], point.error, str(point.steps)) for point in chosen]
    grid, interval = way
    return Chart(f"{grid} grid, guided {words(interval)}", x, y, lines, front=marks)


def best(points: Sequence[Point]) -> list[int]:
    """The front of points by median seconds and error."""
    return pareto([(point.time[0], point.error) for point in points])


def _budgets(ways: dict[Way, list[Point]]) -> Table:
    """The lowest error within a time, for times of 1, 2 and 5 times a power of ten."""
    every = [point.time[0] for points in ways.values() for point in points]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    series = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]

    def nearest(points: Sequence[Point], budget: float) -> str:
        fits = [point for point in points if point.time[0] <= budget]
        one = min(fits, key=lambda point: point.error, default=None)
        return f"{one.solver}, {one.steps} steps: {one.error:.2g}" if one else "–"

    cells: list[tuple[str, ...]] = []
    for budget in series:
        line = tuple(nearest(points, budget) for points in ways.values())
        if budget >= min(every) and (not cells or line != cells[-1][1:]):
            cells.append((f"{budget:g} s", *line))
    header = ("budget", *(f"{grid}, guided {words(interval)}" for grid, interval in ways))
    caption = (
        "The solver and number of steps of the lowest RMS error within a time on this machine."
    )
    return Table(header, tuple(cells), caption)


def _limits(ways: dict[Way, list[Point]], judged: Sequence[Judged]) -> tuple[Part, ...]:
    """The effect of guidance intervals on the images and on the cost."""
    grid = list(ways)[-1][0]
    most = {way[1]: points[-1] for way, points in ways.items() if way[0] == grid}
    ratio = {interval: point.rows / point.nfe for interval, point in most.items()}

    def right(one: Judged) -> str:
        verdicts = [bool(verdict) for verdict in one.right if verdict is not None]
        return bracketed(*share_of(verdicts)) if verdicts else "–"

    shown = min(8, len(judged[0].images))
    images, frames = ([getattr(one, of)[:shown] for one in judged] for of in ("images", "right"))
    labels = [words(one.interval).removeprefix("at ") for one in judged]
    gallery = image_rows(images, labels, [], "Samples by guidance interval", frames)
    return (
        Figure(
            "tradeoff-pictures.png",
            plots.png(gallery),
            "The same prompts and seeds in every row, not selected. Green frame: the rule-based "
            "reader finds all that the prompt names; orange: it does not.",
            "Rows of images, one for each guidance interval.",
        ),
        table(
            judged,
            {
                "guided": lambda one: words(one.interval),
                "U-Net rows / NFE": lambda one: f"{ratio[one.interval]:.2f}",
                "distance from full guidance": lambda one: f"{rms(one.away):.2g}",
                "shows the prompt": right,
            },
            "Guidance doubles the rows of the U-Net's batch. The distance is the RMS difference of "
            "the reference ends of the two flows, in units of a latent; shares have Wilson's 95% "
            "intervals.",
        ),
    )
