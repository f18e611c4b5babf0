"""What an audit found: rows with a verdict each."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from diffusion_math.testing.convergence import Fit

__all__ = ["Check", "Report", "Verdict"]

Verdict: TypeAlias = Literal["sound", "limit", "defect"]
"""limit: a bound that comes with the method or is stated openly; defect: what is claimed is not
what is done."""


@final
@dataclass(frozen=True)
class Check:
    """One check of one sampler at one setting.

    Attributes:
        check: what was looked at.
        expected: in the check's own unit; the claimed order, where the check is of one.
        measured: the fitted order, a number in the check's own unit, or why there is none.
        note: where it was seen, or why it is a limit.
    """

    library: str
    version: str
    sampler: str
    setting: str
    check: str
    expected: int | str
    measured: Fit | float | str
    verdict: Verdict
    note: str = ""

    @property
    def value(self) -> float | None:
        """What was measured as a number, where there is one."""
        found = self.measured.order if isinstance(self.measured, Fit) else self.measured
        return None if isinstance(found, str) else found

    @property
    def shown(self) -> str:
        """What was measured, as words."""
        found = self.measured
        return f"{found:.3g}" if isinstance(found, int | float) else str(found)


@final
@dataclass(frozen=True)
class Report:
    """The rows of an audit."""

    rows: tuple[Check, ...]

    @property
    def defects(self) -> tuple[Check, ...]:
        """The rows whose verdict is defect."""
        return tuple(row for row in self.rows if row.verdict == "defect")

    @property
    def sound(self) -> bool:
        """Whether there is no defect."""
        return not self.defects

    def __add__(self, other: "Report") -> "Report":
        return Report(self.rows + other.rows)

    def __str__(self) -> str:
        """A table, a line a row."""
        cells = [("check", "expected", "measured", "verdict", "note")]
        cells += [
            (row.check, str(row.expected), row.shown, row.verdict, row.note) for row in self.rows
        ]
        widths = [max(len(line[k]) for line in cells) for k in range(4)]
        lines = []
        for line in cells:
            padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
            lines.append("  ".join([*padded, line[4]]).rstrip())
        return "\n".join(lines)

    def records(self) -> list[dict[str, object]]:
        """The rows as plain dicts, for JSON."""
        return [
            vars(row) | {"expected": str(row.expected), "measured": row.shown, "value": row.value}
            for row in self.rows
        ]


def together(reports: Iterable[Report]) -> Report:
    """All rows in one report."""
    return Report(tuple(row for report in reports for row in report.rows))
