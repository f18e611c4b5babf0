"""Links into the code: a page for each linked source file, and names in the text to the reference."""

import re
from collections.abc import Iterator
from importlib import import_module
from inspect import getsourcelines, ismodule, unwrap
from os.path import relpath
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx

import diffusion_math

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s#:]+)((?:#[^)\s]*)?)\)")

LINKED: set[str] = set()
"""The files that pages link, from the root of the checkout."""


def page(path: str) -> str:
    """The name of a source file's page."""
    LINKED.add(path)
    return f"source/{path}"


def relative(docname: str, path: str) -> str:
    """A source file's page as a URL from another page."""
    return relpath(f"{page(path)}.html", Path(docname).parent)


def rewrite(app: Sphinx, docname: str, content: list[str]) -> None:
    """Turn a page's links to Python files and folders of the checkout into links within the site."""
    folder = (Path(app.srcdir) / docname).parent

    def target(link: re.Match[str]) -> str:
        path, line = link.groups()
        place = (folder / path).resolve()
        if place.is_dir() and place.is_relative_to(ROOT):
            return f"](source:{relpath('reference/api.html', Path(docname).parent)})"
        if place.suffix == ".py" and place.is_file() and place.is_relative_to(ROOT):
            return f"](source:{relative(docname, str(place.relative_to(ROOT)))}{line})"
        return link[0]

    content[0] = LINK.sub(target, content[0])


def linkcode_resolve(domain: str, info: dict[str, str], docname: str) -> str | None:
    """The line where an object of the reference is defined, or None where it has no file."""
    if not info["module"]:
        return None
    thing: Any = import_module(info["module"])
    for name in info["fullname"].split("."):
        thing = getattr(thing, name, None)
    thing = unwrap(getattr(thing, "fget", None) or getattr(thing, "func", thing))
    try:
        lines, start = getsourcelines(thing)
        path = Path(import_module(thing.__module__).__file__).relative_to(ROOT)
    except (TypeError, OSError, AttributeError, ValueError):
        return None
    return f"{relative(docname, str(path))}#L{start}"


def link_names(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn `dm.name` and `diffusion_math.name` in the text of a page into links to the reference."""
    documented = app.env.domains["py"].objects
    for literal in list(doctree.findall(nodes.literal)):
        path = re.fullmatch(r"(?:dm|diffusion_math)((?:\.\w+)+)(?:\(\))?", literal.astext())
        if path is None or isinstance(literal.parent, nodes.reference | nodes.title):
            continue
        thing: Any = diffusion_math
        for name in path[1].split(".")[1:]:
            thing = getattr(thing, name, None)
        named = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
        name = getattr(thing, "__name__", "") if ismodule(thing) else named
        if name in documented:
            target = documented[name]
            url = app.builder.get_relative_uri(docname, target.docname)
            link = nodes.reference("", "", refuri=f"{url}#{target.node_id}", internal=True)
            literal.replace_self(link)
            link += literal


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each linked file: its lines, numbered, each with an anchor."""
    formatter = HtmlFormatter(linenos="inline", anchorlinenos=True, lineanchors="L")
    for path in sorted(LINKED):
        code = highlight((ROOT / path).read_text(encoding="utf-8"), PythonLexer(), formatter)
        code = re.sub(r'\bL-(\d+)"', r'L\1"', code)
        body = f'<h1>{path}</h1><div class="source-lines">{code}</div>'
        yield page(path), {"title": path, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", rewrite)
    app.connect("doctree-resolved", link_names)
    app.connect("html-collect-pages", pages)
    app.connect(
        "config-inited",
        lambda app, config: setattr(
            config,
            "linkcode_resolve",
            lambda domain, info: linkcode_resolve(domain, info, app.env.docname),
        ),
    )
    return {"parallel_read_safe": False, "parallel_write_safe": False}
