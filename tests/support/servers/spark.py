"""Beam's job server for Spark, with Spark in its own process, on loopback, for tests and benchmarks.

with Spark() as spark:
    run(config, run_date=day, beam_flags=spark.loopback)
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tests.support.servers.elasticsearch_build import fetch_jars
from tests.support.servers.java_processes import JavaProcesses, accepts, free_ports

POM = Path(__file__).with_name("spark_java") / "pom.xml"


class Spark(JavaProcesses):
    """A job server whose Spark runs so many tasks at once in its own process."""

    def __init__(self, *, tasks: int = 2) -> None:
        super().__init__(prepare())
        self._tasks, self._ports = tasks, free_ports(3)

    @property
    def loopback(self) -> list[str]:
        """Beam's flags for a job whose Python stages run in the process that submits it."""
        endpoint = f"--job_endpoint=127.0.0.1:{self._ports[0]}"
        return ["--runner=PortableRunner", endpoint, "--environment_type=LOOPBACK"]

    def start(self) -> Self:
        """Start everything, and wait until it accepts a job."""
        self.launch(
            "jobserver",
            ("-Xmx1g", "-Dspark.ui.enabled=false", "-Dspark.driver.host=127.0.0.1"),
            "org.apache.beam.runners.spark.SparkJobServerDriver",
            f"--spark-master-url=local[{self._tasks}]",
            *(
                f"--{name}-port={port}"
                for name, port in zip(("job", "artifact", "expansion"), self._ports, strict=True)
            ),
            f"--artifacts-dir={self.folder / 'artifacts'}",
        )
        self.wait(lambda: accepts(self._ports[0]))
        return self


def prepare() -> Path:
    """The folder of Spark's and Beam's jars, fetched first where that has not been done."""
    return fetch_jars("spark-3.5", "Spark 3.5", POM)
