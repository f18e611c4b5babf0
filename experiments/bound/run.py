"""Runs the experiment: evaluates the bound, its gap and its limit, and writes rows and figures."""

from dataclasses import asdict
from statistics import fmean
from typing import Any

from tqdm import tqdm

from diffusion_math.elbo import quantized_log_probability
from experiments.bound import Config, figures, measure
from experiments.bound.measure import AFFINE, CHAIN, EXACT, POINTS, SMALL
from experiments.common.chains import sample_forward
from experiments.common.statistics import mean_interval, mean_of, seeded
from experiments.output.result import Measurement, Result, estimated

LIMIT_DRAWS = 10_000
"""Fewer samples times steps of the finest chain do not resolve the limit."""
RESIDUE = 0.01
"""Nats that the extrapolated sum may differ from the integral by."""


def run(config: Config) -> Result:
    """Average the terms of each model, and set KLs, entropy and limit beside them."""
    problem = measure.BoundProblem.of(config.density, config.steps)
    x0 = problem.data.sample(seeded(config.seed, 1), config.draws)
    models = problem.models()
    bounds = {
        name: problem.bound(model, x0, config.seed + 2)
        for name, model in tqdm(models.items(), unit="model", disable=None)
    }
    nll = -problem.data.log_density(problem.schedule, x0, 0.0)
    path = sample_forward(x0, problem.schedule, problem.grid, seeded(config.seed, 5))
    gaps = {
        name: problem.excess(model, path)
        for name, model in tqdm(models.items(), unit="path", disable=None)
    }
    levels = measure.on_levels(x0)
    discrete = problem.bound(models[EXACT], levels, config.seed + 2, quantized_log_probability)
    chain = measure.path_gaps(problem, x0[:POINTS], CHAIN)
    limit = measure.limit(problem, x0, config.finest, seeded(config.seed, 3))
    rows = (
        _path_row(chain),
        _below_row(gaps),
        estimated(
            "bound-denoiser",
            "C14: all that a model can do about the bound is its denoiser. Nats that the best "
            "affine one costs more than the exact one, on the same paths, above 0",
            mean_of([a - b for a, b in zip(gaps[AFFINE], gaps[EXACT], strict=True)]),
            least=0.0,
        ),
        estimated(
            "bound-variance",
            "C17: bound with the variance beta_hat_t less that with beta_t in nats, exact "
            "denoiser, same paths",
            mean_of([a - b for a, b in zip(gaps[SMALL], gaps[EXACT], strict=True)]),
        ),
        estimated(
            "bound-limit",
            "C14: as the steps become short the sum of L_(t-1) tends to an integral over log-SNR "
            "at first order: 2 S(2n) - S(n) - integral in nats at 2n = "
            f"{limit.steps[-1]}, within {RESIDUE} of 0",
            mean_of(limit.extrapolated),
            near=RESIDUE,
        ).needing(LIMIT_DRAWS, config.draws * config.finest),
        estimated(
            "bound-levels",
            "C15: the probabilities that L_0 gives the 256 levels of an 8-bit entry sum to 1. "
            "Largest error of a sum, at most 1e-12",
            measure.mass_of_levels(problem, models[EXACT], x0[:POINTS]),
            most=1e-12,
        ),
        estimated(
            "bound-weight",
            "C18: between two denoisers L_(t-1) differs by lambda_t times the difference of their "
            "squared errors in eps: the constant is one for all. Largest difference over t and 50 "
            "samples, relative to the term, at most 1e-9",
            measure.weighted(problem, models, x0[:50], seeded(config.seed, 4)),
            most=1e-9,
        ),
    )
    parts = (
        "The variational bound is a sum of one term for each step. With the exact denoiser, its "
        "gap to -log p is due to the Gaussian steps, and tends to 0 as the steps become short. "
        "With a worse denoiser a part of the gap remains.",
        figures.terms(bounds, nll),
        figures.table(bounds, nll, discrete, gaps),
        figures.limit(limit, chain),
    )
    record: dict[str, Any] = {
        "settings": config,
        "nats": {name: float(one.nats.mean()) for name, one in bounds.items()},
        "entropy": float(nll.mean()),
        "bits_per_dimension": {n: float(b.bits_per_dimension.mean()) for n, b in bounds.items()},
        "bits_per_dimension_8_bit": float(discrete.bits_per_dimension.mean()),
        "path": {"gap": chain[0], "kl": chain[1]},
        "limit": {k: v for k, v in asdict(limit).items() if k != "extrapolated"},
    }
    return Result("bound", "The bound, term by term", rows, parts, record)


def _path_row(chain: tuple[list[float], list[float]]) -> Measurement:
    return estimated(
        "bound",
        f"C12: log p(x_0) - ELBO(x_0) is KL(q(x_1:T | x_0), p(x_1:T | x_0)) at {POINTS} points of "
        f"a chain of {CHAIN} steps with the affine denoiser, whose p(x_0) and KL of whole paths "
        "are closed forms. Largest difference in nats, at most 1e-9; no samples",
        max(abs(gap - kl) for gap, kl in zip(*chain, strict=True)),
        most=1e-9,
    )


def _below_row(gaps: dict[str, list[float]]) -> Measurement:
    """All at 95% together."""
    ends = {name: mean_interval(each, 1 - 0.05 / len(gaps)) for name, each in gaps.items()}
    least = min(gaps, key=lambda name: ends[name][0])
    return estimated(
        "bound-below",
        "C13: the average of -ELBO is at least that of -log q(x_0), for every denoiser and "
        f"variance, on whole paths of {len(gaps[least])} samples. Least excess in nats ({least}), "
        "at least 0",
        (fmean(gaps[least]), ends[least]),
        least=0.0,
    )
