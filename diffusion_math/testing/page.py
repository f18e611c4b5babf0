"""Checks and their verdicts as one HTML page, which needs no other file."""

from collections import Counter
from collections.abc import Iterable
from html import escape
from itertools import groupby
from string import Template
from typing import NamedTuple

__all__ = ["VERDICTS", "Row", "page"]

VERDICTS = {
    "defect": "what is claimed is not what is done",
    "error": "the check did not run to its end",
    "mended": "a known defect that did not show: take it off the list",
    "known defect": "a defect that is on the list",
    "known limitation": "a bound that comes with the method or is stated openly",
    "skipped": "not run",
    "sound": "as claimed",
}
"""Each verdict and what it says, the worst first."""

BAD = ("defect", "error", "mended")


class Row(NamedTuple):
    """A check as it is shown.

    Attributes:
        subject: what was checked.
        check: its name.
        verdict: of `VERDICTS`.
        note: what was seen, in words; may have several lines.
        seconds: how long it ran.
    """

    subject: str
    check: str
    verdict: str
    note: str
    seconds: float


PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light; }
body { font: 17px/1.55 system-ui, sans-serif; color: #222; background: #fff; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072b2; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0;
         border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #999; }
td:nth-child(2) { white-space: nowrap; }
th:first-child { width: 12rem; }
th:nth-child(2) { width: 11rem; }
th:last-child, td:last-child { text-align: right; width: 5rem; padding-right: 0; }
pre { margin: 0; min-width: 20rem; font-size: .82rem; white-space: pre-wrap;
      overflow-wrap: anywhere; }
dt { font-weight: 600; float: left; margin-right: .5rem; }
.sound { color: #00704f; font-weight: 600; }
.bad { color: #b23c00; font-weight: 600; }
.open { color: #6b5900; font-weight: 600; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>$counts</p>
$tables
<h2>Verdicts</h2>
<dl>
$verdicts
</dl>
</main>
</body>
</html>
""")

TABLE = Template("""<h2>$subject</h2>
<div class="wide">
<table>
<thead><tr><th>check</th><th>verdict</th><th>what was seen</th><th>seconds</th></tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>""")


def page(rows: Iterable[Row], title: str = "Checks of diffusion code") -> str:
    """The page: a table for each subject, in the order of the names, its worst verdicts first.

    >>> from diffusion_math.testing.page import Row, page
    >>> text = page([Row("mine", "levels", "sound", "", 0.1)])
    >>> "1 check: 1 sound" in text
    True
    """
    order = list(VERDICTS)
    rows = sorted(rows, key=lambda row: (row.subject, order.index(row.verdict)))
    count = Counter(row.verdict for row in rows)
    said = ", ".join(f"{count[verdict]} {verdict}" for verdict in order if count[verdict])
    counts = (
        f"{len(rows)} check{'' if len(rows) == 1 else 's'}: {said}" if rows else "No check ran."
    )
    tables = [
        TABLE.substitute(subject=escape(subject), rows="\n".join(map(_row, group)))
        for subject, group in groupby(rows, key=lambda row: row.subject)
    ]
    verdicts = [
        f"<dt>{verdict}</dt><dd>{meaning}</dd>"
        for verdict, meaning in VERDICTS.items()
        if count[verdict]
    ]
    return PAGE.substitute(
        title=escape(title),
        counts=counts,
        tables="\n".join(tables),
        verdicts="\n".join(verdicts),
    )


def _row(row: Row) -> str:
    color = "bad" if row.verdict in BAD else "sound" if row.verdict == "sound" else "open"
    note = f"<pre>{escape(row.note)}</pre>" if row.note else ""
    return (
        f'<tr><td>{escape(row.check)}</td><td class="{color}">{row.verdict}</td>'
        f"<td>{note}</td><td>{row.seconds:.2f}</td></tr>"
    )
