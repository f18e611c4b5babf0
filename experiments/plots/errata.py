"""Printed beside true: orange what the lecture prints, blue our function, dark what is drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from experiments import plots
from experiments.plots import BLUE, GRAY, GREEN, ORANGE, styled
from sd.files.image_file import load

INK = "#222222"
INKS = {"true": BLUE, "printed": ORANGE, "other": GREEN, "measured": INK, "mark": GRAY}
TINTS = {"true": "#b9d7ea", "printed": "#f3c8ab", "measured": "#d4d9dd"}
SMALL: dict[str, Any] = {"fontsize": 11, "color": "#555555"}


@dataclass(frozen=True)
class Mark:
    """A line, points with intervals (`low`, `high`), a cloud, or bars between `len(y) + 1` edges.

    role: "true", "printed", "other", "measured" or "mark": the colour, the same in every figure.
    """

    role: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: Literal["line", "dashed", "dotted", "points", "cloud", "bars"] = "line"
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Note:
    """A text at a place of the data, `role`'s colour; `ha`, `va` as matplotlib counts them."""

    text: str
    x: float
    y: float
    role: str = "mark"
    ha: str = "left"
    va: str = "bottom"


@dataclass(frozen=True)
class Axis:
    """The label, with its unit, and the range and scale of one axis."""

    label: str
    low: float | None = None
    high: float | None = None
    scale: str = "linear"
    ticks: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `below` shades what lies below that height."""

    title: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    notes: Sequence[Note] = ()
    legend: str = "best"
    below: float | None = None


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 128 colours: lines and flat tints lose nothing, and it is small."""
    buffer = io.BytesIO()
    picture = load(plots.png(figure)).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@styled
def panels(shown: Sequence[Panel], height: float = 4.5) -> Figure:
    """Panels side by side; later marks lie over earlier ones, points over all."""
    figure = Figure(figsize=(6.3 * len(shown), height))
    figure.set_layout_engine("constrained", w_pad=0.1)
    for axes, panel in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for place, mark in enumerate(panel.marks, 2):
            _draw(axes, mark, place)
        for note in panel.notes:
            style = {**SMALL, "color": INKS[note.role] if note.role != "mark" else SMALL["color"]}
            axes.text(note.x, note.y, note.text, ha=note.ha, va=note.va, **style)
        axes.set(title=panel.title, xlabel=panel.x.label, ylabel=panel.y.label)
        axes.set_xscale(panel.x.scale)
        axes.set_yscale(panel.y.scale)
        axes.set_xlim(panel.x.low, panel.x.high)
        axes.set_ylim(panel.y.low, panel.y.high)
        if panel.x.ticks is not None:
            axes.set_xticks(panel.x.ticks)
        if panel.y.ticks is not None:
            axes.set_yticks(panel.y.ticks)
        if panel.below is not None:
            axes.axhspan(axes.get_ylim()[0], panel.below, color="#f6f0ea", zorder=0)
        if panel.legend != "none" and axes.get_legend_handles_labels()[0]:
            axes.legend(loc=panel.legend, fontsize=11.5)
    return figure


def _draw(axes: Axes, mark: Mark, place: int) -> None:
    ink = INKS[mark.role]
    x, y = np.asarray(mark.x, dtype=float), np.asarray(mark.y, dtype=float)
    if mark.kind == "bars":
        axes.stairs(y, x, fill=True, color=TINTS[mark.role], label=mark.label, zorder=place)
    elif mark.kind == "cloud":
        axes.scatter(x, y, s=22, color=ink, alpha=0.6, linewidths=0, label=mark.label, zorder=place)
    elif mark.kind == "points":
        bars = None
        if mark.low is not None and mark.high is not None:
            bars = np.clip([y - np.asarray(mark.low), np.asarray(mark.high) - y], 0, None)
        style: dict[str, Any] = {"fmt": "o", "markersize": 6, "capsize": 4, "elinewidth": 1.6}
        axes.errorbar(x, y, bars, color=ink, label=mark.label, zorder=place + 10, **style)
    else:
        dash = {"line": "-", "dashed": "--", "dotted": ":"}[mark.kind]
        dots = {"marker": "o"} if 2 < len(x) < 16 else {}  # there is nothing between whole steps
        axes.plot(x, y, dash, color=ink, label=mark.label, zorder=place, **dots)
