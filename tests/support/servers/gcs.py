"""A real server of Google Cloud Storage's API on loopback: fake-gcs-server, built from its Go module.

    with GcsServer() as server:
        server.environment               # what google-cloud-storage, and so Beam, needs; pyarrow: server.filesystem()

It never outlives the process that started it. Beam asks Google for credentials whatever the server; the file of a
service account that is named here has its tokens from loopback too.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.fs as fs

from tests.support.servers.elasticsearch import GUARD, StartError
from tests.support.servers.elasticsearch_build import Unavailable, cache_folder
from tests.support.servers.java_processes import free_ports

BUCKET = "nights"
MODULE = "github.com/fsouza/fake-gcs-server@v1.56.1"
START_SECONDS = 600.0


def binary() -> Path:
    """The server's program, built once on a machine.

    Raises:
        Unavailable: there is no Go, or the module cannot be had.
    """
    folder = cache_folder() / MODULE.rpartition("/")[2]
    program = folder / "fake-gcs-server"
    if program.exists():
        return program
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise Unavailable("a server of Google Cloud Storage needs Go to be built: install it, such as golang")
    with tempfile.TemporaryDirectory(dir=cache_folder()) as made:
        built = subprocess.run(
            [go, "install", MODULE],
            env={**os.environ, "GOBIN": made, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        if built.returncode:
            raise Unavailable(f"{MODULE} cannot be built: {built.stderr[-500:]}")
        folder.mkdir(exist_ok=True)
        os.replace(Path(made) / "fake-gcs-server", program)  # another process may have built it meanwhile
    return program


class GcsServer(contextlib.AbstractContextManager["GcsServer"]):
    """A server with one empty bucket. `requests` are "METHOD path"; `sent` is bytes of answers."""

    scheme = "gs"

    def __init__(self) -> None:
        self._program = binary()
        self._folder = Path(tempfile.mkdtemp(prefix="gcs-", dir=cache_folder()))
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._tokens = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
        self._log, self._from = self._folder / "log", 0
        self.url = ""
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        threading.Thread(target=self._tokens.serve_forever, daemon=True).start()
        (self._folder / "data" / BUCKET).mkdir(parents=True)
        (port,) = free_ports(1)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(self._program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
                    *("-backend", "memory", "-data", str(self._folder / "data"), "-log-level", "info"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        guard = ["sh", "-c", GUARD, "guard", str(self._process.pid), str(self._folder)]
        self._guard = subprocess.Popen(
            guard, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.url = self._wait()
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,  # pyarrow's client
            "GOOGLE_APPLICATION_CREDENTIALS": str(self._write_account()),
            "NO_GCE_CHECK": "true",
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.shutdown()
        self._tokens.server_close()
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)
        if self._guard and self._guard.stdin:
            self._guard.stdin.close()
            self._guard.wait(60)  # it removes the folder

    @property
    def requests(self) -> list[str]:
        """What was asked since the last `forget`."""
        return [f"{method} {path}" for method, path, _ in self._entries()]

    @property
    def sent(self) -> int:
        """Bytes of the answers to GET since the last `forget`."""
        return sum(int(size) for method, _, size in self._entries() if method == "GET")

    def forget(self) -> None:
        """Count from zero."""
        self._from = self._log.stat().st_size

    def filesystem(self) -> fs.FileSystem:
        """pyarrow's client."""
        host = self.url.removeprefix("http://")
        return fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=host)

    def _entries(self) -> list[tuple[str, str, str]]:
        text = self._log.read_bytes()[self._from :].decode("utf-8", "replace")
        return re.findall(r'"([A-Z]+) (\S+) HTTP/1\.\d\\?" \d+ (\d+)', text)

    def _wait(self) -> str:
        assert self._process
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            if found := re.search(r"server started at (http://[\d.:]+)", self._log.read_text()):
                with urllib.request.urlopen(
                    f"{found[1]}/storage/v1/b/{BUCKET}", timeout=START_SECONDS
                ) as answer:
                    answer.read()
                return found[1]
            time.sleep(0.05)
        raise StartError(f"fake-gcs-server did not start: {self._log.read_text()[-2000:]}")

    def _write_account(self) -> Path:
        """A service account whose key is made here and whose tokens come from loopback."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": "test",
            "client_email": "test@test.invalid",
            "private_key": key.decode(),
            "token_uri": f"http://127.0.0.1:{self._tokens.server_port}/token",
        }
        path = self._folder / "account.json"
        path.write_text(json.dumps(account))
        return path


class _Tokens(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Nothing on stderr."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"access_token": "test", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
