"""Learned beside exact: divergences on logarithmic axes, and the way from noise to data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.plots import BLUE, COLORS, GRAY, ORANGE, Floats, Series, _mass_levels, styled


@dataclass(frozen=True)
class Log:
    """One pair of logarithmic axes.

    reference: a dashed line beside the series; bound: a horizontal line and its text; ticks: of x;
    linear: y on a linear axis instead, for values that chance may put below 0.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    reference: Series | None = None
    bound: tuple[float, str] | None = None
    ticks: Sequence[float] = ()
    linear: bool = False


@dataclass(frozen=True)
class Way:
    """One row of `ways`: its name and the points at each time."""

    name: str
    points: Sequence[Floats]


@styled
def logarithmic(panels: Sequence[Log], width: float = 5.6, height: float = 4.3) -> Figure:
    """Panels side by side; on a logarithmic y an interval that reaches 0 leaves the panel."""
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set(xscale="log", xlabel=panel.x_label, ylabel=panel.y_label, title=panel.title)
        for one, color, mark in zip(panel.series, COLORS, "os^Dv", strict=False):
            y = np.asarray(one.y, dtype=float)
            axes.plot(one.x, y, f"{mark}-", color=color, label=one.label, markersize=5.5)
            if one.low is not None and one.high is not None:
                bars = np.clip([y - np.asarray(one.low), np.asarray(one.high) - y], 0, None)
                axes.errorbar(one.x, y, bars, fmt="none", color=color, capsize=3)
        if panel.reference is not None:
            one = panel.reference
            axes.plot(one.x, one.y, "--", color=GRAY, label=one.label, zorder=1)
        if panel.bound is not None:
            _bound(axes, *panel.bound)
        _scale(axes, panel)
        if len(panel.series) > 1 or panel.reference is not None:
            axes.legend(fontsize=11)
    return figure


def _bound(axes: Axes, value: float, text: str) -> None:
    axes.axhline(value, color=GRAY, linestyle=":", linewidth=1.5)
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    axes.annotate(text, (1, value), (-2, 5), ha="right", fontsize=10.5, color="#666666", **place)


def _scale(axes: Axes, panel: Log) -> None:
    """Both axes' scales, and limits that intervals down to 0 do not stretch."""
    if not panel.linear:
        axes.set_yscale("log")
        drawn = [*panel.series, *([panel.reference] if panel.reference is not None else [])]
        every = np.concatenate([np.asarray(one.y, dtype=float) for one in drawn])
        every = every[every > 0]
        axes.set_ylim(every.min() / 2.5, every.max() * 2.5)
    if panel.ticks:
        axes.set_xticks(panel.ticks, [f"{x:g}" for x in panel.ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())


@styled
def ways(
    times: Sequence[str],
    rows: Sequence[Way],
    densities: Sequence[tuple[Floats, Floats]],
    reach: float,
    side: float = 2.5,
) -> Figure:
    """Points of each row at every time, over the contours of the exact density there."""
    shape = (len(rows), len(times))
    figure = Figure(figsize=(side * shape[1] + 0.5, side * shape[0] + 0.7), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    for i, row in enumerate(rows):
        for k, axes in enumerate(grid[i]):
            _cloud(axes, row.points[k], densities[k], reach)
            if i == 0:
                axes.set_title(times[k], fontweight="normal", loc="center")
            if i == len(rows) - 1:
                axes.set_xlabel("$x_1$")
            if k == 0:
                axes.set_ylabel(f"{row.name}\n$x_2$")
    return figure


@styled
def moment(
    title: str,
    rows: Sequence[tuple[str, Floats]],
    density: tuple[Floats, Floats],
    reach: float,
) -> Figure:
    """One frame of an animation: clouds side by side at one time."""
    figure = Figure(figsize=(3.3 * len(rows) + 0.4, 3.9))
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    # A fixed layout: frames must not move against each other.
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.14, top=0.83, wspace=0.12)
    for k, (name, points) in enumerate(rows):
        _cloud(axes[k], points, density, reach)
        axes[k].set_title(name, loc="center")
        axes[k].set_xlabel("$x_1$")
        if k == 0:
            axes[k].set_ylabel("$x_2$")
        else:
            axes[k].set_yticks([-2, 0, 2], [""] * 3)
    figure.suptitle(title, fontsize=13, x=0.53, y=0.985)
    return figure


def _cloud(axes: Axes, points: Floats, density: tuple[Floats, Floats], reach: float) -> None:
    line, values = density
    axes.scatter(*points.T, s=3, color=BLUE, alpha=0.4, linewidths=0, rasterized=True)
    levels = _mass_levels(values, (0.95, 0.5))
    axes.contour(line, line, values, levels=levels, colors=ORANGE, linewidths=1.3)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_xticks([-2, 0, 2])
    axes.set_yticks([-2, 0, 2])
