"""`nightrank-worker`: the process in which a task manager of an engine runs a night's Python stages.

An engine that shares a machine with an installed Nightrank starts it where it needs a worker:

    -- --runner=FlinkRunner ... --environment_type=PROCESS --environment_option=process_command=BIN/nightrank-worker

Beam has such a program in its container images alone. Unlike that one, this installs no packages, since Nightrank is
installed beside it; and it ends with the process that started it, so that one that is killed leaves no worker behind.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

LOOK_SECONDS = 1.0
"""How often a worker looks whether the process that started it is still there."""

REACH_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the engine that calls it, by Beam's contract for containers, until that ends it."""
    parser = argparse.ArgumentParser(
        prog="nightrank-worker",
        description="Runs a night's Python stages for an engine on this machine, which starts it: see "
        "--environment_type=PROCESS in docs/runners.md.",
    )
    parser.add_argument("--id", required=True, help="the worker's name")
    parser.add_argument("--provision_endpoint", required=True, help="address that tells it everything else")
    # The same that the provision endpoint says; Beam's contract passes them as well.
    for name in ("control", "logging", "artifact"):
        parser.add_argument(f"--{name}_endpoint", default="", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    _end_with_parent()

    from apache_beam.runners.worker import sdk_worker_main  # seconds, in which the engine may end

    os.environ.update(environment(given, provision(given.provision_endpoint, given.id)))
    sdk_worker_main.main([])


def provision(endpoint: str, worker: str) -> Any:
    """What the engine says of its job: Beam's ProvisionInfo."""
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc

    with grpc.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        try:
            return service.GetProvisionInfo(
                beam_provision_api_pb2.GetProvisionInfoRequest(),
                metadata=(("worker_id", worker),),
                timeout=REACH_SECONDS,
                wait_for_ready=True,
            ).info
        except grpc.RpcError as error:
            sys.exit(f"nightrank-worker: no engine answers at {endpoint}: {error.details()}")


def environment(given: argparse.Namespace, info: Any) -> dict[str, str]:
    """The environment variables by which Beam's worker learns its options and where the engine listens."""
    from google.protobuf import json_format

    control = info.control_endpoint.url or given.control_endpoint
    logging = info.logging_endpoint.url or given.logging_endpoint
    found = {
        "WORKER_ID": given.id,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "CONTROL_API_SERVICE_DESCRIPTOR": f"url: {json.dumps(control)}",
        "LOGGING_API_SERVICE_DESCRIPTOR": f"url: {json.dumps(logging)}",
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if info.status_endpoint.url:
        found["STATUS_API_SERVICE_DESCRIPTOR"] = f"url: {json.dumps(info.status_endpoint.url)}"
    return found


def _end_with_parent() -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    main()
