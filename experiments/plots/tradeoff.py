"""Error against time on logarithmic axes: a line for each solver, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.plots import COLORS, styled

INK = "#222222"


@dataclass(frozen=True)
class Line:
    """The points of one solver; `low` to `high` is the range of each x."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Front:
    """One pair of axes: lines, and the points `(x, y, text)` of the Pareto front."""

    title: str
    lines: Sequence[Line]
    best: Sequence[tuple[float, float, str]]


@styled
def fronts(panels: Sequence[Front], x_label: str, y_label: str, columns: int = 2) -> Figure:
    """Panels with the same axes and one legend; the region below each front is shaded."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(6.6 * columns, 4.7 * rows))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    colors: dict[str, str] = {}
    for panel in panels:
        for line in panel.lines:
            colors.setdefault(line.label, COLORS[len(colors) % len(COLORS)])
    lines = [line for panel in panels for line in panel.lines]
    x = np.concatenate([np.asarray(line.x, dtype=float) for line in lines])
    y = np.concatenate([np.asarray(line.y, dtype=float) for line in lines])
    y = y[y > 0]
    limits = (x.min() / 1.25, x.max() * 1.25), (y.min() / 1.8, y.max() * 1.5)
    for k, axes in enumerate(grid.flat):
        if k >= len(panels):
            axes.axis("off")
            continue
        axes.set(xscale="log", yscale="log", xlim=limits[0], ylim=limits[1])
        _panel(axes, panels[k], colors)
        axes.set_title(panels[k].title)
        if k + columns >= len(panels):
            axes.set_xlabel(x_label)
            axes.tick_params(labelbottom=True)
        if k % columns == 0:
            axes.set_ylabel(y_label)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _panel(axes: Axes, panel: Front, colors: dict[str, str]) -> None:
    _shade(axes, panel)
    for line in panel.lines:
        color = colors[line.label]
        x = np.asarray(line.x)
        bars = np.clip([x - np.asarray(line.low), np.asarray(line.high) - x], 0, None)
        axes.errorbar(x, line.y, xerr=bars, fmt="none", color=color, elinewidth=1.1, alpha=0.5)
        axes.plot(x, line.y, "o-", color=color, markersize=5.5, zorder=3, label=line.label)
    written = np.full((1, 2), np.inf)
    for x_best, y_best, text in panel.best:
        axes.plot(x_best, y_best, "o", markersize=11, mfc="none", mec=INK, mew=1.5, zorder=5)
        here = np.log([[x_best, y_best]])
        if (np.abs(written - here) < (0.14, 0.35)).all(axis=1).any():
            continue  # two texts would overlap
        written = np.concatenate([written, here])
        style = {"ha": "right", "va": "top", "fontsize": 10.5, "color": INK, "zorder": 6}
        axes.annotate(text, (x_best, y_best), (-6, -5), textcoords="offset points", **style)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _shade(axes: Axes, panel: Front) -> None:
    """Shade the region that is faster and of lower error than every point."""
    if not panel.best:
        return
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y, _ = zip(*panel.best, strict=True)
    stairs = [left, *x, right], [top, *y, y[-1]]
    axes.fill_between(*stairs, bottom, step="post", color="#eef1f4", linewidth=0, zorder=0)
    axes.step(*stairs, where="post", color="#a9b4be", linewidth=1.4, zorder=1)
