"""What bad input is told, word for word, by solvers, variances and the forward process."""

import math
import re
from collections.abc import Callable

import pytest
import torch

from diffusion_math import checks, variance
from diffusion_math.sample import inversion
from diffusion_math.schedule import VPLinear
from diffusion_math.solvers import adams, adaptive, exponential, stochastic
from diffusion_math.solvers.one_step import ddim

SCHEDULE = VPLinear()
X = torch.zeros(2, 3, dtype=torch.float64)
T, S = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)


def climb(*nodes: float) -> object:
    return inversion(ddim(SCHEDULE), lambda x, t: x, X, torch.tensor(nodes, dtype=torch.float64))


CASES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: stochastic.churn(SCHEDULE, -0.1),
        "share: wanted a finite number of at least 0, got -0.1",
    ),
    (
        lambda: stochastic.churn(SCHEDULE, low=2, high=1.5),
        "low, high: wanted 0 <= low < high, got (2, 1.5)",
    ),
    (
        lambda: stochastic.churn(SCHEDULE, low=-1),
        "low, high: wanted 0 <= low < high, got (-1, inf)",
    ),
    (
        lambda: stochastic.churn(SCHEDULE, inflation=3),
        "inflation: wanted a number in [0.5, 2], got 3",
    ),
    (lambda: stochastic.dpmpp_sde(SCHEDULE, 0), "eta: wanted in (0, 1], got 0"),
    (lambda: stochastic.sde_heun(SCHEDULE, 1.5), "eta: wanted in (0, 1], got 1.5"),
    (
        lambda: stochastic.ancestral(SCHEDULE, 0),
        "order: wanted a whole number of at least 1 and at most 3, got 0",
    ),
    (
        lambda: stochastic.ancestral(SCHEDULE, 4),
        "order: wanted a whole number of at least 1 and at most 3, got 4",
    ),
    (
        lambda: stochastic.ancestral(SCHEDULE, 1, "v"),  # type: ignore[arg-type]
        "kind: wanted one of x0, eps, got 'v'",
    ),
    (
        lambda: stochastic.ancestral(SCHEDULE, 1, eta=-1),
        "eta: wanted a number in [0, 1], got -1.0",
    ),
    (
        lambda: stochastic.corrected(ddim(SCHEDULE), SCHEDULE, math.inf),
        "share: wanted a finite number above 0, got inf",
    ),
    (
        lambda: stochastic.corrected(ddim(SCHEDULE), SCHEDULE, 0),
        "share: wanted a finite number above 0, got 0",
    ),
    (
        lambda: stochastic.corrected(ddim(SCHEDULE), SCHEDULE, rounds=0),
        "rounds: wanted a whole number of at least 1, got 0",
    ),
    (
        lambda: exponential.singlestep(SCHEDULE, 0),
        "order: wanted a whole number of at least 1 and at most 3, got 0",
    ),
    (
        lambda: exponential.singlestep(SCHEDULE, 4),
        "order: wanted a whole number of at least 1 and at most 3, got 4",
    ),
    (
        lambda: exponential.singlestep(SCHEDULE, 1, "v"),  # type: ignore[arg-type]
        "kind: wanted one of x0, eps, got 'v'",
    ),
    (
        lambda: exponential.multistep(SCHEDULE, 0),
        "order: wanted a whole number of at least 1 and at most 4, got 0",
    ),
    (
        lambda: exponential.multistep(SCHEDULE, 5),
        "order: wanted a whole number of at least 1 and at most 4, got 5",
    ),
    (
        lambda: exponential.multistep(SCHEDULE, 4, eta=1),
        "order: wanted a whole number of at least 1 and at most 3, got 4",
    ),
    (
        lambda: exponential.multistep(SCHEDULE, 1, "v"),  # type: ignore[arg-type]
        "kind: wanted one of x0, eps, got 'v'",
    ),
    (
        lambda: exponential.multistep(SCHEDULE, 1, eta=-0.1),
        "eta: wanted a number in [0, 1], got -0.1",
    ),
    (
        lambda: exponential.multistep(SCHEDULE, 1, eta=2),
        "eta: wanted a number in [0, 1], got 2.0",
    ),
    (
        lambda: exponential.unipc(SCHEDULE, 0),
        "order: wanted a whole number of at least 1 and at most 3, got 0",
    ),
    (
        lambda: exponential.unipc(SCHEDULE, 4),
        "order: wanted a whole number of at least 1 and at most 3, got 4",
    ),
    (
        lambda: adams.lms(SCHEDULE, 5),
        "order: wanted a whole number of at least 1 and at most 4, got 5",
    ),
    (
        lambda: adaptive.bogacki_shampine(SCHEDULE, 0),
        "rtol: wanted a number in [1e-12, 1], got 0",
    ),
    (
        lambda: adaptive.bogacki_shampine(SCHEDULE, 1.5),
        "rtol: wanted a number in [1e-12, 1], got 1.5",
    ),
    (
        lambda: adaptive.bogacki_shampine(SCHEDULE, atol=0),
        "atol: wanted a number in [1e-12, 1], got 0",
    ),
    (
        lambda: adaptive.bogacki_shampine(SCHEDULE, atol=1.5),
        "atol: wanted a number in [1e-12, 1], got 1.5",
    ),
    (
        lambda: adaptive.bogacki_shampine(SCHEDULE, most=0),
        "most: wanted a whole number of at least 1, got 0",
    ),
    (
        lambda: variance.learned_range(SCHEDULE, lambda x, t: x - 1)(X, T, S),
        "share: wanted every entry in [0, 1], got -1.0",
    ),
    (
        lambda: variance.analytic(SCHEDULE, lambda t: t + 1)(X, T, S),
        "gamma: wanted every entry in [0, 1], got 1.7",
    ),
    (lambda: climb(0.5, 0.2, 0.0), "grid: wanted a last node above 0, got 0.0"),
    (
        lambda: climb(0.2, 0.5),
        "grid: wanted a non-empty, strictly decreasing 1-D tensor, got 0.2 then 0.5 at index 0",
    ),
    (
        lambda: checks.interval("interval", (2, 1)),
        "interval: wanted two numbers, 0 <= low < high, got (2, 1)",
    ),
    (
        lambda: checks.interval("interval", [-1, 1]),
        "interval: wanted two numbers, 0 <= low < high, got (-1, 1)",
    ),
    (
        lambda: checks.interval("interval", (1, 1)),
        "interval: wanted two numbers, 0 <= low < high, got (1, 1)",
    ),
    (
        lambda: checks.interval("interval", (1, 2, 3)),
        "interval: wanted two numbers, 0 <= low < high, got (1, 2, 3)",
    ),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), CASES, ids=range(len(CASES)))
def test_the_message(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message) + r"\Z"):
        call()


def test_legal_ends_pass() -> None:
    """What the messages call legal is: the ends of each range."""
    checks.interval("interval", (0, math.inf))
    for tolerance in (1e-12, 1):
        adaptive.bogacki_shampine(SCHEDULE, tolerance, tolerance, 1)
    stochastic.churn(SCHEDULE, 0, 0, 1, 0.5)
    stochastic.churn(SCHEDULE, inflation=2)
    stochastic.dpmpp_sde(SCHEDULE, 1)
    stochastic.sde_heun(SCHEDULE, 1)
    stochastic.ancestral(SCHEDULE, 3, "x0", eta=1)
    stochastic.corrected(ddim(SCHEDULE), SCHEDULE, 1e-300, 1)
    exponential.multistep(SCHEDULE, 3, "eps", eta=1)
    exponential.multistep(SCHEDULE, 4)
    exponential.unipc(SCHEDULE, 3)
    exponential.singlestep(SCHEDULE, 3)
    adams.lms(SCHEDULE, 4)
