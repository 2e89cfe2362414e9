"""Texts of unknown origin: short, on one line, without what acts on its neighbours; figures with their units."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.report.text import REPLACEMENT, count, day, duration, legible, message, number, points, share

ANY = st.text(st.characters(), max_size=400)  # lone surrogates too


@given(ANY, st.integers(1, 50))
@example("Z" + "\u0335" * 500, 50)
@example("\u202e" * 30, 20)
def test_what_is_shown_is_short_and_acts_on_nothing(text: str, limit: int) -> None:
    shown = legible(text, limit)
    assert len(shown) <= limit + 1
    shown.encode("utf-8")
    assert "  " not in shown
    marks = 0
    for character in shown:
        assert character.isprintable() or unicodedata.category(character) in ("Cn", "Co", "Cf", "Zs"), repr(
            character
        )
        assert unicodedata.bidirectional(character) not in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        assert marks <= 3


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=200))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert legible(text) == text


def test_what_is_cut_or_replaced_is_seen() -> None:
    assert legible("a" * 201) == "a" * 200 + "…"
    assert legible("a\u202eb\x00c") == f"a{REPLACEMENT}b{REPLACEMENT}c"
    assert legible("one\n\t two") == "one two"
    assert legible(None) == legible("") == ""
    assert legible("x" * 10_000_000, 10) == "x" * 10 + "…"


def test_messages_hold_no_secrets() -> None:
    assert "hunter2" not in message("https://user:hunter2-secret@host/ refused " + "x" * 700)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(1234567.0), "1,234,567"),
        (points(0.1047), "+10.5"),
        (points(-0.004), "−0.4"),
        (share(0), "0 %"),
        (share(0.0004), "under 0.1 %"),
        (share(0.0349), "3.5 %"),
        (share(0.84), "84 %"),
        (share(1), "100 %"),
        (duration(10.09), "10.1 s"),
        (duration(119.6), "2 min 0 s"),
        (duration(7261), "2 h 1 min"),
        (number(None), "–"),
        (number(-0.01234), "−0.0123"),
        (number(0), "0"),
        (number(0.00003), "under 0.001"),
        (number(-0.00003), "over −0.001"),
        (number(1234.5), "1,234"),
        (day("2026-03-08"), "Sunday, 8 March 2026"),
        (day("<b>"), "<b>"),
    ],
)
def test_figures_have_units_and_few_digits(shown: str, expected: str) -> None:
    assert shown == expected
