"""The Elasticsearch source against a real server: what it reads, and what it says when it cannot."""

from __future__ import annotations

import datetime
import pickle
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from pipelines.beam_options import beam_options
from pipelines.sources import Source
from rerank_core.errors import SourceError
from schemas.records import LogEvent, Query, Rejected
from tests.support.servers.elasticsearch import Node
from tests.support.source_data import (
    DAY,
    DOC_MAPPING,
    EVENTS,
    LOG_MAPPING,
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

Name = Callable[[str], str]
LOG, DOCS = "source-log", "source-docs-1"


@pytest.fixture(scope="module")
def data(es: Node) -> Iterator[dict[str, Any]]:
    """A log and a corpus that no test of this file changes."""
    es.start()
    load_log(es, LOG)
    load_docs(es, DOCS)
    yield {"log_index": LOG, "index": DOCS}
    es.start()
    es.request("DELETE", "/source-*")


def asked(*texts: str) -> list[Query]:
    return [Query(f"{n:016x}", text, 1, 1, ()) for n, text in enumerate(texts)]


# --- the log


@pytest.mark.parametrize(("slices", "field"), [(1, "_seq_no"), (3, "n"), (4, "_seq_no"), (7, "_seq_no")])
def test_every_event_is_exported_once_in_any_number_of_slices(
    es: Node, data: dict[str, Any], slices: int, field: str
) -> None:
    made: Source = source(es.url, slices=slices, slice_field=field, page_size=700, **data)
    described = made.describe()
    assert (described["log_events"], list(described["log_indices"])) == (EVENTS, [LOG])
    made = pickle.loads(pickle.dumps(made))  # noqa: S301  # as Beam does
    pipeline = beam.Pipeline(options=beam_options([]))
    events = pipeline | made.events()
    assert_that(events, equal_to([expected(LOG, n) for n in range(EVENTS)]))
    pipeline.run().wait_until_finish()


def test_slices_are_even_although_a_third_was_overwritten(es: Node, data: dict[str, Any]) -> None:
    _, counts = read(source(es.url, slices=8, **data))
    sizes = [one.read for one in counts]
    assert sum(sizes) == EVENTS
    assert max(sizes) < 1.15 * statistics.mean(sizes)


def test_the_window_and_the_filter_are_applied_by_the_cluster(es: Node, data: dict[str, Any]) -> None:
    window = (DAY + datetime.timedelta(seconds=10), DAY + datetime.timedelta(seconds=20))
    records, counts = read(
        source(es.url, window=window, log={"filter": {"lang": "de", "user": "u3"}}, **data)
    )
    wanted = [n for n in range(500, 1000) if n % 3 == 0 and n % 50 == 3]
    assert sorted(records) == sorted(expected(LOG, n) for n in wanted)
    assert counts[0].events == len(wanted) > 0


@pytest.mark.parametrize(
    ("kind", "value", "time"),
    [
        ({"type": "date_nanos"}, "2026-03-02T10:00:00.000000001Z", "2026-03-02T10:00:00+00:00"),
        ({"type": "date", "format": "dd/MM/yyyy HH:mm"}, "02/03/2026 10:00", "2026-03-02T10:00:00+00:00"),
        ({"type": "long"}, 1772445600, "2026-03-02T10:00:00+00:00"),
        ({"type": "long"}, 1772445600000, "2026-03-02T10:00:00+00:00"),
    ],
)
def test_times_of_every_kind_fall_into_the_window(
    es: Node, es_name: Name, data: dict[str, Any], kind: dict[str, Any], value: Any, time: str
) -> None:
    create(es, es_name("log"), LOG_MAPPING | {"timestamp": kind})
    bulk(es, es_name("log"), {"a": {"query": "cat", "timestamp": value}, "b": {"query": "no time"}})
    records, _ = read(source(es.url, **data | {"log_index": es_name("log")}))
    assert [(one.record, one.timestamp) for one in records if isinstance(one, LogEvent)] == [
        (f"{es_name('log')}/a", time)
    ]


def test_a_log_without_times_and_records_that_cannot_be_used(
    es: Node, es_name: Name, data: dict[str, Any]
) -> None:
    create(es, es_name("log"), {"event": {"properties": {"q": {"type": "text"}, "n": {"type": "integer"}}}})
    bulk(es, es_name("log"), {f"e{n}": {"event": {"q": f"q{n}"}} for n in range(50)})
    es.request("PUT", f"/{es_name('log')}/_doc/x?refresh", '{"event": {"q": "half \\ud800"}}')
    es.request("PUT", f"/{es_name('log')}/_doc/y?refresh", {"event": {"q": [7, 8]}})
    fields = {"timestamp": "", "query": "event.q", "user": "", "clicks": "", "impressions": ""}
    reader = source(
        es.url,
        window=None,
        log={"fields": fields},
        page_size=7,
        slices=2,
        **data | {"log_index": es_name("log")},
    )
    records, _ = read(reader)
    rejected = {one.record: one.reason for one in records if isinstance(one, Rejected)}
    assert rejected == {f"{es_name('log')}/y": "query_not_text"}
    found = sorted(one.query for one in records if isinstance(one, LogEvent))
    assert found == sorted([*(f"q{n}" for n in range(50)), "half \ud800"])


def test_the_fingerprints_follow_the_content(es: Node, es_name: Name, data: dict[str, Any]) -> None:
    def described() -> dict[str, Any]:
        reader = source(es.url, log_index=es_name("log"), index=es_name("docs"))
        return reader.describe()

    load_log(es, es_name("log"), events=100)
    load_docs(es, es_name("docs"), documents=10)
    seen = [described()]
    assert described() == seen[0]
    bulk(es, es_name("log"), {"e200": {"timestamp": "2026-03-05T00:00:00Z", "query": "outside"}})
    assert described()["log_fingerprint"] == seen[0]["log_fingerprint"]
    bulk(es, es_name("docs"), {"d00003": {"title": "changed"}})
    bulk(es, es_name("log"), {"e3": {"timestamp": DAY.isoformat(), "query": "changed"}})
    seen.append(described())
    es.request("DELETE", f"/{es_name('docs')}/_doc/d00001?refresh")
    es.request("DELETE", f"/{es_name('log')}/_doc/e1?refresh")
    seen.append(described())
    for key in ("index_fingerprint", "log_fingerprint"):
        assert len({one[key] for one in seen}) == 3
    assert seen[2]["documents"] == 9


# --- candidates


def test_candidates_are_the_documents_of_the_query(es: Node, data: dict[str, Any]) -> None:
    reader = source(es.url, msearch_size=7, **data)
    reader.describe()
    cats, none, odd = reader.candidates(asked("cat", "zebra", '"}}]} cat {{query}}'), top_k=20)
    assert isinstance(cats, list)
    assert [one.bm25_rank for one in cats] == list(range(1, 21))
    assert all("cat" in f"{one.title} {one.text}" for one in cats)
    order = [(-one.bm25_score, one.doc_id) for one in cats]
    assert order == sorted(order)
    assert isinstance(none, Rejected)
    assert (none.reason, none.unit, none.record) == ("no_candidates", "query", f"{1:016x}")
    assert isinstance(odd, list)


def test_equal_scores_at_the_cut_are_decided_by_the_field_given_for_it(
    es: Node, es_name: Name, data: Any
) -> None:
    create(es, es_name("docs"), DOC_MAPPING, shards=3)
    bulk(
        es,
        es_name("docs"),
        {f"d{n:03}": {"text": "same words", "key": f"d{n:03}"} for n in range(199, -1, -1)},
    )
    reader = source(es.url, tiebreak_field="key", **data | {"index": es_name("docs")})
    shards = lists(reader.candidates(asked("same"), top_k=200))[0]
    best = max(score for _, score in shards)
    (found,) = lists(reader.candidates(asked("same"), top_k=10))
    assert found == [(doc_id, score) for doc_id, score in shards if score == best][:10]


def test_scores_only_gives_the_same_candidates(es: Node, es_name: Name, data: dict[str, Any]) -> None:
    wanted = queries(120)
    plain = source(es.url, **data).candidates(wanted, top_k=30)
    assert source(es.url, scores_only=True, **data).candidates(wanted, top_k=30) == plain


def test_a_moved_alias_does_not_move_a_run(es: Node, es_name: Name, data: dict[str, Any]) -> None:
    load_docs(es, es_name("1"), documents=50)
    create(es, es_name("2"), DOC_MAPPING)
    client, alias = es.client(), es_name("alias")
    client.indices.put_alias(index=es_name("1"), name=alias)
    reader = source(es.url, **data | {"index": alias})
    assert list(reader.describe()["indices"]) == [es_name("1")]
    before = reader.candidates(queries(5), top_k=5)
    client.indices.update_aliases(
        actions=[
            {"remove": {"index": es_name("1"), "alias": alias}},
            {"add": {"index": es_name("2"), "alias": alias}},
        ]
    )
    assert reader.candidates(queries(5), top_k=5) == before


@pytest.mark.parametrize(
    ("template", "bad", "words"),
    [
        # The query's own shard refuses it: one item of the answer.
        ('{"regexp": {"key": {"value": "{{query}}"}}}', "[[", "query_shard_exception"),
        # The body cannot even be parsed: Elasticsearch refuses the whole request.
        (
            '{"match": {"text": {"query": "cat", "boost": "{{query}}"}}}',
            "much",
            "parsing_exception|For input",
        ),
    ],
)
def test_one_malformed_query_of_fifty_costs_itself_alone(
    es: Node, data: dict[str, Any], tmp_path: Any, template: str, bad: str, words: str
) -> None:
    import re

    (tmp_path / "query.json").write_text(template)
    good = "d0000[0-9]" if "regexp" in template else "2"
    wanted = asked(*[bad if n == 31 else good for n in range(50)])
    reader = source(es.url, query_template=str(tmp_path / "query.json"), max_retries=0, **data)
    found = reader.candidates(wanted, top_k=10)
    rejected = [(n, one) for n, one in enumerate(found) if isinstance(one, Rejected)]
    assert [n for n, _ in rejected] == [31]
    assert all(len(one) == 10 for one in found if isinstance(one, list))
    assert rejected[0][1].reason == "search_failed"
    assert re.search(words, rejected[0][1].detail)


# --- what cannot be read


@pytest.mark.parametrize(
    ("wanted", "log", "message"),
    [
        ({"log_index": "source-nothing"}, {}, r"no such index \[source-nothing\].*log_index"),
        ({"index": "source-nothing"}, {}, r"no such index \[source-nothing\].*index"),
        ({"index": "source-nothing*"}, {}, r"no index that matches 'source-nothing\*'"),
        (
            {"text_fields": ["txet"]},
            {},
            r"no field 'txet', which source.elasticsearch.text_fields names; its fields are text",
        ),
        ({"title_field": "titel"}, {}, "no field 'titel'"),
        (
            {},
            {"fields": {"query": "qurey"}},
            "no field 'qurey', which log.fields.query names; its fields are query",
        ),
        (
            {},
            {"fields": {"timestamp": "time"}},
            "no field 'time', which log.fields.timestamp names; its fields are timestamp",
        ),
        ({}, {"fields": {"timestamp": "query"}}, "'query' is of type text, not a time.*map it as a date"),
        ({}, {"filter": {"query": "x"}}, "'query' in source-log is analysed text; name a keyword"),
        ({"url": "http://127.0.0.1:9"}, {}, "no connection to http://127.0.0.1:9"),
    ],
)
def test_what_is_missing_is_named(
    es: Node, data: dict[str, Any], wanted: Any, log: Any, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        source(**{"url": es.url, **data, **wanted}, log=log).describe()


def test_an_empty_log_and_an_empty_index_are_named(es: Node, es_name: Name, data: dict[str, Any]) -> None:
    create(es, es_name("log"), LOG_MAPPING)
    create(es, es_name("docs"), DOC_MAPPING)
    with pytest.raises(SourceError, match="has no event"):
        source(es.url, **data | {"log_index": es_name("log")}).describe()
    with pytest.raises(SourceError, match="has no document"):
        source(es.url, **data | {"index": es_name("docs")}).describe()
