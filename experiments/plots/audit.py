"""Measured orders beside claimed ones: a line a sampler, a dot a setting."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diffusion_math.testing.report import Check
from experiments.plots import BLUE, GRAY, ORANGE, styled

COLORS = {"sound": BLUE, "limit": GRAY, "defect": ORANGE}


@styled
def orders(checks: Sequence[Check]) -> Figure:
    """The fitted orders: a band of height for each sampler, its settings below one another."""
    names = list(dict.fromkeys(check.sampler for check in checks))
    figure = Figure(figsize=(10, 1.6 + 0.19 * len(checks) + 0.22 * len(names)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    y, ticks = 0.0, []
    for name in names:
        first = y
        settings = [check for check in checks if check.sampler == name]
        for check in sorted(settings, key=lambda check: (check.expected, check.verdict)):
            color, fit = COLORS[check.verdict], check.measured
            low, high = max(fit.low, -0.6), min(fit.high, 5.0)
            axes.plot([low, high], [y, y], color=color, linewidth=1.4, alpha=0.6, zorder=2)
            axes.plot(check.expected, y, "o", mfc="none", mec="#555555", ms=9, zorder=1)
            axes.plot(min(max(fit.order, -0.6), 5.0), y, "o", color=color, ms=5, zorder=3)
            y -= 1
        ticks.append(((first + y + 1) / 2, name))
        axes.axhline(y + 0.1, color="#e4e4e4", linewidth=1)
        y -= 0.2
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks])
    axes.set(xlim=(-0.7, 5.1), ylim=(y, 1), xlabel="order of convergence")
    axes.grid(axis="y", visible=False)
    marks = [
        Line2D([], [], marker="o", color=color, linestyle="none", label=verdict)
        for verdict, color in COLORS.items()
    ]
    marks.append(
        Line2D([], [], marker="o", mfc="none", mec="#555555", linestyle="none", label="claimed")
    )
    axes.legend(handles=marks, loc="upper right")
    return figure
