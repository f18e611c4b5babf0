"""Gaussians that stand in for a true reverse kernel, how far they are, and Bayes’ own ties."""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from diffusion_math import elbo, gaussian, variance
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.densities.second_order import posterior_covariance
from diffusion_math.gaussian import Gaussian
from diffusion_math.schedule import Discrete
from experiments.common.quadrature import cells_about

BETA_HAT, BETA, BEST = "variance β̂", "variance β", "best Gaussian"
"""The approximations: DDPM's two variances, and the Gaussian with the kernel's mean and
covariance.
"""

ORDER = 6  # of the quadrature in cells of two standard deviations
FINE = 8  # where two numbers of order 1 are subtracted; its error is judged by one order less


class Distance(NamedTuple):
    """Averages over samples of x_t, and their standard errors.

    kl: KL(q(x_s | x_t) || the Gaussian), in nats. tv: their total variation distance, in [0, 1].
    """

    kl: float
    kl_error: float
    tv: float
    tv_error: float


class BayesErrors(NamedTuple):
    """The largest violations, in absolute value, of what ties the kernels together.

    kernel: of C08, in nats. given: of C11 with C16's Gaussian, in nats. moments: of the mean and
    covariance that C16's Gaussians have when mixed over q(x_0 | x_t), to those of C08's kernel.
    """

    kernel: float
    given: float
    moments: float


class Spread(NamedTuple):
    """Variances of the step from t to s: beta_hat, the best one, and beta; an error of the best."""

    t: int
    small: float
    best: float
    large: float
    error: float


def unit(mixture: GaussianMixture) -> GaussianMixture:
    """The mixture scaled so that the average variance of its coordinates is 1."""
    spread = mixture.moments()[1].diagonal().mean()
    return GaussianMixture(
        mixture.log_weights, mixture.means / spread.sqrt(), mixture.covariances / spread
    )


def distances(
    mixture: GaussianMixture, schedule: Discrete, x_t: Tensor, t: int, s: int
) -> dict[str, Distance]:
    """The average distance of each approximation from the kernel at the points x_t `(batch, D)`.

    By quadrature: KL = E log(q / p), total variation = 1 - integral of min(q, p).
    """
    each = [_distances(mixture, schedule, one, t, s) for one in x_t]
    averages = {}
    for name in (BETA_HAT, BETA, BEST):
        values = torch.tensor([line[name] for line in each], dtype=torch.float64)
        mean, error = values.mean(0), values.std(0) / len(values) ** 0.5
        averages[name] = Distance(*(float(v[k]) for k in (0, 1) for v in (mean, error)))
    return averages


def _distances(
    mixture: GaussianMixture, schedule: Discrete, x: Tensor, t: int, s: int
) -> dict[str, tuple[float, float]]:
    kernel, denoise = mixture.reverse(schedule, x, t, s), mixture.denoiser(schedule)
    at, weights = cells_about(kernel).rule(ORDER)
    log_p = {BEST: Multivariate(*kernel.moments()).log_density(at)}
    for name, v in ((BETA_HAT, variance.small_variance), (BETA, variance.large_variance)):
        step = elbo.reverse_step(schedule, denoise, x[None], t, s, v)
        log_p[name] = Gaussian(step.mean.expand_as(at), step.variance).log_density(at)
    log_q = kernel.log_density(schedule, at, 0)
    mass = weights * log_q.exp()
    return {
        name: (
            float((mass * (log_q - one)).sum()),
            float(1 - (weights * torch.minimum(log_q, one).exp()).sum()),
        )
        for name, one in log_p.items()
    }


def bayes(
    mixture: GaussianMixture,
    schedule: Discrete,
    generator: Generator,
    x_0: Tensor,
    x_t: Tensor,
    t: int,
    s: int,
) -> BayesErrors:
    """The largest gaps over samples of x_s, 100 for each pair of rows of x_0 and x_t."""
    of_kernel = of_given = of_moments = 0.0
    x_0_hat = mixture.posterior_mean(schedule, x_t, t)
    uncertain = posterior_covariance(mixture, schedule, x_t, t)
    own = variance.small_variance(schedule, t, s) * torch.eye(x_t.shape[1], dtype=torch.float64)
    # The mean of q(x_s | x_t, x_0) is linear in x_0: the factor is its value at x_t = 0, x_0 = 1.
    gain = gaussian.posterior(schedule, x_t.new_zeros(1), x_t.new_ones(1), t, s).mean
    for x, clean, hat, C in zip(x_t, x_0, x_0_hat, uncertain, strict=True):
        kernel = mixture.reverse(schedule, x, t, s)
        x_s = kernel.sample(generator, 100)
        later, x0 = x.expand_as(x_s), clean.expand_as(x_s)
        link = gaussian.transition(schedule, x_s, s, t).log_density(later)
        whole = link + mixture.log_density(schedule, x_s, s)
        whole = whole - mixture.log_density(schedule, x[None], t)
        gap = (kernel.log_density(schedule, x_s, 0) - whole).abs().max()
        of_kernel = max(of_kernel, float(gap))
        given = gaussian.posterior(schedule, later, x0, t, s)
        x_s_given = given.sample(torch.randn(x_s.shape, generator=generator, dtype=torch.float64))
        by_rule = gaussian.transition(schedule, x_s_given, s, t).log_density(later)
        by_rule = by_rule + gaussian.marginal(schedule, x0, s).log_density(x_s_given)
        by_rule = by_rule - gaussian.marginal(schedule, x0, t).log_density(later)
        of_given = max(of_given, float((given.log_density(x_s_given) - by_rule).abs().max()))
        mixed = gaussian.posterior(schedule, x, hat, t, s).mean, own + gain.square() * C
        for one, other in zip(kernel.moments(), mixed, strict=True):
            of_moments = max(of_moments, float((one - other).abs().max()))
    return BayesErrors(of_kernel, of_given, of_moments)


def spreads(mixture: GaussianMixture, schedule: Discrete, step: int, count: int) -> list[Spread]:
    """beta_hat, the best isotropic variance and beta at `count` times, log-spaced in t.

        best = E tr Cov[x_s | x_t] / D = beta_hat + gain^2 E tr Cov[x_0 | x_t] / D

    by quadrature over q(x_t). It minimises E KL(q(x_s | x_t) || N(mu, v I)) over v; see
    Bao et al. (arXiv:2201.06503), Theorem 1.
    """
    first, last = torch.tensor([step + 1.0, schedule.T]).log()
    times = sorted({int(t) for t in torch.linspace(first, last, count).exp().round()})
    one, found = torch.ones(1, dtype=torch.float64), []
    for t in times:
        s = t - step
        small, large = (
            float(variance(schedule, t, s))
            for variance in (variance.small_variance, variance.large_variance)
        )
        gain = float(gaussian.posterior(schedule, 0 * one, one, t, s).mean) ** 2
        unsure, error = _uncertainty(mixture, schedule, t)
        found.append(Spread(t, small, small + gain * unsure, large, gain * error))
    return found


def _uncertainty(mixture: GaussianMixture, schedule: Discrete, t: int) -> tuple[float, float]:
    """E tr Cov[x_0 | x_t] / D over q(x_t), and what its quadrature may be off by.

    E Cov[x_0 | x_t] = Cov[x_0] - Cov[E[x_0 | x_t]]
    """
    mean, covariance = mixture.moments()
    cells, values = cells_about(mixture.marginal(schedule, t)), []
    for order in (FINE - 1, FINE):
        at, weights = cells.rule(order)
        mass = weights * mixture.log_density(schedule, at, t).exp()
        deviation = (mixture.posterior_mean(schedule, at, t) - mean).square().mean(1)
        values.append(float(covariance.diagonal().mean() - mass @ deviation))
    return values[1], abs(values[1] - values[0]) + 1e-12
