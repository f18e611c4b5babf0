"""The pictures of `experiments.likelihood.run`."""

import math
from collections.abc import Sequence

from torch import Tensor

from diffusion_math.likelihood import FlowDensity
from experiments import plots
from experiments.common.statistics import mean_interval
from experiments.likelihood.measure import BoundGap, Spread
from experiments.output.result import Figure
from experiments.plots.terms import Chart, Dots, Line, charts


def agreement(
    exact: Tensor,
    flow: Tensor,
    kernels: Tensor,
    runs: Sequence[FlowDensity],
    errors: Sequence[float],
    tolerances: Sequence[float],
) -> Figure:
    """The three ways against each other, and the ODE's error against its tolerance and its cost."""
    x = exact.tolist()
    ends = [min(x), max(x)]
    asked = [run.evaluations for run in runs]
    floor = float((kernels - exact).abs().max())
    drawing = charts(
        [
            Chart(
                "Every point, three ways",
                "closed form, log q(x), nats",
                "the other two ways, nats",
                [Line("equal", ends, ends, 4, "--", 1.6)],
                [
                    Dots("ELBO, true reverse", x, kernels.tolist(), color=1, marker="s", size=110),
                    Dots("probability flow", x, flow.tolist(), color=0),
                ],
                legend="upper left",
            ),
            Chart(
                "The ODE's error",
                "tolerance of the solver",
                "largest error, nats",
                [Line("error = tolerance", tolerances, tolerances, 4, "--", 1.6)],
                [Dots("probability flow", tolerances, errors)],
                log="xy",
                levels=[(floor, "ELBO, true reverse")] if floor > 0 else (),
                legend="upper left",
            ),
            Chart(
                "Its price",
                "evaluations of the field",
                "largest error, nats",
                dots=[Dots("", asked, errors)],
                log="y",
                legend="",
            ),
        ]
    )
    return Figure(
        "likelihood-ways.png",
        plots.png(drawing),
        f"Left: {len(x)} points, on one diagonal whichever way their likelihood is found. Middle: "
        "the probability flow's largest error falls with its solver's tolerance; the ELBO of the "
        "true reverse kernels has rounding alone (dotted). Right: many digits more for a few "
        "times the work.",
        "Three charts: points on a diagonal, errors falling along a line, errors against cost.",
    )


def probes(spreads: Sequence[Spread]) -> Figure:
    """The root mean square error against the number of probes, on its exact line."""
    counts = [one.probes for one in spreads]
    ends = [
        (one.ratio, one.ratio) if one.probes == 1 else one.ratio_interval(0.95) for one in spreads
    ]
    scale = [math.sqrt(one.predicted) for one in spreads]
    chart = Chart(
        "Hutchinson's error",
        "probes n",
        "root mean square error of log p, nats",
        [Line(r"predicted, $h / \sqrt{n}$", counts, scale, 4, "--", 1.8)],
        [
            Dots(
                "measured",
                counts,
                [math.sqrt(one.found) for one in spreads],
                [s * math.sqrt(low) for s, (low, _) in zip(scale, ends, strict=True)],
                [s * math.sqrt(high) for s, (_, high) in zip(scale, ends, strict=True)],
            )
        ],
        log="xy",
        x_ticks=counts,
        y_ticks=[float(f"{value:.2g}") for value in scale],
        legend="upper right",
    )
    return Figure(
        "likelihood-probes.png",
        plots.png(charts([chart], width=7)),
        f"Error of {spreads[0].count} estimates at 8 points with 95% intervals. The line is no "
        "fit: in the plane one probe gives one of two values, the exact one plus or minus h, and h "
        "is found from both.",
        "Errors that fall along a line of slope minus one half on logarithmic axes.",
    )


def gap(gaps: Sequence[BoundGap]) -> Figure:
    """The bound's gap against the number of steps, beside the KL of whole paths."""
    steps = [one.steps for one in gaps]
    bound = [mean_interval(one.bound) for one in gaps]
    kl = [mean_interval(one.kl) for one in gaps]
    aside = 1.07
    chart = Chart(
        "What Gaussian steps lose",
        "steps n",
        "nats",
        dots=[
            Dots(
                "mean of -ELBO + log q($x_0$)",
                [n / aside for n in steps],
                [one.mean_bound for one in gaps],
                [low for low, _ in bound],
                [high for _, high in bound],
                0,
            ),
            Dots(
                "KL of whole paths",
                [n * aside for n in steps],
                [one.mean_kl for one in gaps],
                [low for low, _ in kl],
                [high for _, high in kl],
                1,
                "s",
            ),
        ],
        log="x",
        x_ticks=steps,
        y_range=(0, None),
        legend="upper right",
    )
    return Figure(
        "likelihood-gap.png",
        plots.png(charts([chart], width=7)),
        f"The bound's gap and the KL that it should be, each from {len(gaps[0].kl)} draws of its "
        "own (95% intervals): the gap from the terms at draws of the data, the KL from whole paths "
        "drawn by the true reverse kernels. Both vanish as the steps become short.",
        "Two series of points with intervals that fall together as the steps grow in number.",
    )
