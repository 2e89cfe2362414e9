"""From a time of day to the moment at which a night must be finished."""

from __future__ import annotations

import datetime
import zoneinfo


def next_time(clock: str, time_zone: str, *, now: datetime.datetime) -> datetime.datetime:
    """The first moment after `now` at which clocks in a time zone show `clock`.

    A time that a change of the clocks leaves out is the moment that follows the gap by as much; of one that comes twice
    it is the next.

    Args:
        clock: HH:MM.
        time_zone: an IANA name.
        now: with a time zone.

    Returns:
        In UTC.
    """
    zone = zoneinfo.ZoneInfo(time_zone)
    time = datetime.time.fromisoformat(clock)
    today = now.astimezone(zone).toordinal()
    days = [datetime.date.fromordinal(today + more) for more in (-1, 0, 1, 2)]
    once = [datetime.datetime.combine(day, time, zone).astimezone(datetime.UTC) for day in days]
    again = [datetime.datetime.combine(day, time.replace(fold=1), zone) for day in days]
    twice = [one.astimezone(datetime.UTC) for one in again if _exists(one)]
    return min(moment for moment in once + twice if moment > now)


def _exists(local: datetime.datetime) -> bool:
    there = local.astimezone(datetime.UTC).astimezone(local.tzinfo)
    return there.replace(tzinfo=None) == local.replace(tzinfo=None)
