"""A server that echoes what it was sent: no message, log or traceback of a command shows a credential."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.elasticsearch.client import connect
from pipelines.elasticsearch.source import ElasticsearchSource
from rerank_core.errors import SourceError
from rerank_core.redact import encodings
from tests.support.es_config import config

PASSWORD = 'p"ss \\ wörd/1+2'
KEY = base64.b64encode(b"VuaCfGcBCdbkQm-e5aOx:ui2lp2axTNmsyakw9tvNnw").decode()
PAIR = base64.b64encode(f"elastic:{PASSWORD}".encode()).decode()
WAYS = {
    "key": {"API_KEY": KEY},
    "password": {"USERNAME": "elastic", "PASSWORD": PASSWORD},
    "bearer": {"BEARER": "dG9rZW4tdmFsdWU.t_0~k-e/n"},
}


def secrets(way: str) -> set[str]:
    """Everything that may not be shown."""
    values = {"key": [KEY, "ui2lp2axTNmsyakw9tvNnw"], "password": [PASSWORD, PAIR]}
    return {
        form for value in values.get(way, WAYS[way].values()) for form in encodings(value) if len(form) > 5
    }


def as_error(text: str) -> str:
    return json.dumps(
        {"error": {"type": "illegal", "reason": text, "root_cause": [{"type": "illegal", "reason": text}]}}
    )


BODIES: dict[str, Callable[[str], str]] = {
    "reason": lambda sent: as_error(f"cannot read the header Authorization: {sent}"),
    "reason in JSON": lambda sent: as_error(json.dumps({"headers": {"Authorization": [sent]}})),
    "cause": lambda sent: json.dumps({"error": {"caused_by": {"type": "x", "reason": sent}}}),
    "cut in two": lambda sent: as_error("x" * (395 - len("illegal: ")) + sent),
    "text": lambda sent: f"<pre>{sent}</pre>",
    "URL": lambda sent: f"see /login?auth={urllib.parse.quote(sent)}",
    "decoded": lambda sent: as_error(f"user {_decoded(sent)} unknown"),
}


def _decoded(sent: str) -> str:
    scheme, _, value = sent.partition(" ")
    return value if scheme == "Bearer" else base64.b64decode(value).decode()


class Echo(ThreadingHTTPServer):
    """Answers every request with an error that holds its Authorization header."""

    daemon_threads = True
    status, body, seen = 400, "reason", 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Echo

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen += 1
        sent = self.headers["Authorization"].encode("latin-1").decode()
        body = BODIES[self.server.body](sent).encode()
        self.send_response(self.server.status)
        kind = "application/json" if body[:1] == b"{" else "text/plain"
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "X-Elastic-Product": "Elasticsearch",
        }.items():
            self.send_header(name, value)
        self.send_header("Warning", f'299 Elasticsearch-9.0.0-0123456789abcdef "deprecated: {sent}"')
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # whatever the method
            return self.answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("NIGHTRANK_ES_")]:
        monkeypatch.delenv(name)
    connect.cache_clear()
    yield
    connect.cache_clear()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("way", WAYS)
def test_an_error_that_echoes_the_credentials_is_shown_without_them(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, way: str, body: str
) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setenv(f"NIGHTRANK_ES_{name}", value)
    echo.body = body
    for status in (400, 401, 404, 500):
        echo.status, echo.seen = status, 0
        with pytest.raises(SourceError) as caught:
            ElasticsearchSource(config(url=echo.url, max_retries=0)).describe()
        assert echo.seen
        shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
        assert not [secret for secret in secrets(way) if secret in shown]


COMMANDS = {
    "nightly": ["nightly", "--config", "night.toml", "--run-date", "2026-03-02"],
    "load": ["load", "corpus.jsonl", "--to", "{url}", "--index", "i"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("way", WAYS)
def test_no_command_shows_a_credential(echo: Echo, tmp_path: Path, way: str, command: str) -> None:
    """Neither in its message nor in a warning of the client, which prints what a server's header says."""
    echo.status = 404  # to the client no error in answer to "is there such an index"
    (tmp_path / "night.toml").write_text(
        f'[source]\nkind = "elasticsearch"\n[source.elasticsearch]\nurl = "{echo.url}"\nlog_index = "log"\n'
        'index = "docs"\nmax_retries = 0\n[output]\npath = "out"\n'
    )
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d", "title": "t", "text": "x"}\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTRANK_ES_")}
    environment |= {f"NIGHTRANK_ES_{name}": value for name, value in WAYS[way].items()}
    environment |= {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONWARNINGS": "always",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *(part.format(url=echo.url) for part in COMMANDS[command])],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert echo.seen
    assert done.returncode == {"nightly": 5, "load": 3}[command], done.stderr
    assert command == "nightly" or "deprecated: " in done.stderr
    assert "***" in done.stderr
    written = [path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for text in (done.stdout, done.stderr, *written):
        assert not [secret for secret in secrets(way) if secret in text]
