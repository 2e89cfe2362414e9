"""From what a page shows to HTML: one file that asks for nothing, in which every text is escaped."""

from __future__ import annotations

import base64
import functools
import hashlib
from typing import Any

import jinja2

from pipelines.report import text


def render(template: str, **values: Any) -> str:
    """A page of `templates`; the Content-Security-Policy allows its one style sheet, by hash, and nothing else."""
    environment, style = _environment(), _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template(template).render(style=style, style_hash=digest, **values)
    return page.encode("utf-8", "replace").decode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "count": text.count,
        "points": text.points,
        "share": text.share,
        "number": text.number,
        "duration": text.duration,
    }
    environment.filters.update(filters)
    return environment


@functools.cache
def _style() -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), "style.css")[0]
