"""Publishing back: the reranked lists of a published run as an Elasticsearch index behind an alias.

    <alias>                 for readers: GET <alias>/_doc/<query_id>
    <alias>-<run_id>        one index per run, one document per query: its list, best first

A new index is filled, counted and compared; only then the alias moves to it, in one atomic step. So readers see one
whole night or the other, and a publish that fails leaves the alias unchanged. The `_meta` of an index's mapping names
its alias and the index that was served before it, to which `rollback` returns, and says whether it is complete.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from elastic_transport import TransportError
from elasticsearch import ApiError, NotFoundError

from pipelines.elasticsearch.write import (
    Cluster,
    IndexDocument,
    Sample,
    check_name,
    create,
    error_message,
    fill,
    remove,
    source_errors,
    verify,
)
from pipelines.storage import filesystem, runs
from rerank_core.errors import WriteError
from schemas.manifest import Manifest

OWNER = "nightrank"
# An incomplete index older than this was left behind by a publish that failed, and may be removed.
ABANDONED = datetime.timedelta(days=1)
# old runs lack the last two
COLUMNS = [
    "query_id",
    "query",
    "doc_id",
    "passage_id",
    "score",
    "rank",
    "evidence",
    "stale_since",
]
PROPERTIES = {
    "query_id": {"type": "keyword"},
    "query": {"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 2048}}},
    "run_id": {"type": "keyword"},
    "run_date": {"type": "date"},
    "stale_since": {"type": "date"},
    "results": {"type": "object", "enabled": False},  # stored, not searched
}


class Publication(NamedTuple):
    """One index of an alias, as its `_meta` describes it."""

    index: str  # type: ignore[assignment]  # hides tuple.index
    run_id: str
    created_at: datetime.datetime
    whole: bool
    previous: str  # the index that was served before it; "" for none


class Published(NamedTuple):
    """The result of a publish."""

    alias: str
    index: str  # type: ignore[assignment]  # hides tuple.index
    run_id: str
    run_date: str
    queries: int
    previous: str  # the index that was served before; "" for none
    swapped: bool  # False: the alias named this index already
    removed: tuple[str, ...]  # old indices
    seconds: float


class RolledBack(NamedTuple):
    """The result of a rollback."""

    alias: str
    left: str  # the index that was served
    index: str  # type: ignore[assignment]  # hides tuple.index
    run_id: str


def publish(
    cluster: Cluster,
    output: str,
    manifest: Manifest,
    *,
    alias: str,
    keep: int = 2,
    on_progress: Callable[[int], None] | None = None,
) -> Published:
    """Publish the lists of a run of the folder `output` under `alias`.

    Args:
        cluster: where.
        output, manifest: the output folder of the nightly job, and the run in it.
        alias: what readers use.
        keep: how many indices that were served before are kept, to roll back to.
        on_progress: called with how many more queries were written.

    Raises:
        WriteError: it was not published; the alias is unchanged.
        ConfigError, ManifestError, SourceError: the alias, the run or the cluster cannot be used.
    """
    started = time.monotonic()
    index, count = index_name(alias, manifest.run_id), manifest.balance.lists
    documents = query_documents(runs.table_files(output, manifest, "reranked"), manifest)

    def result(previous: str, *, swapped: bool, removed: tuple[str, ...] = ()) -> Published:
        seconds = round(time.monotonic() - started, 3)
        return Published(
            alias, index, manifest.run_id, manifest.run_date, count, previous, swapped, removed, seconds
        )

    with source_errors(cluster):
        current = served(cluster, alias)
        if current and current.index == index:
            _check_served(cluster, index, documents, count=count)
            # One that was killed after the swap has not removed them.
            removed = _prune(cluster, alias, index, keep=keep)
            return result(current.previous, swapped=False, removed=removed)
    _clear(cluster, alias, index)
    previous = current.index if current else ""
    facts = _facts(alias, manifest, previous=previous)
    create(cluster, index, {"dynamic": "strict", "properties": PROPERTIES, "_meta": {OWNER: facts}})
    fill(cluster, index, documents, expected=count, on_progress=on_progress)
    _swap(cluster, alias, current, index, facts=facts)
    return result(previous, swapped=True, removed=_prune(cluster, alias, index, keep=keep))


def rollback(cluster: Cluster, alias: str) -> RolledBack:
    """Point the alias at the index that was served before the current one; no index is removed.

    Raises:
        WriteError: nothing is published there, or the previous index is gone.
    """
    with source_errors(cluster):
        current = served(cluster, alias)
        if current is None:
            raise WriteError(f"{cluster.name} has no alias {alias!r}: nothing was published under it")
        target = publications(cluster, alias).get(current.previous)
        if target is None or not target.whole:
            before = (
                f"the previous index {current.previous} is gone"
                if current.previous
                else "there is no previous index"
            )
            raise WriteError(
                f"{alias} stays on {current.index}: {before}; publish the run that you want with --run-id"
            )
        cluster.client.indices.update_aliases(actions=swap_actions(alias, current.index, target.index))
    return RolledBack(alias, current.index, target.index, target.run_id)


def index_name(alias: str, run_id: str) -> str:
    """Name of a run's index."""
    return check_name(f"{check_name(alias, option='--alias')}-{run_id}", option="--alias")


def query_documents(files: Iterable[str], manifest: Manifest) -> Iterator[IndexDocument]:
    """One document per query, its results best first; a query's rows are all in one file."""
    for path in files:
        lists: dict[str, list[dict[str, Any]]] = {}
        for row in filesystem.read_table(path, COLUMNS).to_pylist():
            lists.setdefault(row["query_id"], []).append(row)
        for query_id, rows in lists.items():
            rows.sort(key=lambda row: row["rank"])
            source = {
                "query_id": query_id,
                "query": rows[0]["query"],
                "run_id": manifest.run_id,
                "run_date": manifest.run_date,
                "results": [_result(row) for row in rows],
            }
            if since := rows[0].get("stale_since"):
                source["stale_since"] = since
            yield IndexDocument(query_id, source)


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    result = {name: row[name] for name in ("doc_id", "passage_id", "score", "rank")}
    return result | ({"evidence": row["evidence"]} if row.get("evidence") else {})


def swap_actions(alias: str, current: str, target: str) -> list[dict[str, Any]]:
    """Both halves of a swap, for one request, which fails as a whole if the alias has moved in the meantime."""
    leave = [{"remove": {"index": current, "alias": alias, "must_exist": True}}] if current else []
    return [*leave, {"add": {"index": target, "alias": alias}}]


def served(cluster: Cluster, alias: str) -> Publication | None:
    """The publication that an alias names; None if there is no such alias.

    Raises:
        WriteError: the name is an index's, or the alias names something that Nightrank did not publish.
    """
    check_name(alias, option="--alias")
    try:
        names = sorted(cluster.client.indices.get_alias(name=alias).body)
    except NotFoundError:
        if cluster.client.indices.exists(index=alias):
            raise WriteError(f"{alias!r} is an index, not an alias; choose another --alias") from None
        return None
    known = publications(cluster, alias)
    if len(names) != 1 or names[0] not in known:
        raise WriteError(
            f"the alias {alias!r} names {', '.join(names)}, which Nightrank did not publish there; "
            "choose another --alias"
        )
    return known[names[0]]


def publications(cluster: Cluster, alias: str) -> dict[str, Publication]:
    """All indices of an alias, served or not, by name."""
    mappings = cluster.client.indices.get_mapping(index=f"{alias}-*").body
    parsed = {
        name: parse_publication(name, index["mappings"], alias=alias) for name, index in mappings.items()
    }
    return {name: publication for name, publication in parsed.items() if publication}


def parse_publication(index: str, mappings: Mapping[str, Any], *, alias: str) -> Publication | None:
    """The publication that an index's `_meta` describes; None if it is not this alias'."""
    facts = mappings.get("_meta", {}).get(OWNER)
    if not isinstance(facts, dict) or facts.get("alias") != alias:
        return None
    created = datetime.datetime.fromisoformat(facts["created_at"])
    return Publication(index, facts["run_id"], created, facts["whole"], facts["previous"])


def outdated(
    known: Mapping[str, Publication], current: str, *, keep: int, now: datetime.datetime
) -> tuple[str, ...]:
    """Indices to remove: complete ones but `current` and the `keep` served before it, and abandoned incomplete ones."""
    needed = [current]
    while len(needed) <= keep:
        before = known[needed[-1]].previous if needed[-1] in known else ""
        if not before or before in needed:
            break
        needed.append(before)
    return tuple(
        sorted(
            publication.index
            for publication in known.values()
            if publication.index not in needed
            and (publication.whole or now - publication.created_at > ABANDONED)
        )
    )


def _clear(cluster: Cluster, alias: str, index: str) -> None:
    """Remove the index of an earlier publish of the run: it is incomplete, or was rolled back from."""
    with source_errors(cluster):
        leftover = index in publications(cluster, alias)
    if leftover and not remove(cluster, index):
        raise WriteError(f"{index}, left by an earlier publish, could not be removed")


def _facts(alias: str, manifest: Manifest, *, previous: str) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "alias": alias,
        "run_id": manifest.run_id,
        "created_at": now,
        "whole": False,
        "previous": previous,
        "model_fingerprint": manifest.model_fingerprint,
    }


def _check_served(cluster: Cluster, index: str, documents: Iterable[IndexDocument], *, count: int) -> None:
    sample = Sample()
    for _ in sample.through(documents):
        pass
    try:
        verify(cluster, index, count=count, sample=sample.documents)
    except WriteError as error:
        remedy = "roll back with --rollback, then publish the run again"
        raise WriteError(f"the run is served already, but its index was changed: {error}; {remedy}") from None


def _swap(
    cluster: Cluster, alias: str, current: Publication | None, index: str, *, facts: dict[str, Any]
) -> None:
    """Mark the index as complete, then move the alias; if that is refused, remove the index."""
    actions = swap_actions(alias, current.index if current else "", index)
    try:
        cluster.client.indices.put_mapping(index=index, meta={OWNER: {**facts, "whole": True}})
        cluster.client.indices.update_aliases(actions=actions)
    except ApiError as error:
        remove(cluster, index)
        raise WriteError(f"the alias {alias} was not moved: {error_message(error, cluster)}") from None
    except TransportError as error:  # it may have moved, so nothing may be removed now
        remedy = f"check with GET _alias/{alias}, and publish again"
        raise WriteError(
            f"it is unknown whether {alias} moved to {index}: {error_message(error, cluster)}; {remedy}"
        ) from None


def _prune(cluster: Cluster, alias: str, index: str, *, keep: int) -> tuple[str, ...]:
    """Remove old indices; one that cannot be removed does not make the publish fail."""
    try:
        known = publications(cluster, alias)
    except (ApiError, TransportError):
        return ()
    old = outdated(known, index, keep=keep, now=datetime.datetime.now(datetime.UTC))
    return tuple(name for name in old if remove(cluster, name))
