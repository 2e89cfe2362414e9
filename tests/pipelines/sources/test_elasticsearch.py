"""The parts of the Elasticsearch source that need no server; tests/integration holds those that do."""

from __future__ import annotations

import datetime
import json
import pickle
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("elasticsearch")

from elastic_transport import ConnectionError, ConnectionTimeout, TlsError

from pipelines.sources import SourceError, es_retry
from pipelines.sources.elasticsearch import ElasticsearchSource
from pipelines.sources.es_candidates import (
    check_template,
    documents,
    insert,
    lookup,
    read_item,
    search_lines,
    search_of,
)
from pipelines.sources.es_client import (
    Connection,
    Settings,
    credentials,
    incomplete,
    refusal,
    settings_of,
    trouble,
)
from pipelines.sources.es_log import check_counts, log_query, to_event
from pipelines.sources.es_pit import LogQuery, SliceCount
from pipelines.sources.es_request import ask
from pipelines.sources.es_retry import Again, Answered, Batch, Outcome, Pace, Refused, Split, Work, backoff
from rerank_core.config import Config, ConfigError, LogFields, parse_config
from schemas.records import LogEvent, Query, Rejected

SECRET = "s3cret-Value"
BUSY, FAILED = Again("queue full", "busy"), Again("HTTP 503", "failed")
GONE = Again("no connection", "silent", charged=False)
SLOW = Again("no answer", "silent")
WINDOW = (
    datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC),
)


def config(**wanted: Any) -> Config:
    places = {"url": "https://search.example:9200", "log_index": "log", "index": "docs"}
    return parse_config({"source": {"kind": "elasticsearch", "elasticsearch": places | wanted}})


def settings(**wanted: Any) -> Settings:
    return settings_of(config(**wanted).source.elasticsearch)


def query(text: str) -> Query:
    return Query("0123456789abcdef", text, 1, 1, ())


# --- when to ask again


@given(st.integers(1, 50), st.floats(0, 1))
def test_waits_grow_to_a_limit_and_half_of_them_is_random(attempt: int, share: float) -> None:
    wait = backoff(attempt, random_share=share)
    full = min(es_retry.LONGEST_WAIT, es_retry.FIRST_WAIT * 2 ** (attempt - 1))
    assert full / 2 <= wait <= full


def test_the_pace_is_halved_by_pushback_and_comes_back_slowly() -> None:
    pace = Pace(8)
    assert [pace.acquire() for _ in range(9)] == [True] * 8 + [False]
    pace.release(pushed_back=True)
    assert (pace.limit, pace.in_flight, pace.acquire()) == (4, 7, False)
    for _ in range(7):
        pace.release()
    assert pace.limit == 5  # four successes gave one more; three are not five
    successes = 0
    while pace.limit < 8:
        assert pace.acquire()
        pace.release()
        successes += 1
    assert successes == 2 + 6 + 7


@given(st.integers(1, 9), st.lists(st.sampled_from(["take", "well", "busy"]), max_size=200))
def test_the_pace_keeps_its_bounds(most: int, steps: list[str]) -> None:
    pace, taken = Pace(most), 0
    for step in steps:
        if step == "take":
            assert pace.acquire() == (taken < pace.limit) or taken >= pace.limit
            taken = pace.in_flight
        elif taken:
            pace.release(pushed_back=step == "busy")
            taken -= 1
        assert pace.in_flight == taken
        assert 1 <= pace.limit <= most


def drive(work: Work, answer: Callable[[Batch], Any], *, limit: int = 10_000) -> list[Batch]:
    """Run work to its end, one request at a time, on a clock of its own."""
    now, sent = 0.0, []
    while not work.done:
        batch = work.take(now, in_flight=0)
        if batch is None:
            wait = work.wait(now)
            assert wait > 0
            now += wait
            continue
        sent.append(batch)
        assert len(sent) < limit
        work.settle(batch, answer(batch), now=now)
    return sent


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 4), st.integers(0, 2**32))
def test_every_query_gets_one_outcome_whatever_happens(
    count: int, size: int, retries: int, seed: int
) -> None:
    chance = random.Random(seed)
    answers = [0] * count

    def answer(batch: Batch) -> Any:
        if chance.random() < 0.3:
            return chance.choice([SLOW, BUSY, FAILED, Split("malformed")])
        outcomes: list[Outcome] = []
        for at in batch.positions:
            outcomes.append(chance.choice([Answered(at), BUSY, FAILED, Refused("bad")]))
            answers[at] += isinstance(outcomes[-1], (Answered, Refused))
        return outcomes

    work = Work(count, batch_size=size, max_retries=retries, random_source=chance)
    sent = drive(work, answer)
    assert all(isinstance(outcome, (Answered, Refused)) for outcome in work.outcomes)
    assert all(
        outcome.value == at for at, outcome in enumerate(work.outcomes) if isinstance(outcome, Answered)
    )
    assert all(n <= 1 for n in answers)  # none is asked again once it has its outcome
    assert all(len(batch.positions) <= size for batch in sent)


@pytest.mark.parametrize("bad", [0, 17, 49])
def test_a_malformed_query_is_found_by_halving_and_costs_itself_alone(bad: int) -> None:
    work = Work(50, batch_size=50, max_retries=0)

    def answer(batch: Batch) -> Any:
        return Split("unknown query") if bad in batch.positions else [Answered(at) for at in batch.positions]

    sent = drive(work, answer)
    assert [at for at, outcome in enumerate(work.outcomes) if outcome == Refused("unknown query")] == [bad]
    assert len(sent) <= 13  # about twice the logarithm


def test_only_failing_queries_are_asked_again() -> None:
    work, asked = Work(4, batch_size=4, max_retries=2), [0] * 4

    def answer(batch: Batch) -> list[Outcome]:
        for at in batch.positions:
            asked[at] += 1
        return [BUSY if at == 2 else Refused("bad") if at == 1 else Answered(at) for at in batch.positions]

    sent = drive(work, answer)
    assert asked == [1, 1, 3, 1]
    assert [batch.retry for batch in sent] == [False, True, True]
    refused = work.outcomes[2]
    assert isinstance(refused, Refused)
    assert refused.detail == "queue full (3 attempts; source.elasticsearch.max_retries)"


def test_an_outage_is_not_held_against_the_queries_and_is_probed_one_by_one() -> None:
    work = Work(100, batch_size=50, max_retries=1)
    first = work.take(0.0, in_flight=0)
    assert first is not None
    work.settle(first, GONE, now=0.0)
    assert work.take(0.0, in_flight=0) is None
    assert work.take(100.0, in_flight=1) is None
    for at in range(5):
        probe = work.take(1000.0 * (at + 1), in_flight=0)
        assert probe is not None
        work.settle(probe, GONE, now=1000.0 * (at + 1))
    assert (work.silent, work.unreachable) == (6, True)
    drive(work, lambda batch: [Answered(at) for at in batch.positions])
    assert (work.silent, work.unreachable) == (0, False)
    assert all(isinstance(outcome, Answered) for outcome in work.outcomes)


# --- sending


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(es_retry, "FIRST_WAIT", 0.001)


def send_all(
    count: int, send: Callable[[Batch], Sequence[Outcome]], *, alive: bool = True, retries: int = 3
) -> list[Answered | Refused]:
    with ThreadPoolExecutor(4) as threads:
        connection = Connection(None, threads, Pace(4), threading.Lock())  # type: ignore[arg-type]
        found = ask(
            count,
            send,
            connection=connection,
            settings=settings(),
            batch_size=5,
            max_retries=retries,
            alive=lambda: alive,
        )
    assert connection.pace.in_flight == 0
    return found


@pytest.mark.usefixtures("quick")
def test_answers_come_back_in_order_through_all_troubles() -> None:
    chance, lock, running, most = random.Random(3), threading.Lock(), 0, 0

    def send(batch: Batch) -> Sequence[Outcome]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            luck = chance.random()
        try:
            if luck < 0.2:
                raise ConnectionTimeout("slow")
            return [BUSY if luck < 0.3 else Answered(at) for at in batch.positions]
        finally:
            with lock:
                running -= 1

    found = send_all(100, send, retries=30)
    assert found == [Answered(at) for at in range(100)]
    assert most <= 4


@pytest.mark.usefixtures("quick")
def test_a_cluster_that_is_gone_stops_the_night() -> None:
    def send(batch: Batch) -> Sequence[Outcome]:
        raise ConnectionError("refused")

    with pytest.raises(SourceError, match=r"no connection to https://search.example:9200.*is it up"):
        send_all(20, send, alive=False)


@pytest.mark.usefixtures("quick")
def test_one_query_that_is_always_too_slow_is_given_up_alone() -> None:
    def send(batch: Batch) -> Sequence[Outcome]:
        if 7 in batch.positions:
            raise ConnectionTimeout("slow")
        return [Answered(at) for at in batch.positions]

    found = send_all(20, send, retries=6)
    assert [at for at, outcome in enumerate(found) if isinstance(outcome, Refused)] == [7]
    assert "no answer within source.elasticsearch.timeout_seconds = 30" in found[7].detail  # type: ignore[union-attr]


def test_an_error_that_ends_the_night_gives_its_place_back() -> None:
    def send(batch: Batch) -> Sequence[Outcome]:
        raise SourceError("the index is gone")

    with pytest.raises(SourceError, match="the index is gone"):
        send_all(100, send)


# --- what an error means

REJECTED = {
    "type": "es_rejected_execution_exception",
    "reason": "rejected execution of X: queue capacity = 1",
}
BREAKER = {"type": "circuit_breaking_exception", "reason": "[request] Data too large"}


def failure(
    status: int, cause: dict[str, Any], kind: str = "search_phase_execution_exception"
) -> dict[str, Any]:
    error = {
        "type": kind,
        "reason": "all shards failed",
        "root_cause": [cause],
        "failed_shards": [{"reason": cause}],
    }
    return {"error": error, "status": status}


@pytest.mark.parametrize(
    ("status", "cause", "kind"),
    [
        (429, REJECTED, "busy"),
        (503, REJECTED, "busy"),
        (429, BREAKER, "busy"),
        (
            404,
            {"type": "search_context_missing_exception", "reason": "No search context found"},
            "lost_context",
        ),
        (503, {"type": "no_shard_available_action_exception", "reason": "no shard"}, "failed"),
        (500, {"type": "null_pointer_exception", "reason": None}, "failed"),
        (400, {"type": "query_shard_exception", "reason": "failed to create query"}, "refused"),
    ],
)
def test_errors_are_told_apart(status: int, cause: dict[str, Any], kind: str) -> None:
    found = refusal(status, failure(status, cause), settings=settings())
    assert found.kind == kind
    assert cause["type"] in found.detail
    assert str(cause["reason"]) in found.detail


def test_the_fetch_phase_names_its_reason_elsewhere() -> None:
    error = {"type": "search_phase_execution_exception", "reason": "", "phase": "fetch", "root_cause": [],
             "failed_shards": [], "caused_by": REJECTED}  # fmt: skip
    found = refusal(503, {"error": error, "status": 503}, settings=settings())
    assert found == ("busy", f"{REJECTED['type']}: {REJECTED['reason']}", False)


@pytest.mark.parametrize(
    ("status", "cause", "message"),
    [
        (401, {"type": "security_exception", "reason": f"token {SECRET}"}, "does not know who asks.*API_KEY"),
        (403, {"type": "security_exception", "reason": "no"}, "does not allow this.*'read' and 'view_index_metadata'"),
        (404, {"type": "index_not_found_exception", "reason": "no such index [docs]"}, r"no such index \[docs\]"),
        (400, {"type": "index_closed_exception", "reason": "closed"}, "closed"),
    ],
)  # fmt: skip
def test_errors_that_end_the_night_say_what_to_do(status: int, cause: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        refusal(status, failure(status, cause), settings=settings())
    assert SECRET not in str(caught.value)


def test_exceptions_of_the_client_are_told_apart() -> None:
    assert trouble(ConnectionTimeout("x"), settings=settings())[::2] == ("silent", True)
    assert trouble(ConnectionError("x"), settings=settings())[::2] == ("silent", False)
    with pytest.raises(SourceError, match=r"does not verify.*ca_file"):
        trouble(TlsError("x"), settings=settings())
    with pytest.raises(ZeroDivisionError):
        trouble(ZeroDivisionError(), settings=settings())


def test_a_200_answer_may_be_incomplete() -> None:
    whole = {"timed_out": False, "_shards": {"total": 2, "failed": 0}, "hits": {"hits": []}, "status": 200}
    assert incomplete(whole) == ""
    assert read_item(whole, settings=settings()) == Answered([])
    shards = {"total": 2, "failed": 1, "failures": [{"shard": 0, "reason": REJECTED}]}
    partial = whole | {"_shards": shards}
    assert incomplete(partial).startswith("1 of 2 shards failed: es_rejected_execution_exception: rejected")
    found = read_item(partial, settings=settings())
    assert isinstance(found, Again)
    assert found.cause == "busy"
    assert isinstance(read_item(whole | {"timed_out": True}, settings=settings()), Again)
    assert isinstance(read_item(failure(400, {"type": "x", "reason": "y"}), settings=settings()), Refused)


# --- who asks, and where


def test_credentials_come_from_the_environment_one_way(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    assert credentials({}) == {}
    assert credentials({"NIGHTRANK_ES_API_KEY": SECRET}) == {"api_key": SECRET}
    assert credentials({"NIGHTRANK_ES_API_KEY_FILE": str(file)}) == {"api_key": SECRET}
    assert credentials({"NIGHTRANK_ES_BEARER": SECRET}) == {"bearer_auth": SECRET}
    both = {"NIGHTRANK_ES_USERNAME": "reader", "NIGHTRANK_ES_PASSWORD_FILE": str(file)}
    assert credentials(both) == {"basic_auth": ("reader", SECRET)}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"API_KEY": SECRET, "BEARER": SECRET}, "NIGHTRANK_ES_API_KEY, NIGHTRANK_ES_BEARER are set together"),
        ({"PASSWORD": SECRET}, "NIGHTRANK_ES_USERNAME and NIGHTRANK_ES_PASSWORD together"),
        ({"API_KEY": SECRET, "API_KEY_FILE": "/x"}, "both set"),
        ({"API_KEY_FILE": f"/nowhere/{SECRET}"}, "cannot be read: FileNotFoundError"),
        ({"API_KEY_FILE": "/dev/null"}, "an empty file"),
    ],
)
def test_credentials_that_are_unclear_are_refused_and_never_quoted(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        credentials({f"NIGHTRANK_ES_{name}": value for name, value in environment.items()})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"https://elastic:{SECRET}@search.example:9200",
        f"https://{SECRET}@search.example",
        f"https://a.example,https://b:{SECRET}@b.example",
        f"https://search.example/?apikey={SECRET}",
        f"https://search.example:{SECRET}",
    ],
)
def test_a_url_with_credentials_is_refused_and_never_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match=r"source\.elasticsearch\.url") as caught:
        ElasticsearchSource(config(url=url))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"url": ""}, "set one of source.elasticsearch.url and cloud_id"),
        ({"cloud_id": "a:b"}, "set one of"),
        ({"url": "search.example:9200"}, "must start with https://"),
        ({"index": ""}, "'source.elasticsearch.index' is not set"),
        ({"log_index": ""}, "'source.elasticsearch.log_index' is not set"),
        ({"query_template": "/nowhere.json"}, "query_template: /nowhere.json cannot be read"),
        ({"filter": "/nowhere.json"}, "filter: /nowhere.json cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ElasticsearchSource(config(**wanted))


def test_urls_get_their_ports() -> None:
    found = settings(url="https://a.example, http://[::1]:9201/es/, http://b.example")
    assert found.hosts == ("https://a.example:443", "http://[::1]:9201/es", "http://b.example:80")


def test_the_pickled_source_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"NIGHTRANK_ES_{name}", SECRET)
    assert SECRET.encode() not in pickle.dumps(ElasticsearchSource(config(), window=WINDOW))


# --- searching

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text(), JSON)
def test_a_query_stays_one_value_whatever_it_is_spelled_like(text: str, rest: Any) -> None:
    tree = {"match": {"text": "{{query}}"}, "size": "{{top_k}}", "rest": rest}
    filled = insert(tree, {"{{query}}": text, "{{top_k}}": 7})
    assert (filled["match"]["text"], filled["size"]) == (text, 7)
    if "{{" not in json.dumps(rest):
        assert filled["rest"] == rest
    assert tree["match"] == {"text": "{{query}}"}  # the template itself is untouched


@pytest.mark.parametrize("text", ['"}}, {"match_all": {}}', "{{top_k}}", "\\", "\x00", "}", "\ud800x"])
def test_a_query_cannot_leave_its_place(text: str) -> None:
    header, body = search_lines(search_of(config()), query(text), top_k=3)
    match = body["query"]["multi_match"]
    assert match["query"] == text.replace("\ud800", "")
    assert match["fields"] == ["title^1.5", "text"]
    assert (body["size"], body["_source"], header["allow_partial_search_results"]) == (
        3,
        ["title", "text"],
        False,
    )
    json.dumps([header, body]).encode()


def test_templates_filters_and_ties(tmp_path: Path) -> None:
    (tmp_path / "query.json").write_text('{"query": {"match": {"body": "{{query}}"}}, "min_score": 1}')
    (tmp_path / "filter.json").write_text('[{"term": {"lang": "en"}}]')
    search = search_of(
        config(
            query_template=str(tmp_path / "query.json"),
            filter=str(tmp_path / "filter.json"),
            tiebreak_field="key",
            scores_only=True,
        )
    )
    _, body = search_lines(search, query("a"), top_k=2)
    assert body == {
        "query": {"bool": {"must": [{"match": {"body": "a"}}], "filter": [{"term": {"lang": "en"}}]}},
        "min_score": 1,
        "sort": ["_score", {"key": "asc"}],
        "size": 2,
        "_source": False,
        "track_total_hits": False,
    }


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"match_all": {}}, 'has no "{{query}}" as a value'),
        ({"wildcard": {"text": "*{{query}}*"}}, "stand for a whole value, never a part"),
        ({"match": {"{{query}}": "x", "text": "{{query}}"}}, "as a key"),
        ({"query": {"match": {"text": "{{query}}"}}, "size": 5, "aggs": {}}, "sets aggs, size"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_template(template, "query.json")


def test_more_hits_than_elasticsearch_gives_are_refused() -> None:
    wanted = parse_config({"candidates": {"top_k": 10_001}})
    with pytest.raises(ConfigError, match="at most 10000 hits"):
        search_of(wanted)


def test_fields_are_found_nested_or_spelled_out() -> None:
    source = {"a": {"b": {"c": 1}, "x.y": 2}, "d.e": {"f": 3}, "g.h": 4}
    assert [lookup(source, name) for name in ("a.b.c", "a.x.y", "d.e.f", "g.h")] == [1, 2, 3, 4]
    assert [lookup(source, name) for name in ("a.c", "z", "a.b.c.d", "")] == [None] * 4


def test_a_document_is_made_of_several_fields() -> None:
    search = search_of(config(title_field="", text_fields=["lead", "body.parts"], sentences_field="s"))
    source = {"lead": "One.", "body": {"parts": ["Two.", None, "Three \ud800."]}, "s": ["One.", "Two."]}
    found = documents([{"_id": "d", "_score": 1, "_source": source}, {"_id": "c", "_score": 1.5}], search)
    assert found[1] == ("d", "", "One.\nTwo. Three .", ("One.", "Two."), 1.0, 2)
    assert found[0] == ("c", "", "", (), 1.5, 1)  # a document without _source: its caller says so
    assert [one.doc_id for one in documents([{"_id": i, "_score": 1} for i in "bca"], search)] == [
        "a",
        "b",
        "c",
    ]


# --- the log


def log(**wanted: Any) -> LogQuery:
    given_values = {
        "fields": LogFields(),
        "source_fields": ("timestamp", "query"),
        "time_types": ("date",),
    } | wanted
    return LogQuery(settings=settings(), target="log", uuids=(), query={}, page_size=5, slices=2, slice_field="_seq_no",
                    keep_alive="1m", max_retries=2, **given_values)  # fmt: skip


def test_the_window_is_half_open_in_every_kind_of_time() -> None:
    def made(*kinds: str) -> Any:
        query = log_query(LogFields(), window=WINDOW, time_types=kinds, terms={"split": "dev"}, indices=[])
        return query["bool"]["filter"]

    term, span = made("date")
    assert term == {"term": {"split": "dev"}}
    assert {key: span["range"]["timestamp"][key] for key in ("gte", "lt")} == {
        "gte": "2026-03-02T00:00:00+00:00",
        "lt": "2026-03-03T00:00:00+00:00",
    }
    either = [one["range"]["timestamp"] for one in made("long")[1]["bool"]["should"]]
    assert either == [
        {"gte": 1772409600.0, "lt": 1772496000.0},
        {"gte": 1772409600000.0, "lt": 1772496000000.0},
    ]
    assert log_query(LogFields(timestamp=""), window=None, time_types=(), terms={}, indices=[]) == {
        "match_all": {}
    }


def test_a_hit_becomes_an_event_or_says_why_not() -> None:
    hit = {"_index": "log-1", "_id": "e1", "_source": {"query": "q", "timestamp": "02/03/26"},
           "sort": ["2026-03-02T10:00:00.000123456Z", 1]}  # fmt: skip
    time = "2026-03-02T10:00:00.000123+00:00"
    assert to_event(hit, log()) == LogEvent("log-1/e1", time, "q", "", (), ())
    bad = to_event(hit | {"_source": {"query": 5}}, log())
    assert isinstance(bad, Rejected)
    assert (bad.record, bad.reason) == ("log-1/e1", "query_not_text")
    nowhere = to_event({key: hit[key] for key in ("_index", "_id", "sort")}, log())
    assert isinstance(nowhere, Rejected)
    assert nowhere.reason == "no_source"
    nested = log(fields=LogFields(query="event.query"), source_fields=("timestamp", "event.query"))
    found = to_event(hit | {"_source": {"event": {"query": "deep"}}}, nested)
    assert isinstance(found, LogEvent)
    assert found.query == "deep"


def test_slices_must_add_up_to_the_log() -> None:
    def count(read: int, *, renewed: int = 0) -> SliceCount:
        return SliceCount(0, "pit", 10, read, read, renewed)

    check_counts([count(4), count(6)])
    check_counts([count(4), count(7, renewed=1)])  # one that came after the loss
    for bad in ([], [count(4), count(5)], [count(4), count(7)], [count(4), count(5, renewed=1)]):
        with pytest.raises(SourceError, match="run the night again"):
            check_counts(bad)
