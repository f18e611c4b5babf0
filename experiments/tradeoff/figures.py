"""What `tradeoff` shows: the figure of error over seconds, what to pick, what limits change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL.Image import Image

from experiments import plots
from experiments.common.statistics import wilson
from experiments.output.result import Figure, Table, percent
from experiments.plots.gallery import image_rows
from experiments.plots.tradeoff import Front, Line, fronts
from experiments.tradeoff.walks import EVERYWHERE, Interval, Point, pareto, rms, words

Way = tuple[str, Interval]


@dataclass(frozen=True)
class Judged:
    """One interval: how far its converged ends are from the fully guided ones, its pictures, and
    whether each shows its prompt."""

    interval: Interval
    away: list[float]
    pictures: list[Image]
    right: list[bool | None]


def parts(
    points: Sequence[Point],
    solvers: Sequence[str],
    judged: Sequence[Judged],
    scale: float,
    machine: dict[str, str],
) -> tuple[str | Figure | Table, ...]:
    """The report of one run."""
    ways: dict[Way, list[Point]] = {}
    for point in points:
        ways.setdefault((point.grid, point.interval), []).append(point)
    figure = fronts(
        [_front(way, some, solvers) for way, some in ways.items()],
        "seconds for one picture's walk (median, range)",
        "RMS error of the latent",
    )
    nearest = {way: min(point.error for point in some) for way, some in ways.items()}
    count = len(points[0].seconds)
    return (
        "How long does a picture take, and how far is it from where an exact walk from the same "
        f"noise would have ended? The solvers {', '.join(solvers)}, none of which draws noise, "
        f"with the guidance scale w = {scale:g}.",
        _grids(nearest),
        "The machine: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + ".",
        Figure(
            "tradeoff-error.png",
            plots.png(figure),
            f"Each dot is a number of steps; errors and medians over {count} pictures, in units of "
            "a latent, whose variance is about 1. Ringed, with its steps: no other dot of the "
            "panel is both faster and nearer; nothing measured lies on the shaded ground. Each "
            "panel is measured against the end of its own guided flow.",
            "Error over seconds on logarithmic axes, a line for each solver, in panels for each "
            "grid of steps and guidance interval.",
        ),
        _budgets(ways),
        *_limits(ways, judged),
    )


def _grids(nearest: dict[Way, float]) -> str:
    """How near the walks of each grid come, guided at every level, and what limits cost."""
    whole = {grid: error for (grid, one), error in nearest.items() if one == EVERYWHERE}
    told = " and ".join(f"{error:.2g} on the {grid} grid" for grid, error in whole.items())
    text = f"The least error, guided at every level, is {told}."
    if "trailing" in whole:
        text += (
            " The last step of the trailing grid, from T over the number of steps to clean data, "
            "takes the mean for the flow, whatever the solver."
        )
    if len(nearest) > len(whole):
        text += (
            " A limited interval guides at noise levels σ/α inside it alone, and elsewhere takes "
            "the conditional prediction, half the work; a step over its ends is of order 1."
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
    """The nearest end that fits into a time, for times of 1, 2 and 5 times a power of ten."""
    every = [point.time[0] for points in ways.values() for point in points]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    series = [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]
    cells: list[tuple[str, ...]] = []
    for budget in series:
        if budget < min(every):
            continue
        line = [f"{budget:g} s"]
        for points in ways.values():
            fits = [point for point in points if point.time[0] <= budget]
            if not fits:
                line.append("–")
                continue
            one = min(fits, key=lambda point: point.error)
            line.append(f"{one.solver}, {one.steps} steps: {one.error:.2g}")
        if not cells or line[1:] != list(cells[-1][1:]):
            cells.append(tuple(line))
    header = ("budget", *(f"{grid}, guided {words(interval)}" for grid, interval in ways))
    caption = (
        "What to pick for a budget: the solver and number of steps that end nearest to the flow's "
        "own end in that time on this machine, and their RMS error."
    )
    return Table(header, tuple(cells), caption)


def _limits(ways: dict[Way, list[Point]], judged: Sequence[Judged]) -> tuple[Figure | Table, ...]:
    """What limited guidance changes in the pictures, and what it saves."""
    grid = list(ways)[-1][0]
    most = {way[1]: points[-1] for way, points in ways.items() if way[0] == grid}
    cells = []
    for one in judged:
        known = [bool(verdict) for verdict in one.right if verdict is not None]
        share, point = "–", most[one.interval]
        if known:
            low, high = wilson(sum(known), len(known))
            share = f"{percent(fmean(known))} [{percent(low)}, {percent(high)}]"
        rows, away = f"{point.rows / point.calls:.2f}", f"{rms(one.away):.2g}"
        cells.append((words(one.interval), rows, away, share))
    shown = min(8, len(judged[0].pictures))
    gallery = image_rows(
        [one.pictures[:shown] for one in judged],
        [words(one.interval).replace("at ", "", 1) for one in judged],
        [],
        "Guided at every noise level, and at some",
        [one.right[:shown] for one in judged],
    )
    header = ("guided", "U-Net rows a call", "distance from full guidance", "shows the prompt")
    return (
        Figure(
            "tradeoff-pictures.png",
            plots.png(gallery),
            "The same prompts and seeds, nothing picked. Green frame: all that the prompt names is "
            "there; orange: something is not.",
            "Rows of pictures, one for each interval of guidance.",
        ),
        Table(
            header,
            tuple(cells),
            "Guidance doubles the U-Net's rows where it is on. The distance is between the "
            "converged ends of both flows, RMS in units of a latent; shares with Wilson's 95% "
            "intervals.",
        ),
    )
