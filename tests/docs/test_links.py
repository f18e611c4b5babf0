"""Links of the docs lead somewhere, and each page says for whom it is, and nothing twice."""

import re
from pathlib import Path

import pytest

from tests.support.links import broken, text

DOCS = Path(__file__).resolve().parents[2] / "docs"
BUILT = "reference/"  # pages that only the site has


def pages(root: Path) -> list[Path]:
    """Every page below a folder that the site and GitHub both show."""
    found = [*root.glob("*.md"), *root.glob("derivations/*.md"), *root.glob("notebooks/*.ipynb")]
    return sorted(found)


@pytest.mark.parametrize("path", pages(DOCS), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken(path) == []


@pytest.mark.parametrize("path", pages(DOCS), ids=lambda path: str(path.relative_to(DOCS)))
def test_the_first_line_says_for_whom(path: Path) -> None:
    paragraphs = [part for part in text(path).split("\n\n") if part.strip()]
    assert paragraphs[0].startswith("# ")
    if path.stem != "verification":  # written by `python -m experiments verify`
        assert paragraphs[1].startswith("For "), paragraphs[1]


@pytest.mark.parametrize("path", pages(DOCS), ids=lambda path: str(path.relative_to(DOCS)))
def test_no_page_says_a_line_twice(path: Path) -> None:
    lines = [line for line in text(path).splitlines() if len(line) > 100 and line[0] != "|"]
    assert sorted(lines) == sorted(set(lines))


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
