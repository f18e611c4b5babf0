"""The type of the fixture `measured` of conftest.py."""

from collections.abc import Callable

Measured = Callable[[float, float, str], None]
"""(value, tolerance, reason): asserts value <= tolerance and records the figure."""
