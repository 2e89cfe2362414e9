"""Numbers that identify nobody stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import ean

from rerank_core.querylog.masks import mask


@given(st.integers(27, 120), st.integers(-1, 1))
def test_powers_of_two_stay(exponent: int, beside: int) -> None:
    text = f"what is {2**exponent + beside} for"
    assert mask(text) == text


@given(st.integers(0, 10**12 - 1).filter(lambda n: not f"{n:012}".startswith("756")))
def test_numbers_of_products_stay(number: int) -> None:
    digits = f"{number:012}"
    text = f"ean {digits}{ean.calc_check_digit(digits)}"
    assert mask(text) == text


@given(st.integers(1999, 2100), st.integers(1, 9_999_999))
def test_numbers_of_vulnerabilities_stay(year: int, number: int) -> None:
    text = f"is CVE-{year}-{number:04} fixed"
    assert mask(text) == text


@given(st.integers(10**8, 10**17), st.sampled_from(["km", "m", "miles", "people", "bytes", "dollars", "€"]))
def test_quantities_stay(number: int, unit: str) -> None:
    for text in (f"about {number} {unit} in all", f"about {number:,} {unit} in all"):
        assert "(number)" not in mask(text)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True, allow_subnormal=False))
def test_fractions_stay(number: float) -> None:
    text = f"value {number:.12f} of it"
    assert mask(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "isbn 0-306-40615-2",
        "978 0 13 468599 1",
        "123456789 * 987654321",
        "550e8400-e29b-41d4-a716-446655440000",
        "d41d8cd98f00b204e9800998ecf8427e",
        "0x1234567890abcdef",
        "10.1145/3292500.3330701",
        "20231231235959",
        "05 12 1985 14 30",
        "population 331 002 651",
        "1234567890",
        "9999999999",
        "1111000011110000",
        "lego 75192 75313",
        "mersenne 2147483647 524287",
        "unix time 1700000000",
        "usd 1234567890 in words",
        "10.0.19041.1237",
        "01.02.2024 - 03.04.2024",
        "0 1 1 2 3 5 8 13 21 34",
    ],
)
def test_these_stay(text: str) -> None:
    assert mask(text) == text


def test_the_same_digits_elsewhere_do_not() -> None:
    assert mask("call 06.12.34.56.78") == "call (phone)"
    assert mask("call 1700000001") != "call 1700000001"
    assert mask("756.9217.0769.85") == mask("7569217076985") == "(id)"
