"""A night killed (-9) at each change with which it publishes back, and started again: readers see no difference."""

from __future__ import annotations

import datetime
import os
import queue
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipelines.elasticsearch.publish import publish
from pipelines.elasticsearch.write import open_cluster
from pipelines.nightly.run import run
from pipelines.storage.plan_records import read_plan
from schemas.manifest import Manifest
from tests.integration.conftest import Name
from tests.support.fakes import fake
from tests.support.forked_nights import Nights, configured, run_night
from tests.support.proxy import Proxy, proxied
from tests.support.servers.elasticsearch import Node
from tests.support.tiny import DAY, make_config, make_tiny

Documents = dict[str, dict[str, Any]]
CHANGE = re.compile(r"(PUT|DELETE) |POST .*/_(bulk|aliases)$")
KEEP = 1  # indices to go back to: so the third night removes the first one's


class Beginning(NamedTuple):
    """Two nights that were published back, and a third one that was reranked and no more."""

    output: Path
    earlier: list[Manifest]
    night: Manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("killed")).folder


@pytest.fixture(scope="module")
def beginning(folder: Path) -> Beginning:
    output, tiny = folder / "output", make_tiny(folder)
    days = [DAY - datetime.timedelta(days=ago) for ago in (2, 1)]
    earlier = [run(make_config(tiny, output), run_date=day, load=fake()) for day in days]
    config = configured(folder, str(output), {"url": "http://localhost:1"})
    night = run_night(config, only="rerank").manifest
    assert night
    return Beginning(output, earlier, night)


@pytest.fixture(scope="module")
def nights(folder: Path) -> Iterator[Nights]:
    with Nights(folder) as process:
        yield process


@pytest.fixture
def proxy(es: Node) -> Iterator[Proxy]:
    with proxied(es.url) as proxy:
        yield proxy


class World:
    """An alias with two nights behind it, and the output folder of the third one."""

    def __init__(self, es: Node, alias: str, beginning: Beginning, folder: Path, proxy: Proxy) -> None:
        self.alias, self._es, self._client = alias, es, es.client()
        self.output = shutil.copytree(beginning.output, folder / alias)
        self.publish_back = {"url": proxy.url, "alias": alias, "keep": KEEP}
        self.indices = [f"{alias}-{one.run_id}" for one in (*beginning.earlier, beginning.night)]
        for manifest in beginning.earlier:
            publish(open_cluster(es.url), str(self.output), manifest, alias=alias, keep=KEEP)

    def served(self) -> Documents:
        """What a reader of the alias sees."""
        answer = self._client.search(index=self.alias, size=1000)
        assert not answer["_shards"]["failed"]
        return {hit["_id"]: hit["_source"] for hit in answer["hits"]["hits"]}

    def there(self) -> list[str]:
        return sorted(self._client.indices.get(index=f"{self.alias}-*").body)

    def named(self) -> list[str]:
        return sorted(self._client.indices.get_alias(name=self.alias).body)


class Reader(threading.Thread):
    """Polls the alias; what it sees must be `allowed`, whole."""

    def __init__(self, world: World, *allowed: Documents) -> None:
        super().__init__(daemon=True)
        self._world, self._allowed, self._stopped = world, allowed, threading.Event()
        self.polls, self.torn = 0, list[str]()

    def run(self) -> None:
        while not self._stopped.wait(0.002):
            try:
                if (seen := self._world.served()) not in self._allowed:
                    self.torn.append(f"{len(seen)} documents: {sorted(seen)}")
            except Exception as error:  # whatever a reader would have seen
                self.torn.append(f"{type(error).__name__}: {error}")
            self.polls += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def test_a_night_killed_at_each_change_of_publishing_back(
    es: Node, es_name: Name, beginning: Beginning, nights: Nights, proxy: Proxy, tmp_path: Path
) -> None:
    def world(name: str) -> World:
        proxy.watch()
        return World(es, es_name(name), beginning, tmp_path, proxy)

    undisturbed = world("undisturbed")
    before = undisturbed.served()
    nights.start(undisturbed.output, undisturbed.publish_back)
    assert nights.end() == 0
    requests, after = proxy.seen, undisturbed.served()
    assert {document["run_id"] for document in after.values()} == {beginning.night.run_id}
    assert len(after) == beginning.night.balance.lists
    assert undisturbed.there() == undisturbed.indices[1:]
    assert sum(request.endswith("_bulk") for request in requests) > 1
    polls, started = 0, queue.Queue[int]()
    changes = [at for at, request in enumerate(requests, 1) if CHANGE.match(request)]
    assert (
        len(changes) >= 7
    )  # an index, its documents, its settings, that it is whole, the alias, an old index
    for at in (0, *changes):  # killed after a request that only reads, the cluster is as before it
        one = world(f"at{at}")
        reader = Reader(one, before, after)
        reader.start()
        proxy.watch(at, lambda: os.kill(started.get(), signal.SIGKILL))
        started.put(nights.start(one.output, one.publish_back))
        moment = f"killed at request {at}, {(['none', *requests])[at]}"
        assert nights.end() == -signal.SIGKILL, moment
        assert len(proxy.seen) == max(at, 1), moment
        proxy.watch()
        nights.start(one.output, one.publish_back)
        assert nights.end() == 0, moment
        reader.stop()
        assert reader.torn == [], moment
        assert one.named() == one.indices[-1:], moment
        assert one.there() == one.indices[1:], moment
        assert one.served() == after, moment
        record = read_plan(str(one.output), str(DAY)).step("publish_back")
        assert record is not None, moment
        assert record.state == "done", moment
        polls += reader.polls
    assert polls > len(changes)
