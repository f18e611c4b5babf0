"""Relative links of the docs, and where they lead."""

import re
from pathlib import Path

import nbformat

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
INLINE = re.compile(r"`[^`\n]*`")


def text(path: Path) -> str:
    """The Markdown of a page or of a notebook, its code left out."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, nbformat.NO_CONVERT).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST both make them."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text(path))]
    return {heading.strip().replace(" ", "-") for heading in plain}


def broken(path: Path) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading of a page."""
    wrong = []
    for target in LINK.findall(INLINE.sub("", text(path))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, fragment = target.partition("#")
        place = (path.parent / name) if name else path
        headed = place.suffix == ".md" and fragment
        if not place.exists() or (headed and fragment not in anchors(place)):
            wrong.append(target)
    return wrong
