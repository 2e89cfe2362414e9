"""A proxy on loopback before a cluster: it passes requests on, and at one of them calls back instead of answering."""

from __future__ import annotations

import http.client
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}  # headers of one connection alone


class Proxy:
    """What it saw, and at which request (from 1) `cut` is called: the server has done it, and nobody gets the answer.

    At 0, the first request is not even passed on.
    """

    def __init__(self, target: str) -> None:
        self.target, self.url = urllib.parse.urlsplit(target), ""
        self.seen: list[str] = []
        self.at, self.cut = -1, lambda: None
        self._lock = threading.Lock()

    def watch(self, at: int = -1, cut: Callable[[], None] = lambda: None) -> None:
        """Count anew; -1: pass everything on."""
        self.seen, self.at, self.cut = [], at, cut

    def count(self, request: str) -> int:
        """Note a request and return its number."""
        with self._lock:
            self.seen.append(request)
            return len(self.seen)


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            number = proxy.count(f"{self.command} {self.path.partition('?')[0]}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.at == 0:
                self._cut()
                return
            assert proxy.target.hostname
            connection = http.client.HTTPConnection(proxy.target.hostname, proxy.target.port, timeout=120)
            sent = {
                name: value for name, value in self.headers.items() if name.lower() not in _HOP | {"host"}
            }
            connection.request(self.command, self.path, body or None, sent)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            if number == proxy.at:
                self._cut()
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one  # noqa: N815

        def _cut(self) -> None:
            proxy.cut()
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def proxied(target: str) -> Iterator[Proxy]:
    """A proxy before the server at this URL."""
    proxy = Proxy(target)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
