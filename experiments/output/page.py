"""Results as Markdown and as HTML; both show the figures that lie beside them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from experiments.output.files import to_json, utf8, write_files
from experiments.output.result import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    TOO_FEW,
    Figure,
    Heading,
    Measurement,
    Part,
    Result,
    Table,
)
from sd.files.image_file import open_image

MARKS = {HOLDS: "holds", FAILS: "fails", INCONCLUSIVE: "open", TOO_FEW: "open"}
"""How the page colors a verdict."""


def number(value: float | str) -> str:
    """A measured value as text, three digits of it."""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if not abs(value) >= 1e3 else f"{value:,.0f}"


def interval(row: Measurement) -> str:
    """The interval as text, or a dash."""
    if row.interval is None:
        return "–"
    low, high = row.interval
    return f"[{number(low)}, {number(high)}]"


def rows_table(rows: Sequence[Measurement]) -> Table:
    """The rows of `report.json` as a table."""
    cells = tuple((r.name, r.claim, number(r.measured), interval(r), r.verdict) for r in rows)
    caption = "Intervals are at 95% unless the claim says otherwise."
    return Table(("name", "claim", "measured", "interval", "verdict"), cells, caption)


def markdown(title: str, results: Sequence[Result], lead: Sequence[Part] = ()) -> str:
    """The results as Markdown that shows the figures beside it."""
    blocks = [f"# {title}", *(markdown_of(part) for part in lead)]
    for result in results:
        if len(results) > 1:
            blocks.append(f"## {result.title}")
        blocks += [markdown_of(part) for part in _parts(result)]
    return "\n\n".join(blocks) + "\n"


def _parts(result: Result) -> tuple[Part, ...]:
    """The result's own parts, then the table of its claims."""
    claims = (Heading("Claims and measurements"), rows_table(result.rows))
    return (*result.parts, *(claims if result.rows else ()))


def markdown_of(part: Part) -> str:
    """A paragraph, heading, figure or table as Markdown."""
    if isinstance(part, str):
        return part
    if isinstance(part, Heading):
        return f"### {part.text}"
    if isinstance(part, Figure):
        alt = part.alt.replace("[", "(").replace("]", ")")
        return f"![{alt}]({part.name})\n\n*{part.caption}*"
    return f"{markdown_table(part.header, part.rows)}\n\n*{part.caption}*"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table."""
    lines = [header, ("---",) * len(header), *rows]
    escaped = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "\n".join(f"| {line} |" for line in escaped)


def html(title: str, results: Sequence[Result], lead: Sequence[Part] = ()) -> str:
    """The same as one HTML file, with a contents list at its side; images load as they are seen."""
    options: dict[str, Any] = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=PackageLoader("experiments.output", ""), **options)
    given = {"parts": _parts, "marks": MARKS, "open_image": open_image}
    template = environment.get_template("page.html", globals=given)
    return template.render(title=title, results=results, lead=lead) + "\n"


def write(result: Result, folder: Path) -> list[Path]:
    """Write a result as NAME.md, NAME.json and its images."""
    record = {"name": result.name, "rows": result.rows, **result.data}
    files = {figure.name: figure.image for figure in result.figures if figure.image}
    files[f"{result.name}.json"] = to_json(record)
    files[f"{result.name}.md"] = utf8(markdown(result.title, [result]))
    return write_files(folder, files)
