"""Runs the experiment: estimates each log-likelihood in three ways and compares them."""

import math
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from experiments.common.statistics import seeded
from experiments.likelihood import Config, figures, measure
from experiments.likelihood.measure import BoundGap, Spread
from experiments.output.result import Heading, Measurement, Result, estimated, holds_if, table

AGREE = 1e-6
"""Nats that two exact ways may differ by."""
FALSE_ALARM = 1e-8
KERNEL_STEPS = 6
NEAR = 0.1
"""Relative difference of two estimates of one KL."""


def run(config: Config) -> Result:
    problem = measure.LikelihoodProblem.of(config.density)
    x = problem.at_start.sample(seeded(config.seed, 1), config.points)
    exact = problem.exact(x)
    tolerances = [10.0**-k for k in range(2, config.digits + 1)]
    runs = [problem.by_flow(x, one) for one in tqdm(tolerances, unit="ODE", disable=None)]
    evaluations = [one.evaluations for one in runs]
    errors = [float((one.log_density - exact).abs().max()) for one in runs]
    few, half = x[:8], problem.half_range(x[:8])
    spreads = [
        problem.hutchinson(few, half, n, config.copies, seeded(config.seed, 10 + n))
        for n in tqdm(_powers(2, config.probes), unit="probes", disable=None)
    ]
    kernels = problem.by_kernels(x, KERNEL_STEPS, seeded(config.seed, 2))
    gaps = [
        problem.gaps(n, config.paths, seeded(config.seed, 100 + n), seeded(config.seed, 1000 + n))
        for n in tqdm(_powers(4, config.steps), unit="chain", disable=None)
    ]
    rows = (
        estimated(
            "likelihood",
            "log p along the probability flow, exact divergence, against the mixture's closed "
            f"form. Largest difference in nats at a tolerance of {tolerances[-1]:g}, at most "
            f"{AGREE:g}",
            errors[-1],
            most=AGREE,
        ),
        estimated(
            "likelihood-kernels",
            "C08, C12: the ELBO of the chain of true reverse kernels (Bayes' rule, mixtures) "
            f"against the closed form, {KERNEL_STEPS} steps, one path each: nothing is lost. "
            f"Largest difference in nats, at most {AGREE:g}",
            float((kernels - exact).abs().max()),
            most=AGREE,
        ),
        estimated(
            "likelihood-pair",
            "The same ELBO against the probability flow. Largest difference in nats, at most "
            f"{AGREE:g}",
            float((kernels - runs[-1].log_density).abs().max()),
            most=AGREE,
        ),
        _mean_row(spreads[0]),
        _spread_row(spreads[1:]),
        _gap_row(gaps),
    )
    parts = (
        "The density of the data is computed in three independent ways: the closed form of the "
        "mixture, the change of volume along the probability flow, and the variational bound. With "
        "the exact denoiser all agree, each within its own error.",
        Heading("Closed form and probability flow"),
        figures.agreement(exact, kernels, runs, dict(zip(tolerances, errors, strict=True))),
        Heading("Hutchinson's estimate of the divergence"),
        figures.probes(spreads),
        Heading("The gap of the variational bound"),
        figures.gap(gaps),
        table(
            zip(tolerances, evaluations, errors, strict=True),
            {
                "tolerance": lambda one: f"{one[0]:.0e}",
                "evaluations of the field": lambda one: one[1],
                "largest error, nats": lambda one: f"{one[2]:.1e}",
            },
            "The probability flow's largest error over the points, and what it cost.",
        ),
    )
    record: dict[str, Any] = {
        "settings": config,
        "tolerances": tolerances,
        "errors": errors,
        "evaluations": evaluations,
        "hutchinson": [(one.probes, one.found, one.predicted) for one in spreads],
        "gaps": [(one.steps, one.mean_bound, one.mean_kl) for one in gaps],
    }
    return Result("likelihood", "One likelihood, three ways", rows, parts, record)


def _powers(base: int, most: int) -> list[int]:
    """1, base, base^2, ... up to `most`."""
    return [base**k for k in range(most.bit_length()) if base**k <= most]


def _mean_row(one: Spread) -> Measurement:
    """An estimate of one probe lies in a known range: Hoeffding's interval of the mean."""
    half = one.width * math.sqrt(math.log(2 / FALSE_ALARM) / (2 * one.count))
    low, high = one.mean_error - half, one.mean_error + half
    return Measurement(
        "likelihood-hutchinson",
        "Hutchinson's estimates have the exact log-likelihood as their mean: mean error of "
        f"{one.count} estimates of one probe, in nats (Hoeffding's interval, false alarm 1e-8)",
        one.mean_error,
        (low, high),
        holds_if(low <= 0 <= high),
    )


def _spread_row(spreads: Sequence[Spread]) -> Measurement:
    """The ratio of found to predicted that is farthest from 1; all intervals hold together."""
    level = 1 - FALSE_ALARM / len(spreads)
    ends = [one.ratio_interval(level) for one in spreads]
    k = max(range(len(spreads)), key=lambda k: abs(spreads[k].ratio - 1))
    return Measurement(
        "likelihood-spread",
        "Hutchinson's error is the exact error of one probe over the root of the number of probes. "
        "Mean square error, measured over predicted; the ratio with the largest difference from 1 "
        f"of 2 to {spreads[-1].probes} probes; joint false alarm 1e-8",
        spreads[k].ratio,
        ends[k],
        holds_if(all(low <= 1 <= high for low, high in ends)),
    )


def _gap_row(gaps: Sequence[BoundGap]) -> Measurement:
    """All numbers of steps together: the sum of the differences over the sum of the KLs."""
    total = sum(one.mean_kl for one in gaps)
    difference = sum(one.mean_bound - one.mean_kl for one in gaps) / total
    ends = [one.difference(0.95) for one in gaps]
    half = math.hypot(*((high - low) / 2 for low, high in ends)) / total
    return estimated(
        "likelihood-gap",
        "C12: the gap of the bound, the mean of -ELBO + log q(x_0), is the KL of whole paths, on "
        "independent samples of the true reverse process. Relative difference over chains of 1 to "
        f"{gaps[-1].steps} steps together, within {NEAR}",
        (difference, (difference - half, difference + half)),
        near=NEAR,
    )
