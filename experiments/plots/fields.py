"""Densities of the plane as shaded maps, with draws, streamlines, arrows and contours on them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from experiments.plots import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    Floats,
    Panel,
    _mass_levels,
    curves,
    styled,
)
from experiments.plots.animation import Frame, frame

BLACK = "#111111"
SHADE = LinearSegmentedColormap.from_list("shade", ["#ffffff", "#9ecbe6", BLUE, "#00304d"])
PALE = LinearSegmentedColormap.from_list("pale", ["#ffffff", "#b9d7ea", "#5f9dc4"])
HEAT = LinearSegmentedColormap.from_list("heat", ["#f0b27a", ORANGE, "#4d1a00"])
"""White where there is nothing, dark where much is; told apart in gray as well."""


@dataclass(frozen=True)
class Map:
    """A density `(len(second), len(first))` on first x second, and draws `(n, 2)` of it."""

    title: str
    first: Floats
    second: Floats
    density: Floats
    points: Floats


@styled
def maps(panels: Sequence[Map], columns: int) -> Figure:
    """Shaded densities with their draws over them, in rows of `columns`, each on its own scale."""
    wide, high = min(columns, len(panels)), -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * wide + 0.3, 3.3 * high + 0.2), layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False)
    for k, axes in enumerate(grid.ravel()):
        if k >= len(panels):
            axes.axis("off")
            continue
        one = panels[k]
        _shaded(axes, one)
        axes.scatter(*one.points.T, s=2.2, color=ORANGE, alpha=0.55, linewidths=0)
        axes.set_title(one.title, loc="center")
        axes.set_xlabel("$x_1$" if k + wide >= len(panels) else "")
        axes.set_ylabel("$x_2$" if k % wide == 0 else "")
    return figure


def _shaded(axes: Axes, one: Map, colors: LinearSegmentedColormap = SHADE) -> None:
    """The density's root as a shade, so that its tails show, in a square window."""
    extent = (one.first[0], one.first[-1], one.second[0], one.second[-1])
    shade: dict[str, Any] = {"origin": "lower", "cmap": colors, "interpolation": "bilinear"}
    axes.imshow(np.sqrt(one.density), extent=extent, aspect="equal", **shade)
    axes.set(xlim=extent[:2], ylim=extent[2:])
    axes.grid(False)
    axes.tick_params(labelsize=10)


@styled
def streams(panels: Sequence[Map], scores: Sequence[tuple[Floats, Floats]]) -> Figure:
    """Shaded log-densities, and streamlines of their scores coloured by the scores' length.

    scores: a line, and the score `(n, n, 2)` on line x line, rows along the second coordinate.
    """
    figure = Figure(figsize=(3.0 * len(panels) + 0.8, 3.6), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    lengths = [np.log10(np.linalg.norm(score, axis=2).clip(1e-12)) for _, score in scores]
    low, high = np.percentile(np.concatenate([one.ravel() for one in lengths]), (2, 98))
    for k, (axes, one, (line, score)) in enumerate(zip(grid, panels, scores, strict=True)):
        log = np.log10(one.density.clip(1e-300))
        extent = (one.first[0], one.first[-1], one.second[0], one.second[-1])
        levels = np.linspace(log.max() - 2.5, log.max(), 11)
        axes.contourf(one.first, one.second, log, levels=levels, cmap=PALE, extend="min")
        axes.streamplot(
            line, line, score[..., 0], score[..., 1], color=lengths[k], cmap=HEAT,
            norm=Normalize(low, high), linewidth=1.1, density=0.95, arrowsize=0.9,
        )  # fmt: skip
        axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xlabel="$x_1$")
        axes.set_ylabel("$x_2$" if k == 0 else "")
        axes.set_title(one.title, loc="center")
        axes.tick_params(labelsize=10)
        axes.grid(False)
    scale = ScalarMappable(Normalize(low, high), HEAT)
    bar = figure.colorbar(scale, ax=list(grid), shrink=0.8, pad=0.01)
    bar.set_label(r"$\log_{10}$ |score|")
    return figure


@styled
def arrows(panels: Sequence[Map], ends: Sequence[Floats]) -> Figure:
    """Shaded densities, and an arrow from each of a panel's points to its end `(n, 2)`."""
    figure = Figure(figsize=(3.0 * len(panels) + 0.3, 3.5), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for k, (axes, one, end) in enumerate(zip(grid, panels, ends, strict=True)):
        _shaded(axes, one)
        along: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1}
        shape: dict[str, Any] = {"width": 0.006, "headwidth": 3.8, "headlength": 4.5}
        axes.quiver(*one.points.T, *(end - one.points).T, color=ORANGE, **along, **shape)
        axes.scatter(*one.points.T, s=9, facecolors="white", edgecolors="#444444", linewidths=0.7)
        axes.set_title(one.title, loc="center")
        axes.set_xlabel("$x_1$")
        axes.set_ylabel("$x_2$" if k == 0 else "")
    return figure


def log_curves(panels: Sequence[Panel], x: bool = True, y: bool = True) -> Figure:
    """`curves` with logarithmic scales where they are wanted."""
    figure = curves(panels)
    for axes in figure.axes:
        if x:
            axes.set_xscale("log")
        if y:
            axes.set_yscale("log")
            axes.autoscale(True, axis="y")
    return figure


@dataclass(frozen=True)
class Cloud:
    """A law as a map, a star, and Gaussians about one mean with these standard deviations.

    deviations: by name; the first is drawn dashed, the second solid.
    """

    shown: Map
    star: Floats
    mean: tuple[float, float]
    deviations: dict[str, float]


@styled
def clouds(panels: Sequence[Cloud]) -> Figure:
    """Laws with draws over them, and circles that hold half and 95% of each Gaussian."""
    wide = min(len(panels), 3 if len(panels) > 4 else 4)
    high = -(-len(panels) // wide)
    figure = Figure(figsize=(3.6 * wide + 0.3, 3.75 * high + 0.6), layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False)
    styles = list(zip((GREEN, ORANGE), ("--", "-"), strict=True))
    handles: dict[str, Any] = {}
    for k, axes in enumerate(grid.ravel()):
        if k >= len(panels):
            axes.axis("off")
            continue
        one = panels[k]
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
        axes.set_title(one.shown.title, loc="center")
        axes.set_xlabel("$x_1$" if k + wide >= len(panels) else "")
        axes.set_ylabel("$x_2$" if k % wide == 0 else "")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles))
    return figure


def drift(
    titles: Sequence[str],
    points: Sequence[Floats],
    densities: Sequence[tuple[Floats, Floats]],
    reach: float,
) -> Iterator[Frame]:
    """Frames of points `(n, 2)` under way, with the exact contours of 50 and 95% over them.

    densities: as `plots.plane_marginals` takes them, one a frame.
    """
    figure = _square(reach)
    (axes,) = figure.axes
    dots = axes.scatter([], [], s=9, color=BLUE, alpha=0.5, linewidths=0)
    for title, at, (line, density) in zip(titles, points, densities, strict=True):
        dots.set_offsets(at)
        levels = _mass_levels(density, (0.95, 0.5))
        lines = axes.contour(line, line, density, levels=levels, colors=ORANGE, linewidths=1.7)
        axes.set_title(title, fontsize=14, fontweight="bold", loc="left")
        yield frame(figure)
        lines.remove()


@styled
def _square(reach: float) -> Figure:
    """One pair of square axes about the origin."""
    figure = Figure(figsize=(5.6, 5.9))
    axes = figure.add_axes((0.12, 0.11, 0.85, 0.8))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xlabel="$x_1$", ylabel="$x_2$")
    axes.set_aspect("equal")
    return figure
