"""`assert_posterior`: q(x_s | x_t, x_0), both coefficients and the variance at every index."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from diffusion_math.checks import Number, require
from diffusion_math.testing.mistakes.catalogue import Mistake
from diffusion_math.testing.mistakes.diagnosis import compare
from diffusion_math.testing.mistakes.levels import Levels, LevelsOf, Step, neighbours
from diffusion_math.testing.mistakes.probes import VECTORS, coefficients, tensor, time_batch

__all__ = ["assert_posterior"]

Spread = Literal["variance", "deviation", "log-variance"]

DDPM = "arXiv:2006.11239, eq. 7"


def assert_posterior(
    posterior: Callable[..., Any],
    levels: LevelsOf,
    times: Sequence[Number],
    *,
    spread: Spread = "variance",
    dtype: torch.dtype = torch.float64,
) -> None:
    """Check `posterior(x0, x_t, t) -> mean, variance` of q(x_s | x_t, x_0), s the time before t.

    mean = alpha_s (1 - r) x0 + r (alpha_s / alpha_t) x_t  with r = SNR_t / SNR_s, written as
    alpha_s sigma_{t|s}^2 / sigma_t^2 x0 + alpha_{t|s} sigma_s^2 / sigma_t^2 x_t;
    variance = sigma_{t|s}^2 sigma_s^2 / sigma_t^2. The first time goes to clean data: x0 itself.

    Args:
        posterior: takes x0 and x_t of shape `(batch, 4)` and t of shape `(batch,)`; what it returns
            beyond the first two is not looked at.
        levels: `levels(t) -> (alpha, sigma)` of their time.
        times: all their times, from little to much noise.
        spread: what the second result is.
        dtype: that of x0 and x_t.

    Raises MistakeError, an AssertionError, with the mistake's name where the catalogue has it, and
    ValueError for levels or times that are none. Source: DDPM (arXiv:2006.11239) eq. 6 and 7.
    """
    require(spread in TRANSFORMED, "spread", f"one of {', '.join(TRANSFORMED)}", spread)
    table = Levels.read(levels, times)
    rows = neighbours(table)
    t = time_batch(times)
    subject = getattr(posterior, "__name__", "posterior")

    def mean(given: Mapping[str, Tensor]) -> Any:
        return posterior(given["x0"], given["x_t"], t)[0]

    measured, eps = coefficients(subject, mean, ("x0", "x_t"), len(t), dtype)
    zero = torch.zeros(len(t), len(VECTORS), dtype=dtype)
    variance, its = tensor(subject, posterior(zero, zero, t)[1], zero)
    found = {f"coefficient of {name}": value for name, value in measured.items()}
    compare(
        subject,
        {**found, spread: variance[:, 0]},
        lambda step: _exact(step, spread),
        table,
        rows,
        eps=max(eps, its),
        known=[
            Mistake.of(f"the {spread} is beta, the upper bound of the variance", _upper(spread)),
            Mistake.of("x0 and x_t are exchanged", lambda step: _exchanged(step, spread), DDPM),
        ],
        right="beta~ = (1 - abar_s) / (1 - abar_t) beta (DDPM, " + DDPM + ")",
    )


TRANSFORMED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "variance": lambda variance: variance,
    "deviation": torch.sqrt,
    "log-variance": torch.log,
}


def _exact(step: Step, spread: str) -> dict[str, Tensor]:
    ratio = step.alpha_t / step.alpha_s
    between = step.sigma_t**2 - (ratio * step.sigma_s) ** 2
    return {
        "coefficient of x0": step.alpha_s * between / step.sigma_t**2,
        "coefficient of x_t": ratio * (step.sigma_s / step.sigma_t) ** 2,
        "offset": torch.zeros_like(ratio),
        spread: TRANSFORMED[spread](between * (step.sigma_s / step.sigma_t) ** 2),
    }


def _upper(spread: str) -> Callable[[Step], dict[str, Tensor]]:
    def beta(step: Step) -> dict[str, Tensor]:
        between = step.sigma_t**2 - (step.alpha_t / step.alpha_s * step.sigma_s) ** 2
        return {spread: TRANSFORMED[spread](between)}

    return beta


def _exchanged(step: Step, spread: str) -> dict[str, Tensor]:
    right = _exact(step, spread)
    return {
        "coefficient of x0": right["coefficient of x_t"],
        "coefficient of x_t": right["coefficient of x0"],
    }
