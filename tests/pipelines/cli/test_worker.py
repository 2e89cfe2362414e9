"""`nightrank-worker`: what an engine tells it, and how it ends. tests/integration/test_flink.py has a real engine."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import (
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from google.protobuf import json_format, struct_pb2, text_format

from pipelines.cli import worker

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {"beam:option:default_sdk_harness_log_level:v1": "WARN", "beam:option:s3_region_name:v1": 'x"y'}


class Engine(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """The part of an engine that a worker asks first."""

    def __init__(self, control: str = "") -> None:
        self.asked_by: list[str] = []
        self.info = beam_provision_api_pb2.ProvisionInfo(
            pipeline_options=json_format.ParseDict(OPTIONS, struct_pb2.Struct()),
            control_endpoint=endpoints_pb2.ApiServiceDescriptor(url=control),
            logging_endpoint=endpoints_pb2.ApiServiceDescriptor(url="localhost:2"),
            runner_capabilities=["a", "b"],
        )

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:  # noqa: N802  Beam's name
        self.asked_by.append(dict(context.invocation_metadata())["worker_id"])
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=self.info)


def serve(engine: Engine) -> tuple[grpc.Server, str]:
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(engine, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def url(descriptor: str) -> str:
    """What Beam's worker reads of one of its environment variables."""
    return str(text_format.Parse(descriptor, endpoints_pb2.ApiServiceDescriptor()).url)


@pytest.mark.parametrize("control", ["localhost:1", ""])
def test_a_worker_learns_its_options_and_endpoints(control: str) -> None:
    engine = Engine(control)
    server, endpoint = serve(engine)
    try:
        info = worker.provision(endpoint, "worker-7")
    finally:
        server.stop(None)
    assert engine.asked_by == ["worker-7"]
    given = argparse.Namespace(id="worker-7", control_endpoint="localhost:9", logging_endpoint="")
    found = worker.environment(given, info)
    assert json.loads(found["PIPELINE_OPTIONS"]) == OPTIONS
    assert url(found["CONTROL_API_SERVICE_DESCRIPTOR"]) == (control or "localhost:9")
    assert url(found["LOGGING_API_SERVICE_DESCRIPTOR"]) == "localhost:2"
    assert (found["WORKER_ID"], found["RUNNER_CAPABILITIES"]) == ("worker-7", "a b")
    assert "STATUS_API_SERVICE_DESCRIPTOR" not in found


def test_without_an_engine_it_ends_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "REACH_SECONDS", 0.2)
    with pytest.raises(SystemExit, match=r"no engine answers at 127\.0\.0\.1:1"):
        worker.provision("127.0.0.1:1", "w")


def test_called_by_hand_it_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        worker.main([])
    assert ended.value.code == 2
    assert "--provision_endpoint" in capsys.readouterr().err


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    engine = Engine("127.0.0.1:1")  # where nothing listens: a worker waits a minute for it
    server, endpoint = serve(engine)
    pid = tmp_path / "pid"
    command = (
        f'"$0" -m pipelines.cli.worker --id=w --provision_endpoint={endpoint} & echo $! > {pid}; read -r _'
    )
    parent = subprocess.Popen(
        ["/bin/sh", "-c", command, sys.executable],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait(lambda: bool(engine.asked_by))
        assert runs(int(pid.read_text()))
        parent.kill()
        parent.wait()
        wait(lambda: not runs(int(pid.read_text())))
    finally:
        parent.kill()
        parent.communicate()
        server.stop(None)


def test_it_is_installed_as_a_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["nightrank-worker"] == f"{worker.__name__}:{worker.main.__name__}"


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait(condition: Any, *, seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
