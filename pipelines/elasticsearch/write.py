"""Writing to a cluster: an index is made, filled, counted and compared, or it is removed again.

A bulk request answers 200 and can still have refused some of its documents, so every item is looked at; those that
the cluster was too busy for (429) are sent again, later and later. Then the documents are counted in the index,
and some of them, spread over all, are read back and compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from elastic_transport import TlsError, TransportError
from elasticsearch import ApiError, BadRequestError, NotFoundError
from elasticsearch import Elasticsearch as Client
from elasticsearch.helpers import streaming_bulk

from pipelines.elasticsearch.client import PREFIX, connect, reason, settings_of
from rerank_core.config.night import Elasticsearch
from rerank_core.errors import ConfigError, SourceError, WriteError

CHUNK_DOCUMENTS, CHUNK_BYTES = 500, 5 * 2**20
MAX_RETRIES, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 30.0  # of what was answered with 429; half a minute in all
SAMPLED = 20
# One shard per index; a copy where there is a second node to hold it; visible to searches once it is whole.
SETTINGS = {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "-1"}
PRIVILEGES = "writing needs 'create_index', 'index', 'read', 'maintenance', 'manage' and 'delete_index' there"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,199}")


class Cluster(NamedTuple):
    """An open connection, and what a person calls it."""

    client: Client
    name: str


class Document(NamedTuple):
    """What becomes one document of an index."""

    id: str
    source: dict[str, Any]


class Sample:
    """Some documents of a stream of unknown length, evenly spread; and how many there were."""

    def __init__(self, size: int = SAMPLED) -> None:
        self.documents: list[Document] = []
        self.count = 0
        self._size, self._stride = size, 1

    def through(self, documents: Iterable[Document]) -> Iterator[Document]:
        """`documents` as they are."""
        for document in documents:
            if self.count % self._stride == 0:
                self.documents.append(document)
            self.count += 1
            if len(self.documents) > 2 * self._size:
                self.documents, self._stride = self.documents[::2], 2 * self._stride
            yield document


def open_cluster(url: str, *, ca_file: str = "") -> Cluster:
    """Connect as the environment says (NIGHTRANK_ES_*); nothing is sent yet.

    Raises:
        ConfigError: the URL, the CA file or the environment's credentials cannot be used.
    """
    try:
        settings = settings_of(Elasticsearch(url=url, ca_file=ca_file, timeout_seconds=60.0))
        return Cluster(connect(settings).client, settings.name)
    except ConfigError as error:
        shown = str(error).replace("source.elasticsearch.url", "--to").replace("source.elasticsearch.", "")
        raise ConfigError(shown) from None


@contextmanager
def explained(cluster: Cluster) -> Iterator[None]:
    """Turn the client's errors into SourceError."""
    try:
        yield
    except (ApiError, TransportError) as error:
        raise SourceError(explain(error, cluster)) from None


def explain(error: ApiError | TransportError, cluster: Cluster) -> str:
    """What went wrong and what to do; the request and its headers are never quoted."""
    if isinstance(error, TlsError):
        return f"the certificate of {cluster.name} does not verify; give the cluster's CA with --ca-file"
    if isinstance(error, TransportError):
        return (
            f"no answer from {cluster.name} ({type(error).__name__}); check --to, and that the cluster is up"
        )
    status = error.meta.status
    if status in (401, 403):
        what = "does not know who asks" if status == 401 else "does not allow this"
        remedy = f"check {PREFIX}API_KEY, {PREFIX}USERNAME and {PREFIX}PASSWORD, or {PREFIX}BEARER"
        return f"{cluster.name} {what} (HTTP {status}); {remedy}; {PRIVILEGES}"
    body: Any = error.body
    return f"{cluster.name}: HTTP {status}: {reason(body.get('error', body) if isinstance(body, dict) else body)}"


def check_name(name: str, *, option: str) -> str:
    """A name that Elasticsearch takes for an index, and that is no pattern.

    Raises:
        ConfigError: it is none.
    """
    if not _NAME.fullmatch(name):
        allowed = "lower-case letters, digits, '-', '_' and '.', the first of them a letter or a digit"
        raise ConfigError(f"{option} {name!r} is no name of an index; it may hold {allowed}")
    return name


def create(cluster: Cluster, index: str, mappings: Mapping[str, Any]) -> None:
    """An empty index that nobody had before.

    Raises:
        SourceError: there is one already, or it cannot be made.
    """
    with explained(cluster):
        cluster.client.indices.create(index=index, settings=SETTINGS, mappings=mappings)


def fill(
    cluster: Cluster,
    index: str,
    documents: Iterable[Document],
    *,
    expected: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write documents into an index of ours, and prove that they are there; else remove the index.

    Args:
        cluster: where.
        index: an empty index, made for this.
        documents: their ids must differ.
        expected: how many there must be; None for as many as there are.
        on_progress: told how many more were written.

    Returns:
        Their number.

    Raises:
        WriteError: a document was refused, the cluster was lost, or the index does not hold what was sent. The
            index is removed, whatever stopped the writing; where the cluster cannot be reached the message says so.
    """
    try:
        return _fill(cluster, index, documents, expected=expected, on_progress=on_progress)
    except BaseException as error:
        left = "" if remove(cluster, index) else f"; the half-made index {index} could not be removed"
        if isinstance(error, ApiError | TransportError):
            raise WriteError(f"{explain(error, cluster)}{left}") from None
        if isinstance(error, WriteError):
            raise WriteError(f"{error}{left}") from None
        raise


def _fill(
    cluster: Cluster,
    index: str,
    documents: Iterable[Document],
    *,
    expected: int | None,
    on_progress: Callable[[int], None] | None,
) -> int:
    sample, written = Sample(), 0
    actions = ({"_index": index, "_id": one.id, "_source": one.source} for one in sample.through(documents))
    for accepted, item in streaming_bulk(
        cluster.client, actions, chunk_size=CHUNK_DOCUMENTS, max_chunk_bytes=CHUNK_BYTES, raise_on_error=False,
        max_retries=MAX_RETRIES, initial_backoff=FIRST_WAIT, max_backoff=LONGEST_WAIT,
    ):  # fmt: skip
        if not accepted:
            (answer,) = item.values()
            why = reason(answer.get("error", answer))
            raise WriteError(f"{cluster.name} refused document {answer.get('_id')!r} of {index}: {why}")
        written += 1
        if on_progress and written % CHUNK_DOCUMENTS == 0:
            on_progress(CHUNK_DOCUMENTS)
    if on_progress:
        on_progress(written % CHUNK_DOCUMENTS)
    if expected is not None and sample.count != expected:
        raise WriteError(f"{sample.count} documents were to go into {index}, but there should be {expected}")
    cluster.client.indices.put_settings(index=index, settings={"refresh_interval": None})
    verify(cluster, index, count=sample.count, sample=sample.documents)
    return written


def verify(cluster: Cluster, index: str, *, count: int, sample: Iterable[Document]) -> None:
    """Count an index's documents, and compare some with what they should be.

    Raises:
        WriteError: they differ, or not all of the index could be read.
    """
    refreshed = cluster.client.indices.refresh(index=index)
    counted = cluster.client.count(index=index)
    failed = refreshed["_shards"]["failed"] + counted["_shards"]["failed"]
    if failed or counted["count"] != count:
        partly = f" ({failed} shards failed)" if failed else ""
        raise WriteError(f"{index} should hold {count} documents, but holds {counted['count']}{partly}")
    wanted = {document.id: document.source for document in sample}
    if not wanted:
        return
    for found in cluster.client.mget(index=index, ids=list(wanted))["docs"]:
        if found.get("_source") != wanted[found["_id"]]:
            raise WriteError(f"document {found['_id']!r} of {index} is not what was sent")


def remove(cluster: Cluster, index: str) -> bool:
    """Remove an index; whether it is gone."""
    try:
        cluster.client.indices.delete(index=index, ignore_unavailable=True)
    except (ApiError, TransportError):
        return False
    return True


def has_analyzer(cluster: Cluster, name: str) -> bool:
    """Whether the cluster has that analyzer: a slim distribution may lack those of languages."""
    with explained(cluster):
        try:
            cluster.client.indices.analyze(analyzer=name, text="a")
        except (BadRequestError, NotFoundError):
            return False
    return True
