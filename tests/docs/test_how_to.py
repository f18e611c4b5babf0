"""The how-to pages: every Python snippet runs, and every command has flags that exist."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tyro

from experiments.__main__ import NAMES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("bring-your-own-model", "load-a-checkpoint", "train")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return [code for kind, code in BLOCK.findall(text) if kind == language]


def commands(page: str) -> list[list[str]]:
    """The words after `python -m experiments` of every command on a page."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if "-m experiments " in line]
    return [words[words.index("experiments") + 1 :] for words in found]


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in a folder of their own; a snippet may use what those before it made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    code = blocks(page, "python")
    assert code
    names: dict[str, object] = {"__name__": "__main__"}
    for number, snippet in enumerate(code):
        if page == "audit-your-sampler" and number == 0:
            (tmp_path / "mine.py").write_text(snippet, encoding="utf-8")
        exec(compile(snippet, f"{page}.md, snippet {number + 1}", "exec"), names)
        for name in [name for name in names if name.startswith("test_")]:
            names.pop(name)()  # type: ignore[operator]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page: str) -> None:
    for name, *flags in commands(page):
        assert name in NAMES, f"{page}: {name}"
        config = import_module(f"experiments.{name.replace('-', '_')}").Config
        tyro.cli(config, args=flags, config=(tyro.conf.OmitArgPrefixes,))
