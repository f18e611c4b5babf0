"""Results as Markdown and as HTML; both show the figures that lie beside them."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

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
    rows_json,
)
from sd.files.image_file import open_image

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 17px/1.55 system-ui, sans-serif; color: #222; background: #fff; margin: 0; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.2rem 4rem; overflow-wrap: break-word; }
h1 { font-size: 2.1rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { margin-top: 3rem; border-bottom: 2px solid #0072b2; padding-bottom: .2rem; }
h3 { margin-top: 2rem; }
h1, h2, h3 { scroll-margin-top: 3.5rem; }
p { max-width: 48rem; }
figure { margin: 1.6rem 0; }
figure img { max-width: 100%; height: auto; }
figcaption, caption { color: #555; font-size: .92rem; max-width: 48rem; text-align: left; }
figcaption { margin-top: .4rem; }
caption { caption-side: bottom; padding-top: .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem 0; font-size: .92rem;
        font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd;
         vertical-align: top; overflow-wrap: normal; }
th { border-bottom: 2px solid #999; }
.holds { color: #00704f; font-weight: 600; }
.fails { color: #b23c00; font-weight: 600; }
.open { color: #6b5900; font-weight: 600; }
nav { position: sticky; top: 0; z-index: 1; background: #f4f6f8; font-size: .92rem; }
nav label { display: block; padding: .6rem 1.2rem; font-weight: 600; cursor: pointer; }
nav input { position: absolute; opacity: 0; }
nav input:focus-visible + label { outline: 2px solid #0072b2; outline-offset: -2px; }
nav ul { display: none; list-style: none; margin: 0; padding: 0 1.2rem 1rem;
         max-height: 70vh; overflow-y: auto; }
nav input:checked ~ ul { display: block; }
nav a { display: block; padding: .25rem 0; color: #005a8c; text-decoration: none; }
nav a:hover { text-decoration: underline; }
@media (min-width: 60rem) {
  body { display: grid; grid-template-columns: 17rem minmax(0, 1fr); }
  nav { height: 100vh; overflow-y: auto; }
  nav ul { display: block; max-height: none; }
  nav label { cursor: default; padding-top: 1.5rem; }
  h1, h2, h3 { scroll-margin-top: 1rem; }
}
"""

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
    blocks = [f"# {title}", *(_markdown(part) for part in lead)]
    for result in results:
        if len(results) > 1:
            blocks.append(f"## {result.title}")
        blocks += [_markdown(part) for part in (*result.parts, *_claims(result))]
    return "\n\n".join(blocks) + "\n"


def _claims(result: Result) -> tuple[Part, ...]:
    return (Heading("Claims and measurements"), rows_table(result.rows)) if result.rows else ()


def _markdown(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Heading):
        return f"### {part.text}"
    if isinstance(part, Figure):
        alt = part.alt.replace("[", "(").replace("]", ")")
        return f"![{alt}]({part.name})\n\n*{part.caption}*"
    lines = [part.header, ("---",) * len(part.header), *part.rows]
    table = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
    return f"{table}\n\n*{part.caption}*"


def html(title: str, results: Sequence[Result], lead: Sequence[Part] = ()) -> str:
    """The same as one HTML file, with a contents list at its side; images load as they are seen."""
    blocks = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        *([_contents(title, results)] if len(results) > 1 else []),
        f'<main><h1 id="top">{escape(title)}</h1>',
        *(_html(part) for part in lead),
    ]
    for result in results:
        blocks.append(f'<h2 id="{result.name}">{escape(result.title)}</h2>')
        blocks += [_html(part) for part in (*result.parts, *_claims(result))]
    return "\n".join([*blocks, "</main></body></html>", ""])


def _contents(title: str, results: Sequence[Result]) -> str:
    """Links to the sections: at the side of a wide window, behind a button on a narrow one."""
    links = [("top", title), *((result.name, result.title) for result in results)]
    items = "".join(f'<li><a href="#{name}">{escape(text)}</a></li>' for name, text in links)
    button = '<input type="checkbox" id="contents"><label for="contents">Contents</label>'
    return f"<nav>{button}<ul>{items}</ul></nav>"


def _html(part: Part) -> str:
    if isinstance(part, str):
        pieces = escape(part).split("`")
        text = "".join(f"<code>{one}</code>" if i % 2 else one for i, one in enumerate(pieces))
        return f"<p>{text}</p>"
    if isinstance(part, Heading):
        return f"<h3>{escape(part.text)}</h3>"
    if isinstance(part, Figure):
        wide, high = open_image(part.image, part.name).size
        image = (
            f'<img src="{quote(part.name)}" alt="{escape(part.alt)}" width="{wide}" '
            f'height="{high}" loading="lazy">'
        )
        return f"<figure>{image}<figcaption>{escape(part.caption)}</figcaption></figure>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in part.header)
    body = "\n".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in part.rows)
    caption = f"<caption>{escape(part.caption)}</caption>"
    table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _cell(text: str) -> str:
    mark = f' class="{MARKS[text]}"' if text in MARKS else ""
    return f"<td{mark}>{escape(text)}</td>"


def write(result: Result, folder: Path) -> list[Path]:
    """Write a result as NAME.md, NAME.json and its images."""
    record = {"name": result.name, "rows": rows_json(result.rows), **result.data}
    files = {figure.name: figure.image for figure in result.figures if figure.image}
    files[f"{result.name}.json"] = to_json(record)
    files[f"{result.name}.md"] = utf8(markdown(result.title, [result]))
    return write_files(folder, files)
