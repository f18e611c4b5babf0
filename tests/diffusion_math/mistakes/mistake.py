"""A mistake of the field: what was done wrong, where, and the check that tells it from the right.

A check takes a candidate for a shipped function and raises AssertionError if it is not right.
`existing` makes one of a test of this suite; the others compare with a closed form here.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch

from diffusion_math import noise
from diffusion_math.grid import trailing
from diffusion_math.sample import final
from diffusion_math.schedule import VE, Discrete, VPLinear
from diffusion_math.score_matching import divergence
from tests.support.chance import pinned
from tests.support.solver_step import MIXTURE, ONE, X, marginal_error

Check = Callable[[Any], None]


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        name: short, and unique.
        what: what was computed in the place of what, in one sentence.
        source: a thread or paper in which it is found, asked about, or stated rightly.
        check: passes `right` and rejects `wrong`.
        right: the shipped function.
        wrong: the same with the mistake in it.
    """

    name: str
    what: str
    source: str
    check: Check
    right: Any
    wrong: Any


def existing(
    test: Callable[..., None],
    replaced: str,
    put: Callable[[Any], object] = lambda candidate: candidate,
    **arguments: object,
) -> Check:
    """A test of this suite, run with `put(candidate)` where its module says `replaced`."""
    function = test.hypothesis.inner_test if hasattr(test, "hypothesis") else test

    def check(candidate: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(function.__globals__, replaced, put(candidate))
            function(**arguments)

    check.__name__ = f"{test.__module__.rpartition('.')[2]}.{test.__name__}"
    return check


def edited(function: Any, said: str, instead: str) -> Any:
    """The function with one expression of its source, which occurs once, in another's place."""
    plain = inspect.unwrap(getattr(function, "__func__", function))
    source = textwrap.dedent(inspect.getsource(plain))
    assert source.count(said) == 1, f"{said!r} occurs {source.count(said)} times"
    scope: dict[str, Any] = {}
    code = compile(source.replace(said, instead), plain.__code__.co_filename, "exec")
    exec(code, plain.__globals__, scope)
    return scope[plain.__name__]


def within(value: float, tolerance: float, reason: str) -> None:
    """What the fixture `measured` asserts, without its record."""
    assert float(value) <= tolerance, reason


def keeps_the_marginals_of_a_skip(make: Any) -> None:
    """With x_0 known, each step of 13 over 1000 times takes q(x_t | x_0) to q(x_s | x_0).

    1000 / 13 is not whole, so that the grid is not uniform. To 1e-12: rounding, as in test_solver.
    """
    schedule = Discrete.scaled_linear(1000)
    for t, s in pairwise(trailing(schedule, 13)):
        assert marginal_error(make(schedule), schedule, t, s) < 1e-12


def is_the_variance_of_a_skip(variance: Any) -> None:
    """q(x_t | x_s) has variance 1 - prod_{s < i <= t} (1 - beta_i)."""
    schedule = Discrete.linear(100)
    got = variance(schedule, 60, 40)
    torch.testing.assert_close(got, 1 - (1 - schedule.betas[40:60]).prod(), rtol=1e-12, atol=0)


def walks_alike_twice(make: Any) -> None:
    """One step, two walks from one start: bit for bit the same, whatever was walked before."""
    schedule = VPLinear()
    step, grid = make(schedule), trailing(schedule, 6)
    ends = []
    for _ in range(2):
        end = final(step, MIXTURE.denoiser(schedule), X, grid, noise.zeros)
        ends.append(end)
    assert torch.equal(*ends)


def begins_at_pure_noise(grid: Any) -> None:
    """Where sampling starts from N(0, I), the first node is T: earlier x_t holds more of x_0."""
    schedule = Discrete.scaled_linear(1000)
    first = grid(schedule, 25)[0]
    assert schedule.log_snr(first) <= schedule.log_snr(schedule.T)


def falls_to_the_end(grid: Any) -> None:
    """No two nodes are one, and the last is 0."""
    nodes = grid(Discrete.scaled_linear(1000), 10)
    assert bool((nodes.diff() < 0).all()) and nodes[-1] == 0


def starts_with_the_law_of_x_t(marginal: Any) -> None:
    """Gaussian data, noised: mean and covariance of q(x_t) exactly, by unit vectors for x_0 and z.

    At Stable Diffusion's t = 600, as image-to-image starts, and at VE's T, where sigma is 10.
    """
    mean, covariance = ONE.moments()
    still, unit = torch.zeros(2, 2).double(), torch.eye(2).double()
    moved = torch.cat([still[:1], torch.linalg.cholesky(covariance).T, still])
    z = torch.cat([still, still[:1], unit])
    for schedule, t in ((Discrete.scaled_linear(1000), 600), (VE(10.0), 10.0)):
        x = marginal(schedule, mean + moved, t).sample(z)
        wanted = ONE.marginal(schedule, t).moments()
        spread = x[1:] - x[0]
        torch.testing.assert_close(x[0], wanted[0], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(spread.T @ spread, wanted[1], rtol=1e-13, atol=1e-13)


def draws_every_time_of_the_table(times: Any) -> None:
    """1..T, all of them and nothing else: a thousand draws of four from a chosen seed."""
    drawn = times(Discrete.linear(4), pinned(0), 1000)
    assert set(drawn.tolist()) == {1.0, 2.0, 3.0, 4.0}


def estimates_a_trace(probes: Any) -> None:
    """v^T A v is tr A for a diagonal A if v_i^2 = 1, as for signs; on average E[v_i^2] tr A.

    From a chosen seed: signs have it exactly, with no deviation; v_i uniform on [-1, 1] has 1.
    """
    x = torch.ones(1, 3, dtype=torch.float64)
    slopes = torch.tensor([0.5, -1.5, 4.0], dtype=torch.float64)
    got = divergence(lambda x: slopes * x, x, probes(pinned(0), x, 500))
    assert abs(got.item() - 3.0) < 1e-12
