"""The page of a week: each measure as a line over the runs, on an axis of dates."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

from pipelines.report.charts import Chart, Mark, trend
from pipelines.report.failed import reranking_failed
from pipelines.report.page import render
from pipelines.report.text import count, day, duration, message, points, share
from pipelines.report.verdict import gain_over_bm25, stale_lists
from pipelines.storage.filesystem import exists, join
from pipelines.storage.plan_records import page_path, plan_dates, read_plan
from pipelines.storage.runs import HELD, held_path, read_manifest, run_ids, run_path
from rerank_core.drift.rules import RULES
from schemas.errors import ManifestError
from schemas.manifest import Manifest

DAYS = 7


class Night(NamedTuple):
    """A run of the week."""

    manifest: Manifest
    held: bool

    @property
    def date(self) -> datetime.date:
        return datetime.date.fromisoformat(self.manifest.run_date)


Value = Callable[[Manifest], float | None]


def _gain(manifest: Manifest) -> float | None:
    gain = gain_over_bm25(manifest)
    return None if gain is None else 100 * gain.value


def _reused(manifest: Manifest) -> float | None:
    pairs = manifest.balance.pairs
    done = pairs.get("published", 0) + pairs.get("reused", 0)
    return 100 * pairs.get("reused", 0) / done if done else None


MEASURES: list[tuple[str, str, Value]] = [
    ("Gain over BM25", "points of nDCG@10", _gain),
    ("Queries published", "queries", lambda m: m.balance.queries.get("published", 0)),
    ("Pairs of a query and a passage", "pairs", lambda m: m.balance.pairs.get("read", 0)),
    ("Pairs with the score of the night before", "% of pairs", _reused),
    ("Time of the run", "seconds", lambda m: m.seconds),
    ("Dead letters", "records", lambda m: sum(m.rejected.values())),
    ("Lists of an earlier night", "lists", stale_lists),
]
"""Title, unit, and the value of a run; None where it was not measured."""


def week_page(output: str, *, links: bool) -> str:
    """The page of the seven days that end with the newest run, published or held.

    Args:
        output: the output folder.
        links: whether the page lies in the output folder, so that it can lead to the reports of the runs.

    Raises:
        ManifestError: there is no run.
        OutputError: the folder has the layout of an earlier version.
    """
    nights, failed, damaged = _nights(output)
    dates = sorted({night.date for night in nights} | failed.keys())
    if not dates:
        raise ManifestError(f"no run in {output}; name the output folder of a nightly job")
    first, last = dates[0], dates[-1]
    shown = [_trend(title, unit, value, nights) for title, unit, value in MEASURES if nights]
    rows = [_row(output, night, links=links) for night in nights]
    rows += [_failed_row(output, date, links=links) for date in failed]
    drift = [_drift(name, nights) for name in RULES if any(name in _measures(night) for night in nights)]
    return render(
        "week.html",
        week={
            "days": f"{day(first.isoformat())} to {day(last.isoformat())}"
            if first < last
            else day(first.isoformat()),
            "missing": _missing(nights, failed, first, last),
            "published": sum(not night.held for night in nights),
            "held": sum(night.held for night in nights),
            "failed": len(failed),
            "charts": [chart for chart in shown if any(row[1] != "–" for row in chart.rows)],
            "drift": drift,
            "rows": sorted(rows, key=lambda row: str(row["date"]))[::-1],
            "damaged": damaged,
        },
    )


Failed = dict[datetime.date, str]
"""Nights without a run whose reranking failed, and why."""


def _week_before(last: str) -> str:
    return (datetime.date.fromisoformat(last) - datetime.timedelta(days=DAYS - 1)).isoformat()


def _failed(output: str, there: set[str]) -> Failed:
    """Nights that failed, in the week before the newest run or later: older records are not read."""
    oldest = _week_before(max(there)) if there else ""
    found = {}
    for date in plan_dates(output):
        if date >= oldest and date not in there and reranking_failed(record := read_plan(output, date)):
            step = record.step("rerank")
            found[datetime.date.fromisoformat(date)] = message(step.reason) if step else ""
    return found


def _nights(output: str) -> tuple[list[Night], Failed, list[str]]:
    """The week's runs by date and time of publishing, its nights that failed, and runs that cannot be read."""
    found = [(date, run_id, False) for date, run_id in run_ids(output)]
    found += [(date, run_id, True) for date, run_id in run_ids(output, top=HELD)]
    failed = _failed(output, {date for date, _, _ in found})
    dates = [date for date, _, _ in found] + [date.isoformat() for date in failed]
    if not dates:
        return [], {}, []
    oldest = _week_before(max(dates))
    failed = {date: why for date, why in failed.items() if date.isoformat() >= oldest}
    nights, damaged = [], []
    for date, run_id, held in found:
        if date >= oldest:
            try:
                nights.append(Night(read_manifest(output, date, run_id, held=held), held))
            except ManifestError as error:
                damaged.append(message(str(error)))
    nights.sort(key=lambda night: (night.date, night.manifest.created_at))
    last = {night.date: night for night in nights if not night.held}  # of a date readers see the newest
    return [night for night in nights if night.held or last[night.date] is night], failed, damaged


def _missing(nights: list[Night], failed: Failed, first: datetime.date, last: datetime.date) -> list[str]:
    """The days without a run, and why, where the record of their steps says so."""
    there = {night.date for night in nights}
    dates = (first + datetime.timedelta(days=n) for n in range((last - first).days + 1))
    return [
        day(date.isoformat()) + (f" ({failed[date]})" if date in failed else "")
        for date in dates
        if date not in there
    ]


def _trend(title: str, unit: str, value: Value, nights: list[Night]) -> Chart:
    marks = []
    for night in nights:
        gain = gain_over_bm25(night.manifest) if value is _gain else None
        low, high = (
            (None if end is None else 100 * end for end in (gain.low, gain.high)) if gain else (None, None)
        )
        marks.append(Mark(night.date, value(night.manifest), low, high, night.held))
    return trend(title, unit, marks, note="; the band is the 95 % interval" if value is _gain else "")


def _measures(night: Night) -> dict[str, Any]:
    measures: dict[str, Any] = (night.manifest.drift or {}).get("measures", {})
    return measures


def _drift(name: str, nights: list[Night]) -> Chart:
    values = [_measures(night).get(name, {}).get("tonight") for night in nights]
    marks = [Mark(night.date, value, held=night.held) for night, value in zip(nights, values, strict=True)]
    meaning = RULES[name].meaning
    return trend(meaning[:1].upper() + meaning[1:], "", marks)


def _link(output: str, path: str) -> str:
    with contextlib.suppress(OSError):
        return path if exists(join(output, path)) else ""
    return ""


def _failed_row(output: str, date: datetime.date, *, links: bool) -> dict[str, Any]:
    figures = dict.fromkeys(("gain", "queries", "reused", "time", "drift", "letters", "stale"), "–")
    run_date = date.isoformat()
    link = _link(output, page_path(run_date)) if links else ""
    return {**figures, "date": run_date, "link": link, "run_id": "", "state": "✗ failed"}


def _row(output: str, night: Night, *, links: bool) -> dict[str, Any]:
    manifest = night.manifest
    path = (held_path if night.held else run_path)(manifest.run_date, manifest.run_id) + "/report.html"
    gain = gain_over_bm25(manifest)
    interval = ""
    if gain and gain.low is not None and gain.high is not None:
        interval = f" ({points(gain.low)} to {points(gain.high)})"
    reused = _reused(manifest)
    return {
        "date": manifest.run_date,
        "link": _link(output, path) if links else "",
        "run_id": manifest.run_id,
        "state": "■ held" if night.held else "✓ published",
        "gain": f"{points(gain.value)}{interval}" if gain else "–",
        "queries": count(manifest.balance.queries.get("published", 0)),
        "reused": "–" if reused is None else share(reused / 100),
        "time": duration(manifest.seconds),
        "drift": str((manifest.drift or {}).get("verdict", "–"))[:20],
        "letters": count(sum(manifest.rejected.values())),
        "stale": count(stale_lists(manifest)),
    }
