"""No secret is left in a text, whatever it is spelled and written like."""

from __future__ import annotations

import base64
import html
import json
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core import redact as module
from rerank_core.redact import HIDDEN, SHORTEST, know, redact, redact_tree

SECRET = "s3cret-Value/x+y"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test knows its own secrets alone, and leaves none behind."""
    monkeypatch.setattr(module, "_known", set())
    monkeypatch.setattr(module, "_forms", ())


def b64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


ECHOES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "JSON with slashes": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
    "base64 in JSON for HTML": lambda secret: b64(secret).replace("=", "\\u003d"),
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "Python": lambda secret: repr(secret)[1:-1],
    "bytes": lambda secret: repr(secret.encode("utf-8", "surrogatepass"))[2:-1],
    "URL": lambda secret: urllib.parse.quote(secret.encode("utf-8", "surrogatepass"), safe=""),
    "path": lambda secret: urllib.parse.quote(secret.encode("utf-8", "surrogatepass")),
    "form": lambda secret: urllib.parse.quote_plus(secret.encode("utf-8", "surrogatepass")),
    "HTML": html.escape,
    "base64": b64,
    "base64 of a URL": lambda secret: b64(secret).replace("+", "-").replace("/", "_").rstrip("="),
    "hex": lambda secret: secret.encode("utf-8", "surrogatepass").hex(),
}


@pytest.mark.parametrize("echo", ECHOES)
@given(secret=st.text(min_size=SHORTEST), before=st.text(), after=st.text())
def test_a_known_secret_is_removed_however_it_is_echoed(
    echo: str, secret: str, before: str, after: str
) -> None:
    module._known, module._forms = set(), ()
    know(secret)
    echoed = ECHOES[echo](secret)
    shown = redact(f"{before}{echoed}{after}", guess=False)
    assert echoed not in shown
    assert secret not in shown
    assert HIDDEN in shown
    assert echoed not in redact(f"{before}{echoed}{after}")


@given(secret=st.text(min_size=12), user=st.text(max_size=9), after=st.text(max_size=9))
def test_a_secret_is_removed_within_the_base64_of_a_longer_text(secret: str, user: str, after: str) -> None:
    module._known, module._forms = set(), ()
    know(secret)
    echoed = b64(f"{user}:{secret}{after}")
    shown = redact(f"Got {echoed}.", guess=False)
    # At both ends a character holds bits of the secret and of what stands beside it.
    assert HIDDEN in shown
    assert len(shown) <= len("Got .") + len(HIDDEN) + len(b64(f"{user}:")) + len(b64(after)) + 4


@given(st.lists(st.text(min_size=SHORTEST, max_size=6), min_size=2, max_size=3), st.text(max_size=40))
def test_what_is_left_beside_a_secret_makes_up_no_other(secrets: list[str], text: str) -> None:
    module._known, module._forms = set(), ()
    know(*secrets)
    half = len(secrets[0]) // 2
    shown = redact(text + secrets[0][:half] + secrets[1] + secrets[0][half:] + secrets[0])
    assert not [secret for secret in secrets if secret in shown]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: ApiKey dXNlcjpwYXNz is invalid", "Authorization: *** is invalid"),
        ("Authorization: ApiKey *** is known", "Authorization: ApiKey *** is known"),
        ("authorization=[Basic dXNlcjpwYXNz], host=[x]", "authorization=[***], host=[x]"),
        ('{"Authorization": "Bearer abc", "a": 1}', '{"Authorization": "***", "a": 1}'),
        ("{'authorization': ['Negotiate abc'], 'a': 1}", "{'authorization': ['***'], 'a': 1}"),
        (r"{\"api_key\": \"a b \\\" c\", \"a\": 1}", r"{\"api_key\": \"***\", \"a\": 1}"),
        ('"api_key" : "x", "client_secret": "y"', '"api_key" : "***", "client_secret": "***"'),
        ("parsed Basic dXNlcjpwYXNz twice", "parsed Basic *** twice"),
        ("bearer a1b2c3d4e5 expired", "bearer *** expired"),
        ("ApiKey abcdefghijklmnop", "ApiKey ***"),
        ("password=hunter2&user=jo", "password=***&user=jo"),
        ("GET /_search?apikey=abc&size=1", "GET /_search?apikey=***&size=1"),
        ("https://b.example/x?X-Amz-Signature=ab12&a=1", "https://b.example/x?X-Amz-Signature=***&a=1"),
        ("https://elastic:p@ss/w@host:9200/x", "https://***@host:9200/x"),
        ("https://key@host/x", "https://***@host/x"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = ***"),
        ("no access for AKIAIOSFODNN7EXAMPLE", "no access for ***"),
        ("hf_abcdefghijklmnopqrstuv and ghp_abcdefghijklmnop1234", "*** and ***"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSM here", "*** here"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- end", "*** end"),
        ("cut off: -----BEGIN PRIVATE KEY-----\nMIIE", "cut off: ***"),
    ],
)
def test_what_looks_like_a_credential_is_removed(text: str, left: str) -> None:
    assert redact(text) == left
    assert redact(left) == left
    assert redact(text, guess=False) == text


@pytest.mark.parametrize(
    "text",
    [
        "credentials are read from NIGHTRANK_ES_API_KEY, NIGHTRANK_ES_USERNAME and NIGHTRANK_ES_PASSWORD, or",
        "basic authentication failed; bearer tokens need a licence; Basic Instinct",
        "http://127.0.0.1:9200/index@day is not found",
        "scoring.max_tokens = 512: 5 tokens, token: 3",
        "no field 'password', which log.fields.user names; its fields are token, key",
        "the key of the row is 17; monkeys, Tokyo: 3",
    ],
)
def test_what_only_mentions_credentials_stays(text: str) -> None:
    assert redact(text) == text


def test_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}-of-a-file\n")
    monkeypatch.setenv("NIGHTRANK_ES_PASSWORD_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("NIGHTRANK_ES_USERNAME", "jo")
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}-of-a-hub")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-alarm")
    monkeypatch.setattr(module, "_known", None)
    pair = b64(f"jo:{SECRET}-of-a-file")
    assert redact(f"x {SECRET}-of-a-file {pair} {SECRET}-of-a-hub false-alarm") == "x *** *** *** false-alarm"


def test_a_pipe_that_the_environment_names_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for a writer
    monkeypatch.setenv("HF_TOKEN_FILE", str(tmp_path / "pipe"))
    monkeypatch.setattr(module, "_known", None)
    assert redact("text") == "text"


def test_trees_keep_their_form() -> None:
    know(SECRET)
    tree = {"a": [f"x{SECRET}", 1, None, {"b": True}], "c": ("Basic dXNlcjpwYXNz",)}
    assert redact_tree(tree) == {"a": ["x***", 1, None, {"b": True}], "c": ["Basic ***"]}
