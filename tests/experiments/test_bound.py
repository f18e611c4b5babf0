"""The bound's experiment: its verdicts, and what turns them."""

from statistics import fmean

import pytest
import torch

from diffusion_math import elbo
from experiments.bound import measure
from experiments.bound import run as bound
from experiments.common.chains import sample_forward
from tests.support.result_schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

TINY = bound.Config(density="ring", steps=40, draws=200, finest=16)


@pytest.fixture(scope="module")
def result():
    return bound.run(TINY)


@pytest.fixture(scope="module")
def problem():
    return measure.BoundProblem.of("ring", 40)


@pytest.fixture(scope="module")
def points(problem):
    return problem.data.sample(seeded(1), 200)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def verdicts(result):
    return {row.name: row.verdict for row in result.rows}


def test_schema_and_verdicts(result):
    """All but the limit, which so few samples do not decide, hold on a short chain."""
    check(result, "bound")
    found = verdicts(result)
    assert found.pop("bound-variance") == "measured"
    assert found.pop("bound-limit") == "too few samples"
    assert set(found.values()) == {"holds"}


def test_a_wrong_bound_is_noticed(monkeypatch, problem, points):
    """L_T left out: the gap is no KL any more, by far more than rounding."""
    monkeypatch.setattr(elbo, "prior_term", lambda schedule, x0: torch.zeros(len(x0)).double())
    assert bound._path_row(measure.path_gaps(problem, points[:3], 12)).verdict == "does not hold"


def test_a_bound_above_the_truth_is_noticed(monkeypatch, problem, points):
    """Four nats too little for every path: -ELBO falls below -log q."""
    (model, *_) = problem.models().values()
    path = sample_forward(points, problem.schedule, problem.grid, seeded(2))
    right = measure.path_log_density
    below = bound._below_row({measure.EXACT: problem.excess(model, path)})
    assert below.verdict == "holds"
    monkeypatch.setattr(measure, "path_log_density", lambda *given: right(*given) - 4)
    below = bound._below_row({measure.EXACT: problem.excess(model, path)})
    assert below.verdict == "does not hold"


def test_wrong_weights_and_bins_are_noticed(monkeypatch, problem, points):
    """lambda_t of twice its size, and probabilities a hundredth too large."""
    models = problem.models()
    weight, probability = elbo.lambda_t, elbo.quantized_log_probability
    monkeypatch.setattr(measure, "lambda_t", lambda *given: 2 * weight(*given))
    monkeypatch.setattr(
        measure, "quantized_log_probability", lambda p, x0: probability(p, x0) + 0.01
    )
    assert measure.weighted(problem, models, points[:5], seeded(3)) > 1e-9
    assert measure.mass_of_levels(problem, models[measure.EXACT], points[:5]) > 1e-12


def test_a_wrong_limit_is_noticed(monkeypatch, problem, points):
    """The integrand of twice its size: no number of steps tends to it."""
    right = elbo.continuous_integrand

    def off():
        found = measure.limit(problem, points[:50], 32, seeded(2))
        return abs(fmean(found.extrapolated))

    assert off() < 1
    monkeypatch.setattr(measure, "continuous_integrand", lambda *given: 2 * right(*given))
    assert off() > 3


def test_levels_are_levels():
    """Rounded to 2 k / 255 - 1, ends included, and no farther than half a level."""
    x = torch.tensor([-1.2, -1.0, 0.3, 1.0, 1.4], dtype=torch.float64)
    levels = measure.on_levels(x)
    assert torch.equal((127.5 * (levels + 1)).round() / 127.5 - 1, levels)
    assert (levels - x.clamp(-1, 1)).abs().max() <= 1 / 255
    assert levels.min() == -1 and levels.max() == 1
