"""The report's table, line by line."""

import pytest

from diffusion_math.testing.convergence import Fit
from diffusion_math.testing.report import Check, Report, together


def row(check, expected, measured, verdict="sound", note=""):
    return Check("", "", "subject", "", check, expected, measured, verdict, note)


GRID = row("grid", "0 faults", 0.0)
ORDER = row("order", 2, Fit(1.0, 0.9, 1.1, 1.0, 1.0, (), (), False), "defect", "errors 1, 0.5")


def test_the_table_has_columns_and_ends_its_lines_without_blanks():
    assert str(Report((GRID, ORDER))).splitlines() == [
        "check  expected  measured             verdict  note",
        "grid   0 faults  0                    sound",
        "order  2         1.00 (0.90 to 1.10)  defect   errors 1, 0.5",
    ]


def test_an_empty_cell_at_the_start_of_a_line_keeps_its_column():
    assert str(Report((row("", "a", "b"),))).splitlines()[1] == "       a         b         sound"


@pytest.mark.parametrize("rows", [(), ((GRID,),), ((GRID, ORDER), (), (ORDER,))])
def test_reports_together_have_all_rows_in_their_order(rows):
    found = together(Report(one) for one in rows)
    assert found == Report(tuple(each for one in rows for each in one))
