"""What an audit found: rows with a verdict each."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, final

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
        expected, measured: in the check's own unit, as words, so that every row reads alike.
        value: what was measured, as a number where it is one.
        note: where it was seen, or why it is a limit.
    """

    library: str
    version: str
    sampler: str
    setting: str
    check: str
    expected: str
    measured: str
    value: float | None
    verdict: Verdict
    note: str = ""


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
            (row.check, row.expected, row.measured, row.verdict, row.note) for row in self.rows
        ]
        widths = [max(len(line[k]) for line in cells) for k in range(4)]
        lines = []
        for line in cells:
            padded = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
            lines.append("  ".join([*padded, line[4]]).rstrip())
        return "\n".join(lines)

    def records(self) -> list[dict[str, object]]:
        """The rows as plain dicts, for JSON."""
        return [asdict(row) for row in self.rows]


def together(reports: Iterable[Report]) -> Report:
    """All rows in one report."""
    return Report(tuple(row for report in reports for row in report.rows))
