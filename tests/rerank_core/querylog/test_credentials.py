"""Pasted credentials become (secret); words about them stay."""

from __future__ import annotations

import random
import string

import pytest

from rerank_core.querylog.masks import mask
from rerank_core.redact import redact


def made(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    return "7a" + "".join(random.Random(length).choices(alphabet, k=length - 2))


# Put together here, so that no scanner of repositories takes them for real ones.
KEYS = [
    "AK" + "IA" + "ABCDEFGH23456789",
    "ghp" + "_" + made(36),
    "github" + "_pat_" + made(70),
    "glpat" + "-" + made(20),
    "xoxb" + "-1234567890-" + made(24),
    "sk" + "-" + made(48),
    "sk" + "-proj-" + made(48),
    "sk" + "-ant-api03-" + made(48),
    "AI" + "za" + made(35),
    "sk" + "_live_" + made(24),
    "SG" + "." + made(22) + "." + made(43),
    "npm" + "_" + made(36),
    "hf" + "_" + made(34),
    "ya29" + "." + made(30),
    "GOCSPX" + "-" + made(28),
    "whsec" + "_" + made(30),
    "dop" + "_v1_" + "a1b2" * 12,
    "shpat" + "_" + "a1b2" * 8,
    "12345678" + ":AA" + made(33),
    "S" + "K" + "a1b2c3d4" * 4,
    "pypi" + "-" + made(50),
    "xapp" + "-1-" + made(30),
    "ey" + "J" + made(20) + ".ey" + "J" + made(40) + "." + made(43),
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_common_services_are_masked_and_in_messages_hidden(key: str) -> None:
    assert mask(f"why is {key} refused") == "why is (secret) refused"
    assert mask(f'curl -H "x: {key}"') == 'curl -H "x: (secret)"'
    assert redact(f"why is {key} refused") == "why is *** refused"


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn-random-forest-classifier",
        "password reset not working",
        "password: how to change it",
        "token: bert-base-uncased",
        "what is a bearer token",
        "secret santa 2023",
        "http://localhost:8080/path",
        "https://example.com/a:b@c",
        "eyjafjallajökull",
        "api key rotation",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_words_about_them_stay(text: str) -> None:
    assert mask(text) == text
