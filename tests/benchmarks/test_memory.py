"""The memory of a shard is at most a + b x its characters, with a small b."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory import bytes_per_char


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are reset by Linux's /proc")
def test_memory_hardly_follows_the_worst_text() -> None:
    """A row of commas: a token each, for spaCy as for the model. Read whole, each costs spaCy 11,000 bytes."""
    cost = bytes_per_char("marks", 50_000, 350_000)
    assert cost["TagFeatures"] < 100
    assert cost["night"] < 100
