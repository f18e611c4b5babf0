"""The images of `experiments.likelihood.run`."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from diffusion_math.likelihood import FlowDensity
from experiments import plots
from experiments.common.statistics import mean_of
from experiments.likelihood.measure import BoundGap, Spread
from experiments.output.result import Figure
from experiments.plots.charts import Axis, Chart, Series, dots, line, measured, side_by_side


def agreement(
    exact: Tensor, elbo: Tensor, runs: Sequence[FlowDensity], found: dict[float, float]
) -> Figure:
    """The three ways against each other, and the ODE's error against its tolerance and its cost."""
    tolerances, errors = list(found), list(found.values())
    x = exact.tolist()
    ends = [min(x), max(x)]
    evaluations = [run.evaluations for run in runs]
    floor = float((elbo - exact).abs().max())
    error = Axis("largest error, nats", scale="log")
    drawing = side_by_side(
        [
            Chart("Every point, three ways", Axis("closed form, log q(x), nats"),
                  Axis("the other two ways, nats"),
                  [line("equal", ends, ends, 4, "--", 1.6),
                   dots("ELBO, true reverse", x, elbo.tolist(), None, 1, "s", 10.5),
                   dots("probability flow", x, runs[-1].log_density, color=0)],
                  legend="upper left"),
            Chart("The ODE's error", Axis("tolerance of the solver", scale="log"), error,
                  [line("error = tolerance", tolerances, tolerances, 4, "--", 1.6),
                   dots("probability flow", tolerances, errors)],
                  levels=[(floor, "ELBO, true reverse")] if floor > 0 else (),
                  legend="upper left"),
            Chart("Its cost", Axis("evaluations of the field"), error,
                  [dots("", evaluations, errors)]),
        ]
    )  # fmt: skip
    return Figure(
        "likelihood-ways.png",
        plots.png(drawing),
        f"Left: log p of {len(x)} points by each method against the closed form, all on the "
        "diagonal. Middle: the largest error of the probability flow falls with its solver's "
        "tolerance; the ELBO of the true reverse kernels has rounding error only (dotted). Right: "
        "the same error against the number of evaluations.",
        "Three charts: points on a diagonal, errors falling along a line, errors against cost.",
    )


def probes(spreads: Sequence[Spread]) -> Figure:
    """The root mean square error against the number of probes, on its exact line."""
    counts = [one.probes for one in spreads]
    ends = [
        (one.ratio, one.ratio) if one.probes == 1 else one.ratio_interval(0.95) for one in spreads
    ]
    scale = np.sqrt([one.predicted for one in spreads])
    found = np.sqrt([one.found for one in spreads])
    ticks = [float(f"{value:.2g}") for value in scale]
    x = Axis("probes n", scale="log", ticks=counts)
    y = Axis("root mean square error of log p, nats", scale="log", ticks=ticks)
    predicted = line(r"predicted, $h / \sqrt{n}$", counts, scale, 4, "--", 1.8)
    seen = dots("measured", counts, found, scale[:, None] * np.sqrt(ends), 0)
    chart = Chart("Hutchinson's error", x, y, [predicted, seen], legend="upper right")
    return Figure(
        "likelihood-probes.png",
        plots.png(side_by_side([chart], width=7)),
        f"RMS error of {spreads[0].count} Hutchinson estimates at 8 points against the number of "
        "probes, with 95% intervals. The line is exact, not a fit: in the plane one probe gives "
        "the exact value plus or minus h.",
        "Errors that fall along a line of slope minus one half on logarithmic axes.",
    )


def gap(gaps: Sequence[BoundGap]) -> Figure:
    """The bound's gap against the number of steps, beside the KL of whole paths."""
    steps = [one.steps for one in gaps]

    def means(label: str, values: list[list[float]], aside: float, marker: str) -> Series:
        at = [aside * n for n in steps]  # intervals side by side
        return measured(label, at, map(mean_of, values), style="", marker=marker)

    excess = means("mean of -ELBO + log q($x_0$)", [one.bound for one in gaps], 1 / 1.07, "o")
    kl = means("KL of whole paths", [one.kl for one in gaps], 1.07, "s")
    x, y = Axis("steps n", scale="log", ticks=steps), Axis("nats", 0)
    chart = Chart("Gap of the bound", x, y, [excess, kl], legend="upper right")
    return Figure(
        "likelihood-gap.png",
        plots.png(side_by_side([chart], width=7)),
        f"Gap of the bound and KL of whole paths against the number of steps, each from "
        f"{len(gaps[0].kl)} independent samples (95% intervals). The gap comes from the terms at "
        "samples of the data, the KL from paths of the true reverse kernels. Both tend to 0 as the "
        "steps become short.",
        "Two series of points with intervals that fall together as the steps grow in number.",
    )
