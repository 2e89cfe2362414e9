"""Who may read, over verified TLS; and that no secret is found in anything that a run leaves behind."""

from __future__ import annotations

import datetime
import logging
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest

from pipelines.beam_options import beam_options
from pipelines.elasticsearch.client import connect
from pipelines.nightly import graph, run
from rerank_core.config.night import parse_config
from rerank_core.errors import ConfigError, SourceError
from rerank_core.redact import encodings
from tests.support.servers.elasticsearch import Node
from tests.support.source_data import load_docs, load_log, queries, source

LOG, DOCS = "secure-log", "secure-docs"


class Scorer:
    """Stands in for the model: what is tested here is what is written."""

    fingerprint = "length"

    def score(self, pairs: Any) -> np.ndarray:
        return np.array([len(passage) / 100 for _, passage in pairs], np.float32)


@pytest.fixture(scope="module")
def secured(secure_es: Node) -> Node:
    load_log(secure_es, LOG, events=300)
    load_docs(secure_es, DOCS, documents=200)
    return secure_es


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test sets its own credentials; connections are cached per process, so none is carried over."""
    for name in [name for name in os.environ if name.startswith("NIGHTRANK_ES_")]:
        monkeypatch.delenv(name)
    connect.cache_clear()
    yield
    connect.cache_clear()


def names(node: Node, **wanted: Any) -> dict[str, Any]:
    assert node.security is not None
    return {"log_index": LOG, "index": DOCS, "ca_file": str(node.security.ca), "max_retries": 2, **wanted}


def log_in(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"NIGHTRANK_ES_{name}", value)


def ways(node: Node, folder: Path) -> Iterator[dict[str, str]]:
    assert node.security is not None
    user, password = node.security.reader
    (folder / "password").write_text(password)
    yield {"USERNAME": user, "PASSWORD": password}
    yield {"USERNAME": user, "PASSWORD_FILE": str(folder / "password")}
    key = node.request("POST", "/_security/api_key", {"name": "night"})
    yield {"API_KEY": key["encoded"]}
    grant = {"grant_type": "password", "username": user, "password": password}
    yield {"BEARER": node.request("POST", "/_security/oauth2/token", grant)["access_token"]}


def test_every_way_to_log_in_reads(secured: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    for way in ways(secured, tmp_path):
        with monkeypatch.context() as patch:
            log_in(patch, **way)
            connect.cache_clear()
            reader = source(secured.url, **names(secured))
            assert reader.describe()["log_events"] == 300
            seen.append(reader.candidates(queries(5), top_k=3))
    assert len(seen) == 4
    assert all(one == seen[0] for one in seen)


def test_a_client_certificate_is_shown(secured: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secured.security is not None
    user, password = secured.security.reader
    log_in(monkeypatch, USERNAME=user, PASSWORD=password)
    pair = {
        "client_cert": str(secured.security.client_certificate),
        "client_key": str(secured.security.client_key),
    }
    assert source(secured.url, **names(secured, **pair)).describe()["documents"] == 200
    connect.cache_clear()
    with pytest.raises(ConfigError, match=r"client_cert: /nowhere.pem cannot be read"):
        source(secured.url, **names(secured, client_cert="/nowhere.pem")).describe()


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ({}, "authentication failed .HTTP 401.*NIGHTRANK_ES_API_KEY"),
        ({"USERNAME": "reader", "PASSWORD": "wr0ng-Secret"}, "authentication failed"),
        ({"API_KEY": "d3JvbmctU2VjcmV0Ondyb25n"}, "authentication failed"),
    ],
)
def test_wrong_credentials_are_named_and_never_quoted(
    secured: Node, monkeypatch: pytest.MonkeyPatch, way: dict[str, str], message: str
) -> None:
    log_in(monkeypatch, **way)
    with pytest.raises(SourceError, match=message) as caught:
        source(secured.url, **names(secured)).describe()
    shown = f"{caught.value!r} {caught.value.__cause__!r}"
    assert not [value for name, value in way.items() if name != "USERNAME" and value in shown]


def test_too_few_privileges_are_named(secured: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    only = {"indices": [{"names": [DOCS], "privileges": ["read", "view_index_metadata"]}]}
    body = {"name": "few", "role_descriptors": {"few": only}}
    log_in(monkeypatch, API_KEY=secured.request("POST", "/_security/api_key", body)["encoded"])
    with pytest.raises(SourceError, match=r"permission denied .HTTP 403.*'view_index_metadata'"):
        source(secured.url, **names(secured)).describe()


def test_a_certificate_that_does_not_verify_stops_the_night(
    secured: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert secured.security is not None
    user, password = secured.security.reader
    log_in(monkeypatch, USERNAME=user, PASSWORD=password)
    with pytest.raises(
        SourceError, match=r"certificate of https://127.0.0.1:\d+ cannot be verified.*ca_file"
    ):
        source(secured.url, **names(secured, ca_file="")).describe()
    connect.cache_clear()
    assert source(secured.url, **names(secured, ca_file="", verify_tls=False)).describe()["documents"] == 200


def test_nothing_that_a_night_leaves_behind_holds_the_secret(
    secured: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert secured.security is not None
    user, password = secured.security.reader
    log_in(monkeypatch, USERNAME=user, PASSWORD=password)
    caplog.set_level(logging.DEBUG)
    raw = {
        "source": {"kind": "elasticsearch", "elasticsearch": {"url": secured.url, **names(secured)}},
        "output": {"path": str(tmp_path / "out"), "max_rejected_share": 1.0},
        "mining": {"enabled": False},
    }
    config, day = parse_config(raw), datetime.date(2026, 3, 2)
    manifest = run.run(config, run_date=day, load=Scorer)
    assert manifest.balance.events["read"] == 300

    options = beam_options([])
    night = run.prepare(config, run_date=day, options=options, load=Scorer)
    pipeline = beam.Pipeline(options=options)
    graph.build(pipeline, night)
    traces = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(traces) > 3
    traces["log"] = caplog.text.encode()
    assert len(traces["log"]) > 1000
    traces["pipeline"] = pipeline.to_runner_api().SerializeToString()
    traces["options"] = repr(options.get_all_options()).encode()
    traces["source"] = pickle.dumps(night.source)
    forms = [form.encode() for secret in (password, f"{user}:{password}") for form in encodings(secret)]
    assert [name for name, content in traces.items() if any(form in content for form in forms)] == []
