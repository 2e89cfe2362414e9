"""A few of the nights that `benchmarks.kills` kills at random moments."""

from __future__ import annotations

from benchmarks.kills import measure


def test_a_killed_night_is_made_up_for_and_no_reader_notices() -> None:
    figures = measure(3, seed=1)
    assert figures["kills_byte_equal"] == figures["kills"] == 3
    assert figures["kills_before_publishing"] > 0  # a kill did interrupt something
    assert figures["reader_polls"] > 100
    assert figures["reader_torn"] == 0
