"""What bad input is told, word for word, by what takes a time, a step or a network."""

import math
import re
from collections.abc import Callable

import pytest
import torch

from diffusion_math import elbo, gaussian, grid, likelihood, loss, score_matching
from diffusion_math.densities.banana_funnel import banana, funnel
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.langevin import ula
from diffusion_math.noise import UnitNoise, zeros
from diffusion_math.schedule import VE, Discrete, VPLinear

PAIR = GaussianMixture(torch.zeros(2), torch.zeros(2, 1), torch.ones(2))
X = torch.zeros(2, 3)

CASES: list[tuple[Callable[[], object], str]] = [
    (lambda: funnel(std=0.0), "std: wanted a positive number, got 0.0"),
    (lambda: banana(std=math.inf), "std: wanted a positive number, got inf"),
    (
        lambda: score_matching.divergence(lambda x: x, X, torch.zeros(0, 2, 3)),
        "probes: wanted shape (at least one, *(2, 3)), got shape (0, 2, 3)",
    ),
    (
        lambda: score_matching.divergence(lambda x: x, X, torch.zeros(1, 2, 2)),
        "probes: wanted shape (at least one, *(2, 3)), got shape (1, 2, 2)",
    ),
    (
        lambda: score_matching.divergence(lambda x: x, X, torch.tensor(0.0)),
        "probes: wanted shape (at least one, *(2, 3)), got shape ()",
    ),
    (
        lambda: Discrete(torch.tensor([0.5, 1.0])),
        "betas: wanted all in (0, 1), got tensor([0.5000, 1.0000], dtype=torch.float64)",
    ),
    (
        lambda: Discrete(torch.tensor([0.0, 0.5])),
        "betas: wanted all in (0, 1), got tensor([0.0000, 0.5000], dtype=torch.float64)",
    ),
    (
        lambda: Discrete(torch.tensor([0.5, 1e-20], dtype=torch.float64)),
        "betas: wanted each large enough to lower the log-SNR in float64, "
        "got tensor([5.0000e-01, 1.0000e-20], dtype=torch.float64)",
    ),
    (
        lambda: Discrete(torch.full((400,), 0.9)),
        "betas: wanted prod(1 - betas) within float64's normal range, got exp(-921.034)",
    ),
    (
        lambda: Discrete.linear(4).time(torch.tensor(math.nan, dtype=torch.float64)),
        "log_snr: wanted every entry in [3.18574, inf], got nan",
    ),
    (
        lambda: Discrete.linear(4).time(torch.tensor(20.0, dtype=torch.float64)),
        "log_snr: wanted at most 9.21024, or inf, got 20.0",
    ),
    (
        lambda: VPLinear(0.0, 20.0),
        "beta_min, beta_max: wanted 0 < beta_min <= beta_max <= 1000, got (0.0, 20.0)",
    ),
    (
        lambda: VPLinear(2.0, 1.0),
        "beta_min, beta_max: wanted 0 < beta_min <= beta_max <= 1000, got (2.0, 1.0)",
    ),
    (
        lambda: VPLinear(1.0, 1000.5),
        "beta_min, beta_max: wanted 0 < beta_min <= beta_max <= 1000, got (1.0, 1000.5)",
    ),
    (lambda: PAIR.reverse(VPLinear(), torch.zeros(2), 0.5), "x: wanted shape (1,), got shape (2,)"),
    (
        lambda: gaussian.Gaussian(X, X + 1).log_density(X[:1]),
        "x: wanted shape (2, 3), got shape (1, 3)",
    ),
    (
        lambda: gaussian.posterior(VPLinear(), X, X[:1], 0.5, 0.2),
        "x0: wanted shape (2, 3), got shape (1, 3)",
    ),
    (
        lambda: grid.uniform_log_snr(VPLinear(), 2, start=1e-4),
        "start, end: wanted times around part of [t_min, t_max] for 2 steps, got (0.0001, 0.0)",
    ),
    (
        lambda: grid.karras(VPLinear(), 2, start=1e-4),
        "start, end: wanted times around part of [t_min, t_max] for 2 steps, got (0.0001, 0.0)",
    ),
    (
        lambda: likelihood.flow_log_density(
            VPLinear(), lambda x, t: math.nan * x, X, torch.zeros_like
        ),
        "denoise: wanted finite values and slopes at tau = 0.0103772, got NaN or inf",
    ),
    (
        lambda: UnitNoise(torch.tensor([0.0, 1.0]), (2,)),
        "grid: wanted a non-empty, strictly decreasing 1-D tensor, got 0 then 1 at index 0",
    ),
    (
        lambda: UnitNoise(torch.tensor([1.0, 0.5, 0.0]), (2,))(
            torch.zeros(7, 2), torch.tensor(1.0), torch.tensor(0.0)
        ),
        "t, s: wanted a step of the grid, got (1.0, 0.0)",
    ),
    (
        lambda: UnitNoise(torch.tensor([1.0, 0.5, 0.0]), (2,))(
            torch.zeros(3, 2), torch.tensor(1.0), torch.tensor(0.5)
        ),
        "x: wanted shape (7, 2), got shape (3, 2)",
    ),
    (
        lambda: elbo.step_term(VPLinear(), lambda x, t: x, X, X, 0.5, 0.0),
        "s: wanted a time > 0: s = 0 is the reconstruction, got 0.0",
    ),
    (
        lambda: elbo.bound(VPLinear(), lambda x, t: x, X, torch.tensor([0.5, 0.0]), zeros),
        "grid: wanted nodes from T = 1 to 0, got (0.5, 0.0)",
    ),
    (
        lambda: elbo.lambda_t(Discrete.linear(4), torch.tensor([1.0, 2.5])),
        "t: wanted whole times, got tensor([1.0000, 2.5000])",
    ),
    (
        lambda: elbo.lambda_t(
            Discrete.linear(4), torch.tensor(2.0), lambda schedule, t, s: torch.zeros(())
        ),
        "variance: wanted v > 0 from t = 2.0 to s = 1.0, got 0.0",
    ),
    (lambda: ula(lambda x: x, -1.0), "delta: wanted a positive finite number, got -1.0"),
    (
        lambda: loss.training_loss(
            VE(), lambda x, t: x, "eps", X, X, torch.tensor(0.0, dtype=torch.float64), loss.uniform
        ),
        "t: wanted sigma_t > 0, got 0.0",
    ),
    (
        lambda: loss.training_loss(
            VPLinear(), lambda x, t: x[:1], "eps", X, X, torch.tensor(0.5, dtype=torch.float64)
        ),
        "the network's output: wanted shape (2, 3), got shape (1, 3)",
    ),
    (
        lambda: likelihood.flow_log_density(
            VPLinear(), lambda x, t: x, X, torch.zeros_like, 0.5, 0.2
        ),
        "s, t: wanted 0 < s < t <= T = 1, got (0.5, 0.2)",
    ),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), CASES, ids=range(len(CASES)))
def test_the_message(call: Callable[[], object], message: str) -> None:
    """The whole text; a name that is another's, or a value that is not shown, is a defect."""
    with pytest.raises(ValueError, match="^" + re.escape(message) + r"\Z"):
        call()
