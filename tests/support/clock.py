"""Both clocks of a deadline, which stand still unless a test moves them; and a wall clock that somebody sets."""

from __future__ import annotations

import datetime
import time

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


_REAL = datetime.datetime


class WallClock:
    """By how much the wall clock is wrong. The monotonic one, which nobody sets, goes on as ever."""

    ahead = datetime.timedelta()


class _IsOne(type):
    def __instancecheck__(cls, other: object) -> bool:
        return isinstance(other, _REAL)


class _Moved(_REAL, metaclass=_IsOne):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _REAL.now(tz) + WallClock.ahead


def settable(monkeypatch: pytest.MonkeyPatch, *, everywhere: bool = True) -> type[WallClock]:
    """Let a test set the wall clock that this process reads.

    Args:
        everywhere: also where it is no deadline's; then no `datetime` can be pickled.
    """
    WallClock.ahead = datetime.timedelta()
    if everywhere:
        monkeypatch.setattr(datetime, "datetime", _Moved)
    monkeypatch.setattr(deadline, "wall", lambda: time.time() + WallClock.ahead.total_seconds())
    return WallClock
