"""Faults on purpose, on a real server: whatever happens, every event and every query is accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.elasticsearch import candidates, retry
from pipelines.elasticsearch.client import connect
from rerank_core.errors import SourceError
from schemas.records import Query, Rejected
from tests.integration.conftest import VERSION, started
from tests.support.servers.elasticsearch import Node
from tests.support.source_data import (
    DOC_MAPPING,
    EVENTS,
    WINDOW,
    bulk,
    create,
    expected,
    lists,
    load_docs,
    load_log,
    queries,
    read,
    source,
)

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("quick")]
Name = Callable[[str], str]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits: a test need not be as patient as a night."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 1.0)


@pytest.fixture(scope="module")
def narrow() -> Iterator[Node]:
    """A node that is easily too busy, and that forgets points in time after a second."""
    settings = {
        "thread_pool.search.size": 1,
        "thread_pool.search.queue_size": 6,  # a query alone fits: it has a task a shard
        "search.keep_alive_interval": "1s",
    }
    for node in started(settings=settings):
        load_log(node, "narrow-log", events=5000)
        load_docs(node, "narrow-docs", shards=3)
        yield node


NARROW = {"log_index": "narrow-log", "index": "narrow-docs"}


def after(seconds: float, action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: (time.sleep(seconds), action()))
    thread.start()
    return thread


# --- the log


@pytest.mark.parametrize(("slices", "shards"), [(1, 1), (3, 2)])
def test_a_node_killed_in_mid_export_loses_no_event_and_repeats_none(
    es: Node, es_name: Name, slices: int, shards: int
) -> None:
    load_log(es, es_name("log"), shards=shards)
    load_docs(es, es_name("docs"), documents=5)
    reader = source(es.url, log_index=es_name("log"), index=es_name("docs"), slices=slices, page_size=333)
    threads: list[threading.Thread] = []

    def kill() -> None:
        for thread in threads:
            thread.join()  # the node is up, but whoever started it may not know yet
        es.kill9()
        threads.append(after(0.5, es.start))

    records, counts = read(reader, at={4000: kill, EVENTS * 3 // 4: kill})
    for thread in threads:
        thread.join()
    assert sorted(records) == sorted(expected(es_name("log"), n) for n in range(EVENTS))
    assert sum(one.renewed for one in counts) >= 2
    assert sum(one.read for one in counts) == counts[0].events == EVENTS


def test_expired_points_in_time_are_renewed_without_a_gap(narrow: Node) -> None:
    reader = source(narrow.url, slices=2, page_size=330, keep_alive="1s", **NARROW)
    records, counts = read(reader, at=dict.fromkeys((100, 1700, 3000), lambda: time.sleep(4)))
    assert sorted(records) == sorted(expected("narrow-log", n) for n in range(5000))
    assert sum(one.renewed for one in counts) >= 3


def test_a_log_without_times_survives_a_loss_too(narrow: Node) -> None:
    fields = {"timestamp": ""}
    reader = source(narrow.url, slices=2, page_size=330, keep_alive="1s", log={"fields": fields}, **NARROW)
    records, counts = read(reader, at={500: lambda: time.sleep(4)})
    assert sorted(one.record for one in records) == sorted(f"narrow-log/e{n}" for n in range(5000))
    assert sum(one.renewed for one in counts) >= 1


def test_events_that_arrive_or_vanish_after_a_loss(narrow: Node) -> None:
    load_log(narrow, "narrow-moving", events=2000)
    reader = source(
        narrow.url, slices=1, page_size=100, keep_alive="1s", **NARROW | {"log_index": "narrow-moving"}
    )
    late = {"timestamp": (WINDOW[1]).isoformat().replace("03T00", "02T23"), "query": "late"}

    def arrive() -> None:
        bulk(narrow, "narrow-moving", {"late": late})
        time.sleep(4)

    records, counts = read(reader, at={50: arrive})
    assert len(records) == len({one.record for one in records}) == 2001
    assert counts[0].renewed >= 1

    def vanish() -> None:
        narrow.request("DELETE", "/narrow-moving/_doc/late")
        narrow.request("DELETE", "/narrow-moving/_doc/e1999?refresh")
        time.sleep(4)

    with pytest.raises(SourceError, match="have 1999 events, the whole log 2001"):
        read(reader, at={50: vanish})


def test_a_log_deleted_or_replaced_in_mid_export_stops_the_night(narrow: Node) -> None:
    for replaced in (False, True):
        load_log(narrow, "narrow-doomed", events=2000)
        reader = source(narrow.url, page_size=100, **NARROW | {"log_index": "narrow-doomed"})

        def delete(replaced: bool = replaced) -> None:
            narrow.request("DELETE", "/narrow-doomed")
            if replaced:
                load_log(narrow, "narrow-doomed", events=2000)

        # The next page may be asked for while there is no index at all, or when there is another one.
        with pytest.raises(SourceError, match=r"replaced during the run|no such index"):
            read(reader, at={150: delete})


def test_a_page_that_is_missing_events_is_noticed(narrow: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = source(narrow.url, page_size=100, **NARROW)
    reader.describe()
    client = connect(reader._settings).client
    search = client.search

    def lossy(**body: Any) -> Any:
        answer = search(**body)
        hits = answer.body["hits"]["hits"]
        if len(hits) > 50 and "search_after" in body:
            del hits[50:]  # as partial results would
        return answer

    monkeypatch.setattr(client, "search", lossy)
    read(reader)  # cut pages alone lose nothing: the next one starts where they end
    monkeypatch.setattr(client, "search", lambda **body: _without_last_hits(search(**body)))
    with pytest.raises(SourceError, match=r"slice 0 .* returned \d+ events, but Elasticsearch counts \d+"):
        read(reader)


def _without_last_hits(answer: Any) -> Any:
    hits = answer.body["hits"]["hits"]
    if hits:
        hits[-1] = hits[-1] | {"sort": hits[-1]["sort"]}
        del hits[10:-1]  # its last event tells where to go on: what is in between is gone
    return answer


def test_a_paused_node_is_waited_for(es: Node, es_name: Name) -> None:
    load_log(es, es_name("log"), events=3000)
    load_docs(es, es_name("docs"), documents=500)
    names = {"log_index": es_name("log"), "index": es_name("docs")}
    reader = source(es.url, page_size=200, timeout_seconds=1.5, slices=2, **names)
    threads: list[threading.Thread] = []

    def pause() -> None:
        es.pause()
        threads.append(after(5, es.resume))

    records, _ = read(reader, at={700: pause})
    assert sorted(records) == sorted(expected(es_name("log"), n) for n in range(3000))

    calm = reader.candidates(queries(300), top_k=20)
    pause()
    assert reader.candidates(queries(300), top_k=20) == calm
    for thread in threads:
        thread.join()
    es.pause()
    hasty = source(es.url, timeout_seconds=1.5, max_retries=3, **names)
    with pytest.raises(SourceError, match=r"no response within source.elasticsearch.timeout_seconds = 1.5"):
        hasty.candidates(queries(20), top_k=20)
    es.resume()


# --- candidates


def test_a_node_killed_in_mid_fetch_costs_no_query(
    es: Node, es_name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_log(es, es_name("log"), events=10)
    load_docs(es, es_name("docs"))
    reader = source(es.url, msearch_size=5, log_index=es_name("log"), index=es_name("docs"))
    reader.describe()
    calm = lists(reader.candidates(queries(400), top_k=20))
    threads: list[threading.Thread] = []
    answers, read_item = 0, candidates.read_item

    def kill_in_the_middle(item: dict[str, Any], **known: Any) -> Any:
        nonlocal answers
        outcome = read_item(item, **known)
        answers += isinstance(outcome, retry.Answered)
        if answers == 150 and not threads:
            es.kill9()
            threads.append(after(0.5, es.start))
        return outcome

    monkeypatch.setattr(candidates, "read_item", kill_in_the_middle)
    assert lists(reader.candidates(queries(400), top_k=20)) == calm
    threads[0].join()
    assert answers == 400  # each query was answered once, however often it was asked


def failures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why queries had to be asked again, in the words of Elasticsearch."""
    seen: list[str] = []
    read_item = candidates.read_item

    def spy(item: dict[str, Any], **known: Any) -> Any:
        outcome = read_item(item, **known)
        if isinstance(outcome, retry.Retry):
            seen.append(f"{outcome.cause}: {outcome.detail}")
        return outcome

    monkeypatch.setattr(candidates, "read_item", spy)
    return seen


def test_a_full_search_queue_slows_a_night_down_and_costs_no_query(
    narrow: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = source(narrow.url, msearch_size=1, concurrency=1, **NARROW).candidates(queries(200), top_k=20)
    seen = failures(monkeypatch)
    reader = source(narrow.url, msearch_size=50, concurrency=4, **NARROW)
    assert reader.candidates(queries(200), top_k=20) == calm
    assert len(seen) > 10
    assert all(one.startswith("busy: es_rejected_execution_exception: rejected execution of") for one in seen)


def test_what_a_full_queue_never_answers_becomes_dead_letters(narrow: Node) -> None:
    reader = source(narrow.url, msearch_size=50, concurrency=4, max_retries=0, **NARROW)
    found = reader.candidates(queries(200), top_k=20)
    rejected = [one for one in found if isinstance(one, Rejected)]
    answered = [one for one in found if not isinstance(one, Rejected)]
    assert len(rejected) + len(answered) == 200
    assert len(rejected) > 10
    for one in rejected:
        assert (one.stage, one.unit, one.reason) == ("FetchCandidates", "query", "search_failed")
        assert "es_rejected_execution_exception: rejected execution of" in one.detail
    assert all(len(one) == 20 for one in answered)


# The request breaker counts a plain search from Elasticsearch 9 on.
BREAKERS = [("network.breaker.inflight_requests.limit", "1kb", "[inflight_requests]")] + (
    [("indices.breaker.request.limit", "1b", "[request]")] if VERSION.startswith("9.") else []
)


@pytest.mark.parametrize(("setting", "limit", "named"), BREAKERS)
def test_a_breaker_that_trips_is_waited_for_or_named(
    narrow: Node, setting: str, limit: str, named: str
) -> None:
    def set_to(value: str | None) -> None:
        narrow.request("PUT", "/_cluster/settings", {"persistent": {setting: value}})

    wanted = queries(20)
    calm = source(narrow.url, **NARROW).candidates(wanted, top_k=20)
    set_to(limit)
    try:
        found = source(narrow.url, max_retries=1, **NARROW).candidates(wanted, top_k=20)
        rejected = [one for one in found if isinstance(one, Rejected)]
        assert len(rejected) == 20
        assert all(f"circuit_breaking_exception: {named} Data too large" in one.detail for one in rejected)
        lifted = after(1.5, lambda: set_to(None))
        assert source(narrow.url, **NARROW).candidates(wanted, top_k=20) == calm
        lifted.join()
    finally:
        set_to(None)


def test_an_index_deleted_or_replaced_in_mid_run_stops_the_night(es: Node, es_name: Name) -> None:
    load_log(es, es_name("log"), events=10)
    for replaced in (False, True):
        load_docs(es, es_name("docs"), documents=20)
        reader = source(es.url, log_index=es_name("log"), index=es_name("docs"))
        reader.describe()
        es.request("DELETE", f"/{es_name('docs')}")
        if replaced:
            load_docs(es, es_name("docs"), documents=20)
        with pytest.raises(SourceError, match="replaced during the run" if replaced else "no such index"):
            reader.candidates(queries(5), top_k=5)


def test_a_document_deleted_between_search_and_text_is_not_lost_in_silence(
    es: Node, es_name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(es, es_name("docs"), DOC_MAPPING)
    bulk(es, es_name("docs"), {name: {"title": "cat", "text": f"cat {name}"} for name in "abc"})
    reader = source(es.url, scores_only=True, log_index="x", index=es_name("docs"))
    texts = candidates.Fetcher._texts

    def delete_first(self: Any, found: Any) -> Any:
        es.request("DELETE", f"/{es_name('docs')}/_doc/b?refresh")
        return texts(self, found)

    monkeypatch.setattr(candidates.Fetcher, "_texts", delete_first)
    (found,) = reader.candidates([Query("0" * 16, "cat", 1, 1, ())], top_k=5)
    assert isinstance(found, list)
    assert [(one.doc_id, bool(one.text)) for one in found] == [("a", True), ("b", False), ("c", True)]
