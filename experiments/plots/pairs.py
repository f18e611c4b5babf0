"""Measurements in pairs: points of one seed joined, the means as bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from experiments.plots import BLUE, COLORS, GRAY, styled


@dataclass(frozen=True)
class Paired:
    """One pair of axes of `paired`: values[i][j] is what seed j reached the i-th way."""

    title: str
    y_label: str
    names: Sequence[str]
    values: Sequence[Sequence[float]]


@styled
def paired(panels: Sequence[Paired], width: float = 4.9, height: float = 4.2) -> Figure:
    """Panels side by side; in each, a column of points a way, joined where the seed is one."""
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = np.asarray(panel.values, dtype=float)
        at = np.arange(len(values))
        axes.plot(at, values, color=GRAY, linewidth=1.0, alpha=0.6, zorder=2)
        for i, (row, color) in enumerate(zip(values, [BLUE, *COLORS[1:]], strict=False)):
            axes.plot(np.full(len(row), i), row, "o", color=color, alpha=0.8, zorder=3)
            axes.hlines(row.mean(), i - 0.22, i + 0.22, color=color, zorder=4)
        axes.set_xticks(at, panel.names, fontsize=11.5)
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.grid(False, axis="x")
        axes.set_title(panel.title)
        axes.set_ylabel(panel.y_label)
    return figure
