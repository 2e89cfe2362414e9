"""The connection to a cluster: credentials, what its errors mean, and one client per process.

Credentials are read from the environment of each process and stay there: they are not in the pipeline that Beam
pickles, in an error, in a log or in the manifest.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import json
import os
import random
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, TypeVar

from elastic_transport import SerializationError, TlsError, TransportError
from elasticsearch import ApiError, ConnectionTimeout, JsonSerializer
from elasticsearch import Elasticsearch as Client

from pipelines.elasticsearch.retry import Pace, backoff
from pipelines.elasticsearch.secrets import find_secret
from rerank_core.config.source import Elasticsearch
from rerank_core.errors import ConfigError, SourceError, SourceUnavailable
from rerank_core.redact import know
from rerank_core.text import shorten

try:
    import orjson  # several times faster; comes with elasticsearch[orjson]
except ImportError:
    orjson = None  # type: ignore[assignment]

Result = TypeVar("Result")
PREFIX = "NIGHTRANK_ES_"
READING = "reading needs the privileges 'read' and 'view_index_metadata' on the index"


class Settings(NamedTuple):
    """What a connection is opened with; hashable, without secrets."""

    hosts: tuple[str, ...]
    cloud_id: str
    ca_file: str
    client_cert: str
    client_key: str
    verify_tls: bool
    timeout: float
    concurrency: int

    @property
    def name(self) -> str:
        """The cluster, for messages."""
        return ", ".join(self.hosts) or f"cloud_id {self.cloud_id.partition(':')[0]}"


def settings_of(config: Elasticsearch) -> Settings:
    """Check where and how to connect.

    Raises:
        ConfigError: not exactly one of url and cloud_id, an invalid URL, or a URL with credentials in it.
    """
    if bool(config.url) == bool(config.cloud_id):
        raise ConfigError("set one of source.elasticsearch.url and cloud_id; see examples/nightly.toml")
    hosts = tuple(_host(url.strip()) for url in config.url.split(",") if url.strip())
    return Settings(
        hosts=hosts,
        cloud_id=config.cloud_id,
        ca_file=config.ca_file,
        client_cert=config.client_cert,
        client_key=config.client_key,
        verify_tls=config.verify_tls,
        timeout=config.timeout_seconds,
        concurrency=config.concurrency,
    )


def _host(url: str) -> str:
    """The URL with its port. Errors do not quote it: it may hold a password."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        raise ConfigError("source.elasticsearch.url is not a URL, e.g. https://search.example:9200") from None
    if "@" in parts.netloc or parts.query:
        remedy = f"set {PREFIX}API_KEY, or {PREFIX}USERNAME and {PREFIX}PASSWORD, instead"
        raise ConfigError(f"source.elasticsearch.url contains credentials or parameters; {remedy}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"source.elasticsearch.url {url!r} must start with https:// or http:// and a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def credentials(environment: Mapping[str, str]) -> dict[str, Any]:
    """The client's arguments for authentication; none if the environment has no credentials.

    Raises:
        ConfigError: two ways to authenticate, a user without password or the reverse, or a file that cannot be read.
            Values are never quoted.
    """
    names = ("API_KEY", "USERNAME", "PASSWORD", "BEARER")
    values = {name: value for name in names if (value := find_secret(environment, PREFIX + name))}
    ways = {"USERNAME" if name == "PASSWORD" else name for name in values}
    if len(ways) > 1:
        shown = ", ".join(PREFIX + name for name in values)
        raise ConfigError(f"{shown} are set together; unset all but one way to authenticate")
    know(*_secrets(values))
    for name, value in values.items():
        if not value.isprintable() or not (value.isascii() or name in ("USERNAME", "PASSWORD")):
            raise ConfigError(
                f"{PREFIX}{name} holds characters that cannot be sent; was it copied as a whole?"
            )
    if "API_KEY" in values:
        return {"api_key": values["API_KEY"]}
    if "BEARER" in values:
        return {"bearer_auth": values["BEARER"]}
    if not values:
        return {}
    if len(values) == 1:
        raise ConfigError(f"set {PREFIX}USERNAME and {PREFIX}PASSWORD together, or neither")
    # Encoded here, since the client refuses what is not ASCII.
    return {"basic_auth": base64.b64encode(f"{values['USERNAME']}:{values['PASSWORD']}".encode()).decode()}


def _secrets(values: Mapping[str, str]) -> Iterator[str]:
    """What of credentials is secret: not a user's name, but the pair that is sent, and what an API key encodes."""
    yield from (value for name, value in values.items() if name != "USERNAME")
    if "PASSWORD" in values:
        yield f"{values.get('USERNAME', '')}:{values['PASSWORD']}"
    with contextlib.suppress(ValueError):
        pair = base64.b64decode(values.get("API_KEY", ""), validate=True).decode()
        yield from (pair, pair.rpartition(":")[2])


class _Json(JsonSerializer):
    """Reads whatever Elasticsearch stores, invalid Unicode included."""

    def json_loads(self, data: bytes) -> Any:
        try:
            return orjson.loads(data) if orjson else json.loads(data)
        except ValueError:  # a lone surrogate, NaN, bytes that are not UTF-8: no reason to lose a whole page
            return json.loads(data.decode("utf-8", "replace"))


class Connection(NamedTuple):
    """A client, and the threads and the pace that all of a process's requests share."""

    client: Client
    threads: ThreadPoolExecutor
    pace: Pace
    lock: threading.Lock  # around the pace


@functools.lru_cache(maxsize=4)
def connect(settings: Settings) -> Connection:
    """The process's connection, opened once.

    Raises:
        ConfigError: the environment's credentials or the certificate files cannot be used.
    """
    arguments: dict[str, Any] = (
        {"cloud_id": settings.cloud_id} if settings.cloud_id else {"hosts": list(settings.hosts)}
    )
    if any(host.startswith("https:") for host in settings.hosts) or settings.cloud_id:
        arguments |= {"verify_certs": settings.verify_tls, "ssl_show_warn": False, **_certificates(settings)}
    arguments |= credentials(os.environ)
    try:
        client = Client(
            **arguments,
            request_timeout=settings.timeout,
            max_retries=0,  # retry.py does it: the client would repeat a whole batch for one query, and at once
            retry_on_timeout=False,
            connections_per_node=max(10, settings.concurrency),
            serializers={"application/json": _Json()},
        )
    except (ValueError, OSError) as error:
        what = "a certificate file or the cloud_id cannot be used"
        remedy = "see source.elasticsearch.ca_file, client_cert, client_key and cloud_id"
        raise ConfigError(f"{what} ({type(error).__name__}); {remedy}") from None
    _tune_garbage_collector()
    threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="elasticsearch")
    return Connection(client, threads, Pace(settings.concurrency), threading.Lock())


def _tune_garbage_collector() -> None:
    """Exclude the objects that exist now from garbage collection, and collect less often.

    A page of hits is thousands of new objects without cycles, and importing Beam leaves half a million old ones:
    traversing those took two fifths of the processor time of a search.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _certificates(settings: Settings) -> dict[str, str]:
    arguments = {}
    for field, argument in (
        ("ca_file", "ca_certs"),
        ("client_cert", "client_cert"),
        ("client_key", "client_key"),
    ):
        if file := getattr(settings, field):
            # Checked here: the client would report it as a lost connection, at the first request.
            if not os.access(file, os.R_OK):
                raise ConfigError(f"source.elasticsearch.{field}: {file} cannot be read")
            arguments[argument] = file
    return arguments


class Failure(NamedTuple):
    """An error of a request, or of one item of a response, classified by how to react to it."""

    kind: Literal["busy", "no_response", "lost_context", "failed", "refused"]
    detail: str
    timeout: bool = False


def classify_error(error: Exception, *, settings: Settings) -> Failure:
    """What an exception of the client means.

    Raises:
        SourceError: no retry can help.
    """
    if isinstance(error, TlsError):
        remedy = (
            "set source.elasticsearch.ca_file to the cluster's CA, and use the host name of its certificate"
        )
        raise SourceError(f"the certificate of {settings.name} cannot be verified; {remedy}") from None
    if isinstance(error, ConnectionTimeout):
        limit = f"source.elasticsearch.timeout_seconds = {settings.timeout:g}"
        return Failure("no_response", f"no response within {limit}", timeout=True)
    if isinstance(error, SerializationError):
        return Failure("failed", "the response is truncated or not JSON")
    if isinstance(error, TransportError):
        return Failure("no_response", f"no connection to {settings.name} ({type(error).__name__})")
    if isinstance(error, ApiError):
        return classify_status(error.meta.status, error.body, settings=settings)
    raise error


def classify_status(status: int, body: Any, *, settings: Settings) -> Failure:
    """What an HTTP status and its body mean, of a request or of one item of a response.

    Raises:
        SourceError: wrong credentials, or an index that is missing or closed.
    """
    error = body.get("error", body) if isinstance(body, dict) else body
    if status in (401, 403):
        raise SourceError(access_denied(settings.name, status, privileges=READING))
    types, detail = set(error_types(error)), reason(error)
    if types & {"index_not_found_exception", "index_closed_exception"}:
        remedy = "check source.elasticsearch.log_index and index; do not delete an index during a run"
        raise SourceError(f"{settings.name}: {detail}; {remedy}")
    if status == 429 or types & {"es_rejected_execution_exception", "circuit_breaking_exception"}:
        return Failure("busy", detail)
    if "search_context_missing_exception" in types:
        return Failure("lost_context", detail)
    if status >= 500 or status in (404, 408):
        return Failure("failed", f"HTTP {status}: {detail}")
    return Failure("refused", detail)


def access_denied(cluster: str, status: int, *, privileges: str) -> str:
    """The message for HTTP 401 and 403; it quotes no credentials."""
    what = "authentication failed" if status == 401 else "permission denied"
    variables = f"{PREFIX}API_KEY, {PREFIX}USERNAME and {PREFIX}PASSWORD, or {PREFIX}BEARER"
    return f"{cluster}: {what} (HTTP {status}); credentials are read from {variables}; {privileges}"


def error_types(error: Any) -> Iterator[str]:
    """Every exception type that an Elasticsearch error names, its causes included."""
    if isinstance(error, dict):
        if isinstance(error.get("type"), str):
            yield error["type"]
        for value in error.values():
            yield from error_types(value)
    elif isinstance(error, list):
        for value in error:
            yield from error_types(value)


def reason(error: Any) -> str:
    """Elasticsearch's own message for the root cause."""
    if not isinstance(error, dict):
        return shorten(str(error))
    inner = error.get("root_cause") or error.get("failed_shards") or error.get("failures")
    if not inner and isinstance(error.get("caused_by"), dict):  # the fetch phase names no shard
        return reason(error["caused_by"])
    first: dict[str, Any] = inner[0] if inner else error
    first = first["reason"] if isinstance(first.get("reason"), dict) else first
    return shorten(f"{first.get('type', 'error')}: {first.get('reason', '')}", limit=400)


def incomplete(response: Mapping[str, Any]) -> str:
    """Why a response with HTTP 200 is incomplete; "" if it is complete."""
    shards = response.get("_shards", {})
    if shards.get("failed"):
        failures = shards.get("failures") or []
        why = reason({"failures": failures}) if failures else "no reason given"
        return f"{shards['failed']} of {shards.get('total')} shards failed: {why}"
    return "the search timed out on the server" if response.get("timed_out") else ""


def with_retries(action: Callable[[], Result], *, settings: Settings, retries: int) -> Result:
    """The result of `action`, retried while the cluster is busy or unavailable.

    Raises:
        SourceError: it was refused.
        SourceUnavailable: it failed `retries` + 1 times.
    """
    for attempt in range(1, retries + 2):
        try:
            return action()
        except (ApiError, TransportError) as error:
            failure = classify_error(error, settings=settings)
        if failure.kind == "refused" or attempt > retries:
            break
        time.sleep(backoff(attempt, random_share=random.random()))
    kind = SourceError if failure.kind == "refused" else SourceUnavailable
    raise kind(f"{settings.name}: {failure.detail} ({attempt} attempts)")
