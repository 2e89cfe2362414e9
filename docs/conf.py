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
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = "Nightrank"
html_static_path = ["static"]
html_css_files = ["nightrank.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "Nightrank"},
    "navbar_end": ["theme-switcher"],
    "footer_start": [],
    "footer_end": [],
    "show_prev_next": False,
    "show_nav_level": 2,
    "header_links_before_dropdown": 6,
}
