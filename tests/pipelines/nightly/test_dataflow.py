"""Dataflow's job file, made by Beam's own runner without Google: its clients have no credentials, and a server here."""

from __future__ import annotations

import base64
import bz2
import dataclasses
import json
import re
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines.beam_options import beam_options
from pipelines.elasticsearch.client import connect
from pipelines.elasticsearch.source import ElasticsearchSource
from pipelines.nightly.graph import build
from pipelines.nightly.job import stages_of
from pipelines.nightly.prepare import prepare
from tests.conftest import SECRET, MakeConfig
from tests.support.es_config import config as es_config
from tests.support.fakes import forbidden
from tests.support.google_clients import client
from tests.support.tiny import DAY

google_auth = client("google.auth")
google_crc32c = client("google_crc32c")
google_credentials = client("google.auth.credentials")
client("google.cloud.dataflow")

IMAGE = "registry.example.com/nightrank:gpu"
GPU = "type:nvidia-l4;count:1;install-nvidia-driver"
FLAGS = [
    "--runner=DataflowRunner",
    "--project=search-prod",
    "--region=europe-west1",
    "--temp_location=gs://night-bucket/tmp",
    "--staging_location=gs://night-bucket/staging",
    "--template_location=gs://night-bucket/jobs/night.json",
    "--job_name=night",
    f"--sdk_container_image={IMAGE}",
]


class _Bucket(BaseHTTPRequestHandler):
    """As much of Cloud Storage's JSON API as an upload needs."""

    objects: dict[str, bytes]

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        self._answer(404 if "/o/" in path else 200, {"name": "night-bucket"})

    def do_POST(self) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        name = query.get("name", [""])[0] or json.loads(self._body())["name"]
        host, port = self.server.server_address[:2]
        location = f"http://{host!s}:{port}/upload?{urllib.parse.urlencode({'name': name})}"
        self._answer(200, {}, location=location)

    def do_PUT(self) -> None:
        name = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["name"][0]
        self.objects[name] = self.objects.get(name, b"") + self._body()
        ended = not (self.headers["Content-Range"] or "").endswith("/*")
        checksum = base64.b64encode(google_crc32c.Checksum(self.objects[name]).digest()).decode()
        self._answer(200 if ended else 308, {"name": name, "crc32c": checksum})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _answer(self, status: int, data: dict[str, Any], *, location: str = "") -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The objects of a bucket, by name; Google's clients find it, and credentials that are none."""
    anonymous = google_credentials.AnonymousCredentials()
    monkeypatch.setattr(google_auth, "default", lambda *_, **__: (anonymous, "search-prod"))
    for name, value in (("_credentials_init", False), ("_credentials", None)):
        monkeypatch.setattr(auth._Credentials, name, value)
    objects: dict[str, bytes] = {}
    handler = type("Bucket", (_Bucket,), {"objects": objects})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        yield objects
        server.shutdown()


class Made(NamedTuple):
    """What Dataflow would be given."""

    job: dict[str, Any]
    graph: beam_runner_api_pb2.Pipeline
    objects: dict[str, bytes]


def make_job(
    make_config: MakeConfig,
    objects: dict[str, bytes],
    *,
    candidates: ElasticsearchSource | None = None,
    **sections: Any,
) -> Made:
    """The job file of a tiny night, and the graph that was staged with it.

    Args:
        candidates: where the workers fetch candidates, in place of the tiny index.
    """
    options = beam_options(FLAGS)
    config = make_config(**({"workers": {"shared_paths": ["/"]}} | sections))
    night = prepare(config, run_date=DAY, options=options, load=forbidden())
    if candidates:
        candidates.events = night.source.events  # type: ignore[method-assign]
        night = dataclasses.replace(night, source=candidates)
    pipeline = beam.Pipeline(options=options)
    build(pipeline, night)
    pipeline.run()
    (staged,) = (data for name, data in objects.items() if name.endswith("/pipeline.pb"))
    return Made(
        json.loads(objects["jobs/night.json"]), beam_runner_api_pb2.Pipeline.FromString(staged), dict(objects)
    )


def test_the_job_has_the_image_the_staging_and_the_hints(
    make_config: MakeConfig, bucket: dict[str, bytes]
) -> None:
    workers = {"shared_paths": ["/"], "scoring_min_ram": "16GB", "scoring_accelerator": GPU}
    made = make_job(make_config, bucket, workers=workers)
    environment = made.job["environment"]
    (pool,) = environment["workerPools"]
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == [IMAGE] * 2
    assert environment["tempStoragePrefix"].startswith("storage.googleapis.com/night-bucket/tmp/night.")
    options = environment["sdkPipelineOptions"]["options"]
    assert re.fullmatch(r"gs://night-bucket/staging/night\.[\d.]+/pipeline\.pb", options["pipelineUrl"])
    assert options["pipelineUrl"].removeprefix("gs://night-bucket/") in made.objects
    assert options["sdk_container_image"] == IMAGE
    hinted = {stage.name: stage.hints for stage in stages_of(made.graph) if stage.hints}
    assert hinted.keys() == {"ScoreCandidates", "RankCandidates", "FindEvidence"}
    assert all(one == {"min_ram_bytes": "16000000000", "accelerator": GPU} for one in hinted.values())
    # One image for both, and no other environment that Dataflow would have to pull.
    images = {
        beam_runner_api_pb2.DockerPayload.FromString(one.payload).container_image
        for one in made.graph.components.environments.values()
    }
    assert images == {IMAGE}


def test_without_hints_all_stages_share_one_container(
    make_config: MakeConfig, bucket: dict[str, bytes]
) -> None:
    made = make_job(make_config, bucket)
    (pool,) = made.job["environment"]["workerPools"]
    assert len(pool["sdkHarnessContainerImages"]) == 1
    assert not any(stage.hints for stage in stages_of(made.graph))


def test_no_secret_is_in_the_job(
    make_config: MakeConfig, bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTRANK_ES_API_KEY", SECRET)
    monkeypatch.setenv("NIGHTRANK_WEBHOOK_URL", f"https://hooks.example.com/{SECRET}")
    connect.cache_clear()
    source = ElasticsearchSource(es_config(url="http://cluster.example.com:9200", title_field="heading-4c1d"))
    assert connect(source._settings).client  # with the key, as on a driver that has checked its source
    made = make_job(make_config, bucket, candidates=source)
    connect.cache_clear()
    sent = [*made.objects.values(), *opened(made.graph)]
    assert any(
        b"heading-4c1d" in one for one in sent
    )  # the source is in it, and what is searched for is found
    assert not any(SECRET.encode() in one for one in sent)


def opened(graph: beam_runner_api_pb2.Pipeline) -> Iterator[bytes]:
    """The functions of a graph, unpacked: Beam compresses what it pickles."""
    for transform in graph.components.transforms.values():
        if transform.spec.urn.startswith("beam:transform:pardo"):
            payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload
            packed = base64.b64decode(payload)
            for unpack in (bz2.decompress, zlib.decompress):
                try:
                    yield unpack(packed)
                except (OSError, ValueError, zlib.error):
                    continue
