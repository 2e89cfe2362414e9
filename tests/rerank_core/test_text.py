"""Text: cleaning that a reader does not notice, and ids that fold spellings of one query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.text import clean, fingerprint, normalise_query, query_id, shorten


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\t words\n\nhere ", "two words here"),
        ("a\rb", "a b"),
        ("page\x0cbreak\x0btab\x85next\x1cfield", "page break tab next field"),
        ("zero\u200bwidth\u200d \ufeffmark", "zerowidth mark"),
        ("soft\u00adhyphen", "softhyphen"),
        ("nul\x00 and \x1b[31mcolour", "nul and [31mcolour"),
        ("right\u202eto left\u2066", "rightto left"),
        ("arabic\u061cmark tag\U000e0041char", "arabicmark tagchar"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("no\u00a0break\u3000wide\u2028line", "no break wide line"),
        ("Ärger über 日本語 😀", "Ärger über 日本語 😀"),
        ("\u200b \x00", ""),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text(st.characters(codec=None)))
def test_clean_text_is_clean_and_can_be_stored(text: str) -> None:
    once = clean(text)

    assert clean(once) == once
    assert "  " not in once
    once.encode("utf-8")


def test_a_query_keeps_its_case_and_loses_its_edges() -> None:
    assert normalise_query("  Who wrote\tDune?! ") == "Who wrote Dune"
    assert normalise_query("...what: is 3.14, really...") == "what: is 3.14, really"
    assert normalise_query("cafe\u0301") == normalise_query("cafe\u200b\u0301") == "café"
    assert normalise_query(" ?! ") == ""
    assert normalise_query("a" + "." * 1_000_000 + "b").endswith("b")  # in linear time


def test_spellings_of_one_query_have_one_id() -> None:
    one = query_id("Who wrote Dune?")

    assert one == query_id("who  WROTE dune") == query_id("\u200bwho wrote Dune.")
    assert one != query_id("who wrote Dunes")
    assert len(one) == 16
    assert int(one, 16) >= 0
    assert query_id("who wrote dune") == "9f06a96229ec4ded"  # the same on every machine and in every version


@given(st.text())
def test_normalising_twice_changes_no_id(text: str) -> None:
    assert query_id(normalise_query(text)) == query_id(text)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_fingerprints_differ_where_the_parts_do(one: list[str], other: list[str]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) is (one == other)


def test_a_fingerprint_takes_any_string() -> None:
    assert len(fingerprint("\ud800", "")) == 64
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_shorten_says_how_much_there_was() -> None:
    assert shorten("a\nb") == "a b"
    assert shorten("x" * 30, limit=5) == "xxxxx... (30 characters)"
