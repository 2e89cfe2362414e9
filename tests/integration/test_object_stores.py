"""Nights in object stores, by real servers of S3 and of Google Cloud Storage on this machine."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from typer.testing import CliRunner

from nightrank import read
from pipelines.cli.app import app
from pipelines.nightly import outcome
from pipelines.storage.filesystem import create, listing, read_bytes, transfer, write_bytes
from pipelines.storage.lock import Timing, lock
from pipelines.storage.object_stores import use_options
from pipelines.storage.writer import AT_ONCE
from rerank_core.errors import Locked, NightHeld
from tests.integration.conftest import require
from tests.support.servers.elasticsearch import Node
from tests.support.servers.gcs import GcsServer
from tests.support.servers.s3 import S3Server
from tests.support.store_nights import NEXT, Nights, night, published, two_nights
from tests.support.tiny import DAY, Tiny, write_beir
from tests.support.tiny_models import write_cross_encoder

Server = S3Server | GcsServer
Places = dict[str, str]
JUDGED = "--queries {base}/set/queries.jsonl --qrels {base}/set/qrels/dev.tsv"

NIGHT = """
[source]
log = "{base}/logs"
index = "{base}/index"
[output]
path = "{base}/nights"
[labels]
source = "qrels"
queries = "{base}/set/queries.jsonl"
qrels = "{base}/set/qrels/dev.tsv"
[evaluation]
queries = "{base}/set/queries.jsonl"
qrels = "{base}/set/qrels/dev.tsv"
[registry]
path = "{base}/registry"
[scoring]
model = "registry:serving"
backend = "torch"
max_length = 64
[tags]
recogniser = "rules"
[alerts]
prometheus = "{base}/night.prom"
summary = "{base}/night.json"
"""
TRAINING = """
model = "{folder}/model"
output = "{folder}/trained by {name}"
max_length = 32
[[stages]]
name = "one"
runs = ["{runs}"]
source = "training_pairs"
batch = 4
"""
COMMANDS = [  # in this order: the line, its exit code, and what is printed
    ("runs {out}", 0, "{second}"),
    ("show 'Who wrote Dune' --run {out}", 0, "{second}"),
    ("show dune --run {out}", 3, "Who wrote Dune"),
    ("verify {out}", 0, "1 run verified"),
    ("diff {out} {first} {second}", 0, "{first} -> {second}"),
    ("sql {out}", 0, "run {second}"),
    ("report {out}", 0, "{out}/runs/"),
    ("report {out} --week", 0, "{out}/week.html"),
    ("report {out} --to {base}/page.html", 0, "{base}/page.html"),
    ("export {out} --format trec --to {base}/trec", 0, "judgements"),
    ("export {out} --format trec --to {base}/trec", 2, "exists already"),
    ("export {out} --format flagembedding --to {base}/flag.jsonl", 0, "examples"),
    ("export {out} --format st-triplet --to {base}/triplets.parquet", 0, "rows"),
    ("import {base}/flag.jsonl --format flagembedding --to {base}/imported", 0, "training_pairs"),
    ("import {base}/triplets.parquet --format st-triplet --to {base}/imported", 0, "training_pairs"),
    ("import {base}/none.jsonl --format flagembedding --to {base}/imported", 3, "there is no such object"),
    ("models {base}/registry --add {folder}/model", 0, "Added"),
    ("promote --config {folder}/night.toml --force --reason tried", 0, "serves in place of"),
    ("nightly --config {folder}/night.toml --run-date 2026-03-08", 0, "Night of 2026-03-08"),
    ("show 'solaris novel' --run {base}/nights", 0, "solaris novel"),
    ("promote --config {folder}/night.toml --rollback --reason worse", 0, "the model that ships serves"),
    ("models {base}/registry --decisions", 0, "rolled back"),
    (
        f"evaluate --night {{out}} {JUDGED} --output {{base}}/f.json --per-query {{base}}/q.parquet",
        0,
        "nDCG@10",
    ),
    ("train --config {folder}/own.toml --quick", 0, "Trained"),
    ("train --config {folder}/imported.toml --quick", 0, "Trained"),
    ("release {out} {first}", 3, "{first}"),
    ("rollback {out}", 0, "{first}"),
    ("verify {base}/nights", 0, "1 run verified"),
]


@contextlib.contextmanager
def serving(kind: type[Server]) -> Iterator[Server]:
    """A server, which every process that is started from here finds by its environment."""
    with require(kind) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        use_options(PipelineOptions([]))  # the client is made anew
        yield made


@pytest.fixture(scope="module", params=[S3Server, GcsServer], ids=["s3", "gcs"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as made:
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


@pytest.fixture(scope="module")
def nights(server: Server, tiny: Tiny) -> Nights:
    return two_nights(server, tiny.folder)


def test_nights_are_those_of_a_local_folder_written_once(
    server: Server, nights: Nights, local: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    assert nights.files == local  # nor is anything left in staging
    if isinstance(server, S3Server):
        writes = Counter(line for line in nights.requests if line.startswith("PUT ") and "/runs/" in line)
        assert set(writes.values()) == {1}
        assert not [line for line in nights.requests if "_staging" in line and line.startswith("PUT ")]
    second = nights.runs[1]
    assert second.balance.pairs["published"] == 0
    assert second.balance.pairs["reused"] > 0
    assert f"{nights.output}/_lock" not in listing(nights.output)
    assert nights.read_by_driver == {"queries"}  # which the driver itself writes


def test_a_reader_that_polls_sees_whole_nights(nights: Nights) -> None:
    assert nights.answers
    assert all(passages for _, passages in nights.answers)
    first, second = (manifest.run_id for manifest in nights.runs)
    assert {run_id for run_id, _ in nights.answers} <= {first, second}
    assert nights.last == {second}


def test_a_night_that_was_killed_is_started_again(
    server: Server, output: str, tiny: Tiny, local: tuple[dict[str, bytes], dict[str, bytes]]
) -> None:
    command = [sys.executable, "-m", "tests.support.store_nights", str(tiny.folder), output, DAY.isoformat()]
    deaths = ["training_pairs/part-00001-of-00003.parquet", "latest.json"]
    died = subprocess.run([*command, *deaths], capture_output=True, timeout=600)
    assert died.returncode == 0, died.stderr.decode()[-2000:]
    with pytest.raises(read.ManifestError, match="no published run"):
        read.open(output.partition("://")[2], filesystem=server.filesystem())
    night(tiny.folder, output)
    assert published(output) == local[0]


def test_an_object_has_a_version_and_may_be_empty(output: str, tmp_path: Path) -> None:
    path = f"{output}/object"
    write_bytes(path, b"one")
    before, sizes = listing(output, versions=True), listing(output)
    write_bytes(path, b"two")
    assert listing(output) == sizes == {"object": (3, 0)}
    assert listing(output, versions=True) != before
    create(path).close()
    transfer(path, str(tmp_path / "copy"))
    assert read_bytes(path) == (tmp_path / "copy").read_bytes() == b""
    large = bytes(range(256)) * (AT_ONCE // 256 + 1)
    (tmp_path / "large").write_bytes(large)
    transfer(str(tmp_path / "large"), path)
    assert read_bytes(path) == large


@pytest.fixture(scope="module")
def places(server: Server, nights: Nights, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """What commands are given, with all that a night reads in the store, a tiny model, and a training of it."""
    folder, base = tmp_path_factory.mktemp("commands"), f"{server.scheme}://nights/in puts"
    judgements = "query-id\tcorpus-id\tscore\nq1\tdune\t1\nq2\tsolaris\t1\n"
    judged = write_beir(folder / "set", {"q1": "Who wrote Dune", "q2": "solaris novel"}, judgements)
    for source, name in ((tiny.index, "index"), (judged, "set")):
        for path in source.rglob("*"):
            if path.is_file():
                transfer(str(path), f"{base}/{name}/{path.relative_to(source)}")
    transfer(str(tiny.good_log), f"{base}/logs/day.jsonl")
    write_cross_encoder(folder / "model")
    (folder / "night.toml").write_text(NIGHT.format(base=base), encoding="utf-8")
    for name, runs in (("own", nights.output), ("imported", f"{base}/imported")):
        text = TRAINING.format(folder=folder, name=name, runs=runs)
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    first, second = (manifest.run_id for manifest in nights.runs)
    return {"out": nights.output, "base": base, "folder": str(folder), "first": first, "second": second}


def test_every_command_takes_its_path(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"{places['folder']}/cache")
    wrong = []
    for line, code, said in COMMANDS:
        arguments = [word.format(**places) for word in shlex.split(line)]
        result = CliRunner().invoke(app, arguments)
        printed = " ".join(result.output.split())
        if result.exit_code != code or said.format(**places) not in printed:
            wrong.append((line, result.exit_code, printed[-500:], result.exception))
    assert not wrong
    latest = json.loads(read_bytes(f"{places['out']}/latest.json"))
    assert latest["run_id"] == places["first"]
    assert not list(Path.cwd().glob("*:"))


def test_a_run_that_is_held_back_is_released(
    output: str, tiny: Tiny, local: tuple[dict[str, bytes], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = {"verdict": "hold", "reasons": ["too few queries"], "measures": {"queries": {"verdict": "hold"}}}
    monkeypatch.setattr(outcome, "compare", lambda *_: drift)
    with pytest.raises(NightHeld, match="too few queries") as raised:
        night(tiny.folder, output, drift={"enabled": True})
    assert raised.value.manifest
    run_id = raised.value.manifest.run_id
    shown = CliRunner().invoke(app, ["show", "Who wrote Dune", "--run", output, "--run-id", run_id])
    assert (shown.exit_code, "held back" in shown.output) == (0, True), shown.output
    assert "latest.json" not in published(output)
    released = CliRunner().invoke(app, ["release", output, run_id])
    assert released.exit_code == 0, released.output
    found, expected = published(output), local[0]
    assert json.loads(found.pop("latest.json"))["run_id"] == run_id
    assert found == {name: data for name, data in expected.items() if name != "latest.json"}


@pytest.mark.parametrize("kind", [S3Server, GcsServer])
def test_a_run_in_a_store_is_published_back(
    kind: type[Server], tiny: Tiny, es: Node, es_name: Callable[[str], str]
) -> None:
    # A server of its own: pytest puts the tests that need Elasticsearch first, and would make the shared ones twice.
    with serving(kind) as server:
        output = f"{server.scheme}://nights/published back"
        manifest = night(tiny.folder, output)
        result = CliRunner().invoke(
            app, ["publish", output, "--to", es.url, "--alias", es_name("served"), "--json"]
        )
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["queries"] == manifest.balance.queries["published"]


@pytest.mark.parametrize("begun", ["free", "of a killed run"])
def test_of_several_that_take_a_lock_at_once_one_has_it(output: str, begun: str) -> None:
    if begun != "free":
        write_bytes(f"{output}/_lock", b'{"run": "killed"}')
    together, done, outcomes = threading.Barrier(4), threading.Barrier(4), list[str]()
    looks = iter(range(10_000))

    def start(name: str) -> None:
        waited = False
        together.wait(600)
        try:
            timing = Timing(heartbeat=1e6, look=60.0, sleep=lambda _: next(looks))
            with lock(output, name, timing=timing) as held:
                waited = done.wait(600) >= 0
                held.check()  # the tests' server of Google Cloud Storage lets two create an object at the same moment
                outcomes.append("held")
        except Locked as error:
            outcomes.append(str(error))
            if not waited:
                done.wait(600)

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
