"""Candidates: templates, requests, and documents made of hits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.elasticsearch.candidates import (
    check_template,
    documents,
    insert,
    search_lines,
    search_of,
)
from rerank_core.config.night import parse_config
from rerank_core.errors import ConfigError
from tests.support.es_config import config, query

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
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
        ({"wildcard": {"text": "*{{query}}*"}}, "as whole values, not inside"),
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


def test_a_document_is_made_of_several_fields() -> None:
    search = search_of(config(title_field="", text_fields=["lead", "body.parts"], sentences_field="s"))
    source = {"lead": "One.", "body": {"parts": ["Two.", None, "Three \ud800."]}, "s": ["One.", "Two."]}
    found = documents([{"_id": "d", "_score": 1, "_source": source}, {"_id": "c", "_score": 1.5}], search)
    assert found[1] == ("d", "", "One.\nTwo. Three .", ("One.", "Two."), 1.0, 2)
    assert found[0] == ("c", "", "", (), 1.5, 1)  # a document without _source
    assert [one.doc_id for one in documents([{"_id": i, "_score": 1} for i in "bca"], search)] == [
        "a",
        "b",
        "c",
    ]


def test_a_query_is_searched_as_it_was_typed() -> None:
    search = search_of(config())
    raw = query("coop")._replace(typed="co\u00adop ?\ud800")
    assert search_lines(search, raw, top_k=1)[1]["query"]["multi_match"]["query"] == "co\u00adop ?"
    assert search_lines(search, query("coop"), top_k=1)[1]["query"]["multi_match"]["query"] == "coop"


@pytest.mark.parametrize("text", [None, "", " ", "\u200b\u00ad", [], [None, [""]], {}, {"a": "b"}])
def test_a_title_is_never_the_text_of_a_document_without_any(text: Any) -> None:
    hit = {"_id": "d", "_score": 1, "_source": {"title": "The title", "text": text}}
    assert documents([hit], search_of(config())) == [("d", "", "", (), 1.0, 1)]
    titles = search_of(config(text_fields=[]))
    assert documents([hit], titles) == [("d", "The title", "", (), 1.0, 1)]


@given(st.fixed_dictionaries({}, optional={"title": JSON, "text": JSON, "s": JSON}))
def test_a_document_is_made_of_any_values(source: Any) -> None:
    search = search_of(config(sentences_field="s"))
    (found,) = documents([{"_id": "d", "_score": 1, "_source": source}], search)
    (listed,) = documents(
        [{"_id": "d", "_score": 1, "_source": {key: [value] for key, value in source.items()}}], search
    )
    assert (found.title, found.text) == (listed.title, listed.text) or source.get("s") is not None
    for text in (found.title, found.text, *found.sentences):
        text.encode()
    assert bool(found.text.strip()) or not found.title
