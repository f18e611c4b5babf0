"""The pages of the reference that are written at each build: the API and the command line."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from pkgutil import walk_packages
from unittest.mock import patch

from sphinx.application import Sphinx

import diffusion_math
from experiments.__main__ import NAMES, main

ALSO = ("sd.pipeline", "sd.loading", "sd.checkpoint", "sd.config")
"""Modules of the reference outside of diffusion_math."""


def modules() -> list[str]:
    """Every public module: those of diffusion_math by their names, then those of sd."""
    found = [one.name for one in walk_packages(diffusion_math.__path__, "diffusion_math.")]
    return ["diffusion_math", *(n for n in found if "._" not in n), *ALSO]


def summary(module: str) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = (getdoc(import_module(module)) or "").split("\n\n")[0]
    return " ".join(text.split()).rstrip(".")


def exported(module: str) -> Iterator[str]:
    """The names of a package as links to where they are documented."""
    package = import_module(module)
    for name in sorted(getattr(package, "__all__", ())):
        thing = getattr(package, name)
        home = getattr(thing, "__module__", None)
        if home and home != module and home.startswith(("diffusion_math", "sd")):
            yield f"- {{py:obj}}`{name} <{home}.{getattr(thing, '__qualname__', name)}>`"
        else:
            yield f"- `{name}`"


def module_page(module: str, derivations: Path) -> str:
    """The page of one module."""
    stem = module.rpartition(".")[2]
    lines = [f"# {module}", "", f"For callers of `{module}`: every public name, its formula, shapes and errors."]
    if (derivations / f"{stem}.md").exists():
        lines += ["", f"The formulas are derived in [{stem}](/derivations/{stem}.md)."]
    package = hasattr(import_module(module), "__path__")
    lines += ["", "```{eval-rst}", f".. automodule:: {module}"]
    lines += ["   :no-members:"] * package
    lines += ["```", ""]
    if package:
        lines += ["## Names", "", *exported(module)]
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """The index of the API: one line a module, and the pages in the order of the table."""
    rows = [f"| [{one}](api/{one}.md) | {summary(one).replace('|', '&#124;')} |" for one in modules()]
    pages = [f"{one.removeprefix('diffusion_math.')} <api/{one}>" for one in modules()]
    return "\n".join(
        [
            "# API",
            "",
            "For callers of the library: find the module of a subject, then its functions with their formulas, "
            "shapes and errors.",
            "",
            "| module | what it holds |",
            "| --- | --- |",
            *rows,
            "",
            "```{toctree}",
            ":hidden:",
            *pages,
            "```",
            "",
        ]
    )


def help_of(*words: str) -> str:
    """What the command line prints for these words and `--help`, without colors."""
    said = io.StringIO()
    size = {"COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"}
    with patch.dict(os.environ, size), contextlib.redirect_stdout(said):
        main([*words, "--help"])
    return re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).rstrip()


def cli_page() -> str:
    """The page of the command line: the overview, and the help of each command."""
    lines = [
        "# Command line",
        "",
        "For users of the terminal: every command and every flag, as `--help` prints them.",
        "",
        "```text",
        help_of(),
        "```",
    ]
    for name in NAMES:
        lines += ["", f"## {name}", "", "```text", help_of(name), "```"]
    return "\n".join(lines) + "\n"


def write(app: Sphinx) -> None:
    """Write the pages into the source folder; those that have not changed stay as they are."""
    folder = Path(app.srcdir) / "reference"
    pages = {"api": api_page(), "cli": cli_page()}
    for module in modules():
        pages[f"api/{module}"] = module_page(module, Path(app.srcdir) / "derivations")
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for stale in folder.rglob("*.md"):
        if str(stale.relative_to(folder).with_suffix("")) not in pages:
            stale.unlink()


def navigation(app: Sphinx, docname: str, content: list[str]) -> None:
    """Give the index of derivations, which is a plain table on GitHub, its pages as entries."""
    if docname == "derivations/README":
        pages = dict.fromkeys(re.findall(r"\]\((\w+)\.md\)", content[0]))
        content[0] += "\n".join(["", "```{toctree}", ":hidden:", *pages, "```", ""])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("source-read", navigation)
    return {"parallel_read_safe": True}
