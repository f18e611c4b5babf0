"""The how-to pages: every Python snippet runs, and every command has flags that exist.

Those of audit-your-sampler are run by tests/experiments/audit/test_your_sampler.py.
"""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import tyro

from experiments.__main__ import NAMES, TRAIN
from sd.train.__main__ import All
from sd.train.own_options import OwnModel

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("bring-your-own-model", "own-solver", "load-a-checkpoint", "controlnet")
PAGES += ("class-labels", "train", "few-steps")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return [code for kind, code in BLOCK.findall(text) if kind == language]


def commands(page: str) -> list[list[str]]:
    """The words after `diffusion-math` or `python -m experiments` of every command on a page."""
    found = blocks(page, "sh") + blocks(page, "bash") + blocks(page, "")
    text = "\n".join(found).replace("\\\n", " ")
    lines = re.findall(r"^(?:\S*python -m experiments|diffusion-math) (.+)$", text, re.M)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in an empty folder; a snippet may use what those before it made."""
    monkeypatch.chdir(tmp_path)
    code = blocks(page, "python")
    assert code
    names: dict[str, object] = {"__name__": "__main__"}
    for number, snippet in enumerate(code, 1):
        exec(compile(snippet, f"{page}.md, snippet {number}", "exec"), names)


@pytest.mark.parametrize("page", sorted(path.stem for path in DOCS.glob("*.md")))
def test_commands_are_understood(page: str) -> None:
    for name, *flags in commands(page):
        if name == TRAIN:
            tyro.cli(OwnModel if "--data" in flags else All, args=flags)
            continue
        assert name in NAMES, f"{page}: {name}"
        config = import_module(f"experiments.{name.replace('-', '_')}").Config
        tyro.cli(config, args=flags, config=(tyro.conf.OmitArgPrefixes,))
