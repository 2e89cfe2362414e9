"""A message to a webhook, in the format of Slack's incoming webhooks, which Mattermost and others take as well.

The URL is a secret: whoever has it can post. It is read from the environment, and no error names more than its host.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import http.client
import json
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.alerts.night import Night, happened, readers, remedy, title
from pipelines.elasticsearch.retry import backoff
from rerank_core.errors import ConfigError
from rerank_core.files import read_secret
from rerank_core.redact import know, redact

VARIABLE = "NIGHTRANK_WEBHOOK_URL"
LONGEST_TRY = 10.0  # seconds
_MOST_HEADER, _MOST_TEXT = 150, 2900  # characters that Slack takes in a header and, nearly, in a section
_COLOURS = {"published": ":white_check_mark:", "warn": ":warning:", "held": ":no_entry:", "failed": ":x:"}


def webhook_url(environment: Mapping[str, str]) -> str:
    """The URL to post to; "" if none is set.

    Raises:
        ConfigError: no URL of http or https, one with a password, set twice, or not to be read. It is never quoted.
    """
    url = read_secret(environment, VARIABLE)
    if not url:
        return ""
    know(url)
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("https", "http") and parts.hostname and (parts.port or True)
    except ValueError:
        valid = False
    if not valid or not url.isprintable() or " " in url or not url.isascii():
        raise ConfigError(f"{VARIABLE} is no URL of https:// or http://; was it copied as a whole?")
    if "@" in parts.netloc:  # urllib would take the password for a part of the host, and quote it
        raise ConfigError(
            f"{VARIABLE} has a user or password before its host, which webhooks do not take; leave it out"
        )
    # Parts that say it all by themselves; "hooks" would be found in ordinary texts.
    know(
        *(
            part
            for part in (parts.path.strip("/"), parts.path.rpartition("/")[2], parts.query)
            if len(part) > 15
        )
    )
    return url


def body(night: Night) -> dict[str, Any]:
    """The message: one glance says what happened, what readers see now, and what to do."""
    lines, end = happened(night), [readers(night), remedy(night)]
    text = re.sub(r"&[a-z]*$", "", _escaped("\n".join(lines))[:_MOST_TEXT])
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title(night)[:_MOST_HEADER]}}
    ]
    if text:
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": _escaped("\n".join(end))}})
    return {
        "text": "\n".join([f"{_COLOURS[night.state]} {title(night)}", text, *map(_escaped, end)]),
        "blocks": blocks,
    }


def _escaped(text: str) -> str:
    """Text that means nothing to Slack: it could address a channel, or hide a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def post(url: str, message: Mapping[str, Any], *, seconds: float) -> str:
    """Post a message, and again while the receiver is busy or away.

    Args:
        url: of the webhook.
        message: JSON data.
        seconds: after which this returns, whatever the receiver and the network do.

    Returns:
        Why it could not be sent, on one line; "" if it was.
    """
    problem = [f"no answer within alerts.webhook_timeout_seconds = {seconds:g}"]

    def send() -> None:
        try:
            problem[0] = _post(url, message, seconds)
        except Exception as error:  # a thread's exception would be lost
            problem[0] = f"{type(error).__name__}: {error}"

    # In a thread, since neither the look-up of a host name nor an answer byte by byte ends with a socket's timeout.
    thread = threading.Thread(target=send, daemon=True, name="webhook")
    thread.start()
    thread.join(seconds)
    host = urllib.parse.urlsplit(url).hostname
    return f"webhook at {host}: {' '.join(redact(problem[0]).split())}" if problem[0] else ""


class _Try(NamedTuple):
    """How one try ended."""

    problem: str  # "": it was taken
    again: bool = False
    wait: float = 0.0  # seconds for which the receiver asks


def _post(url: str, message: Mapping[str, Any], seconds: float) -> str:
    end, attempt = time.monotonic() + seconds, 0
    while True:
        attempt += 1
        left = end - time.monotonic()
        tried = _try(url, message, min(LONGEST_TRY, max(0.1, left)))
        if not tried.again:
            return tried.problem
        wait = max(tried.wait, backoff(attempt, random_share=random.random()))
        if time.monotonic() + wait >= end:
            return f"{tried.problem} ({attempt} tries in alerts.webhook_timeout_seconds = {seconds:g})"
        time.sleep(wait)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The message goes to the host that was configured, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _try(url: str, message: Mapping[str, Any], seconds: float) -> _Try:
    request = urllib.request.Request(
        url,
        data=json.dumps(message).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "nightrank"},
        method="POST",
    )
    verified = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(_NoRedirects, verified)
    try:
        with opener.open(request, timeout=seconds):
            return _Try("")
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            return _refused(error.code, error.headers.get("Retry-After", ""))
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            remedy = "set SSL_CERT_FILE to its authority's certificate, if that is your own"
            return _Try(f"its certificate cannot be verified ({cause.verify_message}); {remedy}")
        if isinstance(cause, TimeoutError):
            return _Try("no answer in time", again=True)
        return _Try(f"no connection ({cause})", again=True)


def _refused(status: int, retry_after: str) -> _Try:
    if status in (408, 425, 429) or status >= 500:
        return _Try(f"HTTP {status}", again=True, wait=_seconds(retry_after))
    if 300 <= status < 400:
        return _Try(f"HTTP {status}: redirects are not followed; set {VARIABLE} to where it leads")
    return _Try(f"HTTP {status}; check {VARIABLE}")


def _seconds(retry_after: str) -> float:
    """The wait that a Retry-After header asks for, a number of seconds or a date."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(retry_after))
    with contextlib.suppress(ValueError, TypeError):
        when = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
    return 0.0
