"""The docs site: docstrings as its builder reads them, and what a built page loads and shows."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADED = re.compile(r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]* href="([^"]+)"')


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch):
    """Modules of docs/_extensions by their name."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_extensions"))
    return import_module


def test_docstrings_become_restructured_text(extension) -> None:
    convert = extension("docstrings").convert
    lines = [
        "The mean of q(x_t | x_0), `(batch, *event)`; x_ is a name.",
        "",
        "    mean = alpha_t * x_0",
        "",
        "Args:",
        "    x: `(batch,)`, at most",
        "        one.",
        "",
        "Derivation: (gaussian.9).",
        "Source: a paper,",
        "    its second line.",
    ]
    assert convert(lines, frozenset({"gaussian"})) == [
        "The mean of q(x_t \\| x_0), ``(batch, *event)``; x\\_ is a name.",
        "",
        ".. code-block:: text",
        "",
        "    mean = alpha_t * x_0",
        "",
        "Args:",
        "    x: ``(batch,)``, at most",
        "        one.",
        "",
        "Derivation: :doc:`(gaussian.9) </derivations/gaussian>`.",
        "Source: a paper,",
        "its second line.",
    ]


def test_the_reference_has_every_public_module(extension) -> None:
    found = extension("reference_pages").modules()
    for path in (ROOT / "diffusion_math").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert (name in found) != any(part.startswith("_") for part in name.split("."))
    assert {"sd.pipeline", "sd.loading", "sd.checkpoint"} <= set(found)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The site's folder: that in `DOCS_SITE`, which `make docs` has just built, or a new one."""
    if "DOCS_SITE" in os.environ:
        return Path(os.environ["DOCS_SITE"])
    pytest.importorskip("sphinx")
    place = [f"--doctree-dir={tmp_path / 'doctrees'}", "docs", str(tmp_path / "site")]
    build = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", *place]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tmp_path / "site"


@pytest.mark.slow
def test_the_site_needs_no_network_and_leads_to_the_posterior(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        for loaded in LOADED.findall(page.read_text(encoding="utf-8")):
            assert not "".join(loaded).startswith(("http:", "https:", "//")), page
    start = (site / "index.html").read_text(encoding="utf-8")
    assert "DDPM posterior" in start
    assert 'href="derivations/gaussian.html"' in start
    assert 'gaussian.html#diffusion_math.gaussian.posterior"' in start
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "posterior" in index
