"""Java processes of a test server on loopback: started, watched and killed together.

All of them keep their files in one folder and are one process group, which what they start joins, such as Python
workers: a small guard process kills it and removes the folder, even when the process that started it was killed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.servers.elasticsearch import GUARD, StartError
from tests.support.servers.elasticsearch_build import Unavailable, cache_folder, java_version, maven_java

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 600.0
VERSIONS = range(11, 22)  # of Java, that Flink 1.19 and Spark 3.5 run on
LIGHT = (
    "-XX:TieredStopAtLevel=1",  # up in half the time
    "-XX:+UseSerialGC",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            "java.io java.lang java.lang.invoke java.lang.reflect java.net java.nio java.time java.util "
            "java.util.concurrent java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action "
            "sun.util.calendar"
        ).split()
    ),
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


class JavaProcesses(contextlib.AbstractContextManager["JavaProcesses"]):
    """Processes on one class path. Leaving the context removes all traces; subclasses start them in `start`.

    Args:
        jars: folder of the class path.
    """

    def __init__(self, jars: Path) -> None:
        self.jars, self.java = jars, java()
        self.group = 0  # of all processes: the number of the first
        self._owner = os.getpid()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="java-", dir=cache_folder()))
        atexit.register(self.close)
        (self.folder / "tmp").mkdir()

    def start(self) -> Self:
        """Start everything, and wait until it accepts a job."""
        raise NotImplementedError

    def launch(self, name: str, options: Iterable[str], *command: str) -> None:
        """Start a process: Java's own options, its main class, and its arguments."""
        temporary = f"-Djava.io.tmpdir={self.folder / 'tmp'}"
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [self.java / "bin" / "java", *LIGHT, temporary, *options, "-cp", f"{self.jars}/*", *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self.group,  # 0: a group of its own, which the others join
            )
        self._processes[name] = process
        if not self.group:
            self.group = process.pid
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", str(self.group), os.fspath(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill a process with -9, but nothing that it has started."""
        killed = self._processes.pop(name)
        killed.kill()
        killed.wait(60)

    def name_of(self, process: int) -> str:
        """The name under which a process was launched."""
        return next(name for name, launched in self._processes.items() if launched.pid == process)

    def workers(self) -> dict[int, int]:
        """Process ids of the Python workers that run, and the parent of each."""
        return {
            worker: parent
            for worker, (parent, command) in members(self.group).items()
            if b"python" in command
        }

    def worker_command(self) -> Path:
        """A program as `nightrank-worker` is where Nightrank is installed."""
        path = self.folder / "worker"
        python = shlex.join([sys.executable, "-m", "pipelines.cli.worker"])
        path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(os.fspath(ROOT))} exec {python} "$@"\n')
        path.chmod(0o755)
        return path

    def wait(self, condition: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
        """Wait until something is so.

        Raises:
            StartError: it is not in time, or a process has ended; with the ends of all logs.
        """
        until = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > until:
                what = f"{', '.join(ended)} ended" if ended else f"no answer in {seconds:.0f} s"
                raise StartError(f"{type(self).__name__}: {what}\n{self.log()}")
            time.sleep(0.05)

    def log(self) -> str:
        """The end of what each process wrote."""
        return "\n".join(
            f"== {path.stem}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def close(self) -> None:
        """Kill everything and remove the folder. Safe to call twice."""
        if os.getpid() != self._owner:  # a forked child that ends
            return
        atexit.unregister(self.close)
        if self.group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)
            for process in self._processes.values():
                process.wait(60)
            until = time.monotonic() + 60
            while members(self.group) and time.monotonic() < until:
                time.sleep(0.02)
        self.group = 0  # which by now may be another's
        if self._guard and self._guard.stdin:
            self._guard.kill()
            self._guard.wait()
            self._guard.stdin.close()
            self._guard = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def members(group: int) -> dict[int, tuple[int, bytes]]:
    """Processes of a group that run: the parent and the command line of each."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, own = path.joinpath("stat").read_text().rpartition(") ")[2].split()[:3]
            if int(own) == group and state not in "ZX":
                found[int(path.name)] = int(parent), path.joinpath("cmdline").read_bytes()
    return found


def java() -> Path:
    """The machine's Java, if these servers run on it."""
    home = maven_java()
    if java_version(home) not in VERSIONS:
        raise Unavailable(
            f"Flink 1.19 and Spark 3.5 need Java {VERSIONS[0]} to {VERSIONS[-1]}, but {home} has {java_version(home)}: "
            "install one (Debian: apt-get install openjdk-17-jre-headless), and set JAVA_HOME to it"
        )
    return home


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on, outside the range that the system gives to outgoing connections."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 31_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    return found


def accepts(port: int) -> bool:
    """Whether something listens on that port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
