"""Docstrings, which are plain text with `code`, formulas in lines of their own and Google's sections."""

import re

from sphinx.application import Sphinx

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Warns|Yields):$")
CODE = re.compile(r"(`[^`]+`)")
EQUATION = re.compile(r"\(([a-z_]+)\.(\d+)\)")


def prose(line: str, pages: frozenset[str]) -> str:
    """A line of text as reStructuredText: `code` as literal, all else as it stands."""
    parts = CODE.split(line)
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    parts[::2] = [re.sub(r"([*|\\])|_(?!\w)", lambda m: f"\\{m[0]}", part) for part in parts[::2]]
    return EQUATION.sub(
        lambda m: f":doc:`{m[0]} </derivations/{m[1]}>`" if m[1] in pages else m[0], "".join(parts)
    )


def convert(lines: list[str], pages: frozenset[str] = frozenset()) -> list[str]:
    """A docstring's lines as reStructuredText for napoleon.

    An indented block after a blank line is a formula or code and stays as it is, but in a section,
    where indentation is Google's.
    """
    found: list[str] = []
    section = block = False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line and not indent:
            section = SECTION.match(line) is not None
            block = False
        if indent and not section and not block:
            if found and not found[-1].strip():
                found += [".. code-block:: text" if ">>>" not in line else "", ""]
                block = True
            else:
                line = line.lstrip()  # a hanging indent goes on with its paragraph
        verbatim = block or line.lstrip().startswith((">>>", "..."))
        found.append(line if verbatim or not line else prose(line, pages))
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]):
        folder = app.srcdir / "derivations"
        lines[:] = convert(lines, frozenset(path.stem for path in folder.glob("*.md")))

    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
