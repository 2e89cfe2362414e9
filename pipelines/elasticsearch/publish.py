"""Publishing back: the reranked lists of a published run as an Elasticsearch index behind an alias.

    <alias>                 what readers ask: GET <alias>/_doc/<query_id>
    <alias>-<run_id>        one index a run, one document a query: its list, best first

The index is made aside, filled, counted and compared; only then the alias moves to it, in one atomic step. So a
reader sees one whole night or the other, and a publish that fails anywhere leaves the alias where it was. Every
index says in its mapping's `_meta` whose it is, whether it is whole, and which one was served before it: that one
`rollback` goes back to.
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
    Document,
    Sample,
    check_name,
    create,
    explain,
    explained,
    fill,
    remove,
    verify,
)
from pipelines.storage import filesystem, runs
from rerank_core.errors import WriteError
from schemas.manifest import Manifest

OWNER = "nightrank"
ABANDONED = datetime.timedelta(days=1)  # a half-made index older than this is nobody's work in progress
COLUMNS = [
    "query_id",
    "query",
    "doc_id",
    "passage_id",
    "score",
    "rank",
    "evidence",
]  # the last: not in old runs
PROPERTIES = {
    "query_id": {"type": "keyword"},
    "query": {"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 2048}}},
    "run_id": {"type": "keyword"},
    "run_date": {"type": "date"},
    "results": {"type": "object", "enabled": False},  # kept as it is and not searched
}


class Publication(NamedTuple):
    """One index of an alias, as its `_meta` tells it."""

    index: str  # type: ignore[assignment]  # hides tuple.index
    run_id: str
    created_at: datetime.datetime
    whole: bool
    previous: str  # the index that was served before it; ""


class Published(NamedTuple):
    """What a publish did."""

    alias: str
    index: str  # type: ignore[assignment]  # hides tuple.index
    run_id: str
    run_date: str
    queries: int
    previous: str  # the index that was served before; "" for none
    swapped: bool  # False: the alias was there already
    removed: tuple[str, ...]  # old indices
    seconds: float


class RolledBack(NamedTuple):
    """What a rollback did."""

    alias: str
    left: str
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

    `keep` indices that were served before stay, to roll back to; `on_progress` is told how many more queries
    were written.

    Raises:
        WriteError: it was not published; the alias is where it was.
        ConfigError, ManifestError, SourceError: the alias, the run or the cluster cannot be used.
    """
    started = time.monotonic()
    index, count = index_name(alias, manifest.run_id), manifest.balance.queries["published"]
    documents = query_documents(runs.table_files(output, manifest, "reranked"), manifest)
    with explained(cluster):
        current = served(cluster, alias)
        if current and current.index == index:
            _check_served(cluster, index, documents, count=count)
            return _published(
                manifest, alias, index, count, current.previous, swapped=False, removed=(), started=started
            )
    _clear(cluster, alias, index)
    previous = current.index if current else ""
    facts = _facts(alias, manifest, previous=previous)
    create(cluster, index, {"dynamic": "strict", "properties": PROPERTIES, "_meta": {OWNER: facts}})
    written = fill(cluster, index, documents, expected=count, on_progress=on_progress)
    _swap(cluster, alias, current, index, facts=facts)
    removed = _prune(cluster, alias, index, keep=keep)
    return _published(
        manifest, alias, index, written, previous, swapped=True, removed=removed, started=started
    )


def rollback(cluster: Cluster, alias: str) -> RolledBack:
    """Point the alias at the index that was served before the current one; no index is removed.

    Raises:
        WriteError: nothing is published there, or the index before is gone.
    """
    with explained(cluster):
        current = served(cluster, alias)
        if current is None:
            raise WriteError(f"{cluster.name} has no alias {alias!r}: nothing was published there")
        target = publications(cluster, alias).get(current.previous)
        if target is None or not target.whole:
            gone = (
                f"the index before it, {current.previous}, is gone"
                if current.previous
                else "none was served before it"
            )
            raise WriteError(
                f"{alias} stays on {current.index}: {gone}; publish the run wanted with --run-id"
            )
        cluster.client.indices.update_aliases(actions=swap_actions(alias, current.index, target.index))
    return RolledBack(alias, current.index, target.index, target.run_id)


def index_name(alias: str, run_id: str) -> str:
    """Name of a run's index."""
    return check_name(f"{check_name(alias, option='--alias')}-{run_id}", option="--alias")


def query_documents(files: Iterable[str], manifest: Manifest) -> Iterator[Document]:
    """One document a query, its results best first; a query's rows are all in one file."""
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
            yield Document(query_id, source)


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: row[name] for name in ("doc_id", "passage_id", "score", "rank")}
    return shown | ({"evidence": row["evidence"]} if row.get("evidence") else {})


def swap_actions(alias: str, current: str, target: str) -> list[dict[str, Any]]:
    """Both halves of a swap, for one request. Fails as a whole where the alias has moved in the meantime."""
    leave = [{"remove": {"index": current, "alias": alias, "must_exist": True}}] if current else []
    return [*leave, {"add": {"index": target, "alias": alias}}]


def served(cluster: Cluster, alias: str) -> Publication | None:
    """The publication that an alias names; None where there is no such alias.

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
    found = {name: parse_publication(name, held["mappings"], alias=alias) for name, held in mappings.items()}
    return {name: publication for name, publication in found.items() if publication}


def parse_publication(index: str, mappings: Mapping[str, Any], *, alias: str) -> Publication | None:
    """What an index's `_meta` says; None of an index that is not this alias'."""
    facts = mappings.get("_meta", {}).get(OWNER)
    if not isinstance(facts, dict) or facts.get("alias") != alias:
        return None
    created = datetime.datetime.fromisoformat(facts["created_at"])
    return Publication(index, facts["run_id"], created, facts["whole"], facts["previous"])


def outdated(
    known: Mapping[str, Publication], current: str, *, keep: int, now: datetime.datetime
) -> tuple[str, ...]:
    """Indices that nobody needs: whole ones but the `keep` served last before `current`, abandoned half-made ones."""
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
    """Remove what an earlier publish of the run left, which is not served: half-made, or rolled back from."""
    with explained(cluster):
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


def _check_served(cluster: Cluster, index: str, documents: Iterable[Document], *, count: int) -> None:
    sample = Sample()
    for _ in sample.through(documents):
        pass
    try:
        verify(cluster, index, count=count, sample=sample.documents)
    except WriteError as error:
        remedy = "roll back with --rollback, then publish the run again"
        raise WriteError(f"the run is served already, but was changed since: {error}; {remedy}") from None


def _swap(
    cluster: Cluster, alias: str, current: Publication | None, index: str, *, facts: dict[str, Any]
) -> None:
    """Mark the index as whole, then move the alias; an index that is not served after all is removed."""
    actions = swap_actions(alias, current.index if current else "", index)
    try:
        cluster.client.indices.put_mapping(index=index, meta={OWNER: {**facts, "whole": True}})
        cluster.client.indices.update_aliases(actions=actions)
    except ApiError as error:
        remove(cluster, index)
        raise WriteError(f"the alias {alias} stays where it is: {explain(error, cluster)}") from None
    except TransportError as error:  # it may have moved or not: nothing may be removed now
        remedy = f"see where it is with GET _alias/{alias}, and publish again"
        raise WriteError(
            f"not known whether {alias} moved to {index}: {explain(error, cluster)}; {remedy}"
        ) from None


def _prune(cluster: Cluster, alias: str, index: str, *, keep: int) -> tuple[str, ...]:
    """Remove old indices; that one cannot be removed does not make the publish fail."""
    try:
        known = publications(cluster, alias)
    except (ApiError, TransportError):
        return ()
    old = outdated(known, index, keep=keep, now=datetime.datetime.now(datetime.UTC))
    return tuple(name for name in old if remove(cluster, name))


def _published(
    manifest: Manifest, alias: str, index: str, queries: int, previous: str, *,
    swapped: bool, removed: tuple[str, ...], started: float,
) -> Published:  # fmt: skip
    seconds = round(time.monotonic() - started, 3)
    return Published(
        alias, index, manifest.run_id, manifest.run_date, queries, previous, swapped, removed, seconds
    )
