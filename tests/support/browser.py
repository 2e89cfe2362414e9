"""Pages in the system's Chromium, headless: what they ask for, what they print, how they are laid out, and axe-core."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

WIDTHS = (380, 1600)
THEMES = ("light", "dark")
GRAVE = ("serious", "critical")


class Visit(NamedTuple):
    """One look at a page, every fold of which was opened."""

    requests: list[str]  # beside the page itself
    console: list[str]  # whatever it printed, and errors of scripts
    overflow: int  # pixels that the page is wider than the window
    squeezed: list[str]  # cells of tables that are too narrow for their text
    broken: list[str]  # internal links without a target
    grave: list[str]  # what axe-core finds serious or critical: rule and element


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium.

    Raises:
        FileNotFoundError: there is none.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise FileNotFoundError("no chromium on the PATH; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


def started() -> Iterator[Any]:
    """The body of a fixture: the browser, or a skip without one, or a failure where servers are required."""
    if shutil.which("chromium") is None and shutil.which("chromium-browser") is None:
        if os.environ.get("NIGHTRANK_REQUIRE_SERVERS") == "1":
            pytest.fail("NIGHTRANK_REQUIRE_SERVERS=1, but there is no chromium on the PATH", pytrace=False)
        pytest.skip("no chromium on the PATH")
    with chromium() as browser:
        yield browser


@contextmanager
def opened(
    browser: Any, path: Path, *, width: int, theme: str = "light"
) -> Iterator[tuple[Any, list[str], list[str]]]:
    """A page of a file: (page, its requests beside itself, what it printed)."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    url, requests, console = path.resolve().as_uri(), list[str](), list[str]()
    page.on("request", lambda request: None if request.url == url else requests.append(request.url))
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.on("dialog", lambda dialog: (console.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.goto(url)
    try:
        yield page, requests, console
    finally:
        page.close()


def visit(browser: Any, path: Path, *, width: int, theme: str) -> Visit:
    """Look at a page closed and with every fold open."""
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, path, width=width, theme=theme) as (page, requests, console):
        overflow = _overflow(page)
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        overflow = max(overflow, _overflow(page))
        broken = page.evaluate(
            "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href'))"
            ".filter(href => !document.getElementById(href.slice(1)))"
        )
        squeezed = page.evaluate(
            "[...document.querySelectorAll('th, td')].filter(cell => cell.clientWidth < 40 && cell.clientHeight > 150)"
            ".map(cell => cell.innerText.replace(/\\s+/g, ' ').slice(0, 40))"
        )
        found = [] if console else Axe().run(page).response["violations"]
        grave = [
            f"{one['id']}: {node['html'][:200]}"
            for one in found
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]
        return Visit(requests, console, overflow, squeezed, broken, grave)


def _overflow(page: Any) -> int:
    wider: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return max(0, wider)
