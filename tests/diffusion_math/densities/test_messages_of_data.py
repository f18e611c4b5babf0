"""What bad input is told, word for word, by data, grids, predictions and the checks themselves."""

import math
import re
from collections.abc import Callable

import pytest
import torch

from diffusion_math import checks, gaussian, grid, loss, prediction
from diffusion_math.densities.mixture import GaussianMixture
from diffusion_math.schedule import Discrete, RectifiedFlow, VPLinear

POINT = GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.zeros(1))
X = torch.zeros(2, 3)

WIDE = gaussian.Gaussian(X, X + 1)
NARROW = gaussian.Gaussian(X[:1], X[:1] + 1)

CASES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: Discrete.linear(4).log_snr(0.5),
        "t: wanted 0 or a time in [1, T]: a discrete schedule has nothing between 0 and 1, got 0.5",
    ),
    (
        lambda: GaussianMixture(torch.tensor([math.nan]), torch.zeros(1, 1), torch.ones(1)),
        "log_weights: wanted finite numbers, got tensor([nan], dtype=torch.float64)",
    ),
    (
        lambda: GaussianMixture(torch.zeros(0), torch.zeros(0, 1), torch.ones(0)),
        "means: wanted K, D >= 1, got (0, 1)",
    ),
    (
        lambda: GaussianMixture(torch.zeros(1), torch.zeros(1, 0), torch.ones(1)),
        "means: wanted K, D >= 1, got (1, 0)",
    ),
    (
        lambda: GaussianMixture(torch.zeros(2), torch.zeros(1, 1), torch.ones(1)),
        "log_weights: wanted shape (1,), got shape (2,)",
    ),
    (
        lambda: GaussianMixture(torch.zeros(1), torch.zeros(1, 2), torch.ones(3)),
        "covariances: wanted a shape among [(1,), (1, 2), (1, 2, 2)], got shape (3,)",
    ),
    (
        lambda: GaussianMixture(torch.zeros(1), torch.zeros(1, 1), -torch.ones(1)),
        "covariances: wanted no negative variance, got tensor([[-1.]], dtype=torch.float64)",
    ),
    (
        lambda: POINT.log_density(VPLinear(), torch.zeros(1, 2), 0.0),
        "t: wanted a time > 0: there is a point mass, got 0.0",
    ),
    (
        lambda: POINT.score(VPLinear(), torch.zeros(1, 3), 0.5),
        "x: wanted shape (batch, *(2,)), got (1, 3)",
    ),
    (
        lambda: POINT.score(VPLinear(), torch.tensor(0.0), 0.5),
        "x: wanted shape (batch, *(2,)), got ()",
    ),
    (
        lambda: GaussianMixture(torch.zeros(1), torch.zeros(1), torch.ones(1)).score(
            VPLinear(), torch.tensor(0.0), 0.5
        ),
        "x: wanted shape (batch, *()), got ()",
    ),
    (
        lambda: grid.trailing(VPLinear(), 3, start=0.2, end=0.5),
        "end: wanted less than start = 0.2, got 0.5",
    ),
    (lambda: grid.trailing(Discrete.linear(4), 5), "steps: wanted at most start - end = 4, got 5"),
    (
        lambda: grid.trailing(Discrete.linear(4), 2, start=2.5),
        "start: wanted a whole number on a discrete schedule, got 2.5",
    ),
    (
        lambda: grid.uniform_log_snr(Discrete.linear(4), 2, start=3.5, end=0.5),
        "end: wanted 0 or at least 1 on a discrete schedule, got 0.5",
    ),
    (
        lambda: grid.uniform_log_snr(VPLinear(), 10**6, start=1e-3 + 1e-15),
        "steps (the grid they give): wanted a non-empty, strictly decreasing 1-D tensor, "
        "got 0.001 then 0.001 at index 0",
    ),
    (
        lambda: gaussian.Gaussian(X, torch.ones(2)),
        "variance: wanted a shape that broadcasts to (2, 3), got (2,)",
    ),
    (lambda: grid.trailing(VPLinear(), 2.5), "steps: wanted a whole number, got 2.5"),
    (
        lambda: checks.strictly_decreasing("grid", torch.tensor([math.nan])),
        "grid: wanted a non-empty, strictly decreasing 1-D tensor, got NaN",
    ),
    (
        lambda: checks.strictly_decreasing("grid", torch.tensor([2.0, 1.0, 1.5])),
        "grid: wanted a non-empty, strictly decreasing 1-D tensor, got 1 then 1.5 at index 1",
    ),
    (
        lambda: checks.strictly_decreasing("grid", torch.zeros(0)),
        "grid: wanted a non-empty, strictly decreasing 1-D tensor, got shape (0,)",
    ),
    (
        lambda: checks.earlier(torch.tensor([1.0]), torch.tensor([0.5])),
        "s: wanted s < t = [0.5], got [1.0]",
    ),
    (
        lambda: checks.scalar_or_batch("t", torch.zeros(2), torch.tensor(1.0)),
        "t: wanted shape () or (batch,) = (), got shape (2,)",
    ),
    (
        lambda: prediction.x0_from_eps(RectifiedFlow(), X, X, 1.0),
        "t: wanted a time at which x_t and eps determine x0, got 1.0",
    ),
    (
        lambda: prediction.x0_from_eps(RectifiedFlow(), X, X[:1], 0.5),
        "eps: wanted shape (2, 3), got shape (1, 3)",
    ),
    (
        lambda: prediction.eps_from_x0(RectifiedFlow(), X, X, 0.0),
        "t: wanted a time at which x_t and x0 determine eps, got 0.0",
    ),
    (lambda: WIDE.score(X[:1]), "x: wanted shape (2, 3), got shape (1, 3)"),
    (
        lambda: gaussian.cross_entropy(WIDE, NARROW),
        "p.mean: wanted shape (2, 3), got shape (1, 3)",
    ),
    (
        lambda: gaussian.fisher_divergence(WIDE, NARROW),
        "p.mean: wanted shape (2, 3), got shape (1, 3)",
    ),
    (
        lambda: loss.training_loss(
            RectifiedFlow(), lambda x, t: x, "eps", X, X, torch.tensor(1.0), loss.uniform
        ),
        "t: wanted alpha_t > 0: x_t does not turn an error in eps into one in x0, got 1.0",
    ),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), CASES, ids=range(len(CASES)))
def test_the_message(call: Callable[[], object], message: str) -> None:
    """The whole text; a name that is another's, or a value that is not shown, is a defect."""
    with pytest.raises(ValueError, match="^" + re.escape(message) + r"\Z"):
        call()


def test_grids_between_fractional_times_of_a_table() -> None:
    """A grid that is uniform in log-SNR may begin and end at any time of a table from 1 on."""
    nodes = grid.uniform_log_snr(Discrete.linear(4), 2, start=3.5, end=1.5)
    assert (float(nodes[0]), float(nodes[-1])) == (3.5, 1.5)
