"""Reports of nights of every kind in a real browser: requests, findings of axe-core, and sizes.

    python -m benchmarks.report [--quick] [--keep DIR] [--json FILE]

The nights run over the bundled sample: one that is published, one over a broken index that drift holds back, one that
has nothing to measure or to mine, and one of hostile texts; beside them the page of the week. Each page is opened in
the system's Chromium at 380 and 1,600 pixels, light and dark. `--keep` leaves pages and pictures in a folder. `--quick`
takes every eighth event of the log, and looks at the pages in fewer windows.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import SAMPLE, parser, report
from pipelines.nightly.run import run
from pipelines.report.write import write_report, write_week
from pipelines.sources.local.bm25_index import build_index
from pipelines.storage.held import held_runs
from rerank_core.config.night import Config, parse_config
from rerank_core.errors import NightHeld
from tests.support.browser import THEMES, WIDTHS, chromium, opened, visit
from tests.support.hostile import hostile_night

DAY = datetime.date(2026, 3, 8)
Figures = dict[str, float]


def measure(quick: bool, keep: Path | None = None) -> Figures:
    """Make the nights and look at their pages."""
    with tempfile.TemporaryDirectory() as folder:
        pages = make_pages(Path(folder), quick=quick)
        figures: Figures = {f"report_kb_{name}": path.stat().st_size / 1000 for name, path in pages.items()}
        figures |= {
            "report_requests": 0,
            "report_console": 0,
            "report_axe_serious": 0,
            "report_overflow_px": 0,
        }
        with chromium() as browser:
            for name, path in pages.items():
                for width, theme in [(380, "dark"), (1600, "light")] if quick else windows():
                    found = visit(browser, path, width=width, theme=theme)
                    figures["report_requests"] += len(found.requests)
                    figures["report_console"] += len(found.console)
                    figures["report_axe_serious"] += len(found.grave)
                    figures["report_overflow_px"] += found.overflow
                    for problem in (*found.requests, *found.console, *found.grave):
                        print(f"{name} at {width}, {theme}: {problem}")
            if keep:
                keep_pictures(browser, pages, keep)
        return figures


def windows() -> list[tuple[int, str]]:
    return [(width, theme) for width in WIDTHS for theme in THEMES]


def make_pages(folder: Path, *, quick: bool) -> dict[str, Path]:
    """The pages by name, in a folder of their nights."""
    corpus = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    for name, kept in (("smaller", 9), ("whole", 10**6), ("broken", 2)):
        part = folder / name / "corpus.jsonl"
        part.parent.mkdir()
        part.write_text(
            "".join(f"{line}\n" for n, line in enumerate(corpus, 1) if n % kept), encoding="utf-8"
        )
        build_index(part.parent, folder / "index" / name)
    events = (SAMPLE / "query_log.jsonl").read_text(encoding="utf-8").splitlines()
    log = "".join(f"{line}\n" for line in events[:: 8 if quick else 1])
    bad = [
        '{"timestamp": "2026-03-05T10:00:00Z", "que',
        json.dumps({"timestamp": "yesterday", "query": "old"}),
    ]
    (folder / "log.jsonl").write_text(log + "\n".join([*bad * 4, ""]), encoding="utf-8")
    output, pages = str(folder / "output"), {}
    for days, index in ((-2, "smaller"), (-1, "smaller"), (0, "whole")):
        manifest = run(_night(folder, index), run_date=DAY + datetime.timedelta(days))
        pages["good"] = Path(write_report(output, manifest))
    with contextlib.suppress(NightHeld):
        run(_night(folder, "broken"), run_date=DAY + datetime.timedelta(1))
    (held,) = held_runs(output)
    pages["held"] = Path(write_report(output, held, held=True))
    pages["week"] = Path(write_week(output))
    nothing: dict[str, dict[str, Any]] = {
        "output": {"path": str(folder / "empty")},
        "evaluation": {"queries": "", "qrels": ""},
        "labels": {"debias": False},
        "mining": {"enabled": False},
        "tags": {"enabled": False},
        "evidence": {"top_n": 0},
        "log": {"min_count": 40},
    }
    empty = run(_night(folder, "whole", **nothing), run_date=DAY)
    pages["empty"] = Path(write_report(str(folder / "empty"), empty))
    (folder / "hostile").mkdir()
    hostile, manifest = hostile_night(folder / "hostile")
    pages["hostile"] = Path(write_report(str(hostile), manifest))
    return pages


def _night(folder: Path, index: str, **sections: dict[str, Any]) -> Config:
    raw: dict[str, dict[str, Any]] = {
        "source": {"log": str(folder / "log.jsonl"), "index": str(folder / "index" / index)},
        "candidates": {"top_k": 20},
        "labels": {"debias": True},
        "output": {"path": str(folder / "output"), "queries_per_shard": 50},
        "evaluation": {"queries": str(SAMPLE / "queries.jsonl"), "qrels": str(SAMPLE / "qrels" / "dev.tsv")},
    }
    return parse_config(raw | {name: raw.get(name, {}) | values for name, values in sections.items()})


def keep_pictures(browser: Any, pages: dict[str, Path], keep: Path) -> None:
    """Each page and its pictures: what is seen first, and the whole page."""
    keep.mkdir(parents=True, exist_ok=True)
    for name, path in pages.items():
        (keep / f"{name}.html").write_bytes(path.read_bytes())
        for width, theme in windows():
            with opened(browser, path, width=width, theme=theme) as (page, _, _):
                page.screenshot(path=keep / f"{name}-{width}-{theme}.png")
                page.screenshot(path=keep / f"{name}-{width}-{theme}-whole.png", full_page=True)


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--keep", type=Path, metavar="DIR", help="leave pages and pictures here")
    args = flags.parse_args()
    figures = measure(args.quick, args.keep)
    report(figures, args.json)
    wrong = ("report_requests", "report_console", "report_axe_serious", "report_overflow_px")
    if found := [name for name in wrong if figures[name]]:
        raise SystemExit(f"not as it must be: {', '.join(found)}")


if __name__ == "__main__":
    main()
