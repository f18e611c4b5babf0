"""What C07, C24 and C28 claim beyond a formula: a limit, a cost, and two models in one network."""

import math

import mpmath
import pytest
import torch
from mpmath import mpf
from torch import Tensor

from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.elbo import prior_term
from diffusion_math.gaussian import marginal
from diffusion_math.loss import training_loss
from diffusion_math.schedule import Discrete, VPLinear
from diffusion_math.score_matching import implicit, rademacher
from tests.support.measuring import Measured
from tests.support.mixtures import normal, seeded
from tests.support.scores import LINE, noisy_samples, tensor

EPS = torch.finfo(torch.float64).eps


@pytest.mark.claim("C07", "diffusion_math.elbo.prior_term")
def test_c07_the_end_is_standard_normal_whatever_the_start(measured: Measured) -> None:
    """KL(q(x_T | x_0), N(0, I)) is its closed form in 50 digits, which falls to 0 with T.

    KL = (abar x^2 - abar - log(1 - abar)) / 2 with abar = (1 - beta)^T, beta = 0.02: at T = 2000
    abar is e^-40 and the KL at most 1.5e-16 for x in [-10, 10]. Where sum beta is finite, as in E1,
    it does not vanish. Its terms' rounding is EPS times their size, and abar's T EPS of it.
    """
    x0 = torch.linspace(-10, 10, 21, dtype=torch.float64)[:, None]
    for T in (125, 250, 500, 1000, 2000):
        found = prior_term(Discrete(torch.full((T,), 0.02, dtype=torch.float64)), x0)
        abar = (1 - mpf(0.02)) ** T
        for x, got in zip(x0.flatten().tolist(), found.tolist(), strict=True):
            wanted = (abar * mpf(x) ** 2 - abar - mpmath.log(1 - abar)) / 2
            size = float(abar * (x * x + 1)) + 1 / T
            off = abs(got - float(wanted)) / size
            measured(off, 1e4 * EPS, "error of the closed form of the KL, over its terms' size")
            assert float(wanted) <= math.exp(-0.02 * T) * 51
    small = Discrete((torch.arange(2, 2002, dtype=torch.float64)) ** -2)
    assert prior_term(small, x0).min() > 0.05


class Counter(torch.autograd.Function):
    """The identity; counts the backward passes that go through it."""

    passes = 0

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        Counter.passes += 1
        return gradient


@pytest.mark.claim("C24", "diffusion_math.score_matching.divergence")
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_c24_the_trace_costs_a_backward_pass_a_dimension(measured: Measured, size: int) -> None:
    """Implicit score matching of D dimensions goes D times back through the model; one random
    probe goes once, which is why the exact trace is the expensive part."""

    def model(x: Tensor) -> Tensor:
        return Counter.apply(torch.tanh(x) - x)

    def passes(probes: Tensor | None) -> int:
        Counter.passes = 0
        implicit(model, x, probes)
        return Counter.passes

    x = normal(seeded(size), 3, size)
    measured(abs(passes(None) - size), 0, "backward passes of the exact trace, less D")
    assert passes(rademacher(seeded(0), x)) == 1


@pytest.mark.claim("C28", "diffusion_math.loss.training_loss")
@pytest.mark.parametrize("drop", [0.1, 0.5])
def test_c28_one_network_learns_both_models(measured: Measured, drop: float) -> None:
    """Where the condition is dropped with probability p, the expected loss is least at E[x_0 | x_t]
    for no condition and E[x_0 | x_t, c] for c: no slope there, by quadrature, for any p.

    Answers off by c p(x_t): a quadratic in c, whose slope is its central difference. The average
    of the conditional answers, in place of the unconditional one, is rejected.
    """
    schedule, t = VPLinear(), tensor(0.4)[0]
    parts = [GaussianMixture(tensor(0.0), m[None], v[None]) for m, v in zip(
        LINE.means, LINE.covariances, strict=True
    )]  # fmt: skip
    shares = LINE.log_weights.softmax(0).tolist()

    def answer(context: int | None, x_t: Tensor) -> Tensor:
        return (LINE if context is None else parts[context]).posterior_mean(schedule, x_t, t)

    def prior_average(context: int | None, x_t: Tensor) -> Tensor:
        return sum(share * answer(k, x_t) for k, share in enumerate(shares))

    def expected(says: object, context: int | None, off: float) -> float:
        """E loss, of a network whose answers to `context` are moved by `off` times a function."""
        total = 0.0
        for k, share in enumerate(shares):
            x0, eps, w = noisy_samples(parts[k])
            x_t = marginal(schedule, x0, t).sample(eps)
            for seen, rate in ((None, drop), (k, 1 - drop)):
                moved = off * (torch.sin(x_t) + 0.5 * x_t) if seen == context else 0.0
                x0_hat = says(seen, x_t) + moved  # type: ignore[operator]
                each = training_loss(schedule, lambda x, s, y=x0_hat: y, "x0", x0, eps, t)
                total += share * rate * (w @ each).item()
        return total

    def slope(says: object, context: int | None) -> float:
        up, middle, down = (expected(says, context, off) for off in (1.0, 0.0, -1.0))
        return abs(up - down) / (up + down - 2 * middle)

    worst = max(slope(answer, context) for context in (None, 0, 1))
    measured(worst, 1e-9, "slope of E loss over its curvature at the exact answers: quadrature")
    assert slope(prior_average, None) > 0.01
    assert math.isclose(sum(shares), 1)
