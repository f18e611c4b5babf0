"""Results as Markdown, and as one HTML file that needs no other."""

import base64
import html as escape
from collections.abc import Sequence
from pathlib import Path

from experiments.output.files import to_json, utf8, write_files
from experiments.output.result import FAILS, HOLDS, Figure, Measurement, Result, Table, rows_json

STYLE = """
:root { color-scheme: light; }
body { font: 17px/1.55 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 64rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { margin-top: 3rem; border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
p { max-width: 48rem; }
figure { margin: 1.6rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption, caption { color: #555; font-size: .92rem; max-width: 48rem; text-align: left; }
figcaption { margin-top: .4rem; }
caption { caption-side: bottom; padding-top: .4rem; }
table { border-collapse: collapse; margin: 1.2rem 0; font-size: .92rem;
        font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd;
         vertical-align: top; }
th { border-bottom: 2px solid #999; }
.holds { color: #00704f; font-weight: 600; }
.fails { color: #b23c00; font-weight: 600; }
nav a { margin-right: 1.1rem; }
"""


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


def markdown(title: str, results: Sequence[Result], lead: Sequence[str | Table] = ()) -> str:
    """The results as Markdown that shows the figures beside it."""
    blocks = [f"# {title}", *(_markdown(part) for part in lead)]
    for result in results:
        if len(results) > 1:
            blocks.append(f"## {result.title}")
        blocks += [_markdown(part) for part in result.parts]
        if result.rows:
            blocks.append(_markdown(rows_table(result.rows)))
    return "\n\n".join(blocks) + "\n"


def _markdown(part: str | Figure | Table) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Figure):
        alt = part.alt.replace("[", "(").replace("]", ")")
        return f"![{alt}]({part.name})\n\n*{part.caption}*"
    lines = [part.header, ("---",) * len(part.header), *part.rows]
    table = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
    return f"{table}\n\n*{part.caption}*"


def html(title: str, results: Sequence[Result], lead: Sequence[str | Table] = ()) -> str:
    """The same as one HTML file, images inlined; it loads nothing from anywhere."""
    links = "".join(f'<a href="#{r.name}">{escape.escape(r.title)}</a> ' for r in results)
    blocks = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape.escape(title)}</h1>",
        *(_html(part) for part in lead),
        *([f"<nav>{links}</nav>"] if len(results) > 1 else []),
    ]
    for result in results:
        blocks.append(f'<h2 id="{result.name}">{escape.escape(result.title)}</h2>')
        blocks += [_html(part) for part in result.parts]
        if result.rows:
            blocks.append(_html(rows_table(result.rows)))
    return "\n".join([*blocks, "</body></html>", ""])


def _html(part: str | Figure | Table) -> str:
    if isinstance(part, str):
        pieces = escape.escape(part).split("`")
        text = "".join(f"<code>{one}</code>" if i % 2 else one for i, one in enumerate(pieces))
        return f"<p>{text}</p>"
    if isinstance(part, Figure):
        kind = part.name.rpartition(".")[2]
        source = f"data:image/{kind};base64," + base64.b64encode(part.image).decode("ascii")
        image = f'<img src="{source}" alt="{escape.escape(part.alt)}">'
        return f"<figure>{image}<figcaption>{escape.escape(part.caption)}</figcaption></figure>"
    head = "".join(f"<th>{escape.escape(cell)}</th>" for cell in part.header)
    body = "\n".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in part.rows)
    caption = f"<caption>{escape.escape(part.caption)}</caption>"
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<table>{caption}{table}</table>"


def _cell(text: str) -> str:
    mark = {HOLDS: ' class="holds"', FAILS: ' class="fails"'}.get(text, "")
    return f"<td{mark}>{escape.escape(text)}</td>"


def write(result: Result, folder: Path) -> list[Path]:
    """Write a result as NAME.md, NAME.json and its pictures."""
    record = {"name": result.name, "rows": rows_json(result.rows), **result.data}
    files = {figure.name: figure.image for figure in result.figures if figure.image}
    files[f"{result.name}.json"] = to_json(record)
    files[f"{result.name}.md"] = utf8(markdown(result.title, [result]))
    return write_files(folder, files)
