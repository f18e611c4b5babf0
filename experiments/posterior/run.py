"""Runs the experiment: samples the kernels and measures the Gaussian approximations."""

from typing import Any

import torch
from tqdm import tqdm

from diffusion_math.densities.toy import DENSITIES
from diffusion_math.gaussian import marginal
from diffusion_math.schedule import Discrete
from experiments.common.statistics import normal_interval, seeded
from experiments.output.result import Measurement, Result, estimated
from experiments.posterior import Config
from experiments.posterior import gaussian_approximations as gaussians
from experiments.posterior.figures import FALSE_ALARM, Kernel, figures, kernel, table

AGREE = 1e-8  # log-densities in the hundreds, over variances from 1e-3: rounding
GOOD, POOR = 0.01, 0.1  # total variation of a good approximation, and of one that is not
BETWEEN = 1e-4  # of beta: what quadrature may be off by where beta_hat or beta is the best


def run(config: Config) -> Result:
    schedule = getattr(Discrete, config.schedule)()
    times, steps = sorted(set(config.times)), sorted(set(config.steps))
    mixture = gaussians.unit(DENSITIES[config.density]())  # type: ignore[arg-type]
    generator = seeded(config.seed)
    x_0 = mixture.sample(generator, config.points)
    z = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    x_t = marginal(schedule, x_0, config.time).sample(z)
    clean, back, errors, gaps = [], [], [], []
    for t in times:
        at = marginal(schedule, x_0[0], t).sample(z[0])
        clean.append(kernel(mixture, schedule, generator, at, t, 0, config.samples))
    for step in tqdm(steps, unit="step", disable=None):
        s = config.time - step
        back.append(kernel(mixture, schedule, generator, x_t[0], config.time, s, config.samples))
        errors.append(gaussians.distances(mixture, schedule, x_t, config.time, s))
        gaps.append(gaussians.bayes(mixture, schedule, generator, x_0, x_t, config.time, s))
    spread = {step: gaussians.spreads(mixture, schedule, step, config.curve) for step in (1, 20)}
    parts = (
        "Bayes' rule gives the true reverse kernel q(x_s | x_t). It is unknown for real data; for "
        "a mixture it is exact. A sampler takes one Gaussian instead: its mean is right, its shape "
        "only if the step is small.",
        *figures(mixture, clean, back, errors, spread),
        table(steps, errors),
    )
    data: dict[str, Any] = {
        "settings": config,
        "distances": {
            step: {name: one._asdict() for name, one in line.items()}
            for step, line in zip(steps, errors, strict=True)
        },
        "variances": {step: [one._asdict() for one in line] for step, line in spread.items()},
        "chi_square": [{"t": k.t, "s": k.s, **k.fit._asdict()} for k in (*clean, *back)],
    }
    rows = _rows(config, [*clean, *back], gaps, steps, errors, spread)
    return Result("posterior", "One step back: Bayes and the Gaussian", rows, parts, data)


def _rows(
    config: Config,
    kernels: list[Kernel],
    gaps: list[gaussians.BayesErrors],
    steps: list[int],
    errors: list[dict[str, gaussians.Distance]],
    spread: dict[int, list[gaussians.Spread]],
) -> tuple[Measurement, ...]:
    where = f"x_t at t = {config.time}, {len(steps)} steps from {steps[0]} to {steps[-1]}"

    def ends(name: str, k: int) -> tuple[float, tuple[float, float]]:
        one = errors[k][name]
        low, high = normal_interval(one.tv, one.tv_error)
        return one.tv, (max(0.0, low), high)

    fit = max(kernel.fit.value / kernel.fit.limit for kernel in kernels)
    slack = [
        (min(one.best - one.small, one.large - one.best) / one.large, one.error / one.large + 1e-11)
        for line in spread.values()
        for one in line
    ]
    least, error = min(slack, key=lambda pair: pair[0] - pair[1])
    over = f"average over {config.points} x_t at t = {config.time}, 95% interval"
    return (
        estimated(
            "posterior",
            "C08: log q(x_s | x_t) = log q(x_t | x_s) + log q(x_s) - log q(x_t). Largest "
            f"difference in nats ({where}), at most {AGREE:g} (rounding)",
            max(gap.kernel for gap in gaps),
            most=AGREE,
        ),
        estimated(
            "posterior-given-x0",
            "C11, C16: given x_0 as well it is N(mu_hat, beta_hat I). Largest difference in nats "
            f"from Bayes' rule ({where}), at most {AGREE:g} (rounding)",
            max(gap.given for gap in gaps),
            most=AGREE,
        ),
        estimated(
            "posterior-mixed",
            "C16: mixed over q(x_0 | x_t) these Gaussians have the mean and covariance of C08's "
            f"kernel. Largest difference ({where}), at most {AGREE:g} (rounding)",
            max(gap.moments for gap in gaps),
            most=AGREE,
        ),
        estimated(
            "posterior-draws",
            "C08, C16: x_0 from q(x_0 | x_t), then x_s from N(mu_hat, beta_hat I), is a sample of "
            f"q(x_s | x_t). Largest ratio of chi-square ({config.samples} samples in cells) to its "
            f"limit over {len(kernels)} kernels, at most 1 (false alarm {FALSE_ALARM:g} each)",
            fit,
            most=1.0,
        ),
        estimated(
            "posterior-short",
            f"C09: in a step of {steps[0]} the Gaussian of variance beta is a good approximation. "
            f"Total variation distance from q(x_s | x_t), {over}, at most {GOOD:g}",
            ends(gaussians.BETA, 0),
            most=GOOD,
        ),
        estimated(
            "posterior-long",
            f"In a step of {steps[-1]} even the best Gaussian in KL is not, that of the right mean "
            f"and covariance. Its total variation distance, {over}, at least {POOR:g}",
            ends(gaussians.BEST, -1),
            least=POOR,
        ),
        estimated(
            "posterior-variance",
            "The best variance lies between beta_hat and beta (data of variance 1). Its least "
            f"distance from either, over beta, at least -{BETWEEN:g}; the interval is the "
            "error of quadrature and rounding",
            (least, (least - error, least + error)),
            least=-BETWEEN,
        ),
    )
