"""The page of the pytest plugin: a row for each check, in one process and with two workers."""

import re
from html.parser import HTMLParser

import pytest

from diffusion_math.testing import page
from tests.support.plugin_runs import FOUR, PLUGIN, lines, project, run

pytest_plugins = ("pytester",)
__all__ = ["project"]


@pytest.mark.slow
def test_two_workers_give_the_same(project: pytest.Pytester) -> None:
    project.makepyfile(test_mine=FOUR)
    out = project.path / "out" / "page.html"
    result = project.runpytest_subprocess("-p", PLUGIN, "-n", "2", "--diffusion-html", str(out))
    shown = lines(result)
    assert re.search(r"1 failed, 1 passed, 1 xfailed, 1 known limitation in", shown)
    assert "test_mine.py::mine::bound: it has order 1 (order 0.9" in shown
    text = out.read_text(encoding="utf-8")
    assert "4 checks: 1 defect, 1 known defect, 1 known limitation, 1 sound" in text


class Cells(HTMLParser):
    """The text of each row's cells; raises for tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_the_page_has_a_row_for_each_check(project: pytest.Pytester) -> None:
    text = (
        FOUR
        + """
@pytest.mark.diffusion(defects={"mended": "issue <4>"})
class Others:
    def mended(self): pass
    def crash(self): raise KeyError("a & b")
    def skipped(self): pytest.skip("no GPU")

def test_of_no_kit(): pass
"""
    )
    shown = lines(run(project, text, "--diffusion-html=out/page.html"))
    path = project.path / "out" / "page.html"
    assert f"diffusion-math page: {path}" in shown
    rows = [tuple(row[:3]) for row in Cells(path.read_text(encoding="utf-8")).rows]
    head = ("check", "verdict", "what was seen")
    assert rows[0] == head and rows[4] == head and len(rows) == 9
    found = {name: (verdict, note) for name, verdict, note in rows if name != "check"}
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "mended": "mended",
        "crash": "error",
        "skipped": "skipped",
        "other": "defect",
        "wrong": "known defect",
        "bound": "known limitation",
        "sound": "sound",
    }
    assert found["wrong"][1] == "issue 3" and found["skipped"][1] == "no GPU"
    assert found["mended"][1] == "issue <4>" and "a & b" in found["crash"][1]
    assert found["other"][1].startswith("a shifted index") and found["sound"][1] == ""


def test_a_page_of_nothing() -> None:
    assert "No check ran." in page.page([])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "wanted the path of a file, got ''"),
        (".", "wanted the path of a file, got '.'"),
        ("test_mine.py/page.html", "wanted the path of a file in a folder that can be written"),
    ],
)
def test_a_wrong_path_is_a_usage_error(project: pytest.Pytester, given: str, message: str) -> None:
    result = run(project, FOUR, f"--diffusion-html={given}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().strip().startswith(f"ERROR: --diffusion-html: {message}")
