"""What an experiment returns: measurements with verdicts, figures, tables, paragraphs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

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
        """The same, or "too few samples" with fewer than `least`, drawn or trained on."""
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
Shown = TypeVar("Shown")


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


def holds_if(condition: bool) -> str:
    """The verdict by a condition that is exact, or has compared an interval with a bound."""
    return HOLDS if condition else FAILS


def estimated(
    name: str,
    claim: str,
    found: float | tuple[float, tuple[float, float]],
    *,
    least: float | None = None,
    most: float | None = None,
    more: float | None = None,
    less: float | None = None,
    near: float | None = None,
) -> Measurement:
    """The row of a value with its interval, or of an exact one; with a bound, its verdict.

    The claim is that it is at least `least`, at most `most`, greater than `more`, less than `less`,
    or at most `near` in absolute value. It is inconclusive where a part of the interval alone is.
    """
    value, interval = found if isinstance(found, tuple) else (found, None)
    low, high = interval or (value, value)
    if least is not None:
        sure, possible = low >= least, high >= least
    elif most is not None:
        sure, possible = high <= most, low <= most
    elif more is not None:
        sure, possible = low > more, high > more
    elif less is not None:
        sure, possible = high < less, low < less
    elif near is not None:
        sure, possible = -near <= low and high <= near, low <= near and -near <= high
    else:
        return Measurement(name, claim, value, interval, MEASURED)
    verdict = HOLDS if sure else INCONCLUSIVE if possible else FAILS
    return Measurement(name, claim, value, interval, verdict)


def integrating(name: str, masses: Sequence[float], most: float) -> Measurement:
    """The row of densities whose integrals over their nodes differ from 1 by at most `most`."""
    return estimated(
        name,
        f"Each of {len(masses)} densities integrates to 1 over its nodes. Largest difference, "
        f"at most {most:g}",
        max(abs(mass - 1) for mass in masses),
        most=most,
    )


def bracketed(value: float, interval: tuple[float, float], digits: str = ".1%") -> str:
    """A value and its interval as text, "95.3% [90.1%, 98.0%]"."""
    low, high = interval
    return f"{value:{digits}} [{low:{digits}}, {high:{digits}}]"


def table(
    lines: Iterable[Shown], columns: Mapping[str, Callable[[Shown], object]], caption: str
) -> Table:
    """A table of columns, each a header and what stands there on a line."""
    cells = (tuple(str(cell(line)) for cell in columns.values()) for line in lines)
    return Table(tuple(columns), tuple(cells), caption)
