"""Writing to a cluster, the parts that need no server."""

from __future__ import annotations

import itertools

import pytest
from elastic_transport import ConnectionError, TlsError
from hypothesis import given
from hypothesis import strategies as st

from pipelines.elasticsearch.write import (
    SAMPLE_SIZE,
    Cluster,
    IndexDocument,
    Sample,
    check_name,
    open_cluster,
    source_errors,
)
from rerank_core.errors import ConfigError, SourceError


@given(st.integers(0, 2000), st.integers(1, 30))
def test_a_sample_is_small_and_spread_over_all(count: int, size: int) -> None:
    sample = Sample(size)
    given_documents = [IndexDocument(str(number), {}) for number in range(count)]
    assert list(sample.through(given_documents)) == given_documents
    assert sample.count == count
    assert min(count, size) <= len(sample.documents) <= 2 * size + 1
    places = [int(one.id) for one in sample.documents]
    assert all(b - a == places[1] - places[0] for a, b in itertools.pairwise(places))
    assert SAMPLE_SIZE <= 100


@pytest.mark.parametrize("name", ["", "Caps", "_x", "-x", "a*", "a,b", "a b", "a/b", "..", "a" * 201, "ä"])
def test_what_is_no_name_of_an_index_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--alias"):
        check_name(name, option="--alias")


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://x", "https://me:secret@x:1", "http://"])
def test_a_url_that_cannot_be_used_is_named_without_its_secret(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="--to") as caught:
        open_cluster(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TlsError("x"), "certificate of here cannot be verified.*--ca-file"),
        (ConnectionError("x"), "no response from here"),
    ],
)
def test_errors_of_the_client_name_the_cluster_and_the_option(error: Exception, message: str) -> None:
    cluster = Cluster(None, "here")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=message), source_errors(cluster):
        raise error
