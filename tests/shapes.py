"""beartype, made once a function.

The suite's checker of shapes decorates local functions on every call of the function around them,
and for beartype each decoration is a compilation: a millisecond, longer than most of what it
checks. What jaxtyping hands to it are stand-ins without a body, functions of name and signature
alone, and they are kept by these here; a function with a body or a closure must not come this way.
"""

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

_made: dict[tuple[str, str, inspect.Signature], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype's check of the calls of `function`: pyproject.toml names it to the hook."""
    try:
        key = (function.__module__, function.__qualname__, inspect.signature(function))
        known = _made.get(key)
    except TypeError:  # a default that has no hash
        return beartype(function)
    if known is None:
        known = _made[key] = beartype(function)
    return known
