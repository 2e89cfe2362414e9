"""Sphinx builds these pages with `make docs`; warnings are errors there, so a broken link or anchor fails the build."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pipelines" / "__init__.py"

project = "Nightrank"
author = "Nightrank contributors"
# Read, not imported: building the pages needs none of the product's dependencies.
release = version = next(
    ast.literal_eval(node.value)
    for node in ast.parse(PACKAGE.read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
)

extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True
smartquotes = False  # "" and -- are code as often as not
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "Nightrank"
html_static_path = ["static"]
html_css_files = ["nightrank.css"]
html_copy_source = False
html_theme_options = {
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the sidebar has the search
}
