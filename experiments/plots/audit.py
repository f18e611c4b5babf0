"""Measured orders beside claimed ones, and the errors that they are fitted to."""

from collections.abc import Sequence
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from diffusion_math.testing.report import Check
from experiments.plots import BLUE, GRAY, GREEN, ORANGE, PURPLE, styled

COLORS = {"sound": BLUE, "limit": GRAY, "defect": ORANGE}
LINES = (BLUE, ORANGE, GREEN, PURPLE)


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


@styled
def ladders(checks: Sequence[Check]) -> Figure:
    """Error over step size, a line a check, beside a dashed line of the claimed order."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    for check, color in zip(checks, cycle(LINES), strict=False):
        fit = check.measured
        label = f"{check.sampler}, {check.check}: {check.shown}"
        axes.loglog(fit.sizes, fit.errors, "o-", color=color, label=label)
        claimed = [fit.errors[-1] * (size / fit.sizes[-1]) ** check.expected for size in fit.sizes]
        axes.loglog(fit.sizes, claimed, "--", color=color, linewidth=1.2, alpha=0.7)
    axes.plot([], [], "--", color=GRAY, linewidth=1.2, label="the claimed order")
    axes.set(xlabel="step size (mean change of log-SNR)", ylabel="error")
    axes.legend(loc="upper left", fontsize=11)
    return figure
