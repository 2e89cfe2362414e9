"""Unattended nights: kills, deadline, look-ups, report, promotion and a week of nights, in one run.

    python -m benchmarks.unattended [--quick] [--without NAME...] [--json FILE]

Each part is a benchmark of its own with the same figures; this one runs them in turn. A figure that is not as it must
be ends the run with exit code 1, after all parts have run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import deadline, kills, lookup, promotion, report, week
from benchmarks.common import run_parts

Figures = dict[str, float]


def killed_nights(quick: bool) -> Figures:
    return kills.measure(4 if quick else 50)


def late_nights(quick: bool) -> Figures:
    return deadline.measure(300, 5.0) if quick else deadline.measure(2000, 30.0)


def look_ups(quick: bool) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        return lookup.measure(Path(folder), lookup.QUICK if quick else lookup.QUERIES)


def bad_models(quick: bool) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        config = promotion.publish_night(Path(folder), queries=12 if quick else 0)
        return promotion.held_bad_model(config, Path(folder) / "candidates")


def seven_nights(quick: bool) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        figures = week.measure(quick, folder=Path(folder))
    return {name if name.startswith("nights") else f"week_{name}": value for name, value in figures.items()}


PARTS = {
    "report": report.measure,
    "promotion": bad_models,
    "week": seven_nights,
    "deadline": late_nights,
    "look-ups": look_ups,
    "kills": killed_nights,
}


def failures(figures: Figures) -> list[str]:
    """The names of the figures that are not as they must be."""
    wanted = {
        "crash_equal": figures.get("crash_equal", 0) == figures.get("kills", 0),
        "torn_reads": figures.get("torn_reads", 0) == 0,
        "deadline_error_s": figures.get("deadline_error_s", 0) <= 60,
        "lookup_ms_p50": figures.get("lookup_ms_p50", 0) < 5,
        "lookup_ms_p99": figures.get("lookup_ms_p99", 0) < 20,
        "read_import_s": figures.get("read_import_s", 0) < 0.3,
        "report_requests": figures.get("report_requests", 0) == 0,
        "report_axe_serious": figures.get("report_axe_serious", 0) == 0,
        "held_bad_model": figures.get("held_bad_model", 1) == 1,
        "good_promoted": figures.get("good_promoted", 1) == 1,
        "week_held_bad_model": figures.get("week_held_bad_model", 1) == 1,
        "week_held_broken_night": figures.get("week_held_broken_night", 1) == 1,
        "nights_published": figures.get("nights_published", 0) >= figures.get("nights", 0) - 1,
    }
    return [name for name, right in wanted.items() if not right]


if __name__ == "__main__":
    run_parts(PARTS, failures, description=__doc__ or "")
