"""Errors of tuned grids beside others over calls of the denoiser, and where nodes fall."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE, styled

Drawn = tuple[str, Sequence[int], Sequence[float]]
LOOKS = (
    (BLUE, "o", "-"), (BLUE, "X", "--"), ("#333333", "s", "-"), (ORANGE, "^", "--"),
    (PURPLE, "v", "--"), (GREEN, "D", ":"), (GRAY, "P", ":"), ("#b58900", "*", "-."),
    ("#a0522d", "h", "-."),
)  # fmt: skip


@styled
def errors(title: str, panels: Mapping[str, Sequence[Drawn]]) -> Figure:
    """One panel a measure, a line a kind of grid, the first of them heavy."""
    figure = Figure(figsize=(6.4 * len(panels), 5.8))
    figure.set_layout_engine("constrained", w_pad=0.12)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (measure, lines) in zip(every, panels.items(), strict=True):
        for place, ((label, x, y), look) in enumerate(zip(lines, LOOKS, strict=False)):
            color, marker, style = look
            wide, size = (3.4, 9) if place == 0 else (1.7, 6)
            if not x:
                continue
            axes.plot(x, y, style, color=color, marker=marker, linewidth=wide, markersize=size,
                      label=label, zorder=9 - place)  # fmt: skip
        axes.set(xscale="log", yscale="log", title=measure, xlabel="calls of the denoiser")
        ticks = sorted(set(lines[0][1]) | {max(n for _, x, _ in lines for n in x)})
        axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("distance from the flow's end")
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


@styled
def nodes(title: str, rows: Sequence[tuple[str, Sequence[float], bool]]) -> Figure:
    """A row of dots for each grid; the last ones, which are tuned, in blue."""
    figure = Figure(figsize=(11, 1.2 + 0.42 * len(rows)))
    figure.set_layout_engine("constrained")
    axes: Axes = figure.subplots()
    for place, (_, x, tuned) in enumerate(rows):
        color = BLUE if tuned else "#555555"
        axes.plot(x, [place] * len(x), "o", color=color, markersize=7, mec="white", mew=0.6)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(r"log-SNR, $\log(\alpha_t^2 / \sigma_t^2)$: noise on the left, data right")
    axes.set_title(title)
    return figure
