"""Links of the docs lead somewhere, on GitHub as on the site, and each page says for whom it is."""

import re
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
FENCED = re.compile(r"^```.*?^```$", re.M | re.S)
INLINE = re.compile(r"`[^`\n]*`")
BUILT = "reference/"  # pages that only the site has


def text(path: Path) -> str:
    """The Markdown of a page or of a notebook, its code left out."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, nbformat.NO_CONVERT).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def pages(root: Path) -> list[Path]:
    """Every page below a folder that the site and GitHub both show."""
    found = [*root.glob("*.md"), *root.glob("derivations/*.md"), *root.glob("notebooks/*.ipynb")]
    return sorted(found)


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


@pytest.mark.parametrize("path", pages(DOCS), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


@pytest.mark.parametrize("path", pages(DOCS), ids=lambda path: str(path.relative_to(DOCS)))
def test_the_first_line_says_for_whom(path: Path) -> None:
    paragraphs = [part for part in text(path).split("\n\n") if part.strip()]
    assert paragraphs[0].startswith("# ")
    if path.stem != "verification":  # written by `python -m experiments verify`
        assert paragraphs[1].startswith("For "), paragraphs[1]


def test_every_page_is_in_the_navigation() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = "".join(re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.M | re.S))
    entries = set(re.findall(r"^(?:[^:].*<)?([\w/-]+)>?$", trees, re.M))
    named = {str(path.relative_to(DOCS).with_suffix("")) for path in pages(DOCS)} - {"index"}
    index = text(DOCS / "derivations" / "README.md")
    linked = {f"derivations/{name}" for name in re.findall(r"\]\((\w+)\.md\)", index)}
    assert named == {entry for entry in entries if not entry.startswith(BUILT)} | linked


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A: b\n\n[x](gone.md) [y](#a-b) [z](page.md#no) [w](https://a.b)\n")
    assert broken(page) == ["gone.md", "page.md#no"]
