"""What is shown of a bad value names nobody; users are hashes; privacy is on by default."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import redact
from rerank_core.config.night import parse_config
from rerank_core.config.source import LogFields, Privacy
from rerank_core.errors import ConfigError
from rerank_core.querylog.events import EventError, parse_event, screen
from rerank_core.querylog.privacy import hash_user, shown

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


def test_a_secret_is_hidden_before_the_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", set())
    monkeypatch.setattr(redact, "_forms", ())
    redact.know("correct horse battery")
    assert shown("x" * 70 + " correct horse battery staple") == f"'{'x' * 70} *** stapl'..."


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
    assert Privacy() == Privacy(mask=True, mask_also=(), min_users=1, max_events_per_user=20)


def test_min_users_needs_a_log_that_names_users() -> None:
    nameless = {"log": {"fields": {"user": ""}}}
    assert parse_config({**nameless, "privacy": {"min_users": 1}}).privacy.min_users == 1
    assert parse_config({"privacy": {"min_users": 2}}).privacy.min_users == 2
    with pytest.raises(ConfigError, match=r"privacy\.min_users = 2.*log\.fields\.user"):
        parse_config({**nameless, "privacy": {"min_users": 2}})
