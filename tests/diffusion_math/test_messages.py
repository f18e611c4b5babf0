"""What bad input is told, word for word: the argument, what was wanted, what came."""

import math
import re
from collections.abc import Callable

import pytest
import torch

from diffusion_math import (
    elbo,
    gaussian,
    grid,
    langevin_law,
    loss,
    metrics,
    prediction,
    score_matching,
    variance,
)
from diffusion_math.densities import multivariate, toy
from diffusion_math.densities.banana_funnel import banana
from diffusion_math.densities.checkerboard import Checkerboard
from diffusion_math.densities.labelled import Labelled
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.densities.multivariate import Multivariate
from diffusion_math.guidance import cfg
from diffusion_math.noise import BrownianPath, from_seeds
from diffusion_math.schedule import VE, Discrete, VPLinear

ONE, TWO, EYE = torch.zeros(1), torch.zeros(2), torch.eye(2)
FLAT = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
SINGULAR = (
    "wanted a matrix that is not singular, got tensor([[1., 0.],\n"
    "        [0., 0.]], dtype=torch.float64)"
)
STEPS = "steps: wanted a whole number of at least 1 and at most 1000000, got 0"
PAIR = GaussianMixture(torch.zeros(2), torch.zeros(2, 1), torch.ones(2))

CASES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: Multivariate(torch.tensor([math.nan, 0.0]), EYE),
        "mean: wanted finite numbers, got tensor([nan, 0.], dtype=torch.float64)",
    ),
    (lambda: Multivariate(TWO, torch.eye(3)), "covariance: wanted shape (2, 2), got (3, 3)"),
    (
        lambda: Multivariate(TWO, torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
        "covariance: wanted a symmetric matrix, got tensor([[1.0000, 0.5000],\n"
        "        [0.0000, 1.0000]])",
    ),
    (
        lambda: Multivariate(TWO, torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
        "covariance: wanted no negative eigenvalue, got tensor([-1.,  3.], dtype=torch.float64)",
    ),
    (lambda: Multivariate(TWO, EYE).sample(torch.zeros(3)), "z: wanted shape (2,), got shape (3,)"),
    (
        lambda: Multivariate(TWO, FLAT).log_density(TWO),
        f"covariance: {SINGULAR}",
    ),
    (
        lambda: Multivariate(TWO, FLAT).score(TWO),
        f"covariance: {SINGULAR}",
    ),
    (
        lambda: Multivariate(TWO, FLAT).entropy(),
        f"covariance: {SINGULAR}",
    ),
    (
        lambda: multivariate.kl(Multivariate(TWO, EYE), Multivariate(ONE, torch.eye(1))),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: multivariate.kl(Multivariate(TWO, EYE), Multivariate(TWO, FLAT)),
        f"p.covariance: {SINGULAR}",
    ),
    (
        lambda: multivariate.cross_entropy(Multivariate(TWO, EYE), Multivariate(ONE, torch.eye(1))),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: multivariate.cross_entropy(Multivariate(TWO, EYE), Multivariate(TWO, FLAT)),
        f"p.covariance: {SINGULAR}",
    ),
    (
        lambda: multivariate.wasserstein2(Multivariate(TWO, EYE), Multivariate(ONE, torch.eye(1))),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: multivariate.fisher_divergence(
            Multivariate(TWO, EYE), Multivariate(ONE, torch.eye(1))
        ),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: multivariate.fisher_divergence(Multivariate(TWO, FLAT), Multivariate(TWO, EYE)),
        f"q.covariance: {SINGULAR}",
    ),
    (
        lambda: multivariate.fisher_divergence(Multivariate(TWO, EYE), Multivariate(TWO, FLAT)),
        f"p.covariance: {SINGULAR}",
    ),
    (
        lambda: multivariate.condition(Multivariate(TWO, EYE), [0, 0], TWO),
        "known: wanted distinct entries among 0..1, some but not all, got [0, 0]",
    ),
    (
        lambda: multivariate.condition(Multivariate(TWO, FLAT), [1], ONE),
        "covariance of the known: wanted a matrix that is not singular, "
        "got tensor([[0.]], dtype=torch.float64)",
    ),
    (
        lambda: multivariate.product(Multivariate(TWO, EYE), Multivariate(ONE, torch.eye(1))),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: multivariate.product(Multivariate(TWO, FLAT), Multivariate(TWO, FLAT)),
        f"the sum of the covariances: {SINGULAR}".replace("1.", "2."),
    ),
    (lambda: Checkerboard(squares=1), "squares: wanted a whole number of at least 2, got 1"),
    (lambda: Checkerboard(squares=3), "squares: wanted an even number, got 3"),
    (lambda: Checkerboard(width=0.0), "width: wanted a positive number, got 0.0"),
    (lambda: Checkerboard(width=math.inf), "width: wanted a positive number, got inf"),
    (lambda: Checkerboard(std=0.0), "std: wanted a positive number, got 0.0"),
    (lambda: Checkerboard(std=math.inf), "std: wanted a positive number, got inf"),
    (
        lambda: Checkerboard().score(VPLinear(), torch.zeros(1, 3), 0.5),
        "x: wanted shape (batch, 2), got (1, 3)",
    ),
    (
        lambda: banana().score(VPLinear(), torch.zeros(1, 3), 0.5),
        "x: wanted shape (batch, 2), got (1, 3)",
    ),
    (lambda: banana(thickness=0.0), "thickness: wanted a positive number, got 0.0"),
    (lambda: banana(thickness=math.inf), "thickness: wanted a positive number, got inf"),
    (
        lambda: score_matching.fisher_divergence(lambda x: x, lambda x: x, torch.zeros(0, 2)),
        "x: wanted at least one sample, got shape (0, 2)",
    ),
    (lambda: toy.ring(modes=0), "modes: wanted a whole number of at least 1, got 0"),
    (lambda: toy.ring(std=0.0), "std: wanted a positive number, got 0.0"),
    (lambda: toy.two_moons(modes=1), "modes: wanted a whole number of at least 2, got 1"),
    (lambda: toy.grid25(std=math.inf), "std: wanted a positive number, got inf"),
    (lambda: toy.pinwheel(arms=0), "arms: wanted a whole number of at least 1, got 0"),
    (lambda: toy.pinwheel(modes=1), "modes: wanted a whole number of at least 2, got 1"),
    (lambda: toy.pinwheel(std=0.0), "std: wanted a positive number, got 0.0"),
    (lambda: toy.spirals(arms=0), "arms: wanted a whole number of at least 1, got 0"),
    (lambda: toy.spirals(modes=1), "modes: wanted a whole number of at least 2, got 1"),
    (lambda: toy.spirals(std=math.inf), "std: wanted a positive number, got inf"),
    (
        lambda: metrics.empirical_wasserstein2(torch.zeros(2, 2), torch.zeros(3, 2)),
        "y: wanted 2 points, as in x, got 3",
    ),
    (
        lambda: metrics.energy_distance(torch.zeros(1, 2), torch.zeros(3, 2)),
        "x: wanted 2 points or more, got (1, 2)",
    ),
    (
        lambda: metrics.energy_distance(torch.zeros(3, 2), torch.tensor(0.0)),
        "y: wanted 2 points or more, got ()",
    ),
    (
        lambda: metrics.energy_distance(torch.zeros(3, 2), torch.zeros(3, 1)),
        "y: wanted events of shape (2,), got (1,)",
    ),
    (lambda: Discrete(torch.zeros(2, 2)), "betas: wanted shape (T,), got (2, 2)"),
    (lambda: Discrete(torch.zeros(0)), "betas: wanted shape (T,), got (0,)"),
    (lambda: Discrete.linear(0), STEPS),
    (lambda: Discrete.scaled_linear(0), STEPS),
    (lambda: Discrete.cosine(0), STEPS),
    (lambda: VE(0.001), "sigma_max: wanted > 0.002, got 0.001"),
    (lambda: VE(math.inf), "sigma_max: wanted > 0.002, got inf"),
    (
        lambda: GaussianMixture(torch.zeros(2), torch.zeros(2, 1), torch.ones(2)).probability_flow(
            VPLinear(), torch.zeros(1, 1), 1.0, 0.5
        ),
        "mixture: wanted one component, got 2",
    ),
    (lambda: Labelled(PAIR, torch.tensor([0])), "labels: wanted shape (2,), got shape (1,)"),
    (
        lambda: Labelled(PAIR, torch.tensor([0, 2])),
        "labels: wanted 0..L-1, each at least once, got [0, 2]",
    ),
    (lambda: variance.constant_variance(0.0), "value: wanted a positive finite number, got 0.0"),
    (
        lambda: variance.constant_variance(math.inf),
        "value: wanted a positive finite number, got inf",
    ),
    (
        lambda: variance.optimal_variance(-1.0),
        "data_variance: wanted a finite number of at least 0, got -1.0",
    ),
    (
        lambda: variance.optimal_variance(math.inf),
        "data_variance: wanted a finite number of at least 0, got inf",
    ),
    (
        lambda: elbo.lambda_t(Discrete.linear(4), torch.tensor([0.5])),
        "t: wanted every entry in [1, 4], got 0.5",
    ),
    (lambda: grid.karras(VPLinear(), 3, rho=0.0), "rho: wanted a number in [0.001, 1000], got 0.0"),
    (
        lambda: grid.linspace(VPLinear(), 2, 1e-4),
        "start: wanted more than end + t_min = 0.001 for two steps, got 0.0001",
    ),
    (
        lambda: grid.leading(VPLinear(), 2000),
        "steps: wanted at most (start - end) / t_min = 1000, got 2000",
    ),
    (
        lambda: gaussian.kl(gaussian.Gaussian(TWO, TWO + 1), gaussian.Gaussian(ONE, ONE + 1)),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: gaussian.wasserstein2(
            gaussian.Gaussian(TWO, TWO + 1), gaussian.Gaussian(ONE, ONE + 1)
        ),
        "p.mean: wanted shape (2,), got shape (1,)",
    ),
    (
        lambda: prediction.coefficients(VPLinear(), "noise", 0.5),
        "kind: wanted one of x0, eps, v, flow, score, got 'noise'",
    ),
    (
        lambda: prediction.coefficients(VPLinear(), "score", 0.0),
        "t: wanted sigma_t > 0 for a score, got 0.0",
    ),
    (
        lambda: prediction.score_from_eps(VPLinear(), TWO, TWO, 0.0),
        "t: wanted sigma_t > 0 for a score, got 0.0",
    ),
    (lambda: BrownianPath([1], T=0.0), "T: wanted a positive finite time, got 0.0"),
    (lambda: BrownianPath([1], T=math.inf), "T: wanted a positive finite time, got inf"),
    (
        lambda: BrownianPath([1], T=1.0, levels=0),
        "levels: wanted a whole number of at least 1 and at most 52, got 0",
    ),
    (
        lambda: BrownianPath([1], T=1.0, levels=53),
        "levels: wanted a whole number of at least 1 and at most 52, got 53",
    ),
    (
        lambda: BrownianPath([-1], T=1.0),
        "seeds: wanted a whole number of at least 0 and at most 18446744073709551615, got -1",
    ),
    (
        lambda: BrownianPath([1], T=1.0, levels=2)(
            torch.zeros(1, 2), torch.tensor(0.5), torch.tensor(0.45)
        ),
        "t - s: wanted at least T / 2^2, got (0.5, 0.44999998807907104)",
    ),
    (
        lambda: BrownianPath([1], T=1.0)(torch.zeros(1, 2), torch.tensor(1.5), torch.tensor(0.5)),
        "t, s: wanted times in [0, 1], got 1.5",
    ),
    (
        lambda: from_seeds([1, 2])(torch.zeros(3, 2), torch.tensor(1.0), torch.tensor(0.5)),
        "x: wanted a batch of 2, one per seed, got shape (3, 2)",
    ),
    (lambda: loss.min_snr(0.0), "gamma: wanted a positive finite number, got 0.0"),
    (lambda: loss.min_snr(math.inf), "gamma: wanted a positive finite number, got inf"),
    (
        lambda: loss.uniform_times(VPLinear(), torch.Generator(), -1),
        "batch: wanted a whole number of at least 0, got -1",
    ),
    (
        lambda: loss.stratified_times(VPLinear(), torch.Generator(), 0),
        "batch: wanted a whole number of at least 1, got 0",
    ),
    (lambda: loss.variational(VPLinear(), 0.0), "t: wanted sigma_t > 0, got 0.0"),
    (lambda: loss.x0_weight(VPLinear(), "eps", 0.0), "t: wanted sigma_t > 0, got 0.0"),
    (
        lambda: cfg(lambda x, t: x, lambda x, t: x, -1.0),
        "scale: wanted a finite number of at least 0, got -1.0",
    ),
    (
        lambda: langevin_law.ula_stationary(gaussian.Gaussian(TWO, TWO + 1), 2.0),
        "delta: wanted 0 < delta < 2 min variance = 2, got 2.0",
    ),
    (
        lambda: langevin_law.baoab_stationary(gaussian.Gaussian(TWO, TWO + 1), 2.0),
        "h: wanted 0 < h < 2 min standard deviation = 2, got 2.0",
    ),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), CASES, ids=range(len(CASES)))
def test_the_message(call: Callable[[], object], message: str) -> None:
    """The whole text; a name that is another's, or a value that is not shown, is a defect."""
    with pytest.raises(ValueError, match="^" + re.escape(message) + r"\Z"):
        call()
