"""A real Elasticsearch node on loopback, for tests and benchmarks.

    with Node("9.5.3") as node:
        Elasticsearch(node.url)          # or node.client()

A node runs what `elasticsearch_build` prepares, listens on a free port, keeps its data in a folder of its own, and
never outlives the process that started it: a small guard process kills it and removes its folder even when that
process was killed with -9.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from tests.support.servers.elasticsearch_build import AS_ROOT, as_lines, cache_folder, java_home, prepare

VERSIONS = {8: "8.19.21", 9: "9.5.3"}  # the server for each major version of the client
START_SECONDS = 600.0


class StartError(Exception):
    """The server did not come up; the message ends with its log."""


# Started beside the server: when the pipe that it reads ends, because whoever holds the other end has died, it kills
# the server's process group and removes its folder. SIGKILL reaches a stopped process too.
GUARD = 'read -r _; kill -s KILL -- "-$1"; sleep 1; rm -rf -- "$2"'


class Node(contextlib.AbstractContextManager["Node"]):
    """One server. Every method leaves it as its name says; leaving the context removes all traces.

    `quick_start` makes Java compile lightly: the server is up in half the time and works more slowly, which suits
    tests. Benchmarks turn it off.
    """

    def __init__(
        self,
        version: str = VERSIONS[9],
        *,
        security: bool = False,
        quick_start: bool = True,
        heap: str = "512m",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.version = version
        self.light = "-XX:TieredStopAtLevel=1" if quick_start else ""
        self.java_options = f"-Xms{heap} -Xmx{heap} {self.light}"
        self.home = prepare(version)
        self.java = java_home(version)
        self.url = ""  # known once started
        self._owner = os.getpid()
        self._passing: Mapping[str, object] = {}
        self._launcher: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="node-", dir=cache_folder()))
        atexit.register(self.close)
        for name in ("data", "logs", "tmp"):
            (self.folder / name).mkdir()
        shutil.copytree(self.home / "config", self.folder / "config")
        # Outside the range that the system gives to outgoing connections, so that the port is still free, and is
        # not this machine talking to itself, while a killed node is down. The node itself takes the first free one
        # from there on: nothing stands between choosing a port and having it.
        first = random.randrange(11_000, 31_000)
        self.settings: dict[str, object] = {
            "cluster.name": "nightrank-test",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": f"{first}-{first + 99}",
            "transport.port": f"{first + 100}-{first + 199}",
            "node.portsfile": "true",
            "path.data": self.folder / "data",
            "path.logs": self.folder / "logs",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "action.destructive_requires_name": "false",
            "xpack.security.enabled": "false",
        }
        self.security = Security(self.folder / "config") if security else None
        if self.security:
            self.settings.update(self.security.settings)
        self.settings.update(settings or {})

    # Life

    def start(self, passing: Mapping[str, object] | None = None) -> Self:
        """Start the server and wait until it answers; the first start chooses the port, later ones keep it.

        Settings that are `passing` count until the next start.
        """
        if self.running():
            return self
        self._passing = passing or {}
        ports = self.folder / "logs" / "http.ports"
        ports.unlink(missing_ok=True)
        (self.folder / "pid").unlink(missing_ok=True)
        (self.folder / "config" / "elasticsearch.yml").write_text(
            as_lines({**self.settings, **self._passing}, ": ")
        )
        if AS_ROOT:
            _give_to_nobody(self.folder)
        self._launch()
        until = time.monotonic() + START_SECONDS
        self._wait(until, ports.exists)
        self.settings["http.port"] = ports.read_text().split()[0].rpartition(":")[2]
        self.url = f"{'https' if self.security else 'http'}://127.0.0.1:{self.settings['http.port']}"
        self._wait(until, self._ready)
        return self

    def stop(self) -> None:
        """Ask the server to shut down in good order, and wait until it has."""
        if self._launcher and self._launcher.poll() is None:
            self.resume()
            self._launcher.terminate()
            try:
                self._launcher.wait(60)
            except subprocess.TimeoutExpired:
                self.kill9()
        self._forget()

    def kill9(self) -> None:
        """Kill the server as a machine that loses power does."""
        if self._launcher:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._launcher.pid, signal.SIGKILL)
            self._launcher.wait(60)
            until = time.monotonic() + 60
            while self._group_alive() and time.monotonic() < until:
                time.sleep(0.02)
        self._forget()

    def restart(self, passing: Mapping[str, object] | None = None) -> Self:
        """Stop, and start again on the same port and data."""
        self.stop()
        return self.start(passing)

    def restore(self) -> None:
        """Undo what a test may have done to it: paused, stopped, killed, or started with passing settings."""
        self.resume()
        if self._passing:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Hold the server's process: the system still accepts connections for it, and nothing answers."""
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        while not all(map(_is_stopped, Path(f"/proc/{pid}/task").glob("*/stat"))):
            time.sleep(0.01)  # on a busy machine a thread of it may still answer for a while

    def resume(self) -> None:
        """Let a paused server go on."""
        if self.running():
            os.kill(self.pid(), signal.SIGCONT)

    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._launcher is not None and self._launcher.poll() is None

    def pid(self) -> int:
        """The process of the server itself (what was started first is its launcher)."""
        if not self.running():
            raise ProcessLookupError(f"Elasticsearch {self.version} is not running")
        return int((self.folder / "pid").read_text())

    def log(self) -> str:
        """The end of what the server wrote."""
        path = self.folder / "stdout.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def close(self) -> None:
        """Kill the server and remove its folder. Safe to call twice."""
        if os.getpid() != self._owner:  # a forked child that ends
            return
        atexit.unregister(self.close)
        self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Talk

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 30) -> Any:
        """One request with nothing but the standard library; the decoded answer, or `urllib.error.HTTPError`.

        With security, the administrator's. A body that is text is sent as it is, for bulk requests.
        """
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/x-ndjson" if isinstance(body, str) else "application/json"}
        context = None
        if self.security:
            login = base64.b64encode(":".join(self.security.admin).encode()).decode()
            headers["Authorization"] = f"Basic {login}"
            context = ssl.create_default_context(cafile=self.security.ca)
            context.load_cert_chain(self.security.client_certificate, self.security.client_key)
        asked = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        with urllib.request.urlopen(asked, timeout=timeout, context=context) as answer:
            return json.loads(answer.read() or b"null")

    def client(self, **options: Any) -> Any:
        """The installed Elasticsearch client, connected to this node; with security as its administrator."""
        from elasticsearch import Elasticsearch

        if self.security:
            options = {"ca_certs": os.fspath(self.security.ca), "basic_auth": self.security.admin, **options}
        return Elasticsearch(self.url, **{"request_timeout": 30, **options})

    # How

    def _launch(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(self.folder),
            "ES_JAVA_HOME": os.fspath(self.java),
            "ES_PATH_CONF": os.fspath(self.folder / "config"),
            "ES_TMPDIR": os.fspath(self.folder / "tmp"),
            "ES_JAVA_OPTS": self.java_options,
            "CLI_JAVA_OPTS": self.light,  # of the launcher, a Java process of its own
        }
        user: dict[str, Any] = (
            {"user": "nobody", "group": _nobodys_group(), "extra_groups": []} if AS_ROOT else {}
        )
        with (self.folder / "stdout.log").open("ab") as log:
            self._launcher = subprocess.Popen(
                [self.home / "bin" / "elasticsearch", "-p", self.folder / "pid"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of its own: killed as one, and not by Ctrl-C before its user
                **user,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self._launcher.pid), os.fspath(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _forget(self) -> None:
        """End the guard of a server that is gone; its process id may by now be another's, so it is never used again."""
        self._launcher = None
        if self._guard and self._guard.stdin:
            self._guard.kill()
            self._guard.wait()
            self._guard.stdin.close()
            self._guard = None

    def _group_alive(self) -> bool:
        try:
            os.killpg(self._launcher.pid if self._launcher else 0, 0)
        except ProcessLookupError:
            return False
        return True

    def _wait(self, until: float, condition: Callable[[], bool]) -> None:
        while not condition():
            if not self.running() or time.monotonic() > until:
                what = (
                    f"did not answer in {START_SECONDS:.0f} s" if self.running() else "ended while starting"
                )
                self.kill9()
                raise StartError(f"Elasticsearch {self.version} {what}: {self.log()}")
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            health = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s", timeout=10)
        except OSError:
            return False
        return not health["timed_out"]


class Security:
    """TLS on HTTP and users for one node, laid into its configuration folder before it starts.

    Users come from files (the `file` realm), so that nothing has to run to set a password: an administrator, and a
    reader, who may do what reading a query log and candidates takes and nothing else. The server is known by a
    certificate for 127.0.0.1 and localhost from an authority made for this node; it accepts a certificate of the
    same authority from a client (with `xpack.security.http.ssl.client_authentication: required` it insists).
    """

    settings: ClassVar[Mapping[str, object]] = {
        "xpack.security.enabled": "true",
        "xpack.security.http.ssl.enabled": "true",
        "xpack.security.http.ssl.certificate": "certs/server.pem",
        "xpack.security.http.ssl.key": "certs/server.key",
        "xpack.security.http.ssl.certificate_authorities": "certs/ca.pem",
        "xpack.security.http.ssl.client_authentication": "optional",
        "xpack.security.authc.token.enabled": "true",
        "xpack.license.self_generated.type": "trial",  # bearer tokens need more than the basic licence
    }

    def __init__(self, config: Path) -> None:
        import trustme

        self.admin = ("admin", secrets.token_urlsafe(16))
        self.reader = ("reader", secrets.token_urlsafe(16))
        (config / "users").write_text(
            as_lines({name: _hashed(word) for name, word in (self.admin, self.reader)}, ":")
        )
        (config / "users_roles").write_text("superuser:admin\nreader:reader\n")
        (config / "roles.yml").write_text(json.dumps({"reader": READER}))

        certs = config / "certs"
        certs.mkdir()
        self.ca = certs / "ca.pem"
        self.client_certificate = certs / "client.pem"
        self.client_key = certs / "client.key"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        for name, identities in (("server", ["127.0.0.1", "localhost"]), ("client", ["client.example"])):
            issued = authority.issue_cert(*identities)
            issued.private_key_pem.write_to_path(certs / f"{name}.key")
            for pem in issued.cert_chain_pems:
                pem.write_to_path(certs / f"{name}.pem", append=True)


READER = {
    "cluster": ["monitor"],
    "indices": [{"names": ["*"], "privileges": ["read", "view_index_metadata"]}],
}


def _hashed(password: str) -> str:
    """A password as Elasticsearch's `users` file keeps it."""
    salt, rounds = secrets.token_bytes(32), 10_000
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds, 32)
    return f"{{PBKDF2}}{rounds}${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


def _is_stopped(stat: Path) -> bool:
    """Whether a thread, by its /proc/PID/task/TID/stat, is held or gone."""
    try:
        return stat.read_text().rpartition(") ")[2][:1] in "TZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _nobodys_group() -> int:
    import pwd

    return pwd.getpwnam("nobody").pw_gid


def _give_to_nobody(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        shutil.chown(path, "nobody", _nobodys_group())
