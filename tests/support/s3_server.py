"""A folder as an S3 bucket on loopback, read only: what pyarrow's client asks for, and no more."""

from __future__ import annotations

import contextlib
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow.fs as fs


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    requests: list[str]

    def log_message(self, *words: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self._object(body=False)

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        if "list-type" in asked:
            self._list(asked.get("prefix", ""))
        else:
            self._object(body=True)

    def _object(self, *, body: bool) -> None:
        key = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).removeprefix("/bucket/")
        self.requests.append(f"{self.command} {key}")
        path = self.folder / key
        if not path.is_file():
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>" if body else b"")
            return
        data, status = path.read_bytes(), 200
        size = len(data)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            data, status = data[int(found[1]) : int(found[2]) + 1 if found[2] else None], 206
            self._send(
                status, data, {"Content-Range": f"bytes {found[1]}-{int(found[1]) + len(data) - 1}/{size}"}
            )
        else:
            self._send(status, data if body else b"", length=size)

    def _list(self, prefix: str) -> None:
        self.requests.append(f"LIST {prefix}")
        keys = sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())
        below = [key for key in keys if key.startswith(prefix)]
        folders = sorted(
            {prefix + key[len(prefix) :].split("/")[0] + "/" for key in below if "/" in key[len(prefix) :]}
        )
        files = [key for key in below if "/" not in key[len(prefix) :]]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(self.folder / key).stat().st_size}</Size>"
            "<LastModified>2026-03-08T00:00:00.000Z</LastModified></Contents>"
            for key in files
        ) + "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        body = (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(files) + len(folders)}</KeyCount>"
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        )
        self._send(200, body.encode())

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": "Sun, 08 Mar 2026 00:00:00 GMT", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def s3_bucket(folder: Path) -> Iterator[tuple[fs.S3FileSystem, list[str]]]:
    """(a client, the requests that it made) for a folder that is served as the bucket `bucket`."""
    handler = type("Handler", (_Handler,), {"folder": folder, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        client = fs.S3FileSystem(
            access_key="key",
            secret_key="secret",
            region="us-east-1",
            endpoint_override=f"127.0.0.1:{server.server_port}",
            scheme="http",
        )
        yield client, handler.requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
