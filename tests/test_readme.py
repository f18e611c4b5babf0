"""README.md: every snippet runs, every command and link exists, and it stays a landing page."""

import re
import shlex
from pathlib import Path

import pytest

from experiments.__main__ import NAMES, TRAIN
from tests.support.commands import complaint
from tests.support.links import broken
from tests.support.snippets import snippets

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


@pytest.mark.parametrize("code", snippets(README), ids=lambda code: code.splitlines()[-1][:30])
def test_its_snippets_run(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out
    if "close to 0.75" in code:
        (share,) = re.findall(r"0\.\d+", said)
        assert abs(float(share) - 0.75) < 0.05  # fixed seeds; 3.6 standard errors of 1000 samples
    if "testing.audit" in code:
        rows = said.splitlines()[1:]
        assert len(rows) > 5 and all(re.search(r"\bsound\b", row) for row in rows)


def test_its_commands_exist() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:make|diffusion-math|python) [^`]+)`", TEXT)
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", targets, re.M), words
        elif words[:1] == ["diffusion-math"] and words[1] not in ("--help", TRAIN):
            assert words[1] in NAMES
            assert complaint(["experiments", *words[1:]]) == ""
        elif words[:1] == ["python"]:
            assert (ROOT / words[1]).is_file()


def test_its_links_lead_somewhere() -> None:
    assert broken(README) == []


def test_it_is_a_landing_page() -> None:
    assert len(TEXT.splitlines()) <= 150
    order = ["noise-to-data.gif", "## For whom", "## Install", "## Two commands", "## From Python"]
    places = [TEXT.index(one) for one in [*order, "## Where things are", "## Cite"]]
    assert places == sorted(places)
    assert "Green frame" in TEXT and "orange frame" in TEXT
