"""The likelihood's experiment: its verdicts, and what turns them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t

from diffusion_math import elbo, score_matching, variance
from diffusion_math import likelihood as flow
from experiments.common import chains
from experiments.likelihood import figures, measure
from experiments.likelihood import run as likelihood
from tests.support.result_schema import check

pytestmark = pytest.mark.usefixtures("module_unchecked")  # shapes have tests of their own

TINY = likelihood.Config(points=8, digits=8, copies=20, probes=4, paths=1500, steps=4)


@pytest.fixture(scope="module")
def result():
    return likelihood.run(TINY)


@pytest.fixture
def unseen(monkeypatch):
    """No pictures: for runs whose rows alone are looked at."""
    for name in ("agreement", "probes", "gap"):
        monkeypatch.setattr(figures, name, lambda *given: "")


def verdicts(result):
    return {row.name: row.verdict for row in result.rows}


def test_schema_and_verdicts(result):
    check(result, "likelihood")
    found = verdicts(result)
    assert {name for name, one in found.items() if one != "holds"} <= {"likelihood-gap"}
    assert result.data["errors"] == sorted(result.data["errors"], reverse=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unseen")
def test_a_wrong_divergence_is_noticed(monkeypatch):
    """Half the divergence: neither the exact way nor Hutchinson's mean survives."""
    right = score_matching.divergence
    monkeypatch.setattr(flow, "divergence", lambda *given: right(*given) / 2)
    found = verdicts(likelihood.run(replace(TINY, steps=4, paths=100)))
    assert found["likelihood"] == found["likelihood-pair"] == "does not hold"
    assert found["likelihood-kernels"] == "holds"


def test_probes_of_another_law_are_noticed():
    """The root of two probes' mean square error taken for one's: a ratio of 2 is outside."""
    one = measure.Spread(4, 320, 2.0, 1.0, 0.0, 1.0)
    assert likelihood._spread_row([one]).verdict == "does not hold"
    assert likelihood._spread_row([replace(one, found=1.0)]).verdict == "holds"
    far = measure.Spread(1, 320, 1.0, 1.0, 0.5, 2.0)
    assert likelihood._mean_row(far).verdict == "does not hold"


def test_the_gap_is_that_of_this_chain(monkeypatch):
    """A bound of steps of another variance has another gap than the paths' KL."""
    import torch

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    problem = measure.LikelihoodProblem.of("ring")
    right = problem.gaps(4, 1500, seeded(1), seeded(2))
    low, high = right.difference(1 - 1e-8)
    assert low < 0 < high
    bound = elbo.bound
    other = variance.constant_variance(0.5)
    monkeypatch.setattr(chains, "bound", lambda *given: bound(*given[:5], other, other, given[7]))
    wrong = problem.gaps(4, 1500, seeded(1), seeded(2))
    low, high = wrong.difference(1 - 1e-8)
    assert not low < 0 < high
    assert math.isfinite(wrong.mean_kl)


def test_the_density_must_be_a_mixture():
    with pytest.raises(ValueError, match="--density: wanted a mixture, got checkerboard"):
        measure.LikelihoodProblem.of("checkerboard")


def test_the_interval_of_a_difference_of_means():
    """Half of it is the hypotenuse of both halves of Student's intervals, at the level asked."""
    gap = measure.BoundGap(4, [1.0, 2.0, 4.0], [0.5, 0.6, 1.0, 0.7])
    halves = [
        t.ppf(0.8, len(one) - 1) * np.std(one, ddof=1) / math.sqrt(len(one))
        for one in (gap.bound, gap.kl)
    ]
    middle = np.mean(gap.bound) - np.mean(gap.kl)
    half = math.hypot(*halves)
    assert gap.difference(0.6) == pytest.approx((middle - half, middle + half), rel=1e-12)


@pytest.fixture(scope="module")
def problem():
    return measure.LikelihoodProblem.of("ring")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_both_tolerances_reach_the_solver(problem):
    """A loose one takes fewer evaluations than one that is loose in one of both alone."""
    x = 3 * problem.at_start.sample(seeded(), 2)  # log p is then about -100, so that rtol counts
    schedule, data = problem.schedule, problem.data

    def evaluations(rtol, atol):
        return flow.flow_log_density(
            schedule,
            data.denoiser(schedule),
            x,
            lambda end: data.log_density(schedule, end, schedule.T),
            rtol=rtol,
            atol=atol,
        ).evaluations

    loose = problem.by_flow(x, 1e-3).evaluations
    assert loose == evaluations(1e-3, 1e-3)
    assert loose < min(evaluations(1e-3, 1e-8), evaluations(1e-8, 1e-3))


def test_equal_seeds_give_equal_estimates(problem):
    x = problem.at_start.sample(seeded(), 3)
    once, again, other = (problem.by_kernels(x, 4, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)
    once, again, terms, paths = (
        problem.gaps(3, 20, seeded(a), seeded(b)) for a, b in ((1, 2), (1, 2), (3, 2), (1, 3))
    )
    assert once == again
    assert terms.bound != once.bound and terms.kl == once.kl
    assert paths.bound == once.bound and paths.kl != once.kl


def test_the_width_is_twice_the_root_mean_square_of_half_the_range(problem):
    x = problem.at_start.sample(seeded(), 2)
    half = torch.tensor([3.0, 4.0], dtype=torch.float64)
    spread = problem.hutchinson(x, half, 1, 1, seeded())
    assert spread.width == pytest.approx(2 * math.sqrt(12.5), rel=1e-12)
