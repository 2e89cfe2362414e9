"""Text: cleaning that a reader does not notice, and ids that fold spellings of one query."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.text import clean, fingerprint, fold, normalise_query, query_id, shorten, slices


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


Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: list[Form] = ["NFC", "NFD", "NFKC", "NFKD"]
UNSEEN = ["\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\ufe0f", "\u034f", "\U000e0101"]


@given(st.text(), st.sampled_from(FORMS), st.sampled_from(UNSEEN), st.integers(0, 20))
def test_all_spellings_of_a_text_are_folded_into_one(text: str, form: Form, unseen: str, at: int) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    assert fold(unicodedata.normalize(form, text)) == folded
    assert fold(text[:at] + unseen + text[at:]) == folded
    assert fold(text.casefold()) == folded


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Straße", "strasse"),
        ("ﬁle №5 Ｄｕｎｅ", "file no5 dune"),  # ligature, letter-like and full-width forms
        ("ﻻ", "لا"),  # Arabic presentation forms
        ("ﾊﾞﾅﾅ", "バナナ"),  # half-width katakana
        ("\u1109\u1165\u110b\u116e\u11af", "서울"),  # jamo
        ("葛\U000e0100城", "葛城"),  # a variant of the glyph
        ("", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_fingerprints_differ_where_the_parts_do(one: list[str], other: list[str]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) is (one == other)


def test_a_fingerprint_takes_any_string() -> None:
    assert len(fingerprint("\ud800", "")) == 64
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_shorten_says_how_much_there_was() -> None:
    assert shorten("a\nb") == "a b"
    assert shorten("x" * 30, limit=5) == "xxxxx... (30 characters)"


@given(st.text(st.sampled_from("ab \n\u3000é")), st.integers(1, 9))
def test_slices_join_up_and_begin_with_white_space_where_there_is_any(text: str, size: int) -> None:
    parts = list(slices(text, size))
    assert "".join(parts) == text
    assert all(0 < len(part) <= size for part in parts[:-1])
    for part, following in pairwise(parts):
        inner = zip(part, part[1:] + following[:1], strict=True)
        assert following[0].isspace() or not any(a.strip() and not b.strip() for a, b in inner)
