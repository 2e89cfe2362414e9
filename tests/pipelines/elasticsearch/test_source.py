"""The source: what it refuses before it asks the cluster."""

from __future__ import annotations

import datetime
import pickle
from typing import Any

import pytest

from pipelines.elasticsearch.source import ElasticsearchSource, Indices
from rerank_core.errors import ConfigError
from tests.support.es_config import config

SECRET = "s3cret-Value"
WINDOW = (
    datetime.datetime(2026, 3, 2, tzinfo=datetime.UTC),
    datetime.datetime(2026, 3, 3, tzinfo=datetime.UTC),
)


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


def test_the_pickled_source_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"NIGHTRANK_ES_{name}", SECRET)
    assert SECRET.encode() not in pickle.dumps(ElasticsearchSource(config(), window=WINDOW))


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


def test_a_run_stays_with_the_names_unless_they_are_too_long() -> None:
    assert Indices((("log-1", "a"), ("log-2", "b"))).target("log-*") == "log-1,log-2"
    assert Indices(tuple((f"log-{n:04d}", "x") for n in range(500))).target("log-*") == "log-*"
