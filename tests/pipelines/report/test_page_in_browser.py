"""The pages in a real browser: no request, no error, working links, accessible, and hostile texts are text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.failed import failed_path, update_failed_page
from pipelines.report.verdict import STEP_NAMES
from pipelines.report.write import write_report, write_week
from pipelines.storage.plan_records import write_plan
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord, StepState
from tests.pipelines.report.conftest import Kinds
from tests.support import browser
from tests.support.browser import THEMES, WIDTHS, Visit, opened, visit
from tests.support.hostile import MARKUP

pytestmark = pytest.mark.servers
KINDS = ("judged", "first", "held", "empty", "ids", "hostile")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    yield from browser.started()


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_in_both_themes_narrow_and_wide(chromium: Any, kinds: Kinds, kind: str) -> None:
    output, manifest, held = kinds(kind)
    path = Path(write_report(str(output), manifest, held=held))
    for width in WIDTHS:
        for theme in THEMES:
            assert visit(chromium, path, width=width, theme=theme) == Visit([], [], 0, [], [], []), (
                width,
                theme,
            )


def test_a_week_likewise(chromium: Any, kinds: Kinds) -> None:
    path = Path(write_week(str(kinds("held")[0])))
    for width in WIDTHS:
        for theme in THEMES:
            assert visit(chromium, path, width=width, theme=theme) == Visit([], [], 0, [], [], []), (
                width,
                theme,
            )


@pytest.mark.parametrize("state", ["failed", "done"])
def test_a_night_without_a_report_likewise(
    chromium: Any, kinds: Kinds, tmp_path: Path, state: StepState
) -> None:
    """Its reranking failed, or its report; with reasons of every length, and in the week's page, which leads to it."""
    output = shutil.copytree(kinds("held")[0], tmp_path / "output")
    long = f"{MARKUP[0]} {'a-name-without-a-space' * 20} {'and more words ' * 40}"
    steps = [StepRecord(name, "not_due", "rerank failed", "", "", 0.0, {}) for name in STEP_NAMES]
    steps[0] = StepRecord("rerank", state, long, "", "", 3661.0, {})
    steps[-1] = StepRecord("report", "failed", long, "", "", 0.4, {})
    record = PlanRecord("2026-03-10", tuple(steps))
    write_plan(str(output), record)
    update_failed_page(str(output), record)
    pages = [Path(failed_path(str(output), record.run_date)), Path(write_week(str(output)))]
    for path in pages:
        for width in WIDTHS:
            for theme in THEMES:
                seen = visit(chromium, path, width=width, theme=theme)
                assert seen == Visit([], [], 0, [], [], []), (path, width, theme)
    with opened(chromium, pages[0], width=1600) as (page, _, _):
        for heading in ("What needs a person", "Steps: "):  # above the fold
            assert page.get_by_text(heading).first.bounding_box()["y"] < 900
    if state == "failed":
        with opened(chromium, pages[1], width=380) as (page, _, _):
            page.locator('a[href^="_plan/"]').click()
            assert page.title() == "Failed: night of 2026-03-10"


def test_hostile_texts_are_seen_as_they_are(chromium: Any, hostile: tuple[Path, Manifest]) -> None:
    output, manifest = hostile
    path = Path(write_report(str(output), manifest))
    with opened(chromium, path, width=380) as (page, _, _):
        page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
        seen = page.inner_text("body")
        assert page.locator("script, img, iframe, base, main h1").count() == 0
        assert page.locator("style").count() == 1
        assert page.title().endswith("night of 2026-03-08")
        shown = [text for text in MARKUP if text.replace("\n", " ") in seen]
        assert len(shown) >= 3, shown
        assert "\u202e" not in seen


def test_it_is_used_by_keyboard_alone(chromium: Any, kinds: Kinds) -> None:
    output, manifest, held = kinds("first")
    with opened(chromium, Path(write_report(str(output), manifest, held=held)), width=1600) as (page, _, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the sections"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("Tab")
        before = page.evaluate("document.activeElement.tagName + document.activeElement.parentElement.open")
        page.keyboard.press("Enter")
        after = page.evaluate("document.activeElement.tagName + document.activeElement.parentElement.open")
        assert {before, after} == {"SUMMARYtrue", "SUMMARYfalse"}
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_printed_it_shows_what_is_folded(chromium: Any, kinds: Kinds) -> None:
    output, manifest, held = kinds("first")
    with opened(chromium, Path(write_report(str(output), manifest, held=held)), width=1600) as (page, _, _):
        folded = page.locator("details.query:not([open]) table").first
        assert not folded.is_visible()
        page.emulate_media(media="print")
        assert folded.is_visible()
        assert not page.locator("nav").is_visible()


SCRIPT = '<script>fetch("other.json").catch(() => console.error("no"))</script>'
BAD = f"""<!doctype html><html lang=en><head><title>bad</title><style>p {{ color: #ddd; width: 900px }}</style>
{SCRIPT}</head>
<body><main><h1>Bad</h1><p>pale</p><a href="#nowhere">x</a><img src="missing.png">
<table style="width: 20px; table-layout: fixed; overflow-wrap: anywhere"><tr>
<td>a word of many letters in a cell</td></tr></table></main></body></html>"""


def test_what_a_page_does_wrong_is_seen(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(BAD)
    found = visit(chromium, path, width=380, theme="light")
    assert found.requests
    assert found.console
    assert found.overflow > 0
    assert found.squeezed == ["a word of many letters in a cell"]
    assert found.broken == ["#nowhere"]
    path.write_text(BAD.replace(SCRIPT, "").replace('<img src="missing.png">', "<input>"))
    grave = " ".join(visit(chromium, path, width=380, theme="light").grave)
    assert "color-contrast" in grave
    assert "label" in grave
