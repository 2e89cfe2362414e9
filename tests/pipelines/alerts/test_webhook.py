"""Messages that are posted to a real receiver on loopback: taken, refused, repeated, and never with the secret URL."""

from __future__ import annotations

import datetime
import email.utils
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme

from pipelines.alerts.night import STATES
from pipelines.alerts.webhook import VARIABLE, body, post, webhook_url
from rerank_core.errors import ConfigError
from rerank_core.redact import redact
from tests.pipelines.alerts.conftest import Ends
from tests.support.receiver import Answer, receiver
from tests.support.tiny import QUERIES

SECRET = "s3cr3t-token-of-a-hook"
MESSAGE = {"text": "a night ended"}


def assert_told(problem: str, *texts: str) -> None:
    """One line that says why, and not where to."""
    assert problem
    assert "\n" not in problem
    assert SECRET not in problem
    for text in texts:
        assert text in problem


@pytest.mark.parametrize("state", STATES)
def test_a_message_is_what_slack_takes(ends: Ends, state: str) -> None:
    message = body(ends(state))
    kinds = [block["type"] for block in message["blocks"]]
    assert (kinds[0], set(kinds[1:])) == ("header", {"section"})
    assert message["blocks"][0]["text"]["type"] == "plain_text"
    assert 0 < len(message["blocks"][0]["text"]["text"]) <= 150
    for block in message["blocks"][1:]:
        assert block["text"]["type"] == "mrkdwn"
        assert 0 < len(block["text"]["text"]) <= 3000
        assert "<" not in block["text"]["text"]
    assert message["text"]
    assert not [query for query in QUERIES if query.lower() in str(message).lower()]


def test_what_slack_would_obey_is_escaped(ends: Ends) -> None:
    assert "KS distance &lt;of&gt; the scores &amp; more" in body(ends("warn"))["blocks"][1]["text"]["text"]


def test_a_message_arrives_whole(ends: Ends) -> None:
    with receiver() as hook:
        assert post(hook.url(), body(ends("held")), seconds=20) == ""
    assert hook.received == [body(ends("held"))]
    assert hook.paths == [f"/services/T0/B0/{SECRET}"]


def test_a_receiver_that_is_busy_or_away_is_asked_again() -> None:
    wait = (("Retry-After", "0.2"),)
    answers = (Answer(500), Answer(hang_up=True), Answer(429, wait), Answer(503), Answer(200))
    with receiver(*answers) as hook:
        assert post(hook.url(), MESSAGE, seconds=60) == ""
    assert hook.received == [MESSAGE] * 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_receiver_that_refuses_is_not_asked_again(status: int) -> None:
    with receiver(Answer(status)) as hook:
        problem = post(hook.url(), MESSAGE, seconds=20)
    assert_told(problem, f"HTTP {status}; check {VARIABLE}", "webhook at localhost")
    assert len(hook.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiver() as other, receiver(Answer(status, (("Location", other.url("/elsewhere")),))) as hook:
        problem = post(hook.url(), MESSAGE, seconds=20)
    assert_told(problem, f"HTTP {status}: redirects are not followed")
    assert (len(hook.received), other.received) == (1, [])


def when(seconds: float) -> str:
    return email.utils.format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds), usegmt=True
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, (("Retry-After", "3600"),)),
        Answer(429, (("Retry-After", when(3600)),)),
        Answer(500),
        Answer(seconds=3600),
        Answer(drip=0.05),
        Answer(hang_up=True),
    ],
    ids=["asks to wait", "asks to wait until", "always 500", "never answers", "byte by byte", "hangs up"],
)
def test_a_night_is_never_kept_waiting(answer: Answer) -> None:
    """The receiver would take an hour: that this ends at all is the test, and it ends about when it was told to."""
    started = time.monotonic()
    with receiver(answer) as hook:
        problem = post(hook.url(), MESSAGE, seconds=2)
        waited = time.monotonic() - started
    assert_told(problem, "webhook at localhost", "alerts.webhook_timeout_seconds = 2")
    assert hook.received
    assert waited < 600


def test_a_receiver_that_is_not_there_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    problem = post(f"http://127.0.0.1:{port}/services/{SECRET}", MESSAGE, seconds=8)
    assert_told(problem, "no connection", "webhook at 127.0.0.1")


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that this process trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return made


def served_by(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_https_is_verified(authority: trustme.CA) -> None:
    with receiver(context=served_by(authority, "localhost")) as hook:
        assert post(hook.url(), MESSAGE, seconds=20) == ""
        assert hook.received == [MESSAGE]
    for stranger in (served_by(trustme.CA(), "localhost"), served_by(authority, "other.example")):
        with receiver(context=stranger) as hook:
            problem = post(hook.url(), MESSAGE, seconds=20)
        assert_told(problem, "certificate cannot be verified", "SSL_CERT_FILE")
        assert hook.received == []


def test_the_url_is_read_as_other_secrets_are(tmp_path: Path) -> None:
    url = f"https://hooks.example/services/T0/{SECRET}"
    (tmp_path / "url").write_text(f"{url}\n")
    assert webhook_url({}) == ""
    assert webhook_url({VARIABLE: url}) == url == webhook_url({f"{VARIABLE}_FILE": str(tmp_path / "url")})
    assert SECRET not in redact(f"cannot reach {url} or /{SECRET}")
    with pytest.raises(ConfigError, match="both set"):
        webhook_url({VARIABLE: url, f"{VARIABLE}_FILE": str(tmp_path / "url")})


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://x/{SECRET}",
        SECRET,
        f"https:///{SECRET}",
        f"https://h:99999/{SECRET}",
        f"https://h/{SECRET} x",
        f"https://user:{SECRET}@h/path",
        f"https://{SECRET}@h:443/path",
    ],
)
def test_what_is_no_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match=VARIABLE) as raised:
        webhook_url({VARIABLE: url})
    assert SECRET not in str(raised.value)
