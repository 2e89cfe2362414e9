"""Whole nights on a real Flink cluster: what they publish, what becomes of a lost machine, and which error a user sees.

The cluster is of Flink 1.19 with Beam's job server of an older release: this shows the engine's semantics, not that of
one release. benchmarks/flink.py runs larger nights.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.nightly.run import run
from rerank_core.config.night import Config
from rerank_core.errors import NightError, ScoringFailed
from tests.conftest import Night
from tests.integration.conftest import require
from tests.support.engine_nights import Gate, check_same, held_load, wait, with_a_kill
from tests.support.fakes import fake
from tests.support.servers.flink import Cluster, prepare
from tests.support.servers.java_processes import members
from tests.support.tiny import DAY, Tiny

pytestmark = pytest.mark.servers
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def flink() -> Iterator[Cluster]:
    """One TaskManager of two slots."""
    with require(lambda: Cluster(task_managers=1, slots=2)) as cluster:
        yield cluster


def test_a_night_on_flink_is_the_night_of_one_machine(
    flink: Cluster, night: Night, night_again: Config
) -> None:
    manifest = run(night_again, run_date=DAY, load=fake(), beam_flags=flink.loopback)
    check_same(Path(night_again.output.path), manifest, night)


def test_the_reason_of_a_worker_reaches_the_user(flink: Cluster, night_again: Config) -> None:
    with pytest.raises(ScoringFailed) as raised:
        run(night_again, run_date=DAY, load=fake(broken=True), beam_flags=flink.loopback)
    assert str(raised.value) == "the fake model is broken on purpose"
    assert not any(Path(night_again.output.path).rglob("*.parquet"))


def test_a_job_server_that_is_not_there_is_an_error_of_one_line(night_again: Config) -> None:
    flags = ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:1", "--environment_type=LOOPBACK"]
    with pytest.raises(NightError, match="no job server answers at 127.0.0.1:1 within 1 s") as raised:
        run(night_again, run_date=DAY, load=fake(), beam_flags=[*flags, "--job_server_timeout=1"])
    assert "\n" not in str(raised.value)


def test_an_interrupted_night_ends_its_job(flink: Cluster, tiny: Tiny, tmp_path: Path) -> None:
    """Ctrl-C while a worker scores: the engine does not go on."""
    before = {job["id"] for job in flink.get("/jobs")["jobs"]}
    program = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from pipelines.nightly.run import run\n"
        "from tests.support import tiny as t\n"
        "from tests.support.fakes import fake\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored\n"
        "folder = Path(sys.argv[1])\n"
        "tiny = t.Tiny(*map(Path, sys.argv[2:6]))\n"
        "load = fake(seconds=3600.0)\n"
        "run(t.make_config(tiny, folder), run_date=t.DAY, load=load, beam_flags=sys.argv[6:])\n"
    )
    output = tmp_path / "output"
    night = subprocess.Popen(
        [sys.executable, "-c", program, output, *map(str, tiny), *flink.loopback],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        stderr=subprocess.DEVNULL,
    )

    def job() -> dict[str, str]:
        """The job that the night has started; {} before."""
        return next((one for one in flink.get("/jobs")["jobs"] if one["id"] not in before), {})

    try:
        wait(lambda: job().get("status") == "RUNNING" or night.poll() is not None)
        night.send_signal(signal.SIGINT)
        # The job server is asked to cancel it, which this release lets Flink know late or never; but its workers end.
        wait(lambda: job().get("status") in ("CANCELED", "FAILED"))
    finally:
        night.kill()
        night.wait()


def test_a_lost_machine_changes_no_byte_and_workers_end_with_their_machine(
    flink: Cluster, night: Night, night_again: Config, tmp_path: Path
) -> None:
    """Two TaskManagers with worker processes of their own, one of them killed -9 while its worker scores."""
    flink.resize(task_managers=2, slots=1)
    gate = Gate.make(tmp_path / "gate")
    load = functools.partial(held_load, fake(), gate)
    manifest, reaped = with_a_kill(
        flink,
        lambda: run(night_again, run_date=DAY, load=load, beam_flags=flink.process),
        when=gate.workers,
        then=gate.open,
    )
    assert reaped
    check_same(Path(night_again.output.path), manifest, night)
    # A TaskManager keeps its idle workers for two minutes, and one of the attempt that failed, too; they end with it.
    flink.stop_task_managers()
    wait(lambda: not flink.workers())


def test_a_cluster_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    require(prepare)
    started = tmp_path / "started"
    program = (
        "import json, os, pathlib, sys, time\n"
        "from tests.support.servers.flink import Cluster\n"
        "cluster = Cluster()\n"
        "cluster.start_job_manager()\n"
        "pathlib.Path(sys.argv[1] + '.new').write_text(json.dumps([cluster.group, str(cluster.folder)]))\n"
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "time.sleep(3600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, started], cwd=ROOT)
    try:
        wait(lambda: started.exists() or owner.poll() is not None)
        group, folder = json.loads(started.read_text())
        assert members(group)
    finally:
        owner.kill()
        owner.wait()
    wait(lambda: not Path(folder).exists())
    wait(lambda: not members(group))
