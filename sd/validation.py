"""Checks of the fields of a configuration."""

import sys
from typing import Any

from diffusion_math import checks

MOST_LAYERS, MOST_LEVELS, MOST_BLOCKS = 100, 10, 10
"""Limits: layers of a text encoder, levels of a U-Net or VAE, blocks in a level."""
MOST = 2**24
"""The largest width, count or length; products of two fit easily into 64 bits."""


def whole(owner: object, *names: str, least: int = 1, most: int = MOST) -> None:
    """Raise ValueError unless each named field is an integer in least..most."""
    for name in names:
        checks.whole(f"{type(owner).__name__}.{name}", getattr(owner, name), least, most)


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
    wanted = f"one of {', '.join(valid)}"
    checks.require(value in valid, f"{type(owner).__name__}.{name}", wanted, repr(value))


def boolean(owner: object, *names: str) -> None:
    """Raise ValueError unless the named fields are True or False."""
    for name in names:
        value = getattr(owner, name)
        argument = f"{type(owner).__name__}.{name}"
        checks.require(isinstance(value, bool), argument, "a boolean", repr(value))


def divides(owner: object, divisor: str, width: int, of: str) -> None:
    """Raise ValueError unless the named field divides a width."""
    value = getattr(owner, divisor)
    wanted = f"a divisor of {width} ({of})"
    checks.require(width % value == 0, f"{type(owner).__name__}.{divisor}", wanted, value)


def channels(owner: Any, divisor: str) -> None:
    """Raise ValueError unless `channels` is a non-empty tuple of multiples of a field."""
    widths(owner, "channels")
    for width in owner.channels:
        divides(owner, divisor, width, "an entry of channels")


def widths(owner: object, name: str) -> None:
    """Raise ValueError unless the named field is a non-empty tuple of whole numbers."""
    value = getattr(owner, name)
    argument = f"{type(owner).__name__}.{name}"
    whole = isinstance(value, tuple) and all(
        isinstance(width, int) and not isinstance(width, bool) and width > 0 for width in value
    )
    wanted = "a tuple of whole numbers of at least 1"
    checks.require(whole and len(value) > 0, argument, wanted, repr(value))
    small = len(value) <= MOST_LEVELS and max(value) <= MOST
    checks.require(small, argument, f"at most {MOST_LEVELS} entries of at most {MOST}", repr(value))
