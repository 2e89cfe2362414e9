"""One thing that programs write in several ways is read as one thing."""

from __future__ import annotations

import contextlib
import datetime
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_core.values import (
    EPOCH_UNITS,
    RecordError,
    comparable,
    decode_json,
    identifier,
    is_null,
    many,
    scalar,
    utc_timestamp,
)

TIME = "2026-03-02T10:00:00+00:00"
NAN = float("nan")


# --- times


@pytest.mark.parametrize(
    "value",
    [
        "2026-03-02T10:00:00Z",
        "2026-03-02T10:00:00",
        " 2026-03-02 10:00:00 ",
        "20260302T100000Z",
        "2026-03-02T100000.0Z",
        "2026-03-02T12:30:00+02:30",
        1772445600,
        1772445600.0,
        "1772445600",
        "1772445600.0",
        "1.7724456E9",
        1772445600000,
        Decimal("1772445600000.00"),
        datetime.datetime(2026, 3, 2, 10),
        datetime.datetime(2026, 3, 2, 11, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    ],
)
def test_times_become_utc(value: Any) -> None:
    assert utc_timestamp(value) == TIME


def test_a_date_is_its_midnight() -> None:
    assert (
        utc_timestamp(datetime.date(2026, 3, 2)) == utc_timestamp("2026-03-02") == "2026-03-02T00:00:00+00:00"
    )


@given(st.datetimes(timezones=st.timezones(), min_value=datetime.datetime(1, 1, 3)))
def test_a_utc_time_is_the_same_moment_and_its_own_utc_time(moment: datetime.datetime) -> None:
    try:
        once = utc_timestamp(moment)
    except ValueError:  # within hours of the year 10000
        return
    assert datetime.datetime.fromisoformat(once) == moment.astimezone(datetime.UTC)
    assert utc_timestamp(once) == once


moments = st.datetimes(
    min_value=datetime.datetime(1990, 1, 1),
    max_value=datetime.datetime(2100, 12, 31),
    timezones=st.just(datetime.UTC),
)


@given(moments, st.sampled_from(sorted(EPOCH_UNITS.values())))
@example(
    datetime.datetime.fromtimestamp(1793110411.145, datetime.UTC), 1000
)  # as text it is also a time in 1793
def test_a_number_is_its_time_in_every_unit_and_type(moment: datetime.datetime, per_second: int) -> None:
    microseconds = (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
        microseconds=1
    )
    number = microseconds * per_second // 10**6
    expected = moment.replace(microsecond=moment.microsecond // (step := max(1, 10**6 // per_second)) * step)
    values: list[Any] = [number, str(number), f" {number} ", Decimal(number), f"{number}.0"]
    if number < 2**53:
        values += [float(number), str(float(number)), json.loads(json.dumps(float(number)))]
    for value in values:
        assert datetime.datetime.fromisoformat(utc_timestamp(value)) == expected, value


@pytest.mark.parametrize(
    "digits",
    ["20260308", "202603081015", "20260308101500", "20260308101500123", "0", "-1772445600", "2026", "1e300"],
)
def test_digits_that_are_no_time_in_any_unit_are_none(digits: str) -> None:
    for value in (digits, float(digits), *([int(digits)] if digits.lstrip("-").isdigit() else [])):
        with pytest.raises(ValueError, match="between 1980 and 2200"):
            utc_timestamp(value)


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "",
        True,
        None,
        NAN,
        float("inf"),
        [],
        {},
        b"2026",
        "1e99999999999999999999",
        "9" * 5000,
        datetime.time(1),
    ],
)
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(ValueError, match="."):
        utc_timestamp(value)


@given(
    st.text()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.from_regex(r"[-+0-9.eETZ:W ]{1,30}", fullmatch=True)
)
def test_any_value_is_a_time_or_a_value_error(value: Any) -> None:
    try:
        time = utc_timestamp(value)
    except ValueError:
        return
    datetime.datetime.fromisoformat(time)


# --- ids, lists, nulls


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("17", "17"),
        (17, "17"),
        (17.0, "17"),
        (-0.0, "0"),
        (Decimal("17.00"), "17"),
        ("17.0", "17.0"),
        (b"d1", "d1"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("d\udfff", "d"),
        (2**63, str(2**63)),
        (2.0**53 - 1, str(2**53 - 1)),
    ],
)
def test_identifiers(value: Any, expected: str) -> None:
    assert identifier(value) == expected


@pytest.mark.parametrize(
    "value", [True, None, 1.5, NAN, float("inf"), 2.0**53, [], {}, b"\xff", Decimal("0.5")]
)
def test_what_is_no_identifier(value: Any) -> None:
    with pytest.raises(ValueError, match="."):
        identifier(value)


@given(st.integers(-(2**53) + 1, 2**53 - 1))
def test_an_integer_that_became_a_float_is_itself(number: int) -> None:
    assert identifier(float(number)) == identifier(number) == str(number)


def test_scalars_lists_and_nulls() -> None:
    assert [scalar(value) for value in ("a", ["a"], [], None, NAN, [NAN])] == [
        "a",
        "a",
        None,
        None,
        None,
        None,
    ]
    with pytest.raises(ValueError, match="a list of 2 values"):
        scalar(["a", "b"])
    assert [many(value) for value in ("a", ["a"], '["a"]', ("a",))] == [["a"]] * 4
    assert [many(value) for value in ("", " ", None, NAN, [], "[]")] == [[]] * 6
    assert many(5) == [5]
    for text in ("['a']", "[" * 100_000 + "]"):
        with pytest.raises(ValueError, match="no JSON list"):
            many(text)
    assert [is_null(value) for value in (None, NAN, Decimal("nan"), 0, "", False)] == [True] * 3 + [False] * 3


def test_what_a_filter_compares() -> None:
    assert [comparable(value) for value in (True, False, 3, 3.0, 2.5, "True")] == [
        "true",
        "false",
        "3",
        "3",
        "2.5",
        "True",
    ]
    assert [comparable(value) for value in (None, NAN, [], {})] == [None] * 4


# --- JSON


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{oops", "bad_json"),
        (b"", "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'{"a":' * 100_000, "bad_json"),
        (b"9" * 5000, "bad_json"),
        (b'"caf\xe9"', "bad_utf8"),
        (b'"alice@example.org', "bad_json"),
    ],
)
def test_what_is_no_json_is_a_record_error(line: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode_json(line)
    assert caught.value.reason == reason
    assert "alice" not in caught.value.detail


@given(st.binary())
def test_any_line_is_json_or_a_record_error(line: bytes) -> None:
    with contextlib.suppress(RecordError):
        decode_json(line)
