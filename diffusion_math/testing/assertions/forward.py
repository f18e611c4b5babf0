"""`assert_forward`: q(x_t | x_0) at every index."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_math.checks import checked
from diffusion_math.testing.mistakes.catalogue import QUANTITIES, Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import (
    Levels,
    LevelsOf,
    Step,
    Times,
    neighbours,
)
from diffusion_math.testing.mistakes.probes import (
    called,
    coefficients,
    fields,
    name_of,
    time_batch,
)

__all__ = ["assert_forward", "signal_and_noise"]

DDPM = "arXiv:2006.11239, eq. 4"


@checked
def assert_forward(
    q_sample: Callable[..., Any],
    levels: LevelsOf,
    times: Times,
    *,
    batched: bool = True,
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `q_sample(x0, t, noise) -> alpha_t x0 + sigma_t noise` at every time.

    Args:
        q_sample: takes x0 and noise `(batch, 4)` and t `(batch,)`. See `drawn` for a function that
            draws its noise.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        batched: False for a function of one time, a plain number, and events `(1, 4)`.
        dtype: that of x0 and noise.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it;
    AssertionError where `q_sample` raises or returns what is no sample; ValueError for other
    arguments. Source: DDPM (arXiv:2006.11239) eq. 4.

    >>> import diffusion_math as dm
    >>> from diffusion_math.testing import assert_forward
    >>> schedule = dm.Discrete.linear(10)
    >>> def q_sample(x0, t, noise):
    ...     alpha, sigma = schedule(t[:, None])
    ...     return alpha * x0 + sigma**2 * noise
    ...
    >>> try:
    ...     assert_forward(q_sample, schedule, range(1, 11))
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[2])
      diagnosis: the coefficient of noise is sigma^2, the variance (arXiv:2006.11239, eq. 4)
    """
    table = replace(Levels.read(levels, times), divides=False)
    rows = neighbours(table)
    subject, t = name_of(q_sample, "q_sample"), time_batch(table.times[1:])
    call = called(subject, q_sample, batched)
    found, eps = coefficients(
        subject,
        lambda given: call(given["x0"], t, given["noise"]),
        ("x0", "noise"),
        len(t),
        dtype,
        table.eps,
    )

    def exact(step: Step) -> dict[str, Tensor]:
        return _x0(step.alpha_t, step.sigma_t)

    compare(
        subject,
        fields(found),
        exact,
        table,
        rows,
        eps=eps,
        known=KNOWN,
        right=f"alpha_t x0 + sigma_t noise ({DDPM})",
    )


def signal_and_noise(name: str, signal: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """The fields of `signal name + noise noise`."""
    return {
        f"coefficient of {name}": signal,
        "coefficient of noise": noise,
        "offset": torch.zeros_like(signal),
    }


_x0 = partial(signal_and_noise, "x0")

KNOWN = (
    Mistake.of(
        "the coefficient of noise is sigma^2, the variance",
        lambda step: _x0(step.alpha_t, step.sigma_t**2),
        DDPM,
    ),
    Mistake.of(
        "alpha and sigma are both squared: abar x0 + (1 - abar) noise",
        lambda step: _x0(step.alpha_t**2, step.sigma_t**2),
        DDPM,
    ),
    Mistake.of(
        "x0 and noise are exchanged",
        lambda step: _x0(step.sigma_t, step.alpha_t),
        DDPM,
    ),
    Mistake.of(
        "one step of the chain, sqrt(1 - beta) x0 + sqrt(beta) noise, not all up to t",
        lambda step: _x0(step.alpha_t / step.alpha_s, QUANTITIES["beta"](step).sqrt()),
        DDPM,
    ),
    Mistake.of(
        "x0 is not scaled by alpha: x0 + sigma / alpha noise",
        lambda step: _x0(torch.ones_like(step.alpha_t), step.sigma_t / step.alpha_t),
        "arXiv:2206.00364, section 4",
    ),
    Mistake.of(
        "x0 is not scaled by alpha: x0 + sigma noise",
        lambda step: _x0(torch.ones_like(step.alpha_t), step.sigma_t),
        DDPM,
    ),
)
"""What people write for a sample of q(x_t | x_0)."""
