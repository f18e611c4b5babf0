"""Erratum of the score's target: the sign and the scale of the noise in it (E8)."""

import torch
from torch import Tensor

from diffusion_math import gaussian, prediction
from experiments.common.statistics import mean_interval, seeded
from experiments.errata.data import PLAIN, two_gaussians
from experiments.errata.erratum import FALSE_ALARM, Erratum, slope_bound
from experiments.errata.figures import mark
from experiments.plots.charts import Axis, Chart

EPS = torch.finfo(torch.float64).eps
SIGMA = 0.5
BINS = 24  # of the right image


def e8(samples: int, seed: int) -> Erratum:
    """x - x_hat beside eps, and E[eps | x_hat] beside the score of x_hat, on a mixture.

    Given x_hat, x is a mixture of normals of one variance v whose means lie within R, so that
    eps - E[eps | x_hat] is sub-Gaussian with proxy (v + R^2 / 4) / sigma^2 (Hoeffding's lemma) and
    the slope b = sum eps S / sum S^2 strays by d but with chance 2 exp(-d^2 sum S^2 / (2 proxy)).
    """
    data = two_gaussians()
    generator = seeded(seed)
    x = data.sample(generator, samples)
    eps = torch.randn(samples, generator=generator, dtype=torch.float64)
    x_hat = gaussian.marginal(PLAIN, x, SIGMA).sample(eps)
    rounding = 2 * EPS * (x.abs() + x_hat.abs() + eps.abs())
    back = x - x_hat
    exact = ((back + SIGMA * eps).abs() / rounding).max().item()
    taken = ((back - eps).abs() / rounding).max().item()  # printed: x - x_hat is eps
    score = data.score(PLAIN, x_hat, SIGMA)
    ours = prediction.eps_from_score(PLAIN, x_hat, score, SIGMA)
    # Printed, the target (x - x_hat) / sigma^2 of S is eps / sigma^2: eps_theta = sigma^2 S.
    printed = SIGMA**2
    weight = score.square().sum().item()
    slope, expected = ((one @ score).item() / weight for one in (eps, ours))
    kernel = data.reverse(PLAIN, x_hat[0], SIGMA)  # v and R are the same at every x_hat
    span = (kernel.means.max() - kernel.means.min()).item()
    proxy = (kernel.covariances.max().item() + span**2 / 4) / SIGMA**2
    bound, wide = (slope_bound(proxy, weight, chance) for chance in (FALSE_ALARM, 0.05))
    return Erratum(
        id="E8",
        of="C25, C26",
        printed="x - x_hat labelled eps",
        true="x - x_hat = -sigma eps, eps_theta = -sigma S_theta",
        what=f"Slope of eps on S(x_hat) over {samples} samples at sigma = {SIGMA:g}, interval by "
        f"Hoeffding's lemma; true {expected:.4f}, printed {printed:.4f}",
        measured=slope,
        interval=(slope - wide, slope + wide),
        true_off=max(exact, abs(slope - expected) / bound),
        printed_off=min(taken, abs(slope - printed) / bound),
        bound=f"the slope's bound at false alarm {FALSE_ALARM:g}, or the rounding of x_hat, "
        "whichever is worse for the true form and better for the printed",
        charts=[_e8_targets(eps[:120], back[:120]), _e8_scores(score, eps, x_hat, ours)],
        caption=f"Noise of sigma = {SIGMA:g} on a mixture of two bells. Left: x - x_hat is eps "
        "with its sign turned and the scale of sigma, point by point. Right: the mean noise at one "
        "place against the score there; a network that learns eps learns -sigma S.",
        alt="Points on a falling line of slope minus one half, across a dashed rising line of "
        "slope one; mean noise against the score, on a falling line again.",
        data={
            "sigma": SIGMA,
            "slope": slope,
            "true": expected,
            "printed": printed,
            "bound": bound,
            "x_minus_x_hat_rounding_off": exact,
        },
    )


def _e8_targets(eps: Tensor, back: Tensor) -> Chart:
    ends = [-3.3, 3.3]
    marks = (
        mark("printed", r"printed: $\varepsilon$", ends, ends, "dashed"),
        mark("true", r"true: $-\sigma\varepsilon$", ends, [-SIGMA * one for one in ends]),
        mark("measured", f"{len(eps)} samples", eps, back, "cloud"),
    )
    x, y = Axis(r"$\varepsilon$", *ends), Axis(r"$x - \hat{x}$", -2.4, 3.4)
    return Chart(r"$x - \hat{x}$ against the noise", x, y, marks, legend="upper center")


def _e8_scores(score: Tensor, eps: Tensor, x_hat: Tensor, ours: Tensor) -> Chart:
    """Mean noise against mean score in bins of x_hat that hold equally many."""
    parts = x_hat.argsort().chunk(BINS)
    ends = [mean_interval(eps[part].tolist()) for part in parts]
    order = score.argsort()[[0, -1]]
    reach = score[order]
    x, y = ([one[part].mean().item() for part in parts] for one in (score, eps))
    marks = (
        mark("printed", r"printed: $\sigma^2 S$", reach, SIGMA**2 * reach, "dashed"),
        mark("true", r"true: $-\sigma S$", reach, ours[order]),
        mark("measured", f"means in {BINS} bins, 95% interval", x, y, "points", ends),
    )
    title = r"Mean noise at $\hat{x}$ against the score there"
    place, noise = Axis(r"$S(\hat{x})$"), Axis(r"$E[\varepsilon\,|\,\hat{x}]$")
    return Chart(title, place, noise, marks, legend="upper right")
