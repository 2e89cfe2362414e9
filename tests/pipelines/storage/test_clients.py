"""Clients of object stores, against a server on loopback."""

from __future__ import annotations

import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.storage.clients import GcsStore
from tests.support.google_clients import client


class _Busy(http.server.BaseHTTPRequestHandler):
    """Answers each kind of request with 503 first, and a copy with a part of it before the whole."""

    seen: Counter[str]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = f"{self.command} {'rewrite' if 'rewriteTo' in self.path else 'object'}"
        self.seen[kind] += 1
        body: dict[str, Any] = {"name": "o", "bucket": "b", "size": "1", "generation": "1"}
        if "rewrite" in kind:
            whole = "rewriteToken" in self.path
            body = {"done": whole, "totalBytesRewritten": "1", "objectSize": "2", "resource": body}
            body |= {} if whole else {"rewriteToken": "more"}
        data = json.dumps(body).encode()
        self.send_response(503 if self.seen[kind] == 1 else 200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *said: Any) -> None:
        """Not to the test's output."""


@pytest.fixture
def seen() -> Counter[str]:
    """How many requests of each kind there were."""
    return Counter()


@pytest.fixture
def store(seen: Counter[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsStore]:
    storage, auth = client("google.cloud.storage"), client("google.auth.credentials")
    handler = type("Handler", (_Busy,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        made = storage.Client("p", auth.AnonymousCredentials(), client_options={"api_endpoint": url})
        gcsio = client("apache_beam.io.gcp.gcsio")
        monkeypatch.setattr(gcsio, "create_storage_client", lambda options: made)
        yield GcsStore(None)  # type: ignore[arg-type]
        server.shutdown()


def test_a_store_that_is_busy_is_asked_again(store: GcsStore, seen: Counter[str]) -> None:
    store.put("gs://b/o", b"x")
    store.delete(["gs://b/o", "gs://b/other"])
    store.copy("gs://b/o", "gs://b/other")
    assert seen == {"POST object": 2, "DELETE object": 3, "POST rewrite": 3}
