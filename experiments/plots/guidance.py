"""What guided flows sample: densities side by side, and distances and weights against w."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE, Floats, _mass_levels, styled
from experiments.plots.fields import BLACK, PALE

SHARES = (0.99, 0.9, 0.7, 0.5, 0.25)
"""Of the mass that a shade encloses, from light to dark."""
INK = {
    "tilted": (BLACK, "--"),
    "conditional": (GRAY, ":"),
    "cfg": (ORANGE, "-"),
    "interval": (BLUE, "-"),
    "cosine": (GREEN, "-."),
    "rescaled": (PURPLE, "-"),
    "projected": ("#c79a00", "-"),
}
"""Colour and stroke of a density, one in all figures."""


@dataclass(frozen=True)
class Spread:
    """A density on scattered nodes `(n, 2)` of equal cells; `text` is written into the corner."""

    title: str
    nodes: Floats
    density: Floats
    text: str


@styled
def side_by_side(
    panels: Sequence[Spread],
    other: tuple[Floats, Floats, Floats],
    modes: Floats,
    reach: Sequence[tuple[float, float]],
) -> Figure:
    """Maps of densities, four in a row, with the other class's contours and the class's modes.

    other: (first, second, density) on a mesh, density `(len(second), len(first))`.
    """
    high = -(-len(panels) // 4)
    wide = min(4, len(panels))
    figure = Figure(figsize=(3.75 * wide + 0.3, 3.2 * high + 0.3), layout="constrained")
    for k, axes in enumerate(figure.subplots(high, wide, squeeze=False).ravel()):
        if k >= len(panels):
            axes.axis("off")
            continue
        one = panels[k]
        levels = [*_mass_levels(one.density, SHARES), 1.01 * float(one.density.max())]
        shades = [PALE(level) for level in np.linspace(0.25, 1.0, len(levels) - 1)]
        height = np.log(np.maximum(one.density, 1e-30))  # smoother than the density at its edge
        axes.tricontourf(*one.nodes.T, height, levels=np.log(levels), colors=shades)
        first, second, density = other
        axes.contour(first, second, density, levels=_mass_levels(density, (0.9, 0.5)),
                     colors=GRAY, linewidths=1.2)  # fmt: skip
        look: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.8, "zorder": 5}
        axes.scatter(*modes.T, marker="X", s=60, color=BLACK, **look)
        axes.text(0.03, 0.03, one.text, transform=axes.transAxes, fontsize=11, linespacing=1.3)
        axes.set_title(one.title, loc="center", fontsize=13)
        axes.set(xlim=reach[0], ylim=reach[1], aspect="equal")
        axes.set_xlabel("$x_1$" if k + wide >= len(panels) else "")
        axes.set_ylabel("$x_2$" if k % wide == 0 else "")
        axes.grid(False)
    return figure


@dataclass(frozen=True)
class Plot:
    """One pair of axes: curves `name -> (x, y)`, in the ink of `INK`, dots on them if `dots`."""

    title: str
    x_label: str
    y_label: str
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    log: bool = False
    dots: bool = True
    y_range: tuple[float | None, float | None] = (None, None)
    x_ticks: Sequence[float] | None = None


@styled
def inked(plots: Sequence[Plot], names: Mapping[str, str], width: float = 5.4) -> Figure:
    """Plots side by side under one legend; names: what the legend says of a curve."""
    figure = Figure(figsize=(width * len(plots), 4.9))
    figure.set_layout_engine("constrained", w_pad=0.12)
    handles: dict[str, Any] = {}
    for axes, plot in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots, strict=True):
        for name, (x, y) in plot.curves.items():
            color, stroke = INK[name]
            marker = "o" if plot.dots and stroke in ("-", "-.") else ""
            (handles[names.get(name, name)],) = axes.plot(
                x, y, color=color, linestyle=stroke, marker=marker, markersize=5.5
            )
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
        axes.set_yscale("log" if plot.log else "linear")
        axes.set_ylim(*plot.y_range)
        if plot.x_ticks is not None:
            axes.set_xticks(plot.x_ticks, [f"{tick:g}" for tick in plot.x_ticks])
    columns = min(len(handles), 4 if len(plots) > 1 else 3)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)
    return figure
