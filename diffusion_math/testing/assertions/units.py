"""Units of likelihoods: nats of an example, nats and bits of a dimension."""

import math
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from diffusion_math.checks import require
from diffusion_math.testing.mistakes.catalogue import Formula, Mistake

__all__ = ["UNITS", "check_unit", "of_other_units"]

BITS = "github.com/yang-song/score_sde_pytorch/issues/51"

UNITS: Mapping[str, Callable[[int], float]] = {
    "nats": lambda size: 1.0,
    "nats/dim": lambda size: 1 / size,
    "bits/dim": lambda size: 1 / size / math.log(2),
}
"""What a nat of an example of `size` entries is in each."""


def check_unit(unit: str) -> None:
    """Raise ValueError for a unit that is none."""
    require(unit in UNITS, "unit", f"one of {', '.join(UNITS)}", repr(unit))


def of_other_units(formula: Formula, unit: str, size: int) -> Iterator[Mistake]:
    """All fields in another unit than the one that is claimed."""
    right = UNITS[unit](size)
    others = {f"the unit is {name}: {unit} is wanted": of(size) for name, of in UNITS.items()}
    others["the unit is bits of an example"] = 1 / math.log(2)
    if unit == "bits/dim":
        others["it is multiplied by log 2, where it is divided by it"] = math.log(2) / size
        others["its sign is that of a log-likelihood: bits/dim are of the negative one"] = -right

    def scaled(factor: float) -> Formula:
        def values(at: object) -> dict[str, Tensor]:
            return {name: value * factor for name, value in formula(at).items()}

        return values

    for name, factor in others.items():
        if not math.isclose(factor, right):
            yield Mistake.of(name, scaled(factor / right), BITS)
