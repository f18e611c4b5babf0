"""The images and the table of `experiments.bound.run`."""

import math
from collections.abc import Callable

from torch import Tensor

from diffusion_math.elbo import Bound
from experiments import plots
from experiments.bound.measure import AFFINE, CHAIN, EXACT, POINTS, SMALL, Limit
from experiments.common.statistics import mean_of
from experiments.output.result import Figure, Table, bracketed
from experiments.plots.charts import Axis, Chart, Series, dots, line, side_by_side

LARGE_LABEL, SMALL_LABEL = "variance of $q(x_t|x_s)$", "variance of $q(x_s|x_t,x_0)$"


def terms(bounds: dict[str, Bound], nll: Tensor) -> Figure:
    steps = len(bounds[EXACT].steps)
    times = list(range(steps + 1, 1, -1))
    each_term, sums = [], []
    for k, (name, style) in enumerate({EXACT: "-", SMALL: "--", AFFINE: "-"}.items()):
        one = bounds[name]
        each = one.steps.mean(1)
        each_term.append(line(name, times, each.tolist(), k, style, 1.8))
        so_far = float((one.prior + one.reconstruction).mean()) + each.cumsum(0)
        sums.append(line(name, times, so_far.tolist(), k, style))
    paid = (bounds[AFFINE].steps - bounds[EXACT].steps).mean(1).tolist()
    entropy = float(nll.mean())
    time = Axis("time t", scale="log")
    drawing = side_by_side(
        [
            Chart("Each step's term", time, Axis("$L_{t-1}$, nats", scale="log"), each_term,
                  legend="lower left"),
            Chart("What the worse denoiser pays", time,
                  Axis("$L_{t-1}$ of one-normal less exact, nats"),
                  [line("", times, paid, 2, width=1.8)], levels=[(0.0, "")]),
            Chart("Summed from t = T down", time, Axis("$L_T + L_0 +$ terms down to t, nats"), sums,
                  legend="", levels=[(entropy, "mean of -log q(x$_0$)")]),
        ],
        width=5.8,
    )  # fmt: skip
    return Figure(
        "bound-terms.png",
        plots.png(drawing),
        f"Terms of the bound in nats against the time t, means over {len(nll)} samples. Left: the "
        "terms span seven orders of magnitude; most of the bound is at small t. Middle: the excess "
        "of a denoiser that is exact for one normal is 0 at large t, and grows at small t. Right, "
        "in the same colors: the sum with the exact denoiser ends just above the mean of -log q "
        "(dotted); that denoiser's sum, and that of a smaller variance, end higher.",
        "Three charts over time: falling terms on logarithmic axes, differences that grow towards "
        "small times, and sums of which one ends at a dotted line.",
    )


def table(
    bounds: dict[str, Bound], nll: Tensor, discrete: Bound, gaps: dict[str, list[float]]
) -> Table:
    """Each model's terms, its excess over the truth, and all of it in bits per dimension."""

    def cells(name: str, one: Bound, offset: float) -> tuple[str, ...]:
        terms = (one.prior, one.steps.sum(0), one.reconstruction, one.nats)
        bits = f"{float(one.bits_per_dimension.mean()) + offset:.3f}"
        excess = bracketed(*mean_of(gaps[name]), ".4f") if name in gaps else "–"
        return name, *(f"{float(term.mean()):.4f}" for term in terms), excess, bits

    half = math.log2(127.5)
    lines = [cells(name, one, half) for name, one in bounds.items()]
    lines.append(cells("exact denoiser, 8-bit data", discrete, 0.0))
    entropy = float(nll.mean())
    bits = entropy / (discrete.dimensions * math.log(2)) + half
    lines.append(("-log q, the truth", "–", "–", "–", f"{entropy:.4f}", "0", f"{bits:.3f}"))
    header = ("model", "L_T", "sum of L_(t-1)", "L_0", "-ELBO", "excess", "bits per dimension")
    spread = float(bounds[EXACT].nats.std()) / math.sqrt(len(nll))
    caption = (
        f"Averages over {len(nll)} samples, in nats; that of -ELBO has a standard error of about "
        f"{spread:.2f}. The excess over the mean of -log q is measured on whole paths, with a 95% "
        "interval. Bits per dimension are of 8-bit levels: of a density on [-1, 1], log2(127.5) "
        "is added; the line of 8-bit data integrates over the bins."
    )
    return Table(header, tuple(lines), caption)


def limit(found: Limit, chain: tuple[list[float], list[float]]) -> Figure:
    ends = [min(min(chain[0]), min(chain[1])), max(max(chain[0]), max(chain[1]))]
    ticks = [round(ends[0] + part * (ends[1] - ends[0]), 3) for part in (0.1, 0.5, 0.9)]
    floor = found.bottom + found.integral
    large = found.excess["large"]
    slope = [large[-1] * found.steps[-1] / n for n in found.steps]
    n = Axis("steps n", scale="log", ticks=found.steps[::2])

    def both(values: Callable[[str], list[float]]) -> list[Series]:
        return [
            dots(LARGE_LABEL, found.steps, values("large"), color=0),
            dots(SMALL_LABEL, found.steps, values("small"), color=1),
        ]

    drawing = side_by_side(
        [
            Chart("The gap of every point", Axis("KL of whole paths, nats", ticks=ticks),
                  Axis("log p($x_0$) - ELBO($x_0$), nats"),
                  [line("equal", ends, ends, 4, "--", 1.6), dots("a point", chain[1], chain[0])],
                  legend="upper left"),
            Chart("More, shorter steps", n, Axis("mean of -ELBO, nats", floor - 0.5, floor + 5),
                  both(found.total), levels=[(floor, "integral over log-SNR")], under=True),
            Chart("What is left", n, Axis("sum of $L_{t-1}$ - integral, nats", scale="log"),
                  [line("1/n", found.steps, slope, 4, "--", 1.6), *both(found.excess.__getitem__)]),
        ]
    )  # fmt: skip
    return Figure(
        "bound-limit.png",
        plots.png(drawing),
        f"Left: at {POINTS} points of a chain of {CHAIN} affine steps the bound's gap is the KL of "
        "whole paths, both exact. Middle and right: with the exact denoiser the bound falls to "
        "the integral over log-SNR, at first order in the length of the steps, whichever variance "
        "the steps are given (beta_hat_t at the coarsest grids lies above the middle chart).",
        "Three charts: points on a diagonal, points falling to a dotted line, the same falling as "
        "1/n on logarithmic axes.",
    )
