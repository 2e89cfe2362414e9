"""A real S3 server on loopback: moto's, in this process, which counts what is asked of it.

with S3Server() as server:
    server.environment               # what boto3, and so Beam, needs to find it; pyarrow: server.filesystem()
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import pyarrow.fs as fs

from tests.support.servers.elasticsearch_build import Unavailable

BUCKET = "nights"


class S3Server(contextlib.AbstractContextManager["S3Server"]):
    """A server with one empty bucket. `requests` are "METHOD path"; `sent` and `received` are bytes of objects."""

    scheme = "s3"

    def __init__(self) -> None:
        try:
            from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
            from werkzeug.serving import make_server
        except ImportError as error:
            raise Unavailable(
                f"an S3 server needs moto and flask: {error}; pip install 'nightrank[test]'"
            ) from None
        self.requests: list[str] = []
        self.sent = self.received = 0
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._counted, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> Self:
        import logging
        import urllib.request

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
        self._thread.start()
        # Objects are of the process: what an earlier server held goes first.
        for method, path in (("POST", "moto-api/reset"), ("PUT", BUCKET)):
            request = urllib.request.Request(f"{self.url}/{path}", method=method)
            with urllib.request.urlopen(request) as answer:
                answer.read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self) -> None:
        """Count from zero."""
        self.requests, self.sent, self.received = [], 0, 0

    def filesystem(self) -> fs.FileSystem:
        """pyarrow's client."""
        return fs.S3FileSystem(
            access_key="test-key",
            secret_key="test-secret",
            region="us-east-1",
            endpoint_override=self.url.removeprefix("http://"),
            scheme="http",
        )

    def _counted(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        if environ["REQUEST_METHOD"] == "PUT":
            self.received += int(environ.get("CONTENT_LENGTH") or 0)
        body = b"".join(self._app(environ, start_response))
        if environ["REQUEST_METHOD"] == "GET":
            self.sent += len(body)
        return [body]
