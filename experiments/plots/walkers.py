"""Particles in the plane over a density's contours: still, counted by mode, and on the move."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plots import BLUE, COLORS, GRAY, ORANGE, Floats, _mass_levels, styled

REACH = 3.6


@dataclass(frozen=True)
class Walkers:
    """Particles `(n, 2)` under a title, drawn at `size` (in points squared); `notes` are texts at
    points of the plane."""

    title: str
    points: Floats
    notes: Sequence[tuple[float, float, str]] = ()
    size: float = 3.0


@styled
def walkers(panels: Sequence[Walkers], line: Floats, density: Floats, columns: int = 3) -> Figure:
    """Panels in rows of `columns`, each over the lines that enclose 50 and 95% of the density.

    density: `(len(line), len(line))` on line x line, first the second coordinate.
    """
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.75 * columns, 3.75 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k >= len(panels):
            axes.axis("off")
            continue
        _panel(axes, panels[k], line, density)
        axes.set_xlabel("$x_1$" if k >= len(panels) - columns else "")
        axes.set_ylabel("$x_2$" if k % columns == 0 else "")
    return figure


@styled
def race(panels: Sequence[Walkers], line: Floats, density: Floats, title: str) -> Figure:
    """One frame of an animation: panels in a row under one title, all frames of one size."""
    figure = Figure(figsize=(3.2 * len(panels), 3.65))
    figure.suptitle(title, fontsize=13, x=0.5, y=0.985)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(left=0.045, right=0.99, bottom=0.07, top=0.83, wspace=0.1)
    for k, axes in enumerate(grid):
        _panel(axes, panels[k], line, density)
        axes.set_yticks([-2, 0, 2], None if k == 0 else [""] * 3)
    return figure


@styled
def shares(
    samplers: Sequence[str],
    modes: Sequence[str],
    found: Sequence[Sequence[tuple[float, float, float]]],
    weights: Sequence[float],
    bounds: Sequence[tuple[int, int, float]] = (),
) -> Figure:
    """The share of particles at each mode, in percent with intervals, against the true weight.

    found[i][j]: (share, low, high) of sampler i at mode j, in [0, 1]; bounds: (i, j, share), a
    share that sampler i cannot go below at mode j.
    """
    figure = Figure(figsize=(11.5, 4.2), layout="constrained")
    axes = figure.subplots()
    wide = 0.62
    for j, mode in enumerate(modes):
        at = np.arange(len(samplers)) + wide * ((j + 0.5) / len(modes) - 0.5)
        value, low, high = 100 * np.array([row[j] for row in found]).T
        axes.bar(at, value, wide / len(modes) * 0.92, color=COLORS[j], label=mode, zorder=2)
        bars = np.clip([value - low, high - value], 0, None)
        axes.errorbar(at, value, bars, fmt="none", color="#222222", capsize=3, elinewidth=1.3)
        axes.axhline(100 * weights[j], color=COLORS[j], linestyle="--", linewidth=1.4, zorder=1)
    for n, (i, j, share) in enumerate(bounds):
        middle = i + wide * ((j + 0.5) / len(modes) - 0.5)
        reach = [middle - wide / len(modes) / 2, middle + wide / len(modes) / 2]
        label = "proved least share" if n == 0 else None
        axes.plot(reach, [100 * share] * 2, color="#222222", linewidth=2.6, zorder=4, label=label)
    axes.plot([], [], color=GRAY, linestyle="--", linewidth=1.4, label="true weight")
    axes.set_xticks(range(len(samplers)), samplers)
    axes.grid(False, axis="x")
    axes.set_ylabel("particles nearest to the mode, %")
    axes.set_ylim(0, None)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=11)
    return figure


def _panel(axes: Axes, panel: Walkers, line: Floats, density: Floats) -> None:
    style: Any = {"s": panel.size, "color": BLUE, "alpha": 0.4, "linewidths": 0, "rasterized": True}
    axes.scatter(*panel.points.T, zorder=3, **style)
    levels = _mass_levels(density, (0.95, 0.5))
    axes.contour(line, line, density, levels=levels, colors=ORANGE, linewidths=1.3, zorder=4)
    for x, y, text in panel.notes:
        axes.annotate(text, (x, y), ha="center", va="center", fontsize=12, zorder=5)
    axes.set_title(panel.title, fontsize=13, fontweight="normal", loc="center", pad=6)
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
    axes.set_xticks([-2, 0, 2])
    axes.set_yticks([-2, 0, 2])
