"""Both clocks of a deadline, which stand still unless a test moves them."""

from __future__ import annotations

import datetime

import pytest

from pipelines.nightly import deadline

FINISH_BY = datetime.datetime(2026, 3, 9, 6, tzinfo=datetime.UTC)
END = FINISH_BY.timestamp()


class Clock:
    """Both clocks, which stand still unless something moves them."""

    def __init__(self) -> None:
        self.wall, self.monotonic = END - 1000, 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


CLOCK = Clock()  # of this module, since scorers are pickled


def stand_still(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace both clocks for one test."""
    CLOCK.__init__()  # type: ignore[misc]
    monkeypatch.setattr(deadline, "wall", lambda: CLOCK.wall)
    monkeypatch.setattr(deadline, "monotonic", lambda: CLOCK.monotonic)
    monkeypatch.setattr(deadline, "POLL_SECONDS", 0.02)
    return CLOCK
