"""Plots lie within their frame whatever the figures, and their tables hold every figure."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import charts
from pipelines.report.charts import Chart, Mark

COUNTS = st.lists(st.integers(0, 10**9), min_size=20, max_size=20)
SHARES = st.floats(0, 1)
DAYS = st.dates(datetime.date(2026, 1, 1), datetime.date(2026, 3, 1))
VALUES = st.none() | st.floats(-1e9, 1e9)


def within(chart: Chart) -> None:
    """Every coordinate is a number within the frame."""
    for shape in chart.shapes:
        at = shape.attributes
        xs = [float(at[name]) for name in ("x", "x1", "x2", "cx") if name in at]
        ys = [float(at[name]) for name in ("y", "y1", "y2", "cy") if name in at]
        for point in at.get("points", "").split():
            x, y = map(float, point.split(","))
            xs.append(x)
            ys.append(y)
        assert all(-8 <= x <= chart.width + 8 for x in xs), shape
        assert all(-8 <= y <= chart.height + 8 for y in ys), shape
        assert all(float(at[name]) >= 0 for name in ("width", "height", "r") if name in at), shape


@given(COUNTS, COUNTS)
def test_a_histogram_of_any_counts(tonight: list[int], last: list[int]) -> None:
    chart = charts.score_histogram(tonight, last)
    within(chart)
    assert [row[1:] for row in chart.rows] == [
        [f"{a:,}", f"{b:,}"] for a, b in zip(tonight, last, strict=True)
    ]


@given(st.lists(st.tuples(SHARES, SHARES, st.integers(1, 10**6)), min_size=1, max_size=10), SHARES)
def test_a_reliability_diagram_of_any_bins(bins: list[tuple[float, float, int]], error: float) -> None:
    chart = charts.reliability_diagram(bins, error)
    within(chart)
    assert len(chart.rows) == len(bins)


@given(st.lists(SHARES, min_size=1, max_size=100))
def test_propensities_of_any_length(values: list[float]) -> None:
    chart = charts.propensities([{"examined": value, "impressions": 5} for value in values])
    within(chart)
    assert [row[0] for row in chart.rows] == [str(rank) for rank in range(1, len(values) + 1)]


@given(st.lists(st.builds(Mark, DAYS, VALUES, VALUES, VALUES, st.booleans()), min_size=1, max_size=12))
def test_a_trend_of_any_nights(marks: list[Mark]) -> None:
    marks = sorted(marks, key=lambda mark: mark.date)
    chart = charts.trend("Queries", "queries", marks)
    within(chart)
    assert [row[0] for row in chart.rows] == [mark.date.isoformat() for mark in marks]
    assert len([s for s in chart.shapes if s.kind == "rect"]) == sum(
        m.held and m.value is not None for m in marks
    )


def lines(days: list[int], **held: bool) -> list[int]:
    marks = [Mark(datetime.date(2026, 3, day), 5.0 + day, held=held.get(f"d{day}", False)) for day in days]
    shapes = charts.trend("Queries", "queries", marks).shapes
    return [len(shape.attributes["points"].split()) for shape in shapes if shape.kind == "polyline"]


def test_a_line_crosses_no_gap_and_no_held_night() -> None:
    assert lines([1, 2, 3]) == [3]
    assert lines([1, 2, 4, 5]) == [2, 2]
    assert lines([1, 2, 4]) == [2]
    assert lines([1, 2, 3, 4], d3=True) == [2]


def test_ticks_are_round_and_say_enough() -> None:
    def ticks(*values: float) -> list[str]:
        marks = [Mark(datetime.date(2026, 3, day), value) for day, value in enumerate(values, 1)]
        shapes = charts.trend("Queries", "queries", marks).shapes
        return [shape.text for shape in shapes if shape.attributes["class"] == "tick"][:3]

    assert ticks(0, 0) == ["0.0", "0.5", "1.0"]
    assert ticks(0.172, 0.181) == ["0.172", "0.177", "0.182"]
    assert ticks(8.0, 8.0) == ["0", "4", "8"]
    assert ticks(4353, 5150) == ["4,300", "4,800", "5,300"]
    assert ticks(-3, 4) == ["−3", "1", "5"]
