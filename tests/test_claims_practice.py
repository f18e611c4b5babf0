"""C19 in practice: networks trained with weight 1 and with lambda_t, and what they draw."""

import math

import pytest
import torch

from diffusion_math.loss import snr, variational
from diffusion_math.schedule import Discrete
from experiments.common.statistics import mean_interval
from experiments.digits import data
from experiments.digits.loss_weights import BOUND, SIMPLE, Evaluator, compare
from experiments.digits.network import PIXELS
from experiments.digits.training import Budget, learn
from tests.support.measuring import Measured

SCHEDULE = Discrete.linear()
BUDGET = Budget(width=96, blocks=1, steps=400, batch=64, rate=4e-3)
PAIRS, RATE = 6, 1e-8


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")  # shapes have tests of their own
@pytest.mark.claim("C19", "diffusion_math.loss.training_loss")
def test_c19_weight_one_draws_better_than_lambda_t(measured: Measured) -> None:
    """log of the draws' energy distance from held-out digits, weight 1 less lambda_t, in pairs.

    8 x 8 digits, T = 1000, six pairs of eps-networks that differ in the weight alone. What the mean
    lies below is Student's at a false alarm of 1e-8: that is the chance of passing were the weights
    equally good. These few updates show a factor of about 200; the experiment `digits` trains
    longer, and there it is smaller and still above 1. The weights exchanged are rejected, and equal
    weights, for which the pairs' mean is 0.
    """
    pytest.importorskip("sklearn")
    train, test = data.load(500, 0)
    evaluate = Evaluator(SCHEDULE, test, data.classifier(train), draws=1, steps=50, written=0)
    found = compare(evaluate, train, BUDGET, PAIRS)
    gaps = [
        math.log(one.energy) - math.log(other.energy)
        for one, other in zip(found[SIMPLE], found[BOUND], strict=True)
    ]
    assert upper_end([-gap for gap in gaps], RATE) > 0
    assert upper_end([gap - sum(gaps) / PAIRS for gap in gaps], RATE) > 0
    assert all(
        one.agreement > other.agreement
        for one, other in zip(found[SIMPLE], found[BOUND], strict=True)
    )
    measured(
        upper_end(gaps, RATE),
        0.0,
        "upper end, false alarm 1e-8, of the mean log energy distance, weight 1 less lambda_t",
    )


def test_a_pair_differs_in_the_weight_alone() -> None:
    """SNR on the error in x_0 is weight 1 on that in eps: the same network but for rounding, while
    lambda_t gives another from the first update on."""
    x = torch.rand(40, PIXELS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    digits = data.Digits(x, torch.arange(40) % 10)
    budget = Budget(width=16, blocks=1, steps=5, batch=8)

    def weights(weight: object) -> torch.Tensor:
        network = learn(SCHEDULE, digits, budget, 3, weight=weight)  # type: ignore[arg-type]
        return torch.cat([one.flatten() for one in network.parameters()])

    plain = weights(None)
    assert (weights(snr) - plain).abs().max() < 1e-4
    assert (weights(variational) - plain).abs().max() > 1e-3


def upper_end(differences: list[float], rate: float) -> float:
    """What the mean difference lies below, but for a false alarm of this rate."""
    return mean_interval(differences, 1 - 2 * rate)[1]


def test_upper_end_is_students() -> None:
    """Against scipy's own paired test: the end is 0 exactly at its p-value."""
    from scipy.stats import ttest_1samp

    gaps = [-0.3, -0.1, -0.25, 0.05, -0.2]
    p = float(ttest_1samp(gaps, 0.0, alternative="less").pvalue)
    assert upper_end(gaps, p) == pytest.approx(0.0, abs=1e-9)
    assert upper_end(gaps, 2 * p) < 0 < upper_end(gaps, p / 2)
    assert upper_end([-1.0], 0.5) == math.inf
