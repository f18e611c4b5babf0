"""Files whole or absent, JSON that any reader takes."""

import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from experiments.output import files, page, result
from experiments.output.result import Figure, Heading, Measurement, Result, Table

PIXELS = io.BytesIO()
Image.new("RGB", (3, 2)).save(PIXELS, "png")
PNG = PIXELS.getvalue()
RESULT = Result(
    "one",
    "A title",
    (Measurement("one", "a | claim", 0.5, (0.25, math.inf), "holds"),
     Measurement("two", "b", "text", None, "-")),
    ("Words with `code` & <angle>.", Figure("a.png", PNG, "See this.", "alt [text]"),
     Table(("x", "y"), (("1", "a|b"),), "numbers")),
    {"settings": {"out": Path("here")}, "nan": math.nan},
)  # fmt: skip


def test_write_is_whole(tmp_path: Path) -> None:
    written = page.write(RESULT, tmp_path)
    assert sorted(path.name for path in written) == ["a.png", "one.json", "one.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "one.json", "one.md"]
    record = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert record["rows"][0]["interval"] == [0.25, None]  # JSON has no infinity
    assert record["settings"] == {"out": "here"}
    assert record["nan"] is None
    text = (tmp_path / "one.md").read_text(encoding="utf-8")
    assert "![alt (text)](a.png)" in text
    assert "| 1 | a\\|b |" in text


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    (tmp_path / "b.png").mkdir()  # the last rename can't replace a folder
    with pytest.raises(ValueError, match="can't write"):
        files.write_files(tmp_path, {"b.png": PNG, "c.png": PNG})
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("ends", "least", "most"),
    [
        ((0.2, 0.4), "holds", "does not hold"),
        ((0.0, 0.1), "does not hold", "holds"),
        ((0.1, 0.3), "inconclusive", "inconclusive"),
    ],
)
def test_verdicts(ends: tuple[float, float], least: str, most: str) -> None:
    found = (0.2, ends)
    assert verdict(found, least=0.15) == verdict(found, more=0.15) == least
    assert verdict(found, most=0.15) == verdict(found, less=0.15) == most


def verdict(found: float | tuple[float, tuple[float, float]], **bound: float) -> str:
    return result.estimated("n", "c", found, **bound).verdict


def test_equality_is_at_least_and_at_most_but_not_above_or_below() -> None:
    at_zero, up, down = ((0.0, ends) for ends in ((0.0, 0.0), (0.0, 0.1), (-0.1, 0.0)))
    assert verdict(at_zero, least=0.0) == verdict(at_zero, most=0.0) == "holds"
    assert verdict(at_zero, more=0.0) == verdict(at_zero, less=0.0) == "does not hold"
    assert verdict(up, more=0.0) == verdict(down, less=0.0) == "inconclusive"


@pytest.mark.parametrize(
    ("ends", "verdict_near"),
    [
        ((-0.1, 0.1), "holds"), ((-0.1, 0.11), "inconclusive"), ((-0.2, 0.0), "inconclusive"),
        ((0.1, 0.2), "inconclusive"), ((0.11, 0.2), "does not hold"),
        ((-0.2, -0.11), "does not hold"),
    ],
)  # fmt: skip
def test_near_zero_on_both_sides(ends: tuple[float, float], verdict_near: str) -> None:
    assert verdict((0.0, ends), near=0.1) == verdict_near


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.1, "holds"), (0.2, "does not hold"), (math.nan, "does not hold")]
)
def test_an_exact_figure_is_within_its_bound_or_not(value: float, wanted: str) -> None:
    assert verdict(value, most=0.1) == wanted


class Reader(HTMLParser):
    """Sources of images and the balance of tags."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(str(dict(attrs)["src"]))
        elif tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_html_links_its_images_and_escapes() -> None:
    text = page.html("Title & more", [RESULT], ["A lead."])
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.sources == ["a.png"]
    assert 'width="3" height="2" loading="lazy"' in text
    assert "http" not in text
    assert "<angle>" in " ".join(reader.words)
    assert "<nav>" not in text  # a list of one link leads nowhere
    two = page.html("Two", [RESULT, RESULT])
    assert '<a href="#one">A title</a>' in two


def test_headings_in_both_forms() -> None:
    parted = replace(RESULT, parts=(Heading("Part & parcel"), *RESULT.parts))
    assert "<h3>Part &amp; parcel</h3>" in page.html("T", [parted])
    assert "\n### Part & parcel\n" in page.markdown("T", [parted])


@pytest.mark.parametrize("verdict", ["holds", "does not hold", "inconclusive"])
def test_too_few_samples_decide_nothing(verdict: str) -> None:
    row = Measurement("a", "b", 0.5, None, verdict)
    assert row.needing(100, 100) == row
    assert row.needing(100, 99) == replace(row, verdict="too few samples")
    measured = replace(row, verdict="measured")
    assert measured.needing(100, 99) == measured


def test_numbers_are_short() -> None:
    assert [page.number(x) for x in (0.123456, 12345.6, "text", math.inf)] == [
        "0.123",
        "12,346",
        "text",
        "inf",
    ]


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        ({}, "measured"), ({"least": 0.4}, "holds"), ({"least": 0.5}, "inconclusive"),
        ({"least": 0.7}, "does not hold"), ({"most": 0.6}, "holds"),
        ({"most": 0.3}, "does not hold"),
        ({"more": 0.4}, "inconclusive"), ({"more": 0.3}, "holds"),
    ],
)  # fmt: skip
def test_an_estimate_is_judged_by_its_interval(bound: dict[str, float], verdict: str) -> None:
    found = result.estimated("a", "b", (0.5, (0.4, 0.6)), **bound)
    assert found == Measurement("a", "b", 0.5, (0.4, 0.6), verdict)


def test_an_exact_value_is_judged_by_itself() -> None:
    assert result.estimated("a", "b", 2.0, most=2.0) == Measurement("a", "b", 2.0, None, "holds")
    assert result.estimated("a", "b", 2.0, more=2.0).verdict == "does not hold"
