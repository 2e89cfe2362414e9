"""A few of the nights that `benchmarks.kills` kills at random moments."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
from benchmarks.kills import measure


def test_a_killed_night_is_made_up_for_and_no_reader_notices() -> None:
    figures = measure(2, seed=1)
    assert figures["crash_equal"] == figures["kills"] == 2
    assert figures["reads"] > 100
    assert figures["torn_reads"] == 0
