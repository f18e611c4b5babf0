"""Errata of the forward process: what is left of the data (E1), what is added (E2, E4)."""

import math
from collections.abc import Iterable
from fractions import Fraction
from itertools import accumulate

import torch

from diffusion_math import gaussian
from diffusion_math.schedule import Discrete
from experiments.common.chains import forward_steps
from experiments.common.statistics import seeded, variance_interval
from experiments.errata.erratum import FALSE_ALARM, Erratum, variance_off
from experiments.errata.figures import histogram, mark, note
from experiments.plots.charts import Axis, Chart

EPS = torch.finfo(torch.float64).eps
LONGEST = 1024  # E1's table
HALVES = 1000  # E2's table, the lecture's
TIMES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # at which E4 measures


def e1(samples: int, seed: int) -> Erratum:
    """abar_T of beta_t = 1 / (t + 1)^2 stops at 1/2; of 1 / (t + 1), whose sum grows, it does not.

    The limit is bracketed, with r_T = sum_{t > T} beta_t between 1 / (T + 2) and 1 / (T + 1):

        abar_T (1 - r_T) <= abar_inf <= abar_T exp(-r_T)

    Draws nothing.
    """
    t = torch.arange(1, LONGEST + 1, dtype=torch.float64)
    betas, harmonic = (t + 1) ** -2, 1 / (t + 1)
    # A table of T variances is the first T of a longer one, so one table shows abar_T for every T.
    abar, fading = (Discrete(table)(t)[0].square() for table in (betas, harmonic))
    factors = (1 - Fraction(1, (n + 1) ** 2) for n in range(1, LONGEST + 1))
    exact = _double(float(a) for a in accumulate(factors, lambda a, b: a * b))
    rounding = ((abar / exact - 1).abs() / ((t + 16) * EPS)).max().item()
    end = abar[-1].item()
    low, high = end * (1 - 1 / (LONGEST + 1)), end * math.exp(-1 / (LONGEST + 2))
    middle, half = (high + low) / 2, (high - low) / 2
    # 1 - b <= exp(-b): abar_T <= exp(-sum beta) for every table.
    share = (fading * harmonic.cumsum(0).exp()).max().item()
    true_off = max(rounding, abs(middle - 0.5) / half, share)
    shown = [n - 1 for n in sorted({round(2 ** (k / 4)) for k in range(41)})]
    times = t[shown].tolist()
    x, ends = Axis("length of the table, T", 1, LONGEST, "log"), [1, LONGEST]
    labels = (r"$\beta_t = 1/(t+1)^2$", r"$\beta_t = 1/(t+1)$")
    printed = r"printed: $\bar\alpha_T \to 0$ whenever $0 < \beta_t < 1$"
    remains = (
        mark("printed", printed, ends, [0, 0], "dashed"),
        mark("true", labels[0], times, abar[shown]),
        mark("other", labels[1], times, fading[shown]),
        mark("mark", "", ends, [0.5, 0.5], "dotted"),
    )
    half_way = note("1/2", LONGEST * 0.8, 0.49, ha="right", va="top")
    y = Axis(r"$\bar\alpha_T$", -0.04, 0.82)
    title = "What is left of the data's variance"
    left = Chart(title, x, y, remains, [half_way], "upper right")
    sums = (
        mark("true", labels[0], times, betas.cumsum(0)[shown]),
        mark("other", labels[1], times, harmonic.cumsum(0)[shown]),
    )
    bounded = note(f"never above {math.pi**2 / 6 - 1:.3f}", LONGEST * 0.8, 0.85, "true", "right")
    y = Axis(r"$\beta_1 + \ldots + \beta_T$", 0, 8.5)
    title = "What decides: does the sum of the betas grow?"
    right = Chart(title, x, y, sums, [bounded], "upper left")
    return Erratum(
        id="E1",
        of="C07",
        printed="abar_T -> 0 because 0 < beta_t < 1",
        true="only where the betas sum to infinity",
        what="Limit of abar_T for beta_t = 1/(t + 1)^2, bracketed from the first "
        f"{LONGEST} of them; true 1/2, printed 0",
        measured=middle,
        interval=(low, high),
        true_off=true_off,
        printed_off=abs(middle) / half,
        bound="half of the bracket abar_T [1 - r, exp(-r)], where r is the sum of the betas left",
        charts=[left, right],
        caption="All betas of both tables lie in (0, 1). Blue: their sum converges, and half of "
        "the data's variance outlives any number of steps. Green: their sum diverges, and nothing "
        "is left.",
        alt="Two curves of the remaining variance over the table's length: one levels off at one "
        "half, one falls to zero.",
        data={
            "abar_T": end,
            "fading_abar_T": fading[-1].item(),
            "rounding_off": rounding,
            "largest_share_of_exp_minus_sum": share,
            "sum_of_betas": betas.sum().item(),
        },
    )


def e2(samples: int, seed: int) -> Erratum:
    """1 - sigma_t at alpha_t^DDPM = 1/2, by its logarithm: near (1/2)^t / 2, not (1/2)^{t/2} / 2.

    The truth is the variance v <- (1 - beta) v + beta of a thousand steps from a point, in exact
    fractions; 1 - sigma = (1 - v) / (1 + sqrt(v)) does not cancel. Draws nothing.
    """
    schedule = Discrete(torch.full((HALVES,), 0.5, dtype=torch.float64))
    t = torch.arange(1, HALVES + 1, dtype=torch.float64)
    alpha, sigma = schedule(t)
    ours = (alpha.square() / (1 + sigma)).log10()
    beta = Fraction(schedule.betas[0].item())
    steps = range(1, HALVES + 1)
    variances = accumulate(steps, lambda v, _: (1 - beta) * v + beta, initial=Fraction(0))
    left = [1 - v for v in variances][1:]  # 2^-t, exactly
    exact = _double(_log10_short(float(e)) for e in left)
    printed = _double(_log10_short(math.sqrt(e)) for e in left)
    # The log-SNR, -t log 2, is rounded before it is exponentiated; the logarithm is rounded again.
    bound = EPS * (2 * (t * math.log(2) + 8) / math.log(10) + exact.abs())
    first = slice(0, 12)
    return Erratum(
        id="E2",
        of="C06",
        printed="noise coefficient sqrt(1 - (1/2)^500)",
        true="sqrt(1 - (1/2)^1000)",
        what="log10(1 - sigma) after 1000 steps, from our schedule; by exact fractions "
        f"{exact[-1]:.4f}, as printed {printed[-1]:.4f}",
        measured=ours[-1].item(),
        interval=None,
        true_off=((ours - exact).abs() / bound).max().item(),
        printed_off=((ours - printed).abs() / bound).min().item(),
        bound="the rounding of t log 2, at the worst t for the true form, the best for the printed",
        charts=_e2_panels(t, ours, printed, sigma[first]),
        caption="The noise coefficient of a schedule that halves the variance in every step. After "
        "a few steps the two forms differ by tens of percent; after a thousand both are 1 to every "
        "digit of float64, and their distances from 1 differ by a factor of 10^150.",
        alt="Noise coefficient over the first twelve steps, and its distance from one over a "
        "thousand steps on a logarithmic axis: the printed line falls half as steeply as the true "
        "one.",
        data={
            "log10_one_minus_sigma": ours[-1].item(),
            "exact": exact[-1].item(),
            "printed": printed[-1].item(),
            "bound": bound[-1].item(),
            "sigma_2": sigma[1].item(),
            "printed_sigma_2": 1 - 10 ** printed[1].item(),
        },
    )


def _double(values: Iterable[float]) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _log10_short(e: float) -> float:
    """log10(1 - sqrt(1 - e)), without cancellation."""
    return math.log10(e) - math.log10(1 + math.sqrt(1 - e))


def _e2_panels(
    t: torch.Tensor, ours: torch.Tensor, printed: torch.Tensor, sigma: torch.Tensor
) -> tuple[Chart, Chart]:
    early = len(sigma)
    label, wrong = r"printed: $\sqrt{1 - (1/2)^{t/2}}$", 1 - 10 ** printed[:early]
    marks = (
        mark("printed", label, t[:early], wrong, "dashed"),
        mark("true", r"true: $\sqrt{1 - (1/2)^t}$", t[:early], sigma),
    )
    x, y = Axis("steps, t", 0.5, early + 0.5), Axis(r"noise coefficient $\sigma_t$", 0.5, 1.03)
    few = Chart("The first steps", x, y, marks, legend="lower right")
    spacing = math.log10(EPS / 2)
    both = (
        mark("printed", "printed", t, printed, "dashed"),
        mark("true", "true", t, ours),
        mark("mark", "", [0, len(t) + 20], [spacing, spacing], "dotted"),
    )
    notes = (
        note("below this line $\\sigma_t$ is 1 in float64", 1010, spacing + 3, ha="right"),
        note(f"${printed[-1]:.1f}$", 1000, printed[-1].item() + 20, "printed", "right"),
        note(f"${ours[-1]:.1f}$", 985, ours[-1].item() - 4, "true", "right", "top"),
    )
    x, y = Axis("steps, t", 0, len(t) + 20), Axis(r"$\log_{10}(1 - \sigma_t)$", -330, 8)
    return few, Chart("A thousand steps: how far from 1", x, y, both, notes, "lower left")


def e4(samples: int, seed: int) -> Erratum:
    """The variance of q(x_t | x_0), by single steps from one point: 1 - abar_t, not beta_t."""
    schedule = Discrete.linear()
    x0 = torch.ones(samples, dtype=torch.float64)
    states = forward_steps(x0, schedule, TIMES, seeded(seed))
    measured = {t: x.var().item() for t, x in states.items()}
    times = torch.arange(1, len(schedule.betas) + 1, dtype=torch.float64)
    one = torch.ones_like(times)
    curve = gaussian.marginal(schedule, one, times).variance
    true = {t: gaussian.marginal(schedule, x0[:1], t).variance.item() for t in TIMES}
    # The lecture's alpha_t is 1 - beta_t.
    printed = {t: schedule.betas[t - 1].item() for t in TIMES}
    chance = FALSE_ALARM / len(TIMES)
    off = [variance_off(measured[t], true[t], samples, chance) for t in TIMES]
    # At t = 1 the printed form is right.
    wrong = [variance_off(measured[t], printed[t], samples, chance) for t in TIMES[1:]]
    shown = 100
    bars = [variance_interval(measured[t], samples, 0.05) for t in TIMES]
    x = Axis("time t", 0.9, 1050, "log")
    y = Axis(r"variance of $x_t$ given $x_0$", 5e-5, 2.5, "log")
    found = list(measured.values())
    marks = (
        mark("printed", r"printed: $1 - \alpha_t = \beta_t$", times, schedule.betas, "dashed"),
        mark("true", r"true: $1 - \bar\alpha_t$", times, curve),
        mark("measured", "measured, 95% interval", TIMES, found, "points", bars),
    )
    left = Chart("Variance after t single steps", x, y, marks, legend="upper left")
    return Erratum(
        id="E4",
        of="C16",
        printed="variance 1 - alpha_t",
        true="1 - abar_t",
        what=f"Variance of {samples} samples of x_{shown} by single steps from x_0 = 1; true "
        f"{true[shown]:.4f}, printed {printed[shown]:.4f}",
        measured=measured[shown],
        interval=variance_interval(measured[shown], samples, 0.05),
        true_off=max(map(abs, off)),
        printed_off=min(map(abs, wrong)),
        bound=f"half of the variance's interval, at {len(TIMES)} times with false alarm "
        f"{FALSE_ALARM:g}, the worst for the true form, the best after t = 1 for the printed",
        charts=[left, _e4_histogram(schedule, states[shown], shown, printed[shown])],
        caption=f"{samples} copies of one value, noised step by step under DDPM's table. Each step "
        "adds beta_t, and what the earlier ones added stays: the variance is 1 - abar_t. The "
        "printed form is right at t = 1 and fifty times too small at t = 100.",
        alt="Measured variances over time on the true curve, far above the printed one; a "
        "histogram that fits the wide true bell and not the narrow printed one.",
        data={
            "times": TIMES,
            "variance": found,
            "true": list(true.values()),
            "printed": list(printed.values()),
        },
    )


def _e4_histogram(schedule: Discrete, x: torch.Tensor, t: int, printed: float) -> Chart:
    line = torch.linspace(-0.8, 2.6, 681, dtype=torch.float64)
    exact = gaussian.marginal(schedule, torch.ones_like(line), t)
    narrow = gaussian.Gaussian(exact.mean, torch.tensor(printed, dtype=torch.float64))
    marks = (
        histogram("measured", "samples", x, -0.8, 2.6, 68),
        mark("printed", "printed", line, narrow.log_density(line).exp(), "dashed"),
        mark("true", "true", line, exact.log_density(line).exp()),
    )
    title, place = f"Where a value of 1 is at t = {t}", Axis(f"$x_{{{t}}}$", -0.8, 2.6)
    return Chart(title, place, Axis("density", 0, 9.6), marks, legend="upper right")
