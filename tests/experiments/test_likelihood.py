"""The likelihood's experiment: its verdicts, and what turns them."""

import math
from dataclasses import replace

import pytest

from diffusion_math import elbo, score_matching, variance
from diffusion_math import likelihood as flow
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
    monkeypatch.setattr(measure, "bound", lambda *given: bound(*given[:5], other, other, given[7]))
    wrong = problem.gaps(4, 1500, seeded(1), seeded(2))
    low, high = wrong.difference(1 - 1e-8)
    assert not low < 0 < high
    assert math.isfinite(wrong.mean_kl)
