"""What an experiment returns: measurements with verdicts, figures, tables, paragraphs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

HOLDS, FAILS, INCONCLUSIVE = "holds", "does not hold", "inconclusive"
MEASURED, TOO_FEW = "measured", "too few samples"


@dataclass(frozen=True)
class Measurement:
    """One line of `report.json`: what is claimed, what was measured, and what follows.

    `interval` is at 95% unless the claim says otherwise, None for what is exact or counted;
    `verdict` is "holds", "does not hold", "inconclusive" (the interval contains the claim's bound),
    "measured" (the claim names no bound) or "too few samples" (see `needing`).
    """

    name: str
    claim: str
    measured: float | str
    interval: tuple[float, float] | None
    verdict: str

    def needing(self, least: int, samples: int) -> "Measurement":
        """The same; with fewer samples than `least`, drawn or trained on, no claim is decided."""
        few = samples < least and self.verdict != MEASURED
        return replace(self, verdict=TOO_FEW) if few else self


@dataclass(frozen=True)
class Heading:
    """A heading within a section, of what a reader would search for."""

    text: str


@dataclass(frozen=True)
class Figure:
    """An image, the caption that says what to see in it, and its text for those who can't.

    `image` is a PNG or, where the name ends in .gif, an animated GIF; empty where that file is
    written already.
    """

    name: str
    image: bytes = field(repr=False)
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """A small table; every cell is text already."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


Part: TypeAlias = str | Heading | Figure | Table


@dataclass(frozen=True)
class Result:
    """All that an experiment has to say; `parts` are paragraphs, figures and tables in order."""

    name: str
    title: str
    rows: tuple[Measurement, ...]
    parts: tuple[Part, ...]
    data: Mapping[str, Any]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Figure))


def at_least(low: float, high: float, bound: float) -> str:
    """The verdict on "the quantity is at least `bound`", from its interval."""
    return HOLDS if low >= bound else FAILS if high < bound else INCONCLUSIVE


def at_most(low: float, high: float, bound: float) -> str:
    """The verdict on "the quantity is at most `bound`", from its interval."""
    return HOLDS if high <= bound else FAILS if low > bound else INCONCLUSIVE


def above(low: float, high: float, bound: float) -> str:
    """The verdict on "the quantity is greater than `bound`", from its interval."""
    return HOLDS if low > bound else FAILS if high <= bound else INCONCLUSIVE


def holds_if(condition: bool) -> str:
    """The verdict on what is exact, or is decided by an interval of its own."""
    return HOLDS if condition else FAILS


def estimated(
    name: str,
    claim: str,
    found: float | tuple[float, tuple[float, float]],
    *,
    least: float | None = None,
    most: float | None = None,
    more: float | None = None,
) -> Measurement:
    """The row of a value with its interval, or of an exact one; with a bound, its verdict.

    The claim is that it is at least `least`, at most `most` or greater than `more`.
    """
    value, interval = found if isinstance(found, tuple) else (found, None)
    ends = interval or (value, value)
    verdict = MEASURED
    if least is not None:
        verdict = at_least(*ends, least)
    elif most is not None:
        verdict = at_most(*ends, most)
    elif more is not None:
        verdict = above(*ends, more)
    return Measurement(name, claim, value, interval, verdict)


def within(name: str, claim: str, value: float, bound: float) -> Measurement:
    """The row of an exact figure that is claimed to be at most `bound`."""
    return Measurement(name, claim, value, None, holds_if(value <= bound))


def rows_json(rows: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The rows as plain JSON values."""
    return [asdict(row) for row in rows]


def percent(share: float) -> str:
    """A share as text, 0.953 -> "95.3%"."""
    return f"{100 * share:.1f}%"
