"""The noise schedules of latent-diffusion models, by name."""

from collections.abc import Callable

from diffusion_math.schedule import Discrete

__all__ = ["SCHEDULES", "named_schedule"]

SCHEDULES: dict[str, Callable[[int], Discrete]] = {
    "scaled_linear": Discrete.scaled_linear,
    "linear": Discrete.linear,
    "cosine": Discrete.cosine,
}


def named_schedule(name: str, steps: int, zero_snr: bool = False) -> Discrete:
    """The schedule of that name.

    Args:
        name: one of `SCHEDULES`.
        steps: T, the number of its steps.
        zero_snr: rescale it to a zero terminal SNR.
    """
    plain = SCHEDULES[name](steps)
    return plain.zero_terminal_snr() if zero_snr else plain
