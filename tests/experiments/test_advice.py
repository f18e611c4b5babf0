"""What a message tells the user to type is there: every flag that is named, for who can see it."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import NAMES, TRAIN
from sd.command_line import flags

ROOT = Path(__file__).resolve().parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]*")
OTHERS = {
    "--help",
    "--junitxml",  # pytest's
    "--porcelain",  # git's
    "--short",
}
"""Flags of the parser and of other programs."""


def accepted(kind: Any) -> set[str]:
    return set(flags.flags_of(kind))


def of_command(name: str) -> set[str]:
    return accepted(importlib.import_module(f"experiments.{name.replace('-', '_')}").Config)


COMMANDS = {name: of_command(name) for name in NAMES}
EVERY = set().union(*COMMANDS.values())


@cache
def words(path: Path) -> set[str]:
    """The flags in a file's strings, docstrings too."""
    source = path.read_text(encoding="utf-8")
    constants = ast.walk(ast.parse(source)) if FLAG.search(source) else ()
    texts = [one.value for one in constants if isinstance(one, ast.Constant)]
    return {flag for text in texts if isinstance(text, str) for flag in FLAG.findall(text)}


SOURCES = [
    path.relative_to(ROOT)
    for room in ("experiments", "sd", "diffusion_math")
    for path in sorted((ROOT / room).rglob("*.py"))
    if words(path) - OTHERS
    and "train" not in path.parts
    and path.name not in ("flags.py", "spelling.py")
]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_flag_that_is_named_exists(path: Path) -> None:
    """A command's own file may name its own flags; what commands share, those of any of them."""
    own = path.stem.replace("_", "-")
    known = COMMANDS[own] if path.parts[0] == "experiments" and own in COMMANDS else EVERY
    assert words(ROOT / path) - known - OTHERS == set()


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")], key=lambda path: path.name)
CALL = re.compile(
    r"(?:^|`)(?:\.venv/bin/)?diffusion-math ([a-z][a-z-]*)((?:[^\n`|]|\\\n)*)", re.MULTILINE
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_on_a_page_has_its_flags(path: Path) -> None:
    for name, rest in CALL.findall(path.read_text(encoding="utf-8")):
        if name == TRAIN:
            continue
        assert name in COMMANDS, f"{path.name}: {name}"
        assert set(FLAG.findall(rest)) <= COMMANDS[name] | OTHERS, f"{path.name}: {name}{rest}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_spell_commands_in_one_form(path: Path) -> None:
    assert "python -m experiments" not in path.read_text(encoding="utf-8")
