"""The connection: address, credentials, and what an error means."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from elastic_transport import ConnectionError, ConnectionTimeout, TlsError

from pipelines.elasticsearch.candidates import read_item
from pipelines.elasticsearch.client import classify_error, classify_status, credentials, incomplete
from pipelines.elasticsearch.retry import Answered, Refused, Retry
from rerank_core.errors import ConfigError, SourceError
from rerank_core.redact import redact
from tests.support.es_config import settings

SECRET = "s3cret-Value"


# --- what an error means

REJECTED = {
    "type": "es_rejected_execution_exception",
    "reason": "rejected execution of X: queue capacity = 1",
}
BREAKER = {"type": "circuit_breaking_exception", "reason": "[request] Data too large"}


def failure(
    status: int, cause: dict[str, Any], kind: str = "search_phase_execution_exception"
) -> dict[str, Any]:
    error = {
        "type": kind,
        "reason": "all shards failed",
        "root_cause": [cause],
        "failed_shards": [{"reason": cause}],
    }
    return {"error": error, "status": status}


@pytest.mark.parametrize(
    ("status", "cause", "kind"),
    [
        (429, REJECTED, "busy"),
        (503, REJECTED, "busy"),
        (429, BREAKER, "busy"),
        (
            404,
            {"type": "search_context_missing_exception", "reason": "No search context found"},
            "lost_context",
        ),
        (503, {"type": "no_shard_available_action_exception", "reason": "no shard"}, "failed"),
        (500, {"type": "null_pointer_exception", "reason": None}, "failed"),
        (400, {"type": "query_shard_exception", "reason": "failed to create query"}, "refused"),
    ],
)
def test_errors_are_classified(status: int, cause: dict[str, Any], kind: str) -> None:
    found = classify_status(status, failure(status, cause), settings=settings())
    assert found.kind == kind
    assert cause["type"] in found.detail
    assert str(cause["reason"]) in found.detail


def test_the_fetch_phase_names_its_reason_elsewhere() -> None:
    error = {
        "type": "search_phase_execution_exception",
        "reason": "",
        "phase": "fetch",
        "root_cause": [],
        "failed_shards": [],
        "caused_by": REJECTED,
    }
    found = classify_status(503, {"error": error, "status": 503}, settings=settings())
    assert found == ("busy", f"{REJECTED['type']}: {REJECTED['reason']}", False)


@pytest.mark.parametrize(
    ("status", "cause", "message"),
    [
        (401, {"type": "security_exception", "reason": f"token {SECRET}"}, "authentication failed.*API_KEY"),
        (
            403,
            {"type": "security_exception", "reason": "no"},
            "permission denied.*'read' and 'view_index_metadata'",
        ),
        (
            404,
            {"type": "index_not_found_exception", "reason": "no such index [docs]"},
            r"no such index \[docs\]",
        ),
        (400, {"type": "index_closed_exception", "reason": "closed"}, "closed"),
    ],
)
def test_errors_that_end_the_night_say_what_to_do(status: int, cause: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        classify_status(status, failure(status, cause), settings=settings())
    assert SECRET not in str(caught.value)


def test_exceptions_of_the_client_are_classified() -> None:
    assert classify_error(ConnectionTimeout("x"), settings=settings())[::2] == ("no_response", True)
    assert classify_error(ConnectionError("x"), settings=settings())[::2] == ("no_response", False)
    with pytest.raises(SourceError, match=r"cannot be verified.*ca_file"):
        classify_error(TlsError("x"), settings=settings())
    with pytest.raises(ZeroDivisionError):
        classify_error(ZeroDivisionError(), settings=settings())


def test_a_200_answer_may_be_incomplete() -> None:
    whole = {"timed_out": False, "_shards": {"total": 2, "failed": 0}, "hits": {"hits": []}, "status": 200}
    assert incomplete(whole) == ""
    assert read_item(whole, settings=settings()) == Answered([])
    shards = {"total": 2, "failed": 1, "failures": [{"shard": 0, "reason": REJECTED}]}
    partial = whole | {"_shards": shards}
    assert incomplete(partial).startswith("1 of 2 shards failed: es_rejected_execution_exception: rejected")
    found = read_item(partial, settings=settings())
    assert isinstance(found, Retry)
    assert found.cause == "busy"
    assert isinstance(read_item(whole | {"timed_out": True}, settings=settings()), Retry)
    assert isinstance(read_item(failure(400, {"type": "x", "reason": "y"}), settings=settings()), Refused)


# --- address and credentials


def test_credentials_come_from_the_environment_one_way(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    assert credentials({}) == {}
    assert credentials({"NIGHTRANK_ES_API_KEY": SECRET}) == {"api_key": SECRET}
    assert credentials({"NIGHTRANK_ES_API_KEY_FILE": str(file)}) == {"api_key": SECRET}
    assert credentials({"NIGHTRANK_ES_BEARER": SECRET}) == {"bearer_auth": SECRET}
    both = {"NIGHTRANK_ES_USERNAME": "reader", "NIGHTRANK_ES_PASSWORD_FILE": str(file)}
    assert credentials(both) == {"basic_auth": base64.b64encode(f"reader:{SECRET}".encode()).decode()}
    assert redact(f"the reader {SECRET}") == "the reader ***"  # a user's name is no secret


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"API_KEY": SECRET, "BEARER": SECRET}, "NIGHTRANK_ES_API_KEY, NIGHTRANK_ES_BEARER are set together"),
        ({"PASSWORD": SECRET}, "NIGHTRANK_ES_USERNAME and NIGHTRANK_ES_PASSWORD together"),
        ({"API_KEY": SECRET, "API_KEY_FILE": "/x"}, "both set"),
        ({"API_KEY_FILE": f"/nowhere/{SECRET}"}, "cannot be read: FileNotFoundError"),
        ({"API_KEY_FILE": "/dev/null"}, "an empty file"),
        ({"API_KEY": f"{SECRET}\n{SECRET}"}, "NIGHTRANK_ES_API_KEY holds characters that cannot be sent"),
        ({"BEARER": f"{SECRET}€"}, "NIGHTRANK_ES_BEARER holds characters"),
        ({"USERNAME": "jo", "PASSWORD": f"{SECRET}\udc80"}, "NIGHTRANK_ES_PASSWORD holds characters"),
    ],
)
def test_credentials_that_are_unclear_are_refused_and_never_quoted(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        credentials({f"NIGHTRANK_ES_{name}": value for name, value in environment.items()})
    assert SECRET not in str(caught.value)


def test_urls_get_their_ports() -> None:
    found = settings(url="https://a.example, http://[::1]:9201/es/, http://b.example")
    assert found.hosts == ("https://a.example:443", "http://[::1]:9201/es", "http://b.example:80")
