"""A real Flink cluster and Beam's job server on loopback, for tests and benchmarks.

    with Cluster(task_managers=2, slots=1) as cluster:
        run(config, run_date=day, beam_flags=[*cluster.flags, "--environment_type=LOOPBACK"])

One JVM for the JobManager, one for each TaskManager, one for the job server: 1.3 GB with one TaskManager. All of them
listen on free ports of loopback, keep their files in one folder, and are one process group, which the Python workers
of a TaskManager join: a small guard process kills it and removes the folder, even when the process that started the
cluster was killed with -9.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
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
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.servers.elasticsearch import GUARD, StartError
from tests.support.servers.elasticsearch_build import (
    Unavailable,
    cache_folder,
    exclusively,
    java_version,
    maven_java,
    run_maven,
)

ROOT = Path(__file__).resolve().parents[3]
POM = Path(__file__).with_name("flink_java") / "pom.xml"
FETCH = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
JAVA_VERSIONS = range(11, 22)  # that Flink 1.19 runs on
START_SECONDS = 180.0
MEMORY = {
    "managed.size": "128m",
    # The graph of a night has 79 vertices, whose exchanges need more than Flink's default.
    "network.min": "256m",
    "network.max": "256m",
    "task.heap.size": "384m",
    "task.off-heap.size": "0b",
    "framework.heap.size": "128m",
    "framework.off-heap.size": "64m",
    "jvm-metaspace.size": "256m",
    "jvm-overhead.min": "192m",
    "jvm-overhead.max": "192m",
}
CONFIG = {
    "jobmanager.rpc.address": "127.0.0.1",
    "jobmanager.bind-host": "127.0.0.1",
    "jobmanager.memory.process.size": "1g",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.bind-host": "127.0.0.1",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "3",
    "restart-strategy.fixed-delay.delay": "1s",
    "heartbeat.interval": "1000",
    "heartbeat.timeout": "60000",  # a busy machine is no dead one; that of a dead one refuses connections at once
}
LIGHT = (
    "-XX:TieredStopAtLevel=1",  # up in half the time
    "-XX:+UseSerialGC",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            "java.io java.lang java.lang.invoke java.lang.reflect java.net java.nio java.time java.util "
            "java.util.concurrent sun.nio.ch"
        ).split()
    ),
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


class Cluster(contextlib.AbstractContextManager["Cluster"]):
    """A JobManager, TaskManagers and a job server. Leaving the context removes all traces.

    Args:
        task_managers: processes that run tasks.
        slots: tasks of one stage that each of them runs at once.
    """

    def __init__(self, *, task_managers: int = 1, slots: int = 2) -> None:
        self.jars, self.java = prepare(), java()
        self._numbers, self._slots = range(1, task_managers + 1), slots
        self._owner = os.getpid()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None
        self._group = 0  # of all processes: the number of the first
        self.folder = Path(tempfile.mkdtemp(prefix="flink-", dir=cache_folder()))
        atexit.register(self.close)
        for name in ("conf", "tmp"):
            (self.folder / name).mkdir()
        self.rest_port, self.rpc_port, *self._job_ports = free_ports(5)

    @property
    def parallelism(self) -> int:
        """Tasks of one stage that run at once."""
        return len(self._numbers) * self._slots

    @property
    def flags(self) -> list[str]:
        """Beam's flags for a job on all of it, but those that say where the Python stages run."""
        return [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{self._job_ports[0]}",
            f"--parallelism={self.parallelism}",
        ]

    @property
    def loopback(self) -> list[str]:
        """Beam's flags for a job whose Python stages run in the process that submits it."""
        return [*self.flags, "--environment_type=LOOPBACK"]

    @property
    def process(self) -> list[str]:
        """Beam's flags for a job whose Python stages run in a process of each TaskManager's own."""
        return [
            *self.flags,
            "--environment_type=PROCESS",
            f"--environment_option=process_command={self._worker_command()}",
        ]

    # Life

    def start(self) -> Self:
        """Start everything, and wait until it accepts a job."""
        self.start_job_manager()
        self._launch(
            "jobserver",
            ("-Xmx384m",),
            "org.apache.beam.runners.flink.FlinkJobServerDriver",
            f"--flink-master=127.0.0.1:{self.rest_port}",
            *(
                f"--{name}-port={port}"
                for name, port in zip(("job", "artifact", "expansion"), self._job_ports, strict=True)
            ),
            f"--artifacts-dir={self.folder / 'artifacts'}",
        )
        for number in self._numbers:
            self.start_task_manager(number)
        self.wait(lambda: accepts(self._job_ports[0]) and self._complete())
        return self

    def resize(self, *, task_managers: int, slots: int) -> None:
        """Kill the TaskManagers, and start so many with so many slots each."""
        for number in self._numbers:
            self.kill_task_manager(number)
        self._numbers, self._slots = range(1, task_managers + 1), slots
        for number in self._numbers:
            self.start_task_manager(number)
        self.wait(self._complete)

    def start_job_manager(self) -> None:
        """Start the JobManager, which must be the first process."""
        settings = CONFIG | {"rest.port": self.rest_port, "jobmanager.rpc.port": self.rpc_port}
        settings |= {f"taskmanager.memory.{name}": size for name, size in MEMORY.items()}
        (self.folder / "conf" / "config.yaml").write_text(
            "".join(f"{name}: {value}\n" for name, value in settings.items())
        )
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self._launch("jobmanager", ("-Xmx384m",), entry, *self._conf, "--executionMode", "cluster")

    def start_task_manager(self, number: int) -> None:
        """Start one TaskManager, numbered from 1; its slots are there some seconds later."""
        settings = {
            "taskmanager.resource-id": f"taskmanager{number}",
            "taskmanager.numberOfTaskSlots": self._slots,
            "taskmanager.cpu.cores": self._slots,
        }
        self._launch(
            f"taskmanager{number}",
            ("-Xmx512m", "-XX:MaxDirectMemorySize=448m", "-XX:MaxMetaspaceSize=256m"),
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            *self._conf,
            *(word for name, value in settings.items() for word in ("-D", f"{name}={value}")),
        )

    def kill_task_manager(self, number: int) -> None:
        """Kill one TaskManager with -9, as a lost machine is, but for its Python workers."""
        killed = self._processes.pop(f"taskmanager{number}")
        killed.kill()
        killed.wait(60)

    def kill_task_manager_of(self, worker: int) -> int:
        """Kill the TaskManager whose Python worker has that process id; its number."""
        parent = self.workers()[worker]
        (number,) = (n for n in self._numbers if self._processes[f"taskmanager{n}"].pid == parent)
        self.kill_task_manager(number)
        return number

    def wait(self, condition: Callable[[], bool], *, seconds: float = START_SECONDS) -> None:
        """Wait until something is so.

        Raises:
            StartError: it is not in time, or a process of the cluster has ended; with the ends of all logs.
        """
        until = time.monotonic() + seconds
        while not condition():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > until:
                what = f"{', '.join(ended)} ended" if ended else f"no answer in {seconds:.0f} s"
                raise StartError(f"Flink: {what}\n{self.log()}")
            time.sleep(0.05)

    def close(self) -> None:
        """Kill everything and remove the folder. Safe to call twice."""
        if os.getpid() != self._owner:  # a forked child that ends
            return
        atexit.unregister(self.close)
        if self._group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
            for process in self._processes.values():
                process.wait(60)
            until = time.monotonic() + 60
            while self.workers() and time.monotonic() < until:
                time.sleep(0.02)
        self._group = 0  # which by now may be another's
        if self._guard and self._guard.stdin:
            self._guard.kill()
            self._guard.wait()
            self._guard.stdin.close()
            self._guard = None
        shutil.rmtree(self.folder, ignore_errors=True)

    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Talk

    def get(self, path: str) -> Any:
        """The decoded answer of Flink's REST API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def workers(self) -> dict[int, int]:
        """Process ids of the Python workers that run, and the parent of each."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                state, parent, group = path.joinpath("stat").read_text().rpartition(") ")[2].split()[:3]
                if int(group) == self._group and state not in "ZX" and b"python" in _command(path):
                    found[int(path.name)] = int(parent)
        return found

    def log(self) -> str:
        """The end of what each process wrote."""
        return "\n".join(
            f"== {path.stem}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    # How

    @property
    def _conf(self) -> tuple[str, str]:
        return "--configDir", os.fspath(self.folder / "conf")

    def _complete(self) -> bool:
        """Whether the JobManager knows every TaskManager, and no others."""
        try:
            known = self.get("/taskmanagers")["taskmanagers"]
        except (OSError, ValueError):  # it does not answer yet
            return False
        return [one["slotsNumber"] for one in known] == [self._slots] * len(self._numbers)

    def _launch(self, name: str, options: tuple[str, ...], *command: str) -> None:
        light = (*LIGHT, f"-Djava.io.tmpdir={self.folder / 'tmp'}", *options)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [self.java / "bin" / "java", *light, "-cp", f"{self.jars}/*", *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self._group,  # 0: a group of its own, which the others join
            )
        self._processes[name] = process
        if not self._group:
            self._group = process.pid
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", str(self._group), os.fspath(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def _worker_command(self) -> Path:
        """A program as `nightrank-worker` is where Nightrank is installed."""
        path = self.folder / "worker"
        python = shlex.join([sys.executable, "-m", "pipelines.cli.worker"])
        path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(os.fspath(ROOT))} exec {python} "$@"\n')
        path.chmod(0o755)
        return path


def prepare() -> Path:
    """The folder of Flink's and Beam's jars, fetched first where that has not been done."""
    recipe = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    home = cache_folder() / f"flink-1.19-{recipe}"
    with exclusively(home) as staging:
        if staging:
            run_maven(
                "Flink and Beam's job server for it",
                "-f",
                os.fspath(POM),
                f"-Dout={staging}",
                FETCH,
                work=staging,
            )
    return home


def java() -> Path:
    """The machine's Java, if Flink runs on it."""
    home = maven_java()
    if java_version(home) not in JAVA_VERSIONS:
        raise Unavailable(
            f"Flink 1.19 needs Java {JAVA_VERSIONS[0]} to {JAVA_VERSIONS[-1]}, but {home} has {java_version(home)}: "
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


def _command(process: Path) -> bytes:
    return process.joinpath("cmdline").read_bytes()
