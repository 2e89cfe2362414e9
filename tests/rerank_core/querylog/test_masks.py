"""Masking: what identifies a person goes, what only looks like it stays, and doing it twice changes nothing."""

from __future__ import annotations

import re
import string

import phonenumbers
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from stdnum import luhn

from benchmarks.masks import measure
from rerank_core.querylog.harmless_numbers import is_harmless_alone
from rerank_core.querylog.masks import mask
from rerank_core.text import normalise_query


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("john.doe@example.com password", "(email) password"),
        ("mail john@example.co.uk or jane@x.org", "mail (email) or (email)"),
        ("müller@bücher.example", "(email)"),
        ("john＠example.com", "(email)"),
        ("call +49 30 1234567", "call (phone)"),
        ("who is +1 (555) 123-4567", "who is (phone)"),
        ("(555) 223-4567 who", "(phone) who"),
        ("555-223-4567", "(phone)"),
        ("06 12 34 56 78", "(phone)"),
        ("030/1234567", "(phone)"),
        ("0049 30 12345678", "(phone)"),
        ("my card 4111 1111 1111 1111 15", "my card (card) 15"),
        ("2026 4111-1111-1111-1111", "2026 (card)"),
        ("4111111111111111", "(card)"),
        ("３７８２８２２４６３１０００５", "(card)"),
        ("3782 822463 10005", "(card)"),
        ("4111 1111 1111 1112 and 4111111111111112", "4111 1111 1111 1112 and (number)"),
        ("ssn 123-45-6789", "ssn (id)"),
        ("order 123456789 late", "order (number) late"),
        ("DE89 3704 0044 0532 0130 00 bank", "(iban) bank"),
        ("de89370400440532013000", "(iban)"),
        ("GB82 WEST 1234 5698 7654 32", "(iban)"),
        ("BE68 5390 0754 7034 bank", "(iban) bank"),
        ("NO93 8601 1117 947", "(iban)"),
        ("DE89 3704 0044 0532 0130 01 mistyped", "(iban) mistyped"),
        ("123456789+49 1234 5678", "(number)(phone)"),
    ],
)
def test_what_identifies_a_person_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "iphone 15",
        "1984",
        "route 66",
        "covid 2019",
        "catch-22",
        "boeing 747-8 vs 777x",
        "c++ 11 or 14 or 17",
        "who won 1914-1918 and 1939-1945",
        "1914 1918 1939 1945",
        "nba 2019 2020 400 points",
        "007 1995 2006 2021",
        "01.02.2024 03.04.2024",
        "2024-01-15 2024-02-01",
        "20240115 event",
        "192.168.100.200 login",
        "windows 10.0.19041.1237",
        "3.14159265358979",
        "is 1000000000 a billion",
        "4 8 15 16 23 42",
        "1,000,000,000 dollars",
        "speed 300 000 000",
        "10 20 30 40 50 60",
        "@alice on instagram",
        "what is an @ sign",
        "ps22 some word that 2019 2020",
        "mk42 blue 2019 2020",
        "90210",
        "555-1234",
        "24/7",
        "9/11",
        "1 + 1",
    ],
)
def test_years_short_numbers_and_the_like_stay(text: str) -> None:
    assert mask(text) == text


PIECES = st.one_of(
    st.sampled_from(
        [
            "a@b.com",
            "@",
            "+49 30 1234567",
            "4111 1111 1111 1111",
            "123456789",
            "DE89 3704 0044 0532 0130 00",
            "2019",
            "1984-1985",
            "06 12 34 56 78",
            "(email)",
            " ",
            "-",
            ".",
            "+",
            "x",
            "(",
            "00",
        ]
    ),
    st.text(alphabet="0123456789 -.+/()@aZ＠٣", max_size=12),
    st.text(max_size=6),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@given(TEXTS)
def test_masking_is_idempotent(text: str) -> None:
    assert mask(mask(text)) == mask(text)


@given(TEXTS)
def test_a_masked_query_is_normalised_still(text: str) -> None:
    masked = mask(normalise_query(text))
    assert normalise_query(masked) == masked


words = st.text(alphabet=string.ascii_letters, min_size=1, max_size=8)
years = st.integers(1000, 2100).map(str)
short_numbers = st.integers(0, 9999).map(str)


@given(st.lists(st.tuples(words, st.one_of(years, short_numbers)), max_size=6))
def test_words_with_years_and_short_numbers_are_never_masked(pairs: list[tuple[str, str]]) -> None:
    text = " ".join(f"{word} {number}" for word, number in pairs)
    assert mask(text) == text


@given(st.lists(years, min_size=1, max_size=8), st.sampled_from([" ", "-", ", ", "/"]))
def test_rows_of_years_are_never_masked(found: list[str], between: str) -> None:
    assert mask(between.join(found)) == between.join(found)


@given(
    st.sampled_from(["account", "who is", "order"]),
    st.integers(100_000_001, 10**19).filter(lambda number: not str(number).endswith("0" * 6)),
    st.sampled_from(["where", "late", "name"]),
)
def test_long_numbers_never_stay(before: str, number: int, after: str) -> None:
    assume(len(str(number).strip("0")) > 3 and not is_harmless_alone(str(number)))
    masked = mask(f"{before} {number} {after}")
    assert str(number) not in masked
    assert re.fullmatch(rf"{before} \((number|card|phone|id)\) {after}", masked)


@given(words, words, st.sampled_from(["com", "org", "co.uk", "example"]))
def test_addresses_never_stay(name: str, host: str, ending: str) -> None:
    assert mask(f"why {name}@{host}.{ending} bounces") == "why (email) bounces"


def test_a_long_text_is_masked_in_time() -> None:
    for hostile in (
        "7" * 20_000,
        "1-" * 9_000,
        "12345-" * 3_000,
        "a" * 20_000 + "@",
        "+1 " * 7_000,
        "ab12" * 5_000,
        "@a." * 7_000,
    ):
        mask(hostile)


# --- telephones, cards, ids, secrets


LARGEST = "IN CN US ID PK NG BR BD RU ET MX JP EG PH CD VN IR TR DE TH GB FR IT ES PL".split()
"""The twenty largest countries by people, and five more."""


WRITTEN = {
    phonenumbers.format_number(number, form).replace(" ", between)
    for region in LARGEST
    for kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE)
    for form in (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL)
    for between in " -."
    if (number := phonenumbers.example_number_for_type(region, kind))
}


# A local number of eight digits cannot be told from an order's.
@pytest.mark.parametrize("written", sorted(w for w in WRITTEN if sum(map(str.isdigit, w)) >= 9))
def test_telephones_are_masked_as_each_country_writes_them(written: str) -> None:
    assert mask(f"who is {written} please") == "who is (phone) please"


GROUPINGS = st.sampled_from([(4, 4, 4, 4), (16,), (6, 10), (2,) * 8, (1,) * 16, (8, 8), (4, 12), (4, 4, 8)])


@given(
    st.sampled_from(["4", "51", "55", "2221", "6011"]),
    st.integers(0, 10**15 - 1),
    GROUPINGS,
    st.sampled_from([" ", "-", ".", "–"]),
)
def test_cards_are_masked_in_every_grouping(
    start: str, rest: int, groups: tuple[int, ...], between: str
) -> None:
    digits = f"{start}{rest:015}"[:15]
    digits += luhn.calc_check_digit(digits)
    parts, done = [], 0
    for size in groups:
        parts.append(digits[done : done + size])
        done += size
    assume(not all(re.fullmatch("1[0-9]{3}|20[0-9]{2}|2100", part) for part in parts))
    assert mask(f"card {between.join(parts)} lost") == "card (card) lost"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://a.example/?u=john%40example.com&x=1", "https://a.example/?u=(email)&x=1"),
        ("mailto%3Ajohn.doe%2540example.com", "(email)"),
        ("psql postgres://admin:s3cret@db:5432/x", "psql postgres://(secret)@db:5432/x"),
        ("export API_KEY=abc123def456 now", "export API_KEY=(secret) now"),
        ("Authorization: Bearer 0123456789abcdef", "Authorization: Bearer (secret)"),
        ("key -----BEGIN EC PRIVATE KEY----- MHcCAQEE", "key (secret)"),
        ("\u0041KIAIOSFODNN7EXAMPLE", "(secret)"),
        ("why is \u0073k-ant-api03-abcd1234efgh5678ijkl rejected", "why is (secret) rejected"),
    ],
)
def test_addresses_in_addresses_and_what_gives_access_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("text", "also", "masked"),
    [
        ("ping 192.168.100.200 fails", (), "ping 192.168.100.200 fails"),
        ("ping 192.168.100.200 fails", ("ip",), "ping (ip) fails"),
        ("2001:db8::8a2e:370:7334 and ::1", ("ip",), "(ip) and (ip)"),
        ("at 10:30:45 in version 1.2.3", ("ip",), "at 10:30:45 in version 1.2.3"),
        ("isbn 9780306406157", (), "isbn 9780306406157"),
        ("isbn 9780306406157", ("product",), "isbn (number)"),
        ("isbn 978-0-306-40615-7", ("product",), "isbn (number)"),
    ],
)
def test_more_is_masked_on_demand(text: str, also: tuple[str, ...], masked: str) -> None:
    assert mask(text, also=also) == masked


def test_the_labelled_list_is_met() -> None:
    figures = measure(quick=True)
    for part in ("", "_held_out"):
        assert figures[f"mask_precision{part}"] >= 0.95
        assert figures[f"mask_recall{part}"] >= 0.95
