"""What is known of one erratum: a measurement, two forms that claim to describe it, and a bound."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from experiments.common.statistics import variance_interval
from experiments.output.result import Figure, Measurement, holds_if
from experiments.plots import png
from experiments.plots.charts import Chart, side_by_side

FALSE_ALARM = 1e-8
"""The chance at which a true form would be called wrong, for each erratum."""


@final
@dataclass(frozen=True)
class Erratum:
    """A measurement beside the printed and the true form.

    id, of: the erratum's and its claim's. printed, true: the two forms in words. measured, what,
    interval: one number, what it is, and its interval if it has one. true_off, printed_off: how far
    each form lies from what was measured, in units of the bound that `bound` explains. charts,
    caption, alt: its figure.
    """

    id: str
    of: str
    printed: str
    true: str
    what: str
    measured: float
    interval: tuple[float, float] | None
    true_off: float
    printed_off: float
    bound: str
    charts: Sequence[Chart]
    caption: str
    alt: str
    data: Mapping[str, Any]
    height: float = 4.5

    @property
    def figure(self) -> Figure:
        """Its charts side by side."""
        image = png(side_by_side(self.charts, 6.3, self.height), colors=128)
        return Figure(f"erratum-{self.id}.png", image, self.caption, self.alt)

    @property
    def verdict(self) -> str:
        """It holds only if the true form is within the bound and the printed one is not."""
        return holds_if(self.true_off <= 1 < self.printed_off)

    def row(self) -> Measurement:
        """The erratum as a line of the report."""
        claim = (
            f"{self.id} ({self.of}), printed: {self.printed}; true: {self.true}. {self.what}. "
            f"In units of {self.bound}, the true form is off by {self.true_off:.3g}, the printed "
            f"one by {self.printed_off:.3g}"
        )
        return Measurement(f"errata-{self.id}", claim, self.measured, self.interval, self.verdict)


def slope_bound(proxy: float, weight: float, chance: float) -> float:
    """How far the slope sum e S / sum S^2 of zero-mean e strays but with that chance.

        d = sqrt(2 proxy log(2 / chance) / weight)

    proxy: of every e, sub-Gaussian: E exp(k e) <= exp(proxy k^2 / 2); weight: sum S^2.
    """
    return math.sqrt(2 * proxy * math.log(2 / chance) / weight)


def variance_off(variance: float, form: float, count: int, chance: float) -> float:
    """How far a form of the variance lies from a sample's, in half widths of its interval."""
    low, high = variance_interval(variance, count, chance)
    return (form - variance) / ((high if form > variance else low) - variance)
