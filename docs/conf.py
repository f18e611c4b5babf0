"""The docs site: `make docs` builds it into out/docs. It loads nothing from the network."""

import sys
from importlib.util import find_spec
from pathlib import Path

import diffusion_math

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

project = "diffusion-math"
author = "diffusion-math authors"
version = release = diffusion_math.__version__
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docstrings",
    "reference_pages",
    "source_pages",
]
exclude_patterns = ["_extensions"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# Notebooks are run by tests/docs; the site shows the outputs that are stored in them.
nb_execution_mode = "off"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
myst_url_schemes = {
    "http": None,
    "https": None,
    "mailto": None,
    "source": {"url": "{{path}}#{{fragment}}", "classes": ["source"]},
}

# MathJax from a package: one file, copied beside the pages.
mathjax_path = "tex-svg.js"
MATHJAX = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0])
html_static_path = ["_static", str(MATHJAX / "static" / "mathjax" / "tex-svg.js")]
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"scale": 0.92}}

default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"diffusion-math {version}"
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"footer_icons": []}
