"""What the fields of a configuration may hold, said in one line where they hold something else."""

import sys
from typing import Any

from diffusion_math import checks

MOST_LAYERS, MOST_LEVELS, MOST_BLOCKS = 100, 10, 10
"""Layers of a text encoder; levels of a U-Net or VAE, and blocks in one: each is a module."""
MOST = 2**24
"""The largest width, count or length: products of two are far below the end of 64 bits."""


def whole(owner: object, *names: str, most: int = MOST) -> None:
    """Raise ValueError unless each named field is an integer in 1..most."""
    for name in names:
        checks.whole(f"{type(owner).__name__}.{name}", getattr(owner, name), 1, most)


def positive(owner: object, *names: str, zero: bool = False) -> None:
    """Raise ValueError unless each named field is a finite number above 0 (`zero`: or 0)."""
    for name in names:
        value = getattr(owner, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        valid = number and (value >= 0 if zero else value > 0) and value <= sys.float_info.max
        wanted = f"a finite number {'of 0 or more' if zero else 'above 0'}"
        checks.require(valid, f"{type(owner).__name__}.{name}", wanted, repr(value))


def one_of(owner: object, name: str, valid: tuple[str, ...]) -> None:
    """Raise ValueError unless the named field is one of the valid strings."""
    value = getattr(owner, name)
    if value not in valid:
        wanted = ", ".join(valid)
        raise ValueError(f"{type(owner).__name__}.{name} must be one of {wanted}; got {value!r}")


def divides(owner: object, divisor: str, width: int, of: str) -> None:
    """Raise ValueError unless the named field divides a width."""
    value = getattr(owner, divisor)
    if width % value:
        raise ValueError(
            f"{type(owner).__name__}.{divisor} must divide {of}: {value} does not divide {width}"
        )


def channels(owner: Any, divisor: str) -> None:
    """Raise ValueError unless `channels` is a non-empty tuple of multiples of a field."""
    value = owner.channels
    kind = type(owner).__name__
    whole = isinstance(value, tuple) and all(
        isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in value
    )
    if whole and (len(value) > MOST_LEVELS or max(value, default=0) > MOST):
        wanted = f"at most {MOST_LEVELS} entries of at most {MOST}"
        raise ValueError(f"{kind}.channels must have {wanted}, got {value!r}")
    if not whole or not value:
        raise ValueError(f"{kind}.channels must be a tuple of integers of 1 or more, got {value!r}")
    for width in value:
        divides(owner, divisor, width, "every entry of channels")
