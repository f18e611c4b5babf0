"""The noise schedules of latent-diffusion models, by name."""

from collections.abc import Callable

import torch

from diffusion_math.checks import require
from diffusion_math.schedule import Discrete

__all__ = ["SCHEDULES", "named_schedule", "zero_terminal_snr"]

SCHEDULES: dict[str, Callable[[int], Discrete]] = {
    "scaled_linear": Discrete.scaled_linear,
    "linear": Discrete.linear,
    "cosine": Discrete.cosine,
}
TERMINAL_ALPHA = 2.0**-12
"""alpha_T in place of 0, as in diffusers: the log-SNR of every node is finite."""


def named_schedule(name: str, steps: int, zero_snr: bool = False) -> Discrete:
    """The schedule of that name.

    Args:
        name: one of `SCHEDULES`.
        steps: T, the number of its steps.
        zero_snr: rescale it to a zero terminal SNR.
    """
    plain = SCHEDULES[name](steps)
    return zero_terminal_snr(plain) if zero_snr else plain


def zero_terminal_snr(plain: Discrete) -> Discrete:
    """The schedule, shifted and scaled to an SNR of zero at its last step.

    alpha'_t = (alpha_t - alpha_T) alpha_1 / (alpha_1 - alpha_T) for t < T, and alpha'_T = 2^-12,
    or half of alpha'_{T-1} where that is less, in place of 0.

    Raises ValueError for a schedule of fewer than two steps.
    Source: Lin et al. (arXiv:2305.08891) algorithm 1; the last value as in diffusers.
    """
    steps = len(plain.betas)
    require(steps > 1, "steps", "2 or more for a zero terminal SNR", steps)
    alpha, _ = plain(torch.arange(1, steps + 1, dtype=torch.float64))
    scaled = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    scaled[-1] = min(TERMINAL_ALPHA, float(scaled[-2]) / 2)
    before = torch.cat([scaled.new_ones(1), scaled[:-1]])
    return Discrete((before - scaled) * (before + scaled) / before.square())
