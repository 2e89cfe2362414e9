"""Nights in object stores, by real servers of S3 and of Google Cloud Storage on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from typer.testing import CliRunner

from nightrank import read
from pipelines.cli.app import app
from pipelines.storage.filesystem import listing, read_bytes, write_bytes
from pipelines.storage.lock import Timing, lock
from pipelines.storage.object_stores import use_options
from rerank_core.errors import Locked
from tests.integration.conftest import require
from tests.support.servers.gcs import GcsServer
from tests.support.servers.s3 import S3Server
from tests.support.store_nights import NEXT, night, published
from tests.support.tiny import DAY, QUERIES, Tiny

Server = S3Server | GcsServer


@pytest.fixture(scope="module", params=[S3Server, GcsServer], ids=["s3", "gcs"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server, which every process that is started from here finds by its environment."""
    with require(request.param) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        use_options(PipelineOptions([]))  # the client is made anew
        yield made


@pytest.fixture
def output(server: Server) -> str:
    """An output folder of its own, in which there is nothing."""
    return f"{server.scheme}://nights/{uuid.uuid4().hex}/out put[1]"


@pytest.fixture(scope="module")
def local(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What a local folder holds after one night, and after the next."""
    folder = str(tmp_path_factory.mktemp("local") / "output")
    night(tiny.folder, folder)
    first = published(folder)
    night(tiny.folder, folder, NEXT)
    return first, published(folder)


def test_nights_are_those_of_a_local_folder_written_once(
    server: Server, output: str, tiny: Tiny, local: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    server.forget()
    night(tiny.folder, output)
    assert published(output) == local[0]  # nor is anything left in staging
    if isinstance(server, S3Server):
        writes = Counter(line for line in server.requests if line.startswith("PUT ") and "/runs/" in line)
        assert set(writes.values()) == {1}
        assert not [line for line in server.requests if "_staging" in line and line.startswith("PUT ")]
    second = night(tiny.folder, output, NEXT)
    assert published(output) == local[1]
    assert second.balance.pairs["published"] == 0
    assert second.balance.pairs["reused"] > 0
    assert f"{output}/_lock" not in listing(output)


@pytest.mark.parametrize("killed_at", ["training_pairs/part-00001-of-00003.parquet", "latest.json"])
def test_a_night_that_was_killed_is_started_again(
    server: Server, output: str, tiny: Tiny, local: tuple[dict[str, bytes], dict[str, bytes]], killed_at: str
) -> None:
    command = [sys.executable, "-m", "tests.support.store_nights", str(tiny.folder), output, DAY.isoformat()]
    died = subprocess.run([*command, killed_at], capture_output=True, timeout=600)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    with pytest.raises(read.ManifestError, match="no published run"):
        read.open(output.partition("://")[2], filesystem=server.filesystem())
    night(tiny.folder, output)
    assert published(output) == local[0]


def test_a_reader_that_polls_sees_whole_nights(server: Server, output: str, tiny: Tiny) -> None:
    first = night(tiny.folder, output)
    asked = [
        query for query in QUERIES if "born" not in query
    ]  # which was asked before the second night's window
    found: list[tuple[str, int]] = []
    stop, failed = threading.Event(), list[BaseException]()
    with read.open(
        output.partition("://")[2], follow=True, check_seconds=0, filesystem=server.filesystem()
    ) as reader:

        def poll() -> None:
            try:
                while not stop.is_set():
                    answers = [reader.lookup(query) for query in asked]
                    found.extend((answer.run_id, len(answer)) for answer in answers)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=poll)
        thread.start()
        try:
            second = night(tiny.folder, output, NEXT)
        finally:
            stop.set()
            thread.join()
        assert not failed
        assert all(passages for _, passages in found)
        assert {run_id for run_id, _ in found} <= {first.run_id, second.run_id}
        assert {reader.lookup(query).run_id for query in asked} == {second.run_id}


def test_every_command_takes_its_path(server: Server, output: str, tiny: Tiny, tmp_path: Path) -> None:
    first = night(tiny.folder, output)
    second = night(tiny.folder, output, NEXT)
    for arguments in (
        ["runs", output],
        ["show", QUERIES[0], "--run", output],
        ["verify", output],
        ["diff", output, first.run_id, second.run_id],
        ["report", output, "--to", f"{tmp_path}/report.html"],
        ["export", output, "--format", "trec", "--to", f"{output}-exported"],
        ["rollback", output],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (arguments, result.output, result.exception)
    assert json.loads(read_bytes(f"{output}/latest.json"))["run_id"] == first.run_id


@pytest.mark.parametrize("begun", ["free", "of a killed run"])
def test_of_several_that_take_a_lock_at_once_one_has_it(output: str, begun: str) -> None:
    if begun != "free":
        write_bytes(f"{output}/_lock", b'{"run": "killed"}')
    together, done, outcomes = threading.Barrier(4), threading.Barrier(4), list[str]()
    looks = iter(range(10_000))

    def start(name: str) -> None:
        together.wait(60)
        try:
            timing = Timing(heartbeat=1e6, look=60.0, sleep=lambda _: next(looks))
            with lock(output, name, timing=timing) as held:
                done.wait(60)
                held.check()
                outcomes.append("held")
        except Locked as error:
            outcomes.append(str(error))
            done.wait(60)

    threads = [threading.Thread(target=start, args=(f"run {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("held") == 1, outcomes
    assert len(outcomes) == 4


@pytest.mark.parametrize("command", [["runs"], ["verify"], ["rollback"]])
def test_a_bucket_that_is_not_there_is_one_line(server: Server, command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, f"{server.scheme}://nosuch/output"])
    assert result.exit_code in (0, 3)  # a folder in which there is nothing
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
