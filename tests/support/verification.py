"""What is stored of the verification page, against the checkout that it speaks of."""

import math
from pathlib import Path

from experiments.verify.claims import IDS, claim_tests, claims, place
from experiments.verify.run import VERIFIED, ClaimRow, Record, rows, state


def faults(root: Path, record: Record) -> list[str]:
    """Everything in which what is stored differs from the files of a checkout, one line each.

    Measured numbers are not compared, since their last digits are the machine's, but the digest of
    the code that gave them is.
    """
    found, lines = claim_tests(root), record.rows
    # As if everything passed: what is open for another reason stays open.
    expected = rows(claims(root), found, {case.test: (0.0, 0.0) for case in found})
    said = [f"{id}: no row" for id in IDS if id not in {row.id for row in lines}]
    said += [f"{case.test}: no claim {case.id}" for case in found if case.id not in IDS]
    if record.sources != state(root, found):
        said.append("stale: the code has changed since its figures were measured")
    for row in lines:
        for name in (row.function, row.test):
            if name is not None and place(name, root) is None:
                said.append(f"{row.id}: there is no {name}")
        if row.verdict == VERIFIED and not _within(row):
            said.append(f"{row.id}: {row.test} measured {row.measured}, not <= {row.tolerance}")
    old, new = ({_static(row) for row in each} for each in (lines, expected))
    said += [
        f"{row[0]}: on the page, no longer so: {row[2:]}" for row in sorted(old - new, key=str)
    ]
    said += [f"{row[0]}: not on the page: {row[2:]}" for row in sorted(new - old, key=str)]
    return said


def _within(row: ClaimRow) -> bool:
    value, tolerance = row.measured, row.tolerance
    return value is not None and tolerance is not None and value <= tolerance < math.inf


def _static(row: ClaimRow) -> tuple[str | None, ...]:
    return (row.id, row.claim, row.function, row.test, row.bound, row.reason, row.verdict)
