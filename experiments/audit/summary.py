"""Checks in a few words: how many there are of each verdict, and a table of some."""

from collections import Counter
from collections.abc import Sequence

from diffusion_math.testing.report import Check
from experiments.output.result import HOLDS, Measurement, Table, estimated

VERDICTS = ("sound", "limit", "defect")


def measurements(rows: Sequence[Check]) -> tuple[Measurement, ...]:
    """One row for each verdict."""
    counted = Counter(row.verdict for row in rows)
    sound, limits, defects = (float(counted[one]) for one in VERDICTS)
    return (
        Measurement("audit-sound", "Checks that are sound", sound, None, HOLDS),
        estimated(
            "audit-limit", "Checks with a known limitation, of the method or documented", limits
        ),
        estimated("audit", "Checks with a defect, a claim that is not kept", defects, most=0),
    )


def counts(rows: Sequence[Check]) -> str:
    """How many are sound, then how many limits and defects, where there are some."""
    counted = Counter(row.verdict for row in rows)
    bad = [
        f"{counted[one]} {one}{'s' * (counted[one] > 1)}" for one in VERDICTS[1:] if counted[one]
    ]
    return ", ".join([str(counted["sound"]), *bad])


def fraction(rows: Sequence[Check]) -> str:
    """The same for a narrow column: "12" where all are sound, else sound/limits/defects."""
    counted = Counter(row.verdict for row in rows)
    several = len(rows) > counted["sound"]
    return "/".join(str(counted[one]) for one in (VERDICTS if several else VERDICTS[:1]))


def table(rows: Sequence[Check], caption: str) -> Table:
    """A line for each of these rows."""
    head = ("sampler", "setting", "check", "expected", "measured", "where")
    cells = (
        (row.sampler, row.setting, row.check, str(row.expected), row.shown, row.note)
        for row in rows
    )
    return Table(head, tuple(cells), caption)
