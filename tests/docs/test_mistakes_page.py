"""docs/mistakes.md: written from the catalogue; each wrong line is named, none is left out."""

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.usefixtures("unchecked")  # many calls; shapes have tests of their own

DOCS = Path(__file__).resolve().parents[2] / "docs"
KINDS = re.compile(r"\b(eps|x0|v|flow|score)\b(?= is predicted|, where| with the sign)")


@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    """docs/mistakes.py."""
    sys.path.insert(0, str(DOCS))
    yield import_module("mistakes")
    sys.path.remove(str(DOCS))


def test_the_page_is_of_today_s_catalogue(pages: ModuleType) -> None:
    assert (DOCS / "mistakes.md").read_text(encoding="utf-8") == pages.page()


def test_the_names_of_the_how_to_are_today_s(pages: ModuleType) -> None:
    text = (DOCS / "check-your-code.md").read_text(encoding="utf-8")
    assert pages.names() in text and text == pages.with_names(text)


def test_right_code_passes_and_every_known_mistake_is_on_the_page(pages: ModuleType) -> None:
    page = (DOCS / "mistakes.md").read_text(encoding="utf-8")
    shown = {KINDS.sub("K", row.split(" | ")[1]) for row in page.splitlines() if "` | " in row}
    known: set[str] = set()
    for subject in pages.GALLERY:
        with pages.recorded() as names:
            subject.check(pages.program(subject.right))
        known |= {KINDS.sub("K", name.replace("|", "&#124;")) for name in names}
    assert sorted(known - shown) == []
    more = {name for name in shown - known if not name.startswith("the inverse takes ")}
    assert more == set()  # an inverse is compared with those that fit alone


def test_a_line_that_is_right_is_no_mistake(pages: ModuleType) -> None:
    subject = pages.GALLERY[0]
    with pytest.raises(ValueError, match="wanted a mistake, got none"):
        pages.diagnosis(subject, subject.right[0])
    with pytest.raises(ValueError, match="wanted one mistake, got q_sample: wrong"):
        pages.diagnosis(subject, "x_t = 0.123 * x0 + sigma * noise.roll(0) * 1.4")
