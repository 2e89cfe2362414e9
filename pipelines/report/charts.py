"""Plots as plain geometry, which a template writes as SVG: no library, no script, and every plot has its table.

A plot is drawn for a width of 360 units, so that its texts stay readable on a narrow screen. Colours and widths of
lines come from the style sheet by class, so that a plot follows the page's theme.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipelines.report.text import count, number, share

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 36


class Shape(NamedTuple):
    """A rectangle, circle, polyline or text, by its attributes."""

    kind: str  # rect, circle, polyline, polygon, line, text
    attributes: dict[str, str]
    text: str = ""


class Chart(NamedTuple):
    """A plot, and the table that says the same."""

    title: str
    summary: str  # one sentence on what is to be seen
    shapes: list[Shape]
    header: list[str]
    rows: list[list[str]]
    width: int = WIDTH
    height: int = HEIGHT


class _Axes:
    """The plane of a plot: x and y from 0 to 1 within its frame, y upwards."""

    def __init__(self, *, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.width, self.height = width, height
        self.shapes: list[Shape] = []

    def x(self, value: float) -> float:
        return LEFT + value * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - value * (self.height - TOP - BOTTOM)

    def add(self, kind: str, css: str, text: str = "", **attributes: float | str) -> None:
        written = {
            name.replace("_", "-"): value if isinstance(value, str) else f"{value:.1f}"
            for name, value in attributes.items()
        }
        self.shapes.append(Shape(kind, {"class": css, **written}, text))

    def y_ticks(self, ticks: Iterable[tuple[float, str]]) -> None:
        for at, label in ticks:
            self.add("line", "grid", x1=LEFT, x2=self.width - RIGHT, y1=self.y(at), y2=self.y(at))
            self.add("text", "tick", label, x=LEFT - 6, y=self.y(at) + 4, text_anchor="end")

    def x_ticks(self, ticks: Iterable[tuple[float, str]]) -> None:
        for at, label in ticks:
            anchor = "start" if at == 0 else "end" if at == 1 else "middle"
            self.add("text", "tick", label, x=self.x(at), y=self.height - BOTTOM + 15, text_anchor=anchor)

    def x_name(self, name: str) -> None:
        self.add("text", "axis", name, x=self.x(0.5), y=self.height - 4, text_anchor="middle")

    def line(self, css: str, points: Sequence[tuple[float, float]]) -> None:
        if len(points) > 1:
            self.add("polyline", css, points=" ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points))

    def area(self, css: str, points: Sequence[tuple[float, float]]) -> None:
        self.add("polygon", css, points=" ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points))

    def dot(self, css: str, x: float, y: float, *, radius: float = 3.5) -> None:
        self.add("circle", css, cx=self.x(x), cy=self.y(y), r=radius)

    def square(self, css: str, x: float, y: float, *, size: float = 8) -> None:
        self.add("rect", css, x=self.x(x) - size / 2, y=self.y(y) - size / 2, width=size, height=size)


def score_histogram(tonight: Sequence[int], last_night: Sequence[int]) -> Chart:
    """How many pairs have which score: bars tonight, a stepped line last night.

    Args:
        tonight: counts of bins of equal width from 0 to 1.
        last_night: the same of last night; all zero without one.
    """
    axes, bins = _Axes(), len(tonight)
    most = max([*tonight, *last_night, 1])
    top = math.ceil(math.log10(most + 1))
    height = [math.log10(1 + n) / top for n in tonight]
    axes.y_ticks([(math.log10(1 + 10**n) / top, count(10**n)) for n in range(top)])
    for n, tall in enumerate(height):
        left, right = axes.x(n / bins) + 1, axes.x((n + 1) / bins) - 1
        axes.add("rect", "bar", x=left, y=axes.y(tall), width=right - left, height=axes.y(0) - axes.y(tall))
    if any(last_night):
        steps = [
            (at / bins, math.log10(1 + value) / top)
            for n, value in enumerate(last_night)
            for at in (n, n + 1)
        ]
        axes.line("second", steps)
    axes.x_ticks([(0, "0"), (0.5, "0.5"), (1, "1")])
    axes.x_name("score")
    whole = sum(tonight)
    low = sum(tonight[: bins // 10 or 1])
    rows = [
        [f"{n / bins:.2f} to {(n + 1) / bins:.2f}", count(tonight[n]), count(last_night[n])]
        for n in range(bins)
    ]
    return Chart(
        "Distribution of scores",
        f"{share(low / whole)} of {count(whole)} pairs score below 0.1. The scale of counts is logarithmic."
        if whole
        else "No pair has a score.",
        axes.shapes,
        ["score", "pairs tonight", "pairs last night"],
        rows,
    )


def reliability_diagram(bins: Sequence[tuple[float, float, int]], error: float) -> Chart:
    """Share of relevant pairs by score: on the diagonal a score is a probability.

    Args:
        bins: mean score, share relevant and number of pairs of each.
        error: expected calibration error, 0 to 1.
    """
    axes = _Axes()
    axes.y_ticks([(0, "0"), (0.5, "0.5"), (1, "1")])
    axes.line("guide", [(0, 0), (1, 1)])
    axes.line("first", [(mean, relevant) for mean, relevant, _ in bins])
    largest = max(number for _, _, number in bins)
    for mean, relevant, pairs in bins:
        axes.dot("dot", mean, relevant, radius=2.5 + 4 * math.sqrt(pairs / largest))
    axes.x_ticks([(0, "0"), (0.5, "0.5"), (1, "1")])
    axes.x_name("mean score; upwards: share that is relevant")
    rows = [[f"{mean:.2f}", f"{relevant:.2f}", count(pairs)] for mean, relevant, pairs in bins]
    return Chart(
        "Reliability of scores",
        f"Scores differ from the share that is relevant by {number(error)} on average (0 is best).",
        axes.shapes,
        ["mean score", "share relevant", "pairs"],
        rows,
    )


def propensities(places: Sequence[dict[str, float]]) -> Chart:
    """How likely a document is looked at, by its rank in the logged lists."""
    axes, last = _Axes(), max(1, len(places) - 1)
    axes.y_ticks([(0, "0 %"), (0.5, "50 %"), (1, "100 %")])
    values = [min(1.0, max(0.0, place["examined"])) for place in places]
    points = [(n / last, value) for n, value in enumerate(values)]
    axes.line("first", points)
    for x, y in points:
        axes.dot("dot", x, y)
    step = max(1, math.ceil(len(places) / 10))
    axes.x_ticks([(n / last, str(n + 1)) for n in range(0, len(places), step)])
    axes.x_name("rank in the result list that users saw")
    rows = [
        [str(rank), share(value), count(place["impressions"])]
        for rank, value, place in zip(itertools.count(1), values, places, strict=False)
    ]
    return Chart(
        "Propensity of clicks",
        f"The document at rank {len(places)} is looked at {share(values[-1])} as often as the first one.",
        axes.shapes,
        ["rank", "looked at, relative to rank 1", "impressions"],
        rows,
    )


class Mark(NamedTuple):
    """One run of a trend. None is a gap."""

    date: datetime.date
    value: float | None
    low: float | None = None
    high: float | None = None
    held: bool = False


def trend(title: str, unit: str, marks: Sequence[Mark], *, note: str = "") -> Chart:
    """A measure over the runs, on an axis of dates: a day without a run is a gap, a held night a hollow square.

    Args:
        title: of the measure.
        unit: of its values.
        marks: by date; several of a date stand beside each other.
        note: what the summary says beside the last value.
    """
    axes = _Axes()
    shown = [mark for mark in marks if mark.value is not None]
    low, high, decimals = _range([v for m in shown for v in (m.value, m.low, m.high) if v is not None])
    first, days = marks[0].date, max(1, (marks[-1].date - marks[0].date).days)

    def at(mark: Mark, value: float) -> tuple[float, float]:
        return (mark.date - first).days / days, (value - low) / (high - low)

    ticks = (low, (low + high) / 2, high)
    axes.y_ticks([((tick - low) / (high - low), _digits(tick, decimals)) for tick in ticks])
    for part in _unbroken(marks):
        ends = [(m, m.low, m.high) for m in part if m.low is not None and m.high is not None]
        if len(ends) > 1:
            upper = [at(m, top) for m, _, top in ends]
            axes.area("band", upper + [at(m, bottom) for m, bottom, _ in reversed(ends)])
        axes.line("first", [at(m, m.value) for m in part if m.value is not None])
    for mark in shown:
        assert mark.value is not None
        draw = axes.square if mark.held else axes.dot
        draw("held" if mark.held else "dot", *at(mark, mark.value))
    axes.x_ticks([(0, _short(first))] + ([(1, _short(marks[-1].date))] if marks[-1].date > first else []))
    rows = [[m.date.isoformat(), number(m.value), _ends(m), "held" if m.held else "published"] for m in marks]
    last = (
        f"{number(shown[-1].value)} {unit}".rstrip() + f" on {_short(shown[-1].date)}"
        if shown
        else "No value"
    )
    header = ["date", unit or "value", "95 % interval", "state"]
    if not any(m.low is not None for m in marks):
        header, rows = ["date", unit or "value", "state"], [[row[0], row[1], row[3]] for row in rows]
    return Chart(title, f"{last}{note}.", axes.shapes, header, rows)


def _unbroken(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Published nights whose dates follow each other: a line is drawn through these, and over no gap."""
    parts: list[list[Mark]] = []
    for mark in (m for m in marks if m.value is not None and not m.held):
        if parts and (mark.date - parts[-1][-1].date).days <= 1:
            parts[-1].append(mark)
        else:
            parts.append([mark])
    return parts


def _range(values: Sequence[float]) -> tuple[float, float, int]:
    """Round ends of an axis around the values, and the decimals of its ticks; zero is an end unless all are far off."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high == 0:
        return 0.0, 1.0, 1
    if 0 <= low < 0.5 * high or low == high >= 0:
        low = 0.0
    elif 0.5 * low < high <= 0 or low == high:
        high = 0.0
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    step = step / 5 if (high - low) / step < 2 else step / 2 if (high - low) / step < 5 else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last += 2 if last == first else (last - first) % 2  # so that the middle is round too
    return first * step, last * step, max(0, -math.floor(math.log10(step) + 1e-9))


def _digits(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−")


def _ends(mark: Mark) -> str:
    if mark.low is None or mark.high is None:
        return "–"
    return f"{number(mark.low)} to {number(mark.high)}"


def _short(date: datetime.date) -> str:
    return f"{date.day} {date:%b}"
