"""The plane: densities as shaded maps or contours, with points, streamlines and arrows on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from experiments.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE, Floats, styled

BLACK = "#111111"
SHADE = LinearSegmentedColormap.from_list("shade", ["#ffffff", "#9ecbe6", BLUE, "#00304d"])
PALE = LinearSegmentedColormap.from_list("pale", ["#ffffff", "#b9d7ea", "#5f9dc4"])
HEAT = LinearSegmentedColormap.from_list("heat", ["#f0b27a", ORANGE, "#4d1a00"])
"""White where there is nothing, dark where much is; distinct in gray as well."""
SHARES = (0.99, 0.9, 0.7, 0.5, 0.25)
"""Of the mass that a shade of `density_maps` encloses, from light to dark."""


def mass_levels(density: Floats, shares: Sequence[float]) -> list[float]:
    """The density's values that enclose these shares of its mass, rising."""
    values = np.sort(density.ravel())[::-1]
    mass = np.cumsum(values) / values.sum()
    levels = {float(values[min(int(np.searchsorted(mass, s)), len(values) - 1)]) for s in shares}
    return sorted(levels)


@dataclass(frozen=True)
class Cloud:
    """Points `(n, 2)`, and the lines that enclose 50 and 95% of a density's mass.

    density: a line, and the density `(len(line), len(line))` on line x line, first the second
    coordinate. notes: texts at points of the plane. size: of a point, in points squared.
    """

    title: str
    points: Floats
    density: tuple[Floats, Floats]
    notes: Sequence[tuple[float, float, str]] = ()
    size: float = 3.0


@styled
def clouds(
    rows: Sequence[Sequence[Cloud]], reach: float, side: float = 2.7, names: Sequence[str] = ()
) -> Figure:
    """Clouds in rows, each row with its name on the left, in squares about the origin."""
    wide, high = max(map(len, rows)), len(rows)
    titled = sum(any(one.title for one in row) for row in rows)
    size = (side * wide + 0.6, side * high + 0.5 + 0.3 * titled)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False)
    for i, row in enumerate(rows):
        _row(grid[i], row, reach, "$x_1$" if i == high - 1 else "")
        if names:
            grid[i][0].set_ylabel(f"{names[i]}\n$x_2$")
    return figure


@styled
def moment(panels: Sequence[Cloud], reach: float, title: str = "", side: float = 3.2) -> Figure:
    """One frame of an animation: clouds side by side. The layout is fixed: frames must not move."""
    wide, high = len(panels) * (side + 0.2) + 0.65, side + (1.25 if title else 0.9)
    figure = Figure(figsize=(wide, high))
    if title:
        figure.suptitle(title, fontsize=13, x=0.5, y=1 - 0.07 / high, va="top")
    place = {"left": 0.7 / wide, "right": 1 - 0.15 / wide, "bottom": 0.55 / high}
    figure.subplots_adjust(**place, top=(0.55 + side) / high, wspace=0.2 / side)
    _row(figure.subplots(1, len(panels), squeeze=False)[0], panels, reach, "$x_1$")
    return figure


def _row(grid: Sequence[Axes], row: Sequence[Cloud], reach: float, label: str) -> None:
    """Clouds side by side; the second coordinate is named and numbered on the left alone."""
    for axes in grid[len(row) :]:
        axes.axis("off")
    for axes, one in zip(grid, row, strict=False):
        _cloud(axes, one, reach)
        axes.set_xlabel(label)
        if axes is not grid[0]:
            axes.set_yticklabels([])
    grid[0].set_ylabel("$x_2$")


def _cloud(axes: Axes, one: Cloud, reach: float) -> None:
    line, density = one.density
    style: Any = {"s": one.size, "color": BLUE, "alpha": 0.4, "linewidths": 0, "rasterized": True}
    axes.scatter(*one.points.T, zorder=3, **style)
    levels = mass_levels(density, (0.95, 0.5))
    axes.contour(line, line, density, levels=levels, colors=ORANGE, linewidths=1.4, zorder=4)
    for x, y, text in one.notes:
        axes.annotate(text, (x, y), ha="center", va="center", fontsize=12, zorder=5)
    axes.set_title(one.title, fontsize=13, fontweight="normal", loc="center", pad=6)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_xticks([-2, 0, 2])
    axes.set_yticks([-2, 0, 2])


def _panels(
    titles: Sequence[str], columns: int, side: tuple[float, float], more: float, size: float = 14
) -> tuple[Figure, list[Axes]]:
    """Axes in rows of `columns`, with titles; coordinates are named on the left and below."""
    wide, high = min(columns, len(titles)), -(-len(titles) // columns)
    figsize = (side[0] * wide + 0.3, side[1] * high + more)
    figure = Figure(figsize=figsize, layout="constrained")
    every = list(figure.subplots(high, wide, squeeze=False).ravel())
    for k, axes in enumerate(every):
        if k >= len(titles):
            axes.axis("off")
            continue
        axes.set_title(titles[k], loc="center", fontsize=size)
        axes.set_xlabel("$x_1$" if k + wide >= len(titles) else "")
        axes.set_ylabel("$x_2$" if k % wide == 0 else "")
        axes.grid(False)
    return figure, every[: len(titles)]


@dataclass(frozen=True)
class Map:
    """A density `(len(second), len(first))` on first x second, and samples `(n, 2)` of it."""

    title: str
    first: Floats
    second: Floats
    density: Floats
    points: Floats


@styled
def maps(panels: Sequence[Map], columns: int) -> Figure:
    """Shaded densities with samples of them, in rows of `columns`, each on its own scale."""
    figure, every = _panels([one.title for one in panels], columns, (3.1, 3.3), 0.2)
    for axes, one in zip(every, panels, strict=True):
        _shaded(axes, one)
        axes.scatter(*one.points.T, s=2.2, color=ORANGE, alpha=0.55, linewidths=0)
    return figure


def _shaded(axes: Axes, one: Map, colors: LinearSegmentedColormap = SHADE) -> None:
    """The density's root as a shade, so that its tails show, in a square window."""
    extent = (one.first[0], one.first[-1], one.second[0], one.second[-1])
    shade: dict[str, Any] = {"origin": "lower", "cmap": colors, "interpolation": "bilinear"}
    axes.imshow(np.sqrt(one.density), extent=extent, aspect="equal", **shade)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    axes.tick_params(labelsize=10)


@styled
def streams(panels: Sequence[Map], scores: Sequence[tuple[Floats, Floats]]) -> Figure:
    """Shaded log-densities, and streamlines of their scores colored by the scores' length.

    scores: a line, and the score `(n, n, 2)` on line x line, rows along the second coordinate.
    """
    figure, every = _panels([one.title for one in panels], len(panels), (3.1, 3.5), 0.1)
    lengths = [np.log10(np.linalg.norm(score, axis=2).clip(1e-12)) for _, score in scores]
    low, high = np.percentile(np.concatenate([one.ravel() for one in lengths]), (2, 98))
    for axes, one, (line, score), length in zip(every, panels, scores, lengths, strict=True):
        log = np.log10(one.density.clip(1e-300))
        extent = (one.first[0], one.first[-1], one.second[0], one.second[-1])
        levels = np.linspace(log.max() - 2.5, log.max(), 11)
        axes.contourf(one.first, one.second, log, levels=levels, cmap=PALE, extend="min")
        axes.streamplot(
            line, line, score[..., 0], score[..., 1], color=length, cmap=HEAT,
            norm=Normalize(low, high), linewidth=1.1, density=0.95, arrowsize=0.9,
        )  # fmt: skip
        axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
        axes.tick_params(labelsize=10)
    scale = ScalarMappable(Normalize(low, high), HEAT)
    bar = figure.colorbar(scale, ax=every, shrink=0.8, pad=0.01)
    bar.set_label(r"$\log_{10}$ |score|")
    return figure


@styled
def arrows(panels: Sequence[Map], ends: Sequence[Floats]) -> Figure:
    """Shaded densities, and an arrow from each of a panel's points to its end `(n, 2)`."""
    figure, every = _panels([one.title for one in panels], len(panels), (3.0, 3.4), 0.1)
    for axes, one, end in zip(every, panels, ends, strict=True):
        _shaded(axes, one)
        along: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
        shape: dict[str, Any] = {"width": 0.006, "headwidth": 3.8, "headlength": 4.5}
        axes.quiver(*one.points.T, *(end - one.points).T, color=ORANGE, **along, **shape)
        axes.scatter(*one.points.T, s=9, facecolors="white", edgecolors="#444444", linewidths=0.7)
    return figure


@dataclass(frozen=True)
class Kernel:
    """A distribution as a map, a star, and Gaussians about one mean with these standard deviations.

    deviations: by name; the first is drawn dashed, the second solid.
    """

    shown: Map
    star: Floats
    mean: tuple[float, float]
    deviations: dict[str, float]


@styled
def kernels(panels: Sequence[Kernel]) -> Figure:
    """Distributions with samples of them, and circles that hold half and 95% of each Gaussian."""
    titles = [one.shown.title for one in panels]
    figure, every = _panels(titles, 3 if len(panels) > 4 else 4, (3.6, 3.75), 0.6)
    styles = list(zip((GREEN, ORANGE), ("--", "-"), strict=True))
    handles: dict[str, Any] = {}
    for axes, one in zip(every, panels, strict=True):
        _shaded(axes, one.shown, PALE)
        axes.scatter(*one.shown.points.T, s=3, color="#222222", alpha=0.5, linewidths=0)
        for (name, deviation), (color, line) in zip(one.deviations.items(), styles, strict=False):
            for share in (0.5, 0.95):
                radius = deviation * np.sqrt(-2 * np.log(1 - share))
                look: dict[str, Any] = {"fill": False, "color": color, "linestyle": line}
                axes.add_patch(Circle(one.mean, radius, linewidth=2, **look))
            handles[name] = Line2D([], [], color=color, linestyle=line)
        outline: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.8, "zorder": 5}
        handles["mean"] = axes.scatter(*one.mean, marker="X", s=90, color=BLACK, **outline)
        handles["$x_t$"] = axes.scatter(*one.star, marker="*", s=190, color=PURPLE, **outline)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    return figure


@dataclass(frozen=True)
class Spread:
    """A density on scattered nodes `(n, 2)` of equal cells; `text` is written into the corner."""

    title: str
    nodes: Floats
    density: Floats
    text: str


@styled
def density_maps(
    panels: Sequence[Spread],
    other: tuple[Floats, Floats, Floats],
    modes: Floats,
    reach: Sequence[tuple[float, float]],
) -> Figure:
    """Maps of densities, four in a row, with the other class's contours and the class's modes.

    other: (first, second, density) on a mesh, density `(len(second), len(first))`.
    """
    figure, every = _panels([one.title for one in panels], 4, (3.75, 3.2), 0.3, 13)
    for axes, one in zip(every, panels, strict=True):
        levels = [*mass_levels(one.density, SHARES), 1.01 * float(one.density.max())]
        shades = [PALE(level) for level in np.linspace(0.25, 1.0, len(levels) - 1)]
        height = np.log(np.maximum(one.density, 1e-30))  # smoother than the density at its edge
        axes.tricontourf(*one.nodes.T, height, levels=np.log(levels), colors=shades)
        first, second, density = other
        axes.contour(first, second, density, levels=mass_levels(density, (0.9, 0.5)),
                     colors=GRAY, linewidths=1.2)  # fmt: skip
        look: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.8, "zorder": 5}
        axes.scatter(*modes.T, marker="X", s=60, color=BLACK, **look)
        axes.text(0.03, 0.03, one.text, transform=axes.transAxes, fontsize=11, linespacing=1.3)
        axes.set(xlim=reach[0], ylim=reach[1], aspect="equal")
    return figure
