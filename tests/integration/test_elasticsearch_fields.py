"""Fields that are searched but not in `_source` by their name, against a real server: read right, or refused."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pipelines.elasticsearch.pit import PitReader
from rerank_core.errors import SourceError
from schemas.records import Document, LogEvent, Query, Rejected
from tests.support.servers.elasticsearch import Node
from tests.support.source_data import LOG_MAPPING, bulk, create, read, source

Name = Callable[[str], str]
TEXT, KEYWORD = {"type": "text"}, {"type": "keyword"}
STORED = TEXT | {"store": True}
PASSAGE = "Bridges cross the river."
PLAIN = {"title": "River", "text": PASSAGE}
BODY = {"title": "River", "body": PASSAGE}


def put(
    node: Node, index: str, mappings: Mapping[str, Any], *documents: Mapping[str, Any], **body: Any
) -> None:
    node.request("PUT", f"/{index}", {"mappings": mappings, **body})
    for number, document in enumerate(documents):
        node.request("PUT", f"/{index}/_doc/{index}-{number}?refresh", document)


def candidates(node: Node, log: str, index: str, **wanted: Any) -> list[Document]:
    reader = source(node.url, log_index=log, index=index, **wanted)
    reader.describe()
    (found,) = reader.candidates([Query("0" * 16, "bridges river", 1, 1, ())], top_k=10)
    assert isinstance(found, list), found
    return found


@pytest.fixture
def log(es: Node, es_name: Name) -> str:
    create(es, es_name("log"), LOG_MAPPING)
    bulk(es, es_name("log"), {"a": {"timestamp": "2026-03-02T10:00:00Z", "query": "river"}})
    return es_name("log")


READABLE: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "multi-field": (
        {"properties": {"title": TEXT, "text": KEYWORD | {"ignore_above": 5, "fields": {"std": TEXT}}}},
        PLAIN,
        {"text_fields": ["text.std"]},
    ),
    "copy_to": ({"properties": {"title": TEXT, "body": TEXT | {"copy_to": "text"}, "text": TEXT}}, BODY, {}),
    "copy_to, its multi-field": (
        {
            "properties": {
                "title": TEXT,
                "body": TEXT | {"copy_to": ["all"]},
                "all": TEXT | {"fields": {"std": TEXT}},
            }
        },
        BODY,
        {"text_fields": ["all.std"]},
    ),
    "alias": (
        {"properties": {"name": TEXT, "body": TEXT, "title": {"type": "alias", "path": "name"}}},
        {"name": "River", "body": PASSAGE},
        {"text_fields": ["body"]},
    ),
    "stored": ({"properties": {"title": TEXT, "text": STORED}, "_source": {"excludes": ["te*"]}}, PLAIN, {}),
    "stored, in a list": (
        {"properties": {"title": TEXT, "text": STORED}, "_source": {"includes": ["title"]}},
        {"title": "River", "text": ["Bridges cross", "the river."]},
        {},
    ),
    "stored, no _source": (
        {"properties": {"title": STORED, "text": STORED}, "_source": {"enabled": False}},
        PLAIN,
        {},
    ),
    "nested": (
        {"properties": {"title": TEXT, "parts": {"type": "nested", "properties": {"text": TEXT}}}},
        {"title": "River", "parts": [{"text": "Bridges cross"}, {"text": "the river."}]},
        {"text_fields": ["parts.text"]},
    ),
    "objects in a list": (
        {"properties": {"title": TEXT, "parts": {"properties": {"text": TEXT}}}},
        {"title": ["River"], "parts": [{"text": ["Bridges cross", None]}, {"text": "the river."}]},
        {"text_fields": ["parts.text"]},
    ),
    "a name with dots": (
        {"properties": {"title": TEXT, "part": {"properties": {"text": TEXT}}}},
        {"title": "River", "part.text": PASSAGE},
        {"text_fields": ["part.text"]},
    ),
    "runtime": (
        {"properties": {"title": TEXT}, "dynamic": False, "runtime": {"text": KEYWORD}},
        PLAIN,
        {"query": "title"},
    ),
    "numbers": (
        {"properties": {"title": TEXT, "text": TEXT}},
        {"title": 7, "text": ["river", 1984, True, 1.5]},
        {},
    ),
}
EXPECTED = {"numbers": ("7", "river 1984 true 1.5")}


@pytest.mark.parametrize("scores_only", [False, True])
@pytest.mark.parametrize("kind", READABLE)
def test_a_text_is_read_wherever_the_index_has_it(
    es: Node, es_name: Name, log: str, kind: str, scores_only: bool, tmp_path: Any
) -> None:
    mappings, document, wanted = READABLE[kind]
    wanted = dict(wanted)
    if field := wanted.pop("query", ""):  # a runtime field without a script is no full text
        wanted["query_template"] = str(tmp_path / "query.json")
        (tmp_path / "query.json").write_text(f'{{"match": {{"{field}": "{{{{query}}}}"}}}}')
    put(es, es_name("docs"), mappings, document)
    (found,) = candidates(es, log, es_name("docs"), scores_only=scores_only, **wanted)
    assert (found.title, found.text) == EXPECTED.get(kind, ("River", PASSAGE))


@pytest.mark.parametrize(
    ("mappings", "wanted", "field"),
    [
        (
            {"properties": {"title": TEXT, "text": TEXT}, "_source": {"excludes": ["text"]}},
            {},
            "text_fields = 'text'",
        ),
        (
            {"properties": {"title": TEXT, "text": TEXT}, "_source": {"includes": ["text"]}},
            {},
            "title_field = 'title'",
        ),
        (
            {"properties": {"title": STORED, "text": TEXT}, "_source": {"enabled": False}},
            {},
            "text_fields = 'text'",
        ),
        (
            {
                "properties": {"title": TEXT, "body": TEXT | {"copy_to": "text"}, "text": TEXT},
                "_source": {"excludes": ["b*"]},
            },
            {},
            "text_fields = 'text'",
        ),
        (
            {
                "properties": {"title": TEXT, "parts": {"type": "nested", "properties": {"text": STORED}}},
                "_source": {"excludes": ["parts"]},
            },
            {"text_fields": ["parts.text"]},
            "text_fields = 'parts.text'",
        ),
        (
            {"properties": {"title": TEXT, "text": {"properties": {"a": TEXT}}}},
            {},
            "text_fields = 'text'",
        ),
    ],
)
def test_a_text_that_cannot_be_returned_stops_the_night(
    es: Node, es_name: Name, log: str, mappings: Any, wanted: Any, field: str
) -> None:
    put(
        es,
        es_name("docs-1"),
        {"properties": {"title": TEXT, "text": TEXT, "parts": {"properties": {"text": TEXT}}}},
        PLAIN,
    )
    put(es, es_name("docs-2"), mappings)
    es.request(
        "POST", "/_aliases", {"actions": [{"add": {"index": es_name("docs-*"), "alias": es_name("all")}}]}
    )
    with pytest.raises(SourceError, match=f"{field}: the index {es_name('docs-2')} "):
        candidates(es, log, es_name("all"), **wanted)


def test_every_index_of_an_alias_is_read_by_its_own_mapping(es: Node, es_name: Name, log: str) -> None:
    put(es, es_name("docs-1"), {"properties": {"title": TEXT, "text": TEXT}}, PLAIN)
    put(
        es,
        es_name("docs-2"),
        {"properties": {"title": TEXT, "body": TEXT, "text": {"type": "alias", "path": "body"}}},
        BODY,
    )
    put(
        es,
        es_name("docs-3"),
        {"properties": {"title": STORED, "text": STORED}, "_source": {"enabled": False}},
        PLAIN,
    )
    put(es, es_name("docs-4"), {"properties": {"title": TEXT}}, {"title": "River"})
    es.request(
        "POST", "/_aliases", {"actions": [{"add": {"index": es_name("docs-*"), "alias": es_name("all")}}]}
    )
    for scores_only in (False, True):
        found = candidates(es, log, es_name("all"), scores_only=scores_only)
        assert {one.doc_id: (one.title, one.text) for one in found} == {
            **{es_name(f"docs-{n}-0"): ("River", PASSAGE) for n in (1, 2, 3)},
            es_name("docs-4-0"): ("", ""),  # a dead letter: it has no text
        }


@pytest.mark.parametrize(
    "mappings",
    [
        {"properties": LOG_MAPPING | {"q": TEXT, "at": {"type": "date"}, "who": KEYWORD, "ids": KEYWORD}},
        {
            "properties": {
                "q": STORED,
                "at": {"type": "date"},
                "who": KEYWORD | {"store": True},
                "ids": KEYWORD | {"store": True},
            },
            "_source": {"enabled": False},
        },
    ],
)
def test_a_log_is_read_by_aliases_of_its_fields(es: Node, es_name: Name, mappings: dict[str, Any]) -> None:
    aliases = {"query": "q", "timestamp": "at", "user": "who", "clicks": "ids"}
    mappings["properties"] |= {name: {"type": "alias", "path": path} for name, path in aliases.items()}
    put(
        es,
        es_name("log"),
        mappings,
        {"q": ["river"], "at": ["2026-03-02T10:00:00Z"], "who": "u", "ids": "d1"},
    )
    put(es, es_name("docs"), {"properties": {"title": TEXT, "text": TEXT}}, PLAIN)
    (found,), _ = read(source(es.url, log_index=es_name("log"), index=es_name("docs")))
    assert found == LogEvent(
        f"{es_name('log')}/{es_name('log')}-0", "2026-03-02T10:00:00+00:00", "river", "u", ("d1",), ()
    )


def test_a_field_of_the_log_that_cannot_be_returned_is_named(es: Node, es_name: Name) -> None:
    put(
        es,
        es_name("log"),
        {"properties": LOG_MAPPING, "_source": {"excludes": ["clicks"]}},
        {"query": "river"},
    )
    with pytest.raises(
        SourceError, match=rf"log.fields.clicks = 'clicks': the index {es_name('log')} leaves it out"
    ):
        source(es.url, log_index=es_name("log"), index=es_name("log")).describe()


def test_impressions_that_lost_their_order_stop_the_night(es: Node, es_name: Name) -> None:
    event = {"timestamp": "2026-03-02T10:00:00Z", "query": "river", "impressions": ["z", "a"]}
    synthetic = {"index.mapping.source.mode": "synthetic"}
    for name, more in (("kept", {"synthetic_source_keep": "arrays"}), ("lost", {})):
        mappings = {"properties": LOG_MAPPING | {"impressions": KEYWORD | more}}
        put(es, es_name(name), mappings, event, settings=synthetic)
    docs = {"index": es_name("kept"), "title_field": "", "text_fields": ["query"]}
    ((found,), _) = read(source(es.url, log_index=es_name("kept"), **docs))
    assert isinstance(found, LogEvent)
    assert found.impressions == ("z", "a")
    with pytest.raises(SourceError, match="log.fields.impressions = 'impressions': .* sorts its values"):
        source(es.url, log_index=es_name("lost"), **docs).describe()


@pytest.mark.parametrize("kind", ["date", "date_nanos", "long", "double"])
def test_events_without_a_time_are_read_and_rejected(
    es: Node, es_name: Name, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several pages and slices, and also after a point in time was lost."""
    day = datetime.datetime(2026, 3, 2, 10, tzinfo=datetime.UTC)
    times: list[Any] = [
        day.isoformat() if "date" in kind else int(day.timestamp()),
        "soon",
        None,
        ["soon", None],
    ]
    create(es, es_name("log"), LOG_MAPPING | {"timestamp": {"type": kind, "ignore_malformed": True}})
    bulk(es, es_name("log"), {f"e{n}": {"query": f"q{n}", "timestamp": times[n % 4]} for n in range(60)})
    outside = "2026-03-09T00:00:00Z" if "date" in kind else 1
    bulk(es, es_name("log"), {"late": {"query": "late", "timestamp": outside}})
    put(es, es_name("docs"), {"properties": {"title": TEXT, "text": TEXT}}, PLAIN)
    reader = source(es.url, log_index=es_name("log"), index=es_name("docs"), slices=2, page_size=4)
    assert reader.describe()["log_events"] == 60
    opened: list[str] = []
    open_pit = PitReader.open_pit
    monkeypatch.setattr(PitReader, "open_pit", lambda self: opened.append(open_pit(self)) or opened[-1])

    def lose() -> None:
        while opened:
            es.client().close_point_in_time(id=opened.pop())

    for at in ({}, dict.fromkeys((1, 20, 47), lose)):
        records, counts = read(reader, at=at)
        assert bool(at) == any(one.renewed for one in counts)
        ids = [one.record.rpartition("/")[2] for one in records]
        assert sorted(ids) == sorted(f"e{n}" for n in range(60))
        rejected = {one.record.rpartition("e")[2] for one in records if isinstance(one, Rejected)}
        assert {int(n) % 4 for n in rejected} == {1, 2, 3}
        assert {one.reason for one in records if isinstance(one, Rejected)} == {"bad_timestamp"}
        assert {one.timestamp for one in records if isinstance(one, LogEvent)} == {day.isoformat()}
