"""A real Flink cluster and Beam's job server on loopback, for tests and benchmarks.

    with Cluster(task_managers=2, slots=1) as cluster:
        run(config, run_date=day, beam_flags=cluster.process)

One JVM for the JobManager, one for each TaskManager, one for the job server: 0.9 GB with one TaskManager. Maven fetches
them, 152 MB, into the folder where servers are kept.
"""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.support.servers.elasticsearch_build import fetch_jars
from tests.support.servers.java_processes import JavaProcesses, accepts, free_ports

POM = Path(__file__).with_name("flink_java") / "pom.xml"
MEMORY = {
    "managed.size": "128m",
    # The graph of a night has some 75 vertices, whose exchanges need more than Flink's default.
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
    "restart-strategy.fixed-delay.attempts": "2",
    "restart-strategy.fixed-delay.delay": "1s",
    "heartbeat.interval": "1000",
    "heartbeat.timeout": "60000",  # a busy machine is no dead one; that of a dead one refuses connections at once
}

CACHE_MILLIS = 120_000
"""How long a worker is kept from one stage to the next: otherwise each stage starts one, and loads the model."""


class Cluster(JavaProcesses):
    """A JobManager, TaskManagers and a job server.

    Args:
        task_managers: processes that run tasks.
        slots: tasks of one stage that each of them runs at once.
    """

    def __init__(self, *, task_managers: int = 1, slots: int = 2) -> None:
        super().__init__(prepare())
        self._numbers, self._slots = range(1, task_managers + 1), slots
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
            f"--environment_option=process_command={self.worker_command()}",
            f"--environment_cache_millis={CACHE_MILLIS}",
        ]

    def start(self) -> Self:
        """Start everything, and wait until it accepts a job."""
        self.start_job_manager()
        self.launch(
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
        self.stop_task_managers()
        self._numbers, self._slots = range(1, task_managers + 1), slots
        for number in self._numbers:
            self.start_task_manager(number)
        self.wait(self._complete)

    def stop_task_managers(self) -> None:
        """Kill every TaskManager."""
        for number in self._numbers:
            self.kill_task_manager(number)
        self._numbers = range(0)

    def start_job_manager(self) -> None:
        """Start the JobManager, which must be the first process."""
        settings = CONFIG | {"rest.port": self.rest_port, "jobmanager.rpc.port": self.rpc_port}
        settings |= {f"taskmanager.memory.{name}": size for name, size in MEMORY.items()}
        (self.folder / "conf").mkdir()
        (self.folder / "conf" / "config.yaml").write_text(
            "".join(f"{name}: {value}\n" for name, value in settings.items())
        )
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self.launch("jobmanager", ("-Xmx384m",), entry, *self._conf, "--executionMode", "cluster")

    def start_task_manager(self, number: int) -> None:
        """Start one TaskManager, numbered from 1; its slots are there some seconds later."""
        settings = {
            "taskmanager.resource-id": f"taskmanager{number}",
            "taskmanager.numberOfTaskSlots": self._slots,
            "taskmanager.cpu.cores": self._slots,
        }
        self.launch(
            f"taskmanager{number}",
            ("-Xmx512m", "-XX:MaxDirectMemorySize=448m", "-XX:MaxMetaspaceSize=256m"),
            "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
            *self._conf,
            *(word for name, value in settings.items() for word in ("-D", f"{name}={value}")),
        )

    def kill_task_manager(self, number: int) -> None:
        """Kill one TaskManager with -9, as a lost machine is, but for its Python workers."""
        self.kill(f"taskmanager{number}")

    def kill_task_manager_of(self, worker: int) -> int:
        """Kill the TaskManager whose Python worker has that process id; its number."""
        number = int(self.name_of(self.workers()[worker]).removeprefix("taskmanager"))
        self.kill_task_manager(number)
        return number

    def get(self, path: str) -> Any:
        """The decoded answer of Flink's REST API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}", timeout=30) as answer:
            return json.loads(answer.read())

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


def prepare() -> Path:
    """The folder of Flink's and Beam's jars, fetched first where that has not been done."""
    return fetch_jars("flink-1.19", "Flink 1.19", POM)
