"""Figures of the reverse kernels of a mixture and their Gaussian approximations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Generator, Tensor

from diffusion_math import elbo, variance
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.reverse_kernel import sample_reverse
from diffusion_math.schedule import Discrete, VPLinear
from experiments import plots
from experiments.common.quadrature import ChiSquare, cells_about, chi_square, density_over
from experiments.common.statistics import plus_minus
from experiments.output.result import Figure, Heading, Table
from experiments.plots import plane
from experiments.plots.charts import Axis, Chart, Series, estimates, side_by_side
from experiments.posterior.gaussian_approximations import BEST, BETA, BETA_HAT, Distance, Spread

FALSE_ALARM = 1e-9  # of each chi-square test
SHOWN = 600  # draws in a panel


@dataclass(frozen=True)
class Kernel:
    """q(x_s | x_t) at one x_t, samples of it, and the Gaussians that a model has there.

    Attributes:
        x: `(D,)`, the x_t.
        points: `(samples, D)`, x_0 drawn from q(x_0 | x_t), then x_s from q(x_s | x_t, x_0).
        fit: of the points to the distribution.
        mean: `(D,)`, of all the Gaussians.
        deviations: the Gaussians' standard deviations; at s = 0 beta_hat is 0 and left out.
    """

    t: int
    s: int
    x: Tensor
    distribution: GaussianMixture
    points: Tensor
    fit: ChiSquare
    mean: Tensor
    deviations: dict[str, float]


def kernel(
    mixture: GaussianMixture,
    schedule: Discrete,
    generator: Generator,
    x: Tensor,
    t: int,
    s: int,
    samples: int,
) -> Kernel:
    """The kernel at x `(D,)`, drawn `samples` times."""
    distribution = mixture.reverse(schedule, x, t, s)
    points = sample_reverse(mixture, generator, schedule, x.expand(samples, 2), t, s)
    cells = cells_about(distribution, 0.5, most=60)
    at, weights = cells.rule(4)
    mass = cells.sums(weights * distribution.log_density(schedule, at, 0).exp())
    fit = chi_square(cells, points, mass, FALSE_ALARM)
    step = elbo.reverse_step(schedule, mixture.denoiser(schedule), x[None], t, s)
    variances = {BETA: variance.large_variance(schedule, t, s)}
    if s > 0:
        variances[BETA_HAT] = variance.small_variance(schedule, t, s)
    deviations = {name: float(v.sqrt()) for name, v in variances.items()}
    return Kernel(t, s, x, distribution, points, fit, step.mean[0], deviations)


def figures(
    mixture: GaussianMixture,
    clean: Sequence[Kernel],
    back: Sequence[Kernel],
    errors: Sequence[dict[str, Distance]],
    spread: dict[int, list[Spread]],
) -> tuple[Figure | Heading, ...]:
    """Kernels to x_0 and to several x_s; distances over the step; variances over t."""
    farthest = max(float(one.x.abs().max()) for one in clean)
    reach = max(1.4 * float(mixture.means.abs().max()), 1.15 * farthest)
    to_data = [_cloud(f"t = {one.t}", one, (0.0, 0.0), reach) for one in clean]
    to_s = []
    for one in back:
        mean, covariance = one.distribution.moments()
        wide = max(one.deviations[BETA], float(covariance.diagonal().max()) ** 0.5)
        to_s.append(_cloud(f"t − s = {one.t - one.s}", one, mean.tolist(), 3 * wide))
    steps = [float(one.t - one.s) for one in back]
    distance = [_panel(kind, steps, errors) for kind in ("kl", "tv")]
    from_t = back[0].t
    return (
        Heading("The posterior of the data, q(x_0 | x_t)"),
        Figure(
            "posterior-data.png",
            plots.png(plane.kernels(to_data)),
            "q(x_0 | x_t) (shaded) and samples of it (dots), for one x_t (star) at rising noise. "
            "The cross is its mean, the end of a sampler's last step; it need not be close to any "
            "data. Dashed: half and 95% of N(mean, sigma_t^2 I).",
            "Shaded posteriors, one tight spot at little noise, all modes of the data at much.",
        ),
        Heading("One reverse step, q(x_s | x_t)"),
        Figure(
            "posterior-steps.png",
            plots.png(plane.kernels(to_s)),
            f"One reverse step from one x_t (star) at t = {from_t}, for several step sizes, on "
            "different scales. Shaded, with dots: the true q(x_s | x_t). Circles: half and 95% of "
            "the Gaussian with the variance beta_hat (solid) or beta (dashed). One Gaussian fits "
            "short steps; long steps need several.",
            "Shaded kernels: a round one for short steps, several separate spots for long ones.",
        ),
        Heading("The error of one Gaussian over the step size"),
        Figure(
            "posterior-distance.png",
            plots.png(side_by_side(distance, 6.2)),
            f"Divergence of the true reverse kernel from its Gaussian approximations at t = "
            f"{from_t}, against the step size, means over x_t with 95% intervals. Even the best "
            "Gaussian is poor for a long step.",
            "Rising curves against the step size, one for each Gaussian, on logarithmic scales.",
        ),
        Heading("The best variance of a step"),
        Figure(
            "posterior-variance.png",
            plots.png(side_by_side([_variances(*item) for item in spread.items()], 6.2)),
            "The best isotropic variance, E tr Cov[x_s | x_t] / 2, in units of beta, against t. "
            "beta_hat is too small and beta too large; the choice matters at small t and for long "
            "steps.",
            "The best variance between two bounds that meet at large t, for two step sizes.",
        ),
    )


def table(steps: Sequence[int], errors: Sequence[dict[str, Distance]]) -> Table:
    """Distances of each approximation, a line a step."""
    names = (BETA_HAT, BETA, BEST)
    lines = [
        (
            f"{step}",
            *(plus_minus(line[name].kl, line[name].kl_error, ".2g", ".1g") for name in names),
            *(plus_minus(line[name].tv, line[name].tv_error, ".2g", ".1g") for name in names),
        )
        for step, line in zip(steps, errors, strict=True)
    ]
    header = ("t − s", *(f"KL, {name}" for name in names), *(f"TV, {name}" for name in names))
    caption = (
        "KL divergence in nats, and total variation, of a Gaussian from the true q(x_s | x_t), "
        "averaged over x_t, with 95% intervals. Each integral is by quadrature."
    )
    return Table(header, tuple(lines), caption)


def _cloud(title: str, one: Kernel, middle: Sequence[float], reach: float) -> plane.Kernel:
    first, second = (c + np.linspace(-reach, reach, 201) for c in middle)
    # A kernel is a distribution of its own: "t = 0" is the distribution itself, under any schedule.
    height = density_over(first, second, one.distribution, VPLinear(), 0.0)
    shown = plane.Map(title, first, second, height, one.points[:SHOWN].numpy())
    mean = (float(one.mean[0]), float(one.mean[1]))
    return plane.Kernel(shown, one.x.numpy(), mean, one.deviations)


def _panel(kind: str, steps: list[float], errors: Sequence[dict[str, Distance]]) -> Chart:
    series = []
    for name in (BEST, BETA_HAT, BETA):
        value = [getattr(line[name], kind) for line in errors]
        error = [getattr(line[name], f"{kind}_error") for line in errors]
        series.append(estimates(name, steps, [*zip(value, error, strict=True)]))
    title, label = {
        "kl": ("KL divergence", "KL(true, Gaussian), nats"),
        "tv": ("Total variation", "total variation distance"),
    }[kind]
    return Chart(title, Axis("step size t − s", scale="log"), Axis(label, scale="log"), series)


def _variances(step: int, line: list[Spread]) -> Chart:
    times = [one.t for one in line]
    series = [
        Series("best", times, [one.best / one.large for one in line]),
        Series("β̂", times, [one.small / one.large for one in line]),
        Series("β", times, [1.0 for _ in line]),
    ]
    start = Axis("t (step starts here)", scale="log")
    return Chart(f"Steps of {step}", start, Axis("variance / β", 0, 1.05), series)
