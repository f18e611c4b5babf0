"""What was measured drawn on what was predicted: dots with intervals over lines, on any scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.plots import COLORS, GRAY, styled


@dataclass(frozen=True)
class Line:
    """A curve; `color` counts `COLORS`, `style` is matplotlib's, `wide` its width in points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    style: str = "-"
    wide: float = 2.2


@dataclass(frozen=True)
class Dots:
    """Measured points, `size` in points squared, with intervals where `low`, `high` are given."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    color: int = 0
    marker: str = "o"
    size: float = 40.0


@dataclass(frozen=True)
class Chart:
    """One pair of axes. `log` names the logarithmic axes, as "xy"; `levels` are horizontal lines
    with a text each, above them or `under`; `legend` is a place as matplotlib names it, or ""."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line] = ()
    dots: Sequence[Dots] = ()
    log: str = ""
    x_range: tuple[float | None, float | None] = (None, None)
    y_range: tuple[float | None, float | None] = (None, None)
    levels: Sequence[tuple[float, str]] = ()
    under: bool = False
    x_ticks: Sequence[float] | None = None
    y_ticks: Sequence[float] | None = None
    legend: str = "best"


@styled
def charts(panels: Sequence[Chart], width: float = 5.6, height: float = 4.4) -> Figure:
    """Charts side by side; a label that lines and dots share is in the legend once."""
    figure = Figure(figsize=(width * len(panels), height))
    figure.set_layout_engine("constrained", w_pad=0.12)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _chart(axes, panel)
    return figure


def _chart(axes: Axes, panel: Chart) -> None:
    style: Any
    place: Any
    for line in panel.lines:
        style = {"linestyle": line.style, "linewidth": line.wide, "zorder": 2}
        axes.plot(line.x, line.y, color=COLORS[line.color], label=line.label, **style)
    for dots in panel.dots:
        color, y = COLORS[dots.color], np.asarray(dots.y, dtype=float)
        if dots.low is not None and dots.high is not None:
            bars = np.clip([y - np.asarray(dots.low), np.asarray(dots.high) - y], 0, None)
            axes.errorbar(dots.x, y, bars, fmt="none", color=color, capsize=4, elinewidth=1.5)
        style = {"s": dots.size, "marker": dots.marker, "edgecolors": "white", "linewidths": 0.8}
        axes.scatter(dots.x, y, color=color, label=dots.label, zorder=4, **style)
    for value, text in panel.levels:
        axes.axhline(value, color=GRAY, linestyle=":", linewidth=1.6, zorder=1)
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        style = {"ha": "right", "fontsize": 10.5, "color": "#555555"}
        axes.annotate(text, (1, value), (-2, -14 if panel.under else 4), **style, **place)
    if "x" in panel.log:
        axes.set_xscale("log")
        _few_decades(axes.xaxis)
    if "y" in panel.log:
        axes.set_yscale("log")
        _few_decades(axes.yaxis)
    if panel.x_ticks is not None:
        axes.set_xticks(panel.x_ticks, [f"{tick:g}" for tick in panel.x_ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    if panel.y_ticks is not None:
        axes.set_yticks(panel.y_ticks, [f"{tick:g}" for tick in panel.y_ticks])
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_xlim(*panel.x_range)
    axes.set_ylim(*panel.y_range)
    handles, labels = axes.get_legend_handles_labels()
    named = {label: handle for handle, label in zip(handles, labels, strict=True) if label}
    if panel.legend and len(named) > 0:
        place = {"loc": panel.legend, "fontsize": 11}
        axes.legend(list(named.values()), list(named), **place)


def _few_decades(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 where a logarithmic axis spans fewer than two decades."""
    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
