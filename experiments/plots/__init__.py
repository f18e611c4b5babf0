"""Every figure of the experiments in one style; the only module that imports matplotlib.

Functions return a `Figure` of matplotlib that belongs to no window and no global state; `png`
turns it into bytes.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, GRAY = "#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a8a8a"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, GRAY)
"""Told apart by the colour-blind too (Okabe & Ito, and one of Tol's)."""

RIGHT, WRONG = GREEN, ORANGE

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 1.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150


@dataclass(frozen=True)
class Series:
    """A line with a vertical interval at each point; `low`, `high` may be left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes of `curves`; `bounds` are horizontal lines with a text each."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    y_range: tuple[float | None, float | None] = (None, None)
    bounds: Sequence[tuple[float, str]] = ()
    marked_x: tuple[float, str] | None = None
    y_scale: str = "linear"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, trimmed to what is drawn."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12)
    return buffer.getvalue()


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw under `STYLE` without leaving it set."""

    def inner(*given: Any, **named: Any) -> Figure:
        with rc_context(STYLE):
            return draw(*given, **named)

    inner.__doc__, inner.__name__ = draw.__doc__, draw.__name__
    return inner


@styled
def gallery(
    pictures: Sequence[Sequence[Any]],
    rows: Sequence[str],
    columns: Sequence[str] = (),
    title: str = "",
    verdicts: Sequence[Sequence[bool | None]] | None = None,
    side: float = 1.45,
) -> Figure:
    """Pictures in rows, a label on each row and column, a coloured frame where there is a verdict.

    Pixels are shown as they are, without smoothing. A row may have `None` for no picture.
    """
    wide, high = max(len(row) for row in pictures), len(pictures)
    figure = Figure(figsize=(side * wide + 1.6, side * high * 1.06 + 0.5), layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False)
    for i, row in enumerate(pictures):
        for j in range(wide):
            axes: Axes = grid[i][j]
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            picture = row[j] if j < len(row) else None
            if picture is None:
                axes.spines[:].set_visible(False)
            else:
                axes.imshow(np.asarray(picture), interpolation="nearest")
                _frame(axes, verdicts[i][j] if verdicts is not None else None)
            if i == 0 and j < len(columns):
                axes.set_title(columns[j], fontsize=12, fontweight="normal", loc="center", pad=7)
            if j == 0:
                style: dict[str, Any] = {
                    "rotation": 0,
                    "ha": "right",
                    "va": "center",
                    "labelpad": 12,
                }
                axes.set_ylabel(rows[i], **style)
    if title:
        text = textwrap.fill(title, int(9 * figure.get_figwidth()))
        figure.suptitle(text, fontsize=14, fontweight="bold", x=0.01, ha="left")
    return figure


@styled
def curves(panels: Sequence[Panel], width: float = 6.2, height: float = 4.3) -> Figure:
    """Panels side by side, each with lines, intervals as bars, and labelled axes with units."""
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for k, one in enumerate(panel.series):
            color = COLORS[k % len(COLORS)]
            y = np.asarray(one.y, dtype=float)
            axes.plot(one.x, y, "o-", color=color, label=one.label, zorder=3)
            if one.low is not None and one.high is not None:
                below, above = y - np.asarray(one.low), np.asarray(one.high) - y
                bars = np.clip([below, above], 0, None)
                axes.errorbar(one.x, y, bars, fmt="none", color=color, capsize=4, alpha=0.8)
        for value, text in panel.bounds:
            axes.axhline(value, color=GRAY, linestyle=":", linewidth=1.5)
            place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
            axes.annotate(
                text, (1, value), (-2, 4), ha="right", fontsize=10.5, color="#666666", **place
            )
        if panel.marked_x is not None:
            value, text = panel.marked_x
            axes.axvline(value, color=GRAY, linestyle="--", linewidth=1.5)
            place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
            last = value >= max(max(one.x) for one in panel.series)
            away = {"ha": "right" if last else "left", "fontsize": 10.5, "color": "#666666"}
            axes.annotate(text, (value, 0), (-6 if last else 6, 7), **away, **place)
        axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
        axes.set_yscale(panel.y_scale)
        axes.set_ylim(*panel.y_range)
        if len(panel.series) > 1:
            axes.legend()
    return figure


@styled
def stacked(
    labels: Sequence[str], parts: dict[str, Sequence[float]], x_label: str, title: str
) -> Figure:
    """Horizontal bars, one a label, each made of the same parts; the total is written behind."""
    figure = Figure(figsize=(10, 1.5 + 0.62 * len(labels)), layout="constrained")
    axes = figure.subplots()
    start = np.zeros(len(labels))
    for (name, values), color in zip(parts.items(), COLORS, strict=False):
        axes.barh(labels, values, left=start, color=color, label=name, height=0.6)
        start = start + np.asarray(values, dtype=float)
    for y, total in enumerate(start):
        axes.annotate(
            f"{total:,.0f} ms" if total >= 10 else f"{total:.2g} ms",
            (total, y),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.invert_yaxis()
    axes.set(xlabel=x_label, ylabel="device, precision", xlim=(0, 1.15 * start.max()))
    axes.set_title(title, pad=38)
    axes.grid(False, axis="y")
    axes.legend(ncols=len(parts), loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return figure


@styled
def pixel_marginals(
    times: Sequence[str], samples: Sequence[Floats], exact: Sequence[tuple[Floats, Floats]]
) -> Figure:
    """Histograms of all pixel values of x_t, the closed-form density drawn over each."""
    figure = Figure(figsize=(2.55 * len(times) + 0.6, 2.9), layout="constrained")
    for k, axes in enumerate(figure.subplots(1, len(times), squeeze=False)[0]):
        x, density = exact[k]
        edges = np.linspace(x[0], x[-1], 61)
        axes.hist(samples[k], bins=edges, density=True, color="#b9d7ea", label="iterated samples")
        axes.plot(x, density, color=ORANGE, label="closed form")
        axes.set_title(times[k], fontweight="normal", loc="center")
        axes.set(xlabel="pixel value", xlim=(x[0], x[-1]), yticks=[])
        axes.set_ylabel("density" if k == 0 else "")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


@styled
def plane_marginals(
    times: Sequence[str],
    samples: Sequence[Floats],
    densities: Sequence[tuple[Floats, Floats]],
    reach: float,
) -> Figure:
    """Samples of x_t in the plane, contours of the closed-form density over them.

    densities: (line, density) with the density (len(line), len(line)) on line x line, first y.
    """
    figure = Figure(figsize=(2.75 * len(times) + 0.6, 3.5), layout="constrained")
    for k, axes in enumerate(figure.subplots(1, len(times), squeeze=False)[0]):
        line, density = densities[k]
        axes.scatter(*samples[k].T, s=3, color=BLUE, alpha=0.35, linewidths=0, rasterized=True)
        levels = _mass_levels(density, (0.95, 0.5))
        axes.contour(line, line, density, levels=levels, colors=ORANGE, linewidths=1.4)
        axes.set_title(times[k], fontweight="normal", loc="center")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$x_1$")
        axes.set_ylabel("$x_2$" if k == 0 else "")
        axes.set_xticks([-2, 0, 2])
        axes.set_yticks([-2, 0, 2], None if k == 0 else [""] * 3)
    return figure


def _mass_levels(density: Floats, shares: Sequence[float]) -> list[float]:
    """The density's values that enclose these shares of its mass, rising."""
    values = np.sort(density.ravel())[::-1]
    mass = np.cumsum(values) / values.sum()
    levels = {float(values[min(int(np.searchsorted(mass, s)), len(values) - 1)]) for s in shares}
    return sorted(levels)


@styled
def captioned(
    pictures: Sequence[Sequence[Any]],
    texts: Sequence[Sequence[str]],
    verdicts: Sequence[Sequence[bool | None]],
    side: float = 2.3,
) -> Figure:
    """Pictures in rows, each with its text below it and a coloured frame for its verdict."""
    wide, high = max(map(len, pictures)), len(pictures)
    figure = Figure(figsize=(side * wide, (side + 0.55) * high))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    grid = figure.subplots(high, wide, squeeze=False)
    for i, row in enumerate(grid):
        for j, axes in enumerate(row):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(False)
            if j >= len(pictures[i]):
                axes.axis("off")
                continue
            axes.imshow(np.asarray(pictures[i][j]), interpolation="nearest")
            text = textwrap.fill(texts[i][j], 26)
            axes.set_xlabel(text, fontsize=10.5, labelpad=6, linespacing=1.3)
            _frame(axes, verdicts[i][j])
    return figure


def _frame(axes: Axes, verdict: bool | None) -> None:
    color = {True: RIGHT, False: WRONG, None: "#bbbbbb"}[verdict]
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=1.0 if verdict is None else 3.0)
