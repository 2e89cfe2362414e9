"""Writing to a cluster: an index is created, filled and verified, or it is removed again.

A bulk request with HTTP 200 may still have refused some of its documents, so every item is checked; those that the
cluster was too busy for (429) are sent again after growing waits. Then the documents are counted in the index, and a
sample, spread over all, is read back and compared.
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

from pipelines.elasticsearch.client import access_denied, connect, reason, settings_of
from rerank_core.config.source import Elasticsearch
from rerank_core.errors import ConfigError, SourceError, WriteError

CHUNK_DOCUMENTS, CHUNK_BYTES = 500, 5 * 2**20
MAX_RETRIES, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 30.0  # after 429; half a minute in all
SAMPLE_SIZE = 20
# One shard per index; a replica if there is a second node; visible to searches once it is complete.
SETTINGS = {"number_of_shards": 1, "auto_expand_replicas": "0-1", "refresh_interval": "-1"}
WRITING = (
    "writing needs the privileges 'create_index', 'index', 'read', 'maintenance', 'manage' and 'delete_index' on the "
    "index"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,199}")


class Cluster(NamedTuple):
    """An open connection, and its name for messages."""

    client: Client
    name: str


class IndexDocument(NamedTuple):
    """A document to be indexed."""

    id: str
    source: dict[str, Any]


class Sample:
    """Evenly spread documents of a stream of unknown length, and how many there were in all."""

    def __init__(self, size: int = SAMPLE_SIZE) -> None:
        self.documents: list[IndexDocument] = []
        self.count = 0
        self._size, self._stride = size, 1

    def through(self, documents: Iterable[IndexDocument]) -> Iterator[IndexDocument]:
        """`documents`, unchanged."""
        for document in documents:
            if self.count % self._stride == 0:
                self.documents.append(document)
            self.count += 1
            if len(self.documents) > 2 * self._size:
                self.documents, self._stride = self.documents[::2], 2 * self._stride
            yield document


def open_cluster(url: str, *, ca_file: str = "") -> Cluster:
    """Open a connection with the environment's credentials (NIGHTRANK_ES_*); nothing is sent yet.

    Raises:
        ConfigError: the URL, the CA file or the environment's credentials cannot be used.
    """
    try:
        settings = settings_of(Elasticsearch(url=url, ca_file=ca_file, timeout_seconds=60.0))
        return Cluster(connect(settings).client, settings.name)
    except ConfigError as error:
        message = str(error).replace("source.elasticsearch.url", "--to").replace("source.elasticsearch.", "")
        raise ConfigError(message) from None


@contextmanager
def source_errors(cluster: Cluster) -> Iterator[None]:
    """Turn the client's errors into SourceError."""
    try:
        yield
    except (ApiError, TransportError) as error:
        raise SourceError(error_message(error, cluster)) from None


def error_message(error: ApiError | TransportError, cluster: Cluster) -> str:
    """What went wrong and what to do; the request and its headers are never quoted."""
    if isinstance(error, TlsError):
        return f"the certificate of {cluster.name} cannot be verified; name the cluster's CA with --ca-file"
    if isinstance(error, TransportError):
        return f"no response from {cluster.name} ({type(error).__name__}); check --to, and that the cluster is up"
    status = error.meta.status
    if status in (401, 403):
        return access_denied(cluster.name, status, privileges=WRITING)
    body: Any = error.body
    return f"{cluster.name}: HTTP {status}: {reason(body.get('error', body) if isinstance(body, dict) else body)}"


def check_name(name: str, *, option: str) -> str:
    """`name`, if Elasticsearch accepts it for an index and it is not a pattern.

    Raises:
        ConfigError: it is not valid.
    """
    if not _NAME.fullmatch(name):
        allowed = "lower-case letters, digits, '-', '_' and '.', beginning with a letter or a digit"
        raise ConfigError(f"{option} {name!r} is not a valid name of an index; use {allowed}")
    return name


def create(cluster: Cluster, index: str, mappings: Mapping[str, Any]) -> None:
    """Create an empty index.

    Raises:
        SourceError: it exists already, or cannot be created.
    """
    with source_errors(cluster):
        cluster.client.indices.create(index=index, settings=SETTINGS, mappings=mappings)


def fill(
    cluster: Cluster,
    index: str,
    documents: Iterable[IndexDocument],
    *,
    expected: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write documents into an empty index and verify that they are there; on any failure, remove the index.

    Args:
        cluster: where.
        index: an empty index, created for this.
        documents: with distinct ids.
        expected: how many there must be; None: any number.
        on_progress: called with how many more were written.

    Returns:
        The number of documents.

    Raises:
        WriteError: a document was refused, the cluster did not respond, or the index differs from what was sent. The
            message says so if the index could not be removed.
    """
    try:
        return _fill(cluster, index, documents, expected=expected, on_progress=on_progress)
    except BaseException as error:
        left = "" if remove(cluster, index) else f"; the incomplete index {index} could not be removed"
        if isinstance(error, ApiError | TransportError):
            raise WriteError(f"{error_message(error, cluster)}{left}") from None
        if isinstance(error, WriteError):
            raise WriteError(f"{error}{left}") from None
        raise


def _fill(
    cluster: Cluster,
    index: str,
    documents: Iterable[IndexDocument],
    *,
    expected: int | None,
    on_progress: Callable[[int], None] | None,
) -> int:
    sample, written = Sample(), 0
    actions = ({"_index": index, "_id": id_, "_source": source} for id_, source in sample.through(documents))
    for accepted, item in streaming_bulk(
        cluster.client,
        actions,
        chunk_size=CHUNK_DOCUMENTS,
        max_chunk_bytes=CHUNK_BYTES,
        raise_on_error=False,
        max_retries=MAX_RETRIES,
        initial_backoff=FIRST_WAIT,
        max_backoff=LONGEST_WAIT,
    ):
        if not accepted:
            (result,) = item.values()
            why = reason(result.get("error", result))
            raise WriteError(f"{cluster.name} refused document {result.get('_id')!r} of {index}: {why}")
        written += 1
        if on_progress and written % CHUNK_DOCUMENTS == 0:
            on_progress(CHUNK_DOCUMENTS)
    if on_progress:
        on_progress(written % CHUNK_DOCUMENTS)
    if expected is not None and sample.count != expected:
        raise WriteError(f"{index} got {sample.count} documents, but {expected} were expected")
    cluster.client.indices.put_settings(index=index, settings={"refresh_interval": None})
    verify(cluster, index, count=sample.count, sample=sample.documents)
    return written


def verify(cluster: Cluster, index: str, *, count: int, sample: Iterable[IndexDocument]) -> None:
    """Count an index's documents, and compare a sample with what was sent.

    Raises:
        WriteError: they differ, or not all of the index could be read.
    """
    refreshed = cluster.client.indices.refresh(index=index)
    counted = cluster.client.count(index=index)
    failed = refreshed["_shards"]["failed"] + counted["_shards"]["failed"]
    if failed or counted["count"] != count:
        shards = f" ({failed} shards failed)" if failed else ""
        raise WriteError(f"{index} should have {count} documents, but has {counted['count']}{shards}")
    sent = dict(sample)
    if not sent:
        return
    for stored in cluster.client.mget(index=index, ids=list(sent))["docs"]:
        if stored.get("_source") != sent[stored["_id"]]:
            raise WriteError(f"document {stored['_id']!r} of {index} differs from what was sent")


def remove(cluster: Cluster, index: str) -> bool:
    """Remove an index; False if that failed."""
    try:
        cluster.client.indices.delete(index=index, ignore_unavailable=True)
    except (ApiError, TransportError):
        return False
    return True


def has_analyzer(cluster: Cluster, name: str) -> bool:
    """Whether the cluster has an analyzer: a small distribution may lack those for languages."""
    with source_errors(cluster):
        try:
            cluster.client.indices.analyze(analyzer=name, text="a")
        except (BadRequestError, NotFoundError):
            return False
    return True
