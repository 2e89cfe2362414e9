"""What adapters make of a list whose texts were not stored."""

from __future__ import annotations

import pytest

from nightrank.integrations.results import tags_of, text_of
from nightrank.read import Passage, QueryList


def test_a_passage_without_text_is_an_error_and_no_empty_context() -> None:
    passage = Passage(1, "d", "d", None, None, 0.5, None, None, None)
    found = QueryList("q", "0" * 16, 1.0, "20260308-0", "2026-03-08", None, (passage,))
    with pytest.raises(ValueError, match=r"run 20260308-0 has no texts; publish one with output\.store_text"):
        text_of(passage, found)
    assert tags_of(None) is None
