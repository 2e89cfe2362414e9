"""From a time of day to a moment: the next one at which clocks show it, whatever the zone and its changes."""

from __future__ import annotations

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.plan.clock import next_time

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]
MINUTES = range(24 * 60)


def clocks(moment: datetime.datetime, zone: str) -> str:
    return moment.astimezone(zoneinfo.ZoneInfo(zone)).strftime("%H:%M")


@given(
    now=st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2037, 1, 1)),
    zone=st.sampled_from(ZONES),
    minute=st.sampled_from(MINUTES),
)
def test_it_is_the_first_moment_after_now(now: datetime.datetime, zone: str, minute: int) -> None:
    now = now.replace(second=0, microsecond=0, tzinfo=datetime.UTC)
    clock = f"{minute // 60:02}:{minute % 60:02}"
    found = next_time(clock, zone, now=now)
    ahead = (found - now) // datetime.timedelta(minutes=1)
    assert 0 < ahead <= 49 * 60  # a day that a zone skips whole, as Apia did, is the longest wait
    between = range(1, ahead)
    assert not [more for more in between if clocks(now + datetime.timedelta(minutes=more), zone) == clock]
    in_a_gap = clocks(found, zone) != clock
    assert not in_a_gap or zone != "UTC"


@pytest.mark.parametrize(
    ("clock", "now", "expected"),
    [
        ("06:00", "2026-03-08T02:15", "2026-03-08T05:00"),  # Berlin is an hour ahead
        ("06:00", "2026-03-08T05:00", "2026-03-09T05:00"),  # now itself is not after now
        ("06:00", "2026-07-08T02:15", "2026-07-08T04:00"),  # two in summer
        ("02:30", "2026-03-28T23:00", "2026-03-29T01:30"),  # left out that night: half an hour after the gap
        ("02:30", "2026-10-24T22:00", "2026-10-25T00:30"),  # twice that night
        ("02:30", "2026-10-25T00:40", "2026-10-25T01:30"),
        ("00:05", "2026-12-31T22:50", "2026-12-31T23:05"),
    ],
)
def test_berlin(clock: str, now: str, expected: str) -> None:
    moment = datetime.datetime.fromisoformat(f"{now}+00:00")
    assert next_time(clock, "Europe/Berlin", now=moment).isoformat() == f"{expected}:00+00:00"
