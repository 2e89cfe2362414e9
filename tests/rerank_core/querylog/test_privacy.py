"""Masking: what identifies a person goes, what only looks like it stays, and doing it twice changes nothing."""

from __future__ import annotations

import contextlib
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.night import LogFields, Privacy, parse_config
from rerank_core.errors import ConfigError
from rerank_core.querylog.events import EventError, parse_event, screen
from rerank_core.querylog.privacy import hash_user, mask, shown
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
        ("ssn 123-45-6789", "ssn (number)"),
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


@given(words, st.integers(100_000_001, 10**19).filter(lambda n: len(str(n).strip("0")) > 3), words)
def test_long_numbers_never_stay(before: str, number: int, after: str) -> None:
    masked = mask(f"{before} {number} {after}")
    assert str(number) not in masked
    assert re.fullmatch(rf"{before} \((number|card|phone)\) {after}", masked)


@given(words, words, st.sampled_from(["com", "org", "co.uk", "example"]))
def test_addresses_never_stay(name: str, host: str, ending: str) -> None:
    assert mask(f"why {name}@{host}.{ending} bounces") == "why (email) bounces"


def test_a_long_text_is_masked_in_time() -> None:
    for hostile in (
        "1-" * 9_000,
        "12345-" * 3_000,
        "a" * 20_000 + "@",
        "+1 " * 7_000,
        "ab12" * 5_000,
        "@a." * 7_000,
    ):
        mask(hostile)


SECRETS = st.sampled_from(
    [
        "john.doe@example.com",
        "4111 1111 1111 1111",
        "4111111111111111",
        "+49 30 1234567",
        "DE89370400440532013000",
    ]
)
NESTED = st.recursive(
    st.one_of(SECRETS, st.builds("{} {}".format, st.text(max_size=9), SECRETS), st.just(4111111111111111)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.one_of(SECRETS, st.text(max_size=5)), inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


def leaks(text: str) -> bool:
    compact = re.sub(r"\W", "", text)
    return any(
        part in compact for part in ("johndoe", "examplecom", "4111111111111", "49301234", "8937040044")
    )


@given(NESTED)
def test_what_is_shown_of_a_bad_value_names_nobody(value: object) -> None:
    assert not leaks(shown(value))


@given(NESTED, st.sampled_from(["query", "timestamp", "user", "clicks", "impressions"]))
def test_no_dead_letter_names_anybody_whatever_the_field_holds(value: object, field: str) -> None:
    event = {"query": "q", "timestamp": "2026-03-02T10:00:00Z", field: value}
    for raw in (event, value, [event]):
        with contextlib.suppress(EventError):
            screen(parse_event(raw, LogFields(), record="r"), window=None, max_query_chars=3)
            continue
        with pytest.raises(EventError) as caught:
            screen(parse_event(raw, LogFields(), record="r"), window=None, max_query_chars=3)
        assert not leaks(caught.value.detail)


@given(st.integers(0, 5000), st.integers(0, 40), SECRETS)
def test_where_a_long_value_is_cut_nothing_shows(before: int, addresses: int, secret: str) -> None:
    text = "a@example.org " * addresses + "." * before + f" {secret} and more" * 300
    assert not leaks(shown(text))


def test_a_bad_value_is_quoted_short_and_visibly() -> None:
    assert shown("a\u200bb\x00") == r"'a\u200bb\x00'"
    assert shown("a" * 200) == f"'{'a' * 80}'..."
    assert shown(None) == "None"
    assert shown(2.5) == "2.5"
    assert shown({"a": 1}) == "a dict"
    assert shown(10**5000) == "an integer of more than 100 digits"


def test_users_are_told_apart_by_a_keyed_hash() -> None:
    salt = b"0" * 16
    assert hash_user("alice", salt) == hash_user("alice", salt) != hash_user("bob", salt)
    assert hash_user("alice", salt) != hash_user("alice", b"1" * 16)
    assert "alice" not in hash_user("alice", salt)
    assert hash_user("", salt) == ""


def test_privacy_is_on_by_default() -> None:
    assert Privacy() == Privacy(mask=True, min_users=1, max_events_per_user=20)


def test_min_users_needs_a_log_that_names_users() -> None:
    nameless = {"log": {"fields": {"user": ""}}}
    assert parse_config({**nameless, "privacy": {"min_users": 1}}).privacy.min_users == 1
    assert parse_config({"privacy": {"min_users": 2}}).privacy.min_users == 2
    with pytest.raises(ConfigError, match=r"privacy\.min_users = 2.*log\.fields\.user"):
        parse_config({**nameless, "privacy": {"min_users": 2}})
