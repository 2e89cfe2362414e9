"""What one value of a source means, whichever program wrote it: ids, lists, nulls, times, JSON.

JSON, pandas, Arrow and Elasticsearch write one thing in several ways. An integer becomes a float in a column with a
gap, a missing value NaN, a list of one value the value itself, a time digits. All readers decide these cases here.
"""

from __future__ import annotations

import datetime
import json
import math
import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rerank_core.text import utf8

_UTC_SUFFIXES = (".000Z", "Z", "+00:00", ".000+00:00")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_EARLIEST, _LATEST = (
    int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) for year in (1980, 2200)
)
EPOCH_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""Per second, the units in which numbers can be times."""
_EXACT_FLOATS = 2**53  # from here on a float is not the integer that it was made of


class RecordError(ValueError):
    """A record that cannot be used: `reason` is a stable slug, `detail` explains it and names no user."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode_json(line: bytes) -> Any:
    """The JSON value of a line.

    Raises:
        RecordError: bad_utf8 or bad_json. Details quote nothing: a line may name its user.
    """
    try:
        return json.loads(line.decode("utf-8-sig").rstrip())  # files with marks may have been concatenated
    except UnicodeDecodeError as error:
        where = f"byte {error.object[error.start]:#04x} at position {error.start + 1}"
        raise RecordError(
            "bad_utf8", f"{where} is not UTF-8 ({error.reason}); convert the file with iconv"
        ) from None
    except json.JSONDecodeError as error:
        where = f"{error.msg.removesuffix(' at')} at character {error.pos + 1} of {len(error.doc)}"
        raise RecordError("bad_json", f"{where}; each line must hold one JSON object") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless nesting
        detail = f"the line's JSON cannot be decoded: {type(error).__name__}"
        raise RecordError("bad_json", f"{detail}; shorten its numbers and its nesting") from None


def is_null(value: Any) -> bool:
    """Whether a value is missing: None, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def scalar(value: Any) -> Any:
    """A value, the only one of a list, or None for an empty list or a null.

    Raises:
        ValueError: a list of several values.
    """
    if isinstance(value, list | tuple):
        if len(value) > 1:
            raise ValueError(f"a list of {len(value)} values")
        value = value[0] if value else None
    return None if is_null(value) else value


def many(value: Any) -> list[Any]:
    """A list of values, a JSON list in a string, a value as a list of one; [] for a null or an empty string.

    Raises:
        ValueError: a string in square brackets that is no JSON list.
    """
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str):
        value = value.strip()
        if value.startswith("[") and value.endswith("]"):
            try:
                return list(json.loads(value))
            except (ValueError, RecursionError):
                raise ValueError("a string in brackets that is no JSON list") from None
    return [] if is_null(value) or value == "" else [value]


def identifier(value: Any) -> str:
    """An id as text: a string, an integer, or a float or decimal that is a whole number (17.0 is "17").

    Lone surrogates, which UTF-8 cannot encode, are left out.

    Raises:
        ValueError: anything else, or a float so large that it may be another number than was meant.
    """
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, uuid.UUID) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        if isinstance(value, float) and abs(value) >= _EXACT_FLOATS:
            raise ValueError("a float that cannot hold all digits of an integer; write ids as strings")
        return str(int(value))
    raise ValueError(f"a {type(value).__name__} is no id")


def comparable(value: Any) -> str | None:
    """A scalar as the text by which [log.filter] compares it: true, 3 for 3.0; None for what has no such text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return None if is_null(value) else identifier(value)
    except ValueError:
        return str(value) if isinstance(value, float | Decimal) else None


def has_value(record: Mapping[str, Any], name: str, value: str) -> bool:
    """Whether a field, or one of its values, is `value` as text."""
    found = record.get(name)
    return value in map(comparable, found if isinstance(found, list | tuple) else [found])


def utc_timestamp(value: Any) -> str:
    """A time as ISO-8601 in UTC, "2026-03-02T10:00:00+00:00".

    Args:
        value: an ISO-8601 string, a date or a datetime (without an offset: UTC); or a number, also as a string of
            digits: seconds, milliseconds, microseconds or nanoseconds since 1970, whichever lies between the years
            1980 and 2200. There is never more than one, and none for dates without separators: 20260308 is no time.

    Raises:
        ValueError: it is none of these, or not between the years 1 and 9999.
    """
    try:
        if isinstance(value, str):
            # The usual form, which needs no conversion.
            if value[19:] in _UTC_SUFFIXES and value[4:17:3] == "--T::":
                datetime.datetime.fromisoformat(value)
                return f"{value[:19]}+00:00"
            value = value.strip()
            if not _NUMBER.fullmatch(value):
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, bool):
            raise ValueError("a bool is not a time")
        if isinstance(value, str | int | Decimal) or (isinstance(value, float) and math.isfinite(value)):
            value = _since_1970(value)
        elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            value = datetime.datetime.combine(value, datetime.time())
        if not isinstance(value, datetime.datetime):
            raise ValueError(f"a {type(value).__name__} is not a time")
        time = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        utc: str = time.astimezone(datetime.UTC).isoformat()
        return utc
    except (ArithmeticError, OSError) as error:  # also what Decimal raises for an exponent of twenty digits
        raise ValueError(str(error) or type(error).__name__) from None


def _since_1970(value: str | float | Decimal) -> datetime.datetime:
    number = Decimal(str(value))  # exact: a float as it is written, not as it is stored
    for per_second in EPOCH_UNITS.values():
        if _EARLIEST * per_second <= number < _LATEST * per_second:
            return _EPOCH + datetime.timedelta(microseconds=int(number * (10**6) // per_second))
    raise ValueError("as seconds, milliseconds, microseconds or nanoseconds not between 1980 and 2200")
