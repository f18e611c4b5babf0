"""`assert_learned_variance`: a network's variance between beta~ and beta, at every index."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import Number, checked, real, require
from diffusion_math.testing.assertions.posterior import (
    SPREADS,
    First,
    Spread,
    clipped,
    first_variance,
)
from diffusion_math.testing.mistakes.catalogue import QUANTITIES, Formula, Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Step, Times, neighbours
from diffusion_math.testing.mistakes.probes import (
    MIXED,
    called,
    name_of,
    tensor,
    time_batch,
)

__all__ = ["assert_learned_variance"]

IMPROVED = "arXiv:2102.09672, eq. 15"
ARITHMETIC = "the mean of beta and beta~ is arithmetic, not geometric"

SHARES = 0.0, 0.5, 1.0, 0.75
"""The f at which the variance is looked at: both ends and between."""

Mix = Callable[[float, Tensor, Tensor], Tensor]
"""`(v, beta~, beta) -> variance`."""


@checked
def assert_learned_variance(
    variance: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    spread: Spread = "log-variance",
    first: First = "second",
    ends: tuple[Number, Number] = (-1, 1),
    batched: bool = True,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `variance(v, t) -> exp(f log beta + (1 - f) log beta~)`, v a network's output.

    f = (v - ends[0]) / (ends[1] - ends[0]): the variance is beta~ at v = ends[0] and beta at
    v = ends[1], and its logarithm is linear between.

    Args:
        variance: takes v `(batch, 4)` and t `(batch,)`.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        spread: what is returned.
        first: what stands for beta~ = 0 at the first time: "second", that of the second time, or a
            positive number such as 1e-20.
        ends: the v of beta~ and of beta: (0, 1) where the network's output is f itself.
        batched: False for a function of one time, a plain number, and events `(1, 4)`.
        dtype: that of v.

    Raises as `assert_posterior` does. Source: Nichol & Dhariwal (arXiv:2102.09672) eq. 15.

    >>> import torch
    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_learned_variance
    >>> schedule = dm.Discrete.linear(10)
    >>> t = torch.arange(1, 11)
    >>> large = dm.variance.large_variance(schedule, t, t - 1)
    >>> small = dm.variance.small_variance(schedule, t, t - 1)
    >>> small[0] = small[1]
    >>> def variance(v, t):
    ...     f = (v + 1) / 2
    ...     return f * large[t - 1, None] + (1 - f) * small[t - 1, None]
    ...
    >>> try:
    ...     assert_learned_variance(variance, schedule, range(1, 11), spread="variance")
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[-2])
      diagnosis: the mean of beta and beta~ is arithmetic, not geometric (arXiv:2102.09672, eq. 15)
    """
    require(spread in SPREADS, "spread", f"one of {', '.join(SPREADS)}", spread)
    both = real("ends", ends)
    rising = both.shape == (2,) and bool(both[0] < both[1])
    require(rising, "ends", "two numbers, the v of beta~ below that of beta", ends)
    low, high = both.tolist()
    table = Levels.read(levels, times)
    small = clipped(first_variance(first, table))
    require(first != 0, "first", "'second' or a positive number", first)
    subject, t = name_of(variance, "variance"), time_batch(table.times[1:])
    call = called(subject, variance, batched)
    inputs = [low + share * (high - low) for share in SHARES]
    v = torch.tensor(inputs, dtype=dtype, device="cpu").expand(len(t), -1)
    found, eps = tensor(subject, call(v, t), v, table.eps)
    turns = (
        torch.arange(len(t), device="cpu")[:, None] + torch.arange(len(inputs), device="cpu")
    ) % len(inputs)
    turned = tensor(subject, call(v.gather(1, turns), t), v, table.eps)[0]
    unmixed = (turned - found.gather(1, turns)).abs() <= 64 * eps * (1 + turned.abs())
    finite = turned.isfinite() & found.isfinite().gather(1, turns)
    assert bool((unmixed | ~finite).all()), f"{subject}: {MIXED}"

    def formula(mix: Mix, least: Callable[[Step], Tensor] = small) -> Formula:
        def values(step: Step) -> Mapping[str, Tensor]:
            ends = least(step), QUANTITIES["beta"](step)
            return {
                f"{spread} at v = {each:g}": SPREADS[spread](mix(each, *ends)) for each in inputs
            }

        return values

    compare(
        subject,
        dict(
            zip(formula(_geometric(low, high))(table.at(neighbours(table))), found.T, strict=True)
        ),
        formula(_geometric(low, high)),
        table,
        neighbours(table),
        eps=eps,
        known=[
            Mistake.of(name, formula(mix), IMPROVED)
            for name, mix in {
                "v = -1 to 1 is used as the share of log beta, 0 to 1": _geometric(0, 1),
                "v = 0 to 1, the share of log beta, is scaled as from -1 to 1": _geometric(-1, 1),
                "beta and beta~ are exchanged": _geometric(high, low),
                ARITHMETIC: _arithmetic(low, high),
                "the variance is beta whatever v is": lambda v, small, large: large,
                "the variance is beta~ whatever v is": lambda v, small, large: small,
            }.items()
        ]
        + [
            Mistake.of(
                ARITHMETIC,  # with the exact 0 at the first time
                formula(_arithmetic(low, high), QUANTITIES["beta~"]),
                IMPROVED,
            )
        ],
        right=f"exp(f log beta + (1 - f) log beta~) ({IMPROVED})",
    )


def _geometric(low: Number, high: Number) -> Mix:
    def mix(v: float, small: Tensor, large: Tensor) -> Tensor:
        share = (v - low) / (high - low)
        return torch.exp(share * large.log() + (1 - share) * small.log())

    return mix


def _arithmetic(low: Number, high: Number) -> Mix:
    return lambda v, small, large: small + (v - low) / (high - low) * (large - small)
