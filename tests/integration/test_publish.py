"""Publishing back and loading, on a real server."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.elasticsearch import write
from pipelines.elasticsearch.publish import publish, rollback
from pipelines.elasticsearch.write import Cluster, IndexDocument, open_cluster
from pipelines.plan.context import Context
from pipelines.plan.steps import STEPS
from rerank_core.config.night import Config
from rerank_core.config.operation import PublishBack
from rerank_core.errors import ConfigError, WriteError
from rerank_core.text import query_id
from schemas.outcome import PlanRecord
from tests.integration.conftest import started
from tests.support.published_run import publish_run, text
from tests.support.servers.elasticsearch import Node

Names = Callable[[str], str]


@pytest.fixture
def cluster(es: Node) -> Cluster:
    return open_cluster(es.url)


def client(es: Node) -> Elasticsearch:
    asked: Elasticsearch = es.client()
    return asked


def indices(es: Node, alias: str) -> list[str]:
    return sorted(client(es).indices.get(index=f"{alias}-*").body)


def call(es: Node, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--to", es.url])


def test_two_nights_and_a_way_back(es: Node, es_name: Names, cluster: Cluster, tmp_path: Path) -> None:
    alias, out = es_name("served"), str(tmp_path)
    first = publish(cluster, out, publish_run(tmp_path, run_id="r1", queries=1200), alias=alias)
    assert (first.queries, first.swapped, first.previous) == (1200, True, "")
    found = client(es).get(index=alias, id=query_id(text(17)))["_source"]
    assert found["query"] == text(17)
    assert [one["doc_id"] for one in found["results"]] == ["d1", "d2", "d3", "d4"]
    assert client(es).count(index=alias)["count"] == 1200
    match = client(es).search(index=alias, query={"term": {"query.raw": text(17)}})
    assert match["hits"]["total"]["value"] == 1

    second = publish(cluster, out, publish_run(tmp_path, run_id="r2", queries=9), alias=alias)
    assert (second.previous, second.removed) == (f"{alias}-r1", ())
    assert client(es).count(index=alias)["count"] == 9
    assert client(es).get(index=alias, id=query_id(text(3)))["_source"]["run_id"] == "r2"

    back = rollback(cluster, alias)
    assert (back.left, back.index, back.run_id) == (f"{alias}-r2", f"{alias}-r1", "r1")
    assert client(es).count(index=alias)["count"] == 1200
    with pytest.raises(WriteError, match="there is no previous index"):
        rollback(cluster, alias)
    assert list(client(es).indices.get_alias(name=alias)) == [f"{alias}-r1"]

    third = publish(cluster, out, publish_run(tmp_path, run_id="r3", queries=5), alias=alias)
    assert third.removed == (f"{alias}-r2",)  # it was rolled back from, so nobody goes back to it
    assert rollback(cluster, alias).index == f"{alias}-r1"


def test_a_plan_knows_whether_the_alias_names_its_run(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path
) -> None:
    alias, out = es_name("followed"), str(tmp_path)
    one, two = (publish_run(tmp_path, run_id=name, queries=3) for name in ("r1", "r2"))

    def named(url: str = es.url) -> list[bool]:
        back = PublishBack(url=url, alias=alias)
        night = Context(Config(publish_back=back), datetime.date(2026, 3, 8), PlanRecord("2026-03-08"))
        (step,) = (step for step in STEPS if step.name == "publish_back")
        return [step.holds(dataclasses.replace(night, manifest=run)) for run in (one, two)]

    assert named() == [False, False]
    publish(cluster, out, one, alias=alias)
    publish(cluster, out, two, alias=alias)
    assert named() == [False, True]
    rollback(cluster, alias)
    assert named() == [True, False]
    assert named("http://127.0.0.1:9") == [False, False]


def test_old_indices_are_kept_as_told(es: Node, es_name: Names, cluster: Cluster, tmp_path: Path) -> None:
    alias = es_name("kept")
    for number in range(4):
        publish(
            cluster, str(tmp_path), publish_run(tmp_path, run_id=f"r{number}", queries=2), alias=alias, keep=1
        )
    assert indices(es, alias) == [f"{alias}-r2", f"{alias}-r3"]
    rollback(cluster, alias)
    with pytest.raises(WriteError, match="is gone"):
        rollback(cluster, alias)


def test_the_same_run_again_is_verified_and_left(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path
) -> None:
    alias, manifest = es_name("again"), publish_run(tmp_path, run_id="r1")
    publish(cluster, str(tmp_path), manifest, alias=alias)
    assert not publish(cluster, str(tmp_path), manifest, alias=alias).swapped
    client(es).delete(index=f"{alias}-r1", id=query_id(text(5)), refresh=True)
    with pytest.raises(WriteError, match="should have 60 documents, but has 59"):
        publish(cluster, str(tmp_path), manifest, alias=alias)


def test_a_node_killed_in_mid_publish_leaves_the_night_before(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path
) -> None:
    alias = es_name("killed")
    publish(cluster, str(tmp_path), publish_run(tmp_path, run_id="r1"), alias=alias)
    half = publish_run(tmp_path, run_id="r2", queries=2000)
    with pytest.raises(WriteError, match=f"no response.*{alias}-r2 could not be removed"):
        publish(cluster, str(tmp_path), half, alias=alias, on_progress=lambda _: es.kill9())
    es.start()
    assert list(client(es).indices.get_alias(name=alias)) == [f"{alias}-r1"]
    assert client(es).count(index=alias)["count"] == 60
    assert indices(es, alias) == [f"{alias}-r1", f"{alias}-r2"]  # incomplete: the cluster was away

    done = publish(cluster, str(tmp_path), half, alias=alias)
    assert (done.queries, done.previous) == (2000, f"{alias}-r1")
    assert client(es).count(index=alias)["count"] == 2000


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_publish_that_is_stopped_removes_its_index(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path, stop: type[BaseException]
) -> None:
    def interrupt(_: int) -> None:
        raise stop

    alias = es_name("stopped")
    publish(cluster, str(tmp_path), publish_run(tmp_path, run_id="r1"), alias=alias)
    with pytest.raises(stop):
        publish(
            cluster, str(tmp_path), publish_run(tmp_path, run_id="r2"), alias=alias, on_progress=interrupt
        )
    assert indices(es, alias) == [f"{alias}-r1"]


def test_another_number_than_the_manifest_says_is_not_published(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path
) -> None:
    alias = es_name("count")
    manifest = publish_run(tmp_path, run_id="r1", queries=60)
    balance = dataclasses.replace(manifest.balance, queries={"read": 61, "published": 61})
    with pytest.raises(WriteError, match=r"60 documents, but 61 were expected"):
        publish(cluster, str(tmp_path), dataclasses.replace(manifest, balance=balance), alias=alias)
    assert indices(es, alias) == []
    assert not client(es).indices.exists_alias(name=alias)


def test_a_night_that_kept_earlier_lists_is_published_with_them(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path
) -> None:
    alias, manifest = es_name("kept-lists"), publish_run(tmp_path, run_id="r1", queries=60)
    balance = dataclasses.replace(manifest.balance, queries={"read": 61, "published": 40, "stale": 20})
    kept = dataclasses.replace(manifest, balance=balance)
    for swapped in (True, False):
        done = publish(cluster, str(tmp_path), kept, alias=alias)
        assert (done.queries, done.swapped) == (60, swapped)


def test_documents_that_the_index_does_not_hold_are_missed(
    es: Node, es_name: Names, cluster: Cluster
) -> None:
    one = IndexDocument("1", {"text": "a"})
    for name, documents, found in (
        ("same-id", [one, one], "should have 2 documents, but has 1"),
        ("strict", [one, IndexDocument("2", {"other": "a"})], "refused document '2'.*strict"),
        ("long-id", [IndexDocument("1" * 600, {"text": "a"})], "refused document|HTTP 400"),
    ):
        index = es_name(name)
        write.create(cluster, index, {"dynamic": "strict", "properties": {"text": {"type": "text"}}})
        with pytest.raises(WriteError, match=found):
            write.fill(cluster, index, documents)
        assert not client(es).indices.exists(index=index)


def test_a_changed_document_is_noticed(es: Node, es_name: Names, cluster: Cluster) -> None:
    index = es_name("changed")
    write.create(cluster, index, {"properties": {"text": {"type": "text"}}})
    write.fill(cluster, index, [IndexDocument("1", {"text": "a"})])
    with pytest.raises(WriteError, match=r"'1' .* differs from what was sent"):
        write.verify(cluster, index, count=1, sample=[IndexDocument("1", {"text": "b"})])


def test_a_busy_cluster_is_asked_again(
    es: Node, es_name: Names, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first requests are answered with 429: once as a whole, once for one item, then nothing is missing."""
    from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
    from elasticsearch import ApiError

    index, asked, real = es_name("busy"), [0], cluster.client.bulk
    monkeypatch.setattr(write, "FIRST_WAIT", 0.01)
    write.create(cluster, index, {"properties": {"text": {"type": "text"}}})

    def bulk(self: Elasticsearch, *arguments: Any, **options: Any) -> Any:
        asked[0] += 1
        if asked[0] == 1:
            node = NodeConfig("http", "localhost", 9200)
            raise ApiError("busy", ApiResponseMeta(429, "1.1", HttpHeaders(), 0.1, node), {"error": "busy"})
        answer = real(*arguments, **options)
        if asked[0] == 2:
            (item,) = answer["items"][0].values()
            client(es).delete(index=index, id=item["_id"])
            item |= {"status": 429, "error": {"type": "es_rejected_execution_exception"}}
        return answer

    monkeypatch.setattr(Elasticsearch, "bulk", bulk)
    assert write.fill(cluster, index, [IndexDocument(str(n), {"text": "a"}) for n in range(50)]) == 50
    assert asked[0] == 3


def test_an_alias_that_moves_meanwhile_is_not_taken(
    es: Node, es_name: Names, cluster: Cluster, tmp_path: Path
) -> None:
    alias = es_name("moved")
    publish(cluster, str(tmp_path), publish_run(tmp_path, run_id="r1"), alias=alias)
    publish(cluster, str(tmp_path), publish_run(tmp_path, run_id="r2"), alias=alias)
    rolled: list[object] = []

    def roll_once(_: int) -> None:
        if not rolled:
            rolled.append(rollback(cluster, alias))

    with pytest.raises(WriteError, match="was not moved"):
        publish(
            cluster, str(tmp_path), publish_run(tmp_path, run_id="r3"), alias=alias, on_progress=roll_once
        )
    assert list(client(es).indices.get_alias(name=alias)) == [f"{alias}-r1"]
    assert indices(es, alias) == [f"{alias}-r1", f"{alias}-r2"]


def test_what_is_not_ours_is_not_touched(es: Node, es_name: Names, cluster: Cluster, tmp_path: Path) -> None:
    manifest = publish_run(tmp_path, run_id="r1")
    foreign, index = es_name("foreign"), es_name("products")
    client(es).indices.create(index=index, aliases={foreign: {}})
    for alias, found in ((foreign, "did not publish"), (index, "not an alias")):
        with pytest.raises(WriteError, match=found):
            publish(cluster, str(tmp_path), manifest, alias=alias)
        with pytest.raises(WriteError):
            rollback(cluster, alias)
    assert list(client(es).indices.get_alias(name=foreign)) == [index]


# --- the command line


def test_publish_and_roll_back_from_the_shell(es: Node, es_name: Names, tmp_path: Path) -> None:
    alias = es_name("shell")
    publish_run(tmp_path, run_id="r1", queries=3)
    publish_run(tmp_path, run_id="r2", queries=2)
    shown = call(es, "publish", str(tmp_path), "--alias", alias, "--run-id", "r1")
    assert shown.exit_code == 0, shown.output
    done = json.loads(call(es, "publish", str(tmp_path), "--alias", alias, "--json").stdout)
    assert (done["run_id"], done["index"], done["previous"]) == ("r2", f"{alias}-r2", f"{alias}-r1")
    assert call(es, "publish", str(tmp_path), "--alias", alias, "--quiet").stdout == ""
    back = json.loads(call(es, "publish", "--rollback", "--alias", alias, "--json").stdout)
    assert back["run_id"] == "r1"
    assert call(es, "publish", "--rollback", "--alias", alias).exit_code == 5
    assert call(es, "publish", str(tmp_path), "--alias", alias, "--run-id", "r9").exit_code == 3


def test_load_a_corpus(es: Node, es_name: Names) -> None:
    index = es_name("corpus")
    loaded = json.loads(call(es, "load", "sample_data", "--index", index, "--json").stdout)
    passages = len(Path("sample_data/corpus.jsonl").read_text(encoding="utf-8").splitlines())
    assert (loaded["kind"], loaded["documents"], loaded["rejected"]) == ("corpus", passages, {})
    mapping = client(es).indices.get_mapping(index=index)[index]["mappings"]
    assert (mapping["dynamic"], mapping["properties"]["text"]["analyzer"]) == ("strict", loaded["analyzer"])
    found = client(es).search(index=index, query={"match": {"title": "danube"}})
    assert found["hits"]["hits"][0]["_id"] == "danube"

    again = call(es, "load", "sample_data", "--index", index)
    assert again.exit_code == 2
    assert client(es).count(index=index)["count"] == passages
    assert call(es, "load", "sample_data", "--index", index, "--replace", "--quiet").exit_code == 0
    assert client(es).count(index=index)["count"] == passages


def test_load_a_log(es: Node, es_name: Names) -> None:
    index = es_name("log")
    loaded = json.loads(call(es, "load", "sample_data/query_log.jsonl", "--index", index, "--json").stdout)
    events = len(Path("sample_data/query_log.jsonl").read_text(encoding="utf-8").splitlines())
    assert (loaded["kind"], loaded["documents"]) == ("log", events)
    week = {"range": {"timestamp": {"gte": "2026-03-02", "lt": "2026-03-03"}}}
    assert 0 < client(es).count(index=index, query=week)["count"] < events


def test_load_does_not_touch_an_alias(es: Node, es_name: Names, cluster: Cluster) -> None:
    index, alias = es_name("real"), es_name("other-name")
    client(es).indices.create(index=index, aliases={alias: {}})
    assert call(es, "load", "sample_data", "--index", alias, "--replace").exit_code == 2
    with pytest.raises(ConfigError):
        open_cluster("nowhere")
    assert client(es).indices.exists(index=index)


# --- credentials


@pytest.fixture(scope="module")
def secure() -> Iterator[Node]:
    yield from started(security=True)


def shell(secure: Node, *arguments: str, ca: bool = True, **environment: str) -> Any:
    assert secure.security
    trusted = ["--ca-file", str(secure.security.ca)] if ca else []
    names = ("API_KEY", "USERNAME", "PASSWORD", "BEARER")
    given = {f"NIGHTRANK_ES_{name}": environment.get(name.lower()) for name in names}
    write.connect.cache_clear()  # the connection of a process keeps whom it was opened for
    try:
        return CliRunner().invoke(app, [*arguments, "--to", secure.url, *trusted], env=given)
    finally:
        write.connect.cache_clear()


@pytest.mark.servers
def test_the_credentials_decide(secure: Node, tmp_path: Path) -> None:
    assert secure.security
    publish_run(tmp_path, run_id="r1", queries=3)
    (name, word), (reader, readers_word) = secure.security.admin, secure.security.reader
    for given, expected in (
        ({}, "authentication failed"),
        ({"username": name, "password": "wrong-secret"}, "authentication failed"),
        ({"api_key": "d3Jvbmctc2VjcmV0OndvcmQ="}, "authentication failed"),
        ({"username": reader, "password": readers_word}, "permission denied"),
    ):
        for command in (["publish", str(tmp_path)], ["load", "sample_data", "--index", "x"]):
            refused = shell(secure, *command, **given)
            assert refused.exit_code == 3
            assert expected in refused.stderr
            assert not any(value in refused.output for key, value in given.items() if key != "username")
    unknown = shell(secure, "publish", str(tmp_path), ca=False, username=name, password=word)
    assert unknown.exit_code == 3
    assert "cannot be verified" in unknown.stderr
    done = shell(secure, "publish", str(tmp_path), username=name, password=word)
    assert done.exit_code == 0, done.stderr
    assert word not in done.output
