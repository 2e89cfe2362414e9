"""The contenders of the look-ups' benchmark find the same lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import lookup


def test_every_contender_finds_every_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_timed` raises for a list of another length."""
    monkeypatch.setattr(lookup, "SERIES", 2)
    monkeypatch.setattr(lookup, "EACH", 10)
    lookup.write_run(tmp_path, 450)
    for name, contender in lookup.CONTENDERS.items():
        figures = contender(tmp_path, 450)
        assert {"rss_mb"} < figures.keys(), name
        assert all(value >= 0 for value in figures.values())
