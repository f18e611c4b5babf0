"""The figures and tables of `tradeoff`: error against seconds, and guidance intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL.Image import Image

from experiments import plots
from experiments.common.statistics import wilson
from experiments.output.result import Figure, Heading, Part, Table, percent
from experiments.plots.gallery import image_rows
from experiments.plots.tradeoff import Front, Line, fronts
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
    points: Sequence[Point],
    solvers: Sequence[str],
    judged: Sequence[Judged],
    scale: float,
    machine: dict[str, str],
) -> tuple[Part, ...]:
    """The report of one run."""
    ways: dict[Way, list[Point]] = {}
    for point in points:
        ways.setdefault((point.grid, point.interval), []).append(point)
    figure = fronts(
        [_front(way, some, solvers) for way, some in ways.items()],
        "seconds for one image (median, range)",
        "RMS error of the latent",
    )
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


def _front(way: Way, points: Sequence[Point], solvers: Sequence[str]) -> Front:
    lines = []
    for name in solvers:
        own = [point for point in points if point.solver == name]
        x, ends = zip(*(point.time for point in own), strict=True)
        low, high = zip(*ends, strict=True)
        lines.append(Line(name, x, [point.error for point in own], low, high))
    chosen = [points[i] for i in best(points)]
    marks = [(point.time[0], point.error, str(point.steps)) for point in chosen]
    grid, interval = way
    return Front(f"{grid} grid, guided {words(interval)}", lines, marks)


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
    cells = []
    for one in judged:
        verdicts = [bool(verdict) for verdict in one.right if verdict is not None]
        share, point = "–", most[one.interval]
        if verdicts:
            low, high = wilson(sum(verdicts), len(verdicts))
            share = f"{percent(fmean(verdicts))} [{percent(low)}, {percent(high)}]"
        rows, away = f"{point.rows / point.nfe:.2f}", f"{rms(one.away):.2g}"
        cells.append((words(one.interval), rows, away, share))
    shown = min(8, len(judged[0].images))
    gallery = image_rows(
        [one.images[:shown] for one in judged],
        [words(one.interval).replace("at ", "", 1) for one in judged],
        [],
        "Samples by guidance interval",
        [one.right[:shown] for one in judged],
    )
    header = ("guided", "U-Net rows / NFE", "distance from full guidance", "shows the prompt")
    return (
        Figure(
            "tradeoff-pictures.png",
            plots.png(gallery),
            "The same prompts and seeds in every row, not selected. Green frame: the rule-based "
            "reader finds all that the prompt names; orange: it does not.",
            "Rows of images, one for each guidance interval.",
        ),
        Table(
            header,
            tuple(cells),
            "Guidance doubles the rows of the U-Net's batch. The distance is the RMS difference of "
            "the reference ends of the two flows, in units of a latent; shares have Wilson's 95% "
            "intervals.",
        ),
    )
