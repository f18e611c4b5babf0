"""A rounding that is too coarse to tell mistakes from right code."""

import warnings
from collections.abc import Iterable

__all__ = ["COARSE", "UncheckedWarning", "warn_of_coarse"]

COARSE = 1e-2
"""A relative tolerance beyond this tells little."""


class UncheckedWarning(UserWarning):
    """What is asked for is not checked: nothing knows how, or the rounding is too coarse to tell.

    >>> from diffusion_math.testing import UncheckedWarning
    >>> issubclass(UncheckedWarning, UserWarning)
    True
    """


def warn_of_coarse(subject: str, tolerance: float, untold: Iterable[str]) -> None:
    """Warn of a tolerance beyond `COARSE`, and of the mistakes that are within it."""
    names = "".join(f"; it would pass where {name}" for name in untold)
    said = f"its dtype is too coarse to tell errors below {100 * tolerance:.2g}%{names}"
    warnings.warn(f"{subject}: {said}", UncheckedWarning, stacklevel=4)
