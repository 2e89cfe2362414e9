"""A receiver of webhooks on loopback, with TLS if wanted, that answers as it was told to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """One answer; the last of a list is repeated."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0  # before it answers
    drip: float = 0.0  # seconds between two bytes of the answer's head
    hang_up: bool = False  # instead of an answer


class Receiver(ThreadingHTTPServer):
    """Keeps what it was sent."""

    daemon_threads = True
    scheme = "http"

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.received: list[dict[str, Any]] = []
        self.paths: list[str] = []

    def url(self, path: str = "/services/T0/B0/s3cr3t-token-of-a-hook") -> str:
        return f"{self.scheme}://localhost:{self.server_port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.received.append(json.loads(data))
        self.server.paths.append(self.path)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        time.sleep(answer.seconds)
        if answer.hang_up:
            self.connection.close()
            return
        if answer.drip:
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(answer.drip)
        self.send_response(answer.status)
        for name, value in (*answer.headers, ("Content-Length", "2")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def receiver(*answers: Answer, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A running receiver; with `context`, of https."""
    with Receiver(answers or [Answer()]) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()
