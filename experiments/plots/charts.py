"""Lines, points with intervals, and bars on any scale: every chart of the experiments.

A `Chart` is one pair of axes; `side_by_side` draws several side by side.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Scale
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.common.statistics import Interval, normal_interval
from experiments.plots import COLORS, GRAY, styled

NOTE: dict[str, Any] = {"fontsize": 10.5, "color": "#555555"}
Numbers = Any
"""Numbers one after another: a sequence, an array or a tensor."""
Color = int | str | None
"""A place in `COLORS`, a color, or None: the next of `COLORS` that is free."""


@dataclass(frozen=True)
class Series:
    """A curve, points, or both; with `ends`, (low, high) each, an interval at each point.

    across: the same along x. style, marker, width, size: matplotlib's; "" draws no line, no marker.
    style "bars" draws a histogram between `len(y) + 1` edges x. A label that several series share
    is in the legend once.
    """

    label: str
    x: Numbers
    y: Numbers
    ends: Numbers | None = None
    color: Color = None
    style: str = "-"
    marker: str = "o"
    width: float = 2.2
    size: float = 6.3
    alpha: float = 1.0
    across: Numbers | None = None


def line(
    label: str, x: Numbers, y: Numbers, color: Color = None, style: str = "-",
    width: float = 2.2,
) -> Series:  # fmt: skip
    """A curve without markers."""
    return Series(label, x, y, color=color, style=style, marker="", width=width)


def dots(
    label: str,
    x: Numbers,
    y: Numbers,
    ends: Numbers | None = None,
    color: Color = None,
    marker: str = "o",
    size: float = 6.3,
) -> Series:
    """Points with intervals, not joined."""
    return Series(label, x, y, ends, color, "", marker, size=size)


def measured(
    label: str,
    x: Numbers,
    values: Iterable[tuple[float, Interval]],
    unit: float = 1.0,
    color: Color = None,
    style: str = "-",
    marker: str = "o",
) -> Series:
    """Values, each with its interval, joined; of unit 0.01 they are percentages."""
    y, ends = (np.array(one) / unit for one in zip(*values, strict=True))
    return Series(label, x, y, ends, color, style, marker)


def estimates(label: str, x: Numbers, values: Iterable[tuple[float, float]]) -> Series:
    """Estimates, each with its standard error, joined, with 95% intervals."""
    return measured(label, x, ((one, normal_interval(one, error)) for one, error in values))


@dataclass(frozen=True)
class Note:
    """A text at a place of the data; `ha`, `va` as matplotlib counts them."""

    text: str
    x: float
    y: float
    color: str = "#555555"
    ha: str = "left"
    va: str = "bottom"


@dataclass(frozen=True)
class Axis:
    """The label with its unit, the range, the scale, and ticks where their places are chosen.

    names: of the ticks, where x counts things that have no order; then no grid stands on them.
    """

    label: str
    low: float | None = None
    high: float | None = None
    scale: str = "linear"
    ticks: Sequence[float] | None = None
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Chart:
    """One pair of axes; later series lie over earlier ones, points over curves.

    legend: a place as matplotlib names it, or "" for none; a single label has none. levels:
    horizontal dotted lines with a text each, above them or `under`. marked_x: a vertical line and
    its text. below: what lies below that height is shaded. front: points (x, y, text) of a Pareto
    front, by rising x: they are ringed, and what is less in x and y than any is shaded.
    """

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    notes: Sequence[Note] = ()
    legend: str = "best"
    below: float | None = None
    levels: Sequence[tuple[float, str]] = ()
    under: bool = False
    marked_x: tuple[float, str] | None = None
    front: Sequence[tuple[float, float, str]] = ()


@styled
def side_by_side(
    panels: Sequence[Chart], width: float = 5.6, height: float = 4.4, legend_columns: int = 0,
    title: str = "", columns: int = 100,
) -> Figure:  # fmt: skip
    """Charts in rows of `columns` under a title; with `legend_columns` one legend below them."""
    wide = min(columns, len(panels))
    high = -(-len(panels) // wide)
    figure = Figure(figsize=(width * wide, height * high))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    figure.set_layout_engine("constrained", w_pad=0.12)
    handles: dict[str, Any] = {}
    grid = figure.subplots(high, wide, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    for axes, panel in zip(grid.flat, panels, strict=False):
        named = _draw(axes, panel)
        if legend_columns:
            handles = {**named, **handles}
        elif panel.legend and len(named) > 1:
            axes.legend(named.values(), named, loc=panel.legend, fontsize=11)
    if handles:
        beside = min(len(handles), legend_columns)
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=beside)
    return figure


def _draw(axes: Axes, panel: Chart) -> dict[str, Any]:
    """Draw one chart; what its legend shows, by label."""
    handles: dict[str, Any] = {}
    free = 0
    for place, one in enumerate(panel.series):
        color, free = (free, free + 1) if one.color is None else (one.color, free)
        ink = COLORS[color % len(COLORS)] if isinstance(color, int) else color
        handle = _series(axes, one, ink, 0.01 * place)
        if one.label:
            handles.setdefault(one.label, handle)
    for value, text in panel.levels:
        axes.axhline(value, color=GRAY, linestyle=":", linewidth=1.6, zorder=1)
        at: Any = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (1, value), (-2, -14 if panel.under else 4), ha="right", **NOTE, **at)
    if panel.marked_x is not None:
        _mark(axes, panel, *panel.marked_x)
    for note in panel.notes:
        style = {**NOTE, "color": note.color, "fontsize": 11}
        axes.text(note.x, note.y, note.text, ha=note.ha, va=note.va, **style)
    axes.set(title=panel.title, xlabel=panel.x.label, ylabel=panel.y.label)
    axes.set(xscale=panel.x.scale, yscale=panel.y.scale)
    for axis, scale in ((axes.xaxis, panel.x), (axes.yaxis, panel.y)):
        _ticks(axis, scale)
    axes.set_xlim(panel.x.low, panel.x.high)
    axes.set_ylim(*_range(panel))
    if panel.below is not None:
        axes.axhspan(axes.get_ylim()[0], panel.below, color="#f6f0ea", zorder=0)
    if panel.front:
        _front(axes, panel.front)
    return handles


def _series(axes: Axes, one: Series, ink: str, above: float) -> Any:
    x, y = np.asarray(one.x, dtype=float), np.asarray(one.y, dtype=float)
    if one.style == "bars":
        return axes.stairs(y, x, fill=True, color=ink, zorder=2 + above)
    layer = (3.0 if one.style else 4.0) + above
    style: Any = {"capsize": 4, "elinewidth": 1.5, "alpha": 0.8 * one.alpha, "zorder": layer}
    for side, values, ends in (("yerr", y, one.ends), ("xerr", x, one.across)):
        if ends is not None:
            low, high = np.asarray(ends, dtype=float).T
            bars = np.clip([values - low, high - values], 0, None)
            axes.errorbar(x, y, fmt="none", color=ink, **{side: bars}, **style)
    style = {"linewidth": one.width, "markersize": one.size, "alpha": one.alpha, "zorder": layer}
    style |= {"linestyle": one.style or "none", "marker": one.marker}
    if not one.style:
        style |= {"markeredgecolor": "white", "markeredgewidth": 0.7}
    return axes.plot(x, y, color=ink, **style)[0]


def _front(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Ring the points of the front, with those texts that do not overlap, and shade below it."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y, _ = zip(*points, strict=True)
    stairs = [left, *x, right], [top, *y, y[-1]]
    axes.fill_between(*stairs, bottom, step="post", color="#eef1f4", linewidth=0, zorder=0)
    axes.step(*stairs, where="post", color="#a9b4be", linewidth=1.4, zorder=1)
    axes.plot(x, y, "o", markersize=11, mfc="none", mec="#222222", mew=1.5, zorder=5)
    written = np.full((1, 2), np.inf)
    for at, text in (((one[0], one[1]), one[2]) for one in points):
        here = axes.transAxes.inverted().transform(axes.transData.transform([at]))
        if not (np.abs(written - here) < (0.05, 0.07)).all(axis=1).any():
            written = np.concatenate([written, here])
            style: Any = {"ha": "right", "va": "top", "fontsize": 10.5, "zorder": 6}
            axes.annotate(text, at, (-6, -5), textcoords="offset points", **style)


def _mark(axes: Axes, panel: Chart, value: float, text: str) -> None:
    """A vertical line, its text on the side where the data are, or on the right."""
    axes.axvline(value, color=GRAY, linestyle="--", linewidth=1.5)
    last = value >= max(max(one.x) for one in panel.series)
    at: Any = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    side: Any = {"ha": "right" if last else "left", **NOTE}
    axes.annotate(text, (value, 0), (-6 if last else 6, 7), **side, **at)


def _ticks(axis: Scale, chosen: Axis) -> None:
    """The ticks chosen; else plain numbers at 1, 2, 5 on logarithms of less than two decades."""
    if chosen.ticks is not None:
        axis.set_ticks(chosen.ticks, chosen.names or [f"{tick:g}" for tick in chosen.ticks])
        axis.set_minor_formatter(NullFormatter())
        axis.grid(chosen.names is None)
    elif chosen.scale == "log":
        low, high = axis.get_view_interval()
        if high < 100 * low:
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")


def _range(panel: Chart) -> tuple[float | None, float | None]:
    """The range chosen; intervals down to 0 and below do not stretch a logarithmic axis."""
    chosen = panel.y.low, panel.y.high
    low = [low for one in panel.series if one.ends is not None for low, _ in one.ends]
    if panel.y.scale != "log" or chosen != (None, None) or min(low, default=1.0) > 0:
        return chosen
    values = np.concatenate([np.asarray(one.y, dtype=float) for one in panel.series])
    values = values[values > 0]
    return float(values.min() / 2.5), float(values.max() * 2.5)
