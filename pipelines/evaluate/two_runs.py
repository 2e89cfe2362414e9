"""Two runs of an output folder side by side: how they were made, what they count and measure, and how lists changed.

The lists of every query that both have are compared, in memory that does not grow with their number: the ranks are
first sorted into temporary files by query id, each small enough to be read whole.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage.filesystem import read_table
from pipelines.storage.runs import table_files
from rerank_core.drift.ranks import overlap_at, rank_correlation
from schemas.errors import ManifestError
from schemas.manifest import Manifest

DEPTH = 10
ROWS_AT_ONCE, MOST_PARTS = 300_000, 256
COLUMNS = ["query_id", "passage_id", "rank"]
_TYPES = pa.schema([("query_id", pa.string()), ("passage_id", pa.string()), ("rank", pa.int32())])
Lists = dict[str, list[str]]


class Moved(NamedTuple):
    """A query whose list changed."""

    query_id: str
    query: str
    overlap_at_10: float
    rank_correlation: float | None
    before: list[str]  # the first passages
    after: list[str]


class Difference(NamedTuple):
    """Two runs; (one, other) are the values of each."""

    run_ids: tuple[str, str]
    config: dict[str, tuple[Any, Any]]  # by key; None where a run does not have it
    models: dict[str, tuple[Any, Any]]
    counts: dict[str, tuple[int, int]]
    tables: dict[str, tuple[int, int]]  # rows
    measures: dict[str, tuple[float | None, float | None]]
    queries: dict[str, int]  # common, added, removed, unchanged: with the same first ten in the same order
    overlap_at_10: float | None  # mean over the common queries
    rank_correlation: float | None  # mean over those with two common passages
    moved: list[Moved]  # the farthest first


def compare_runs(output: str, one: Manifest, other: Manifest, *, top: int = 10) -> Difference:
    """Compare two runs, published or held.

    Args:
        one: the earlier one, by which "added" and "removed" are meant.
        top: how many of the queries that moved most are listed.

    Raises:
        ManifestError: a file of a run is damaged.
    """
    lists = _compare_lists(output, one, other, top=top)
    return Difference(
        (one.run_id, other.run_id),
        _pairs(_flat(one.config), _flat(other.config), changed=True),
        _pairs(_models(one), _models(other), changed=True),
        _pairs(_counts(one), _counts(other)),
        _pairs(_rows(one), _rows(other)),
        _pairs(_measures(one), _measures(other)),
        *lists,
    )


# --- from the manifests


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any], *, changed: bool = False) -> dict[str, Any]:
    keys = dict.fromkeys([*one, *other])
    pairs = {key: (one.get(key), other.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if not changed or pair[0] != pair[1]}


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A configuration by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def _models(manifest: Manifest) -> dict[str, Any]:
    names = ("model_fingerprint", "tagger_fingerprint", "model", "calibration", "fusion", "nightrank_version")
    return {name: getattr(manifest, name) for name in names}


def _counts(manifest: Manifest) -> dict[str, int]:
    balance = manifest.balance
    units = {"events": balance.events, "queries": balance.queries, "pairs": balance.pairs}
    counts = {f"{unit} {name}": count for unit, by_name in units.items() for name, count in by_name.items()}
    return counts | {f"dead letters {reason}": count for reason, count in manifest.rejected.items()}


def _rows(manifest: Manifest) -> dict[str, int]:
    return {name: info.rows for name, info in manifest.tables.items()}


def _measures(manifest: Manifest) -> dict[str, float]:
    return {
        f"{level} {name}": value
        for level, by_name in manifest.metrics.items()
        for name, value in by_name.items()
    }


# --- from the lists


def _compare_lists(
    output: str, one: Manifest, other: Manifest, *, top: int
) -> tuple[dict[str, int], float | None, float | None, list[Moved]]:
    queries = dict.fromkeys(("common", "added", "removed", "unchanged"), 0)
    overlaps, correlations = _Mean(), _Mean()
    farthest: list[tuple[float, float, str, Moved]] = []
    for before, after in _by_parts(output, one, other):
        queries["added"] += len(after.keys() - before.keys())
        queries["removed"] += len(before.keys() - after.keys())
        for query_id in before.keys() & after.keys():
            old, new = before[query_id], after[query_id]
            overlap, correlation = overlap_at(old, new, DEPTH), rank_correlation(old, new)
            queries["common"] += 1
            overlaps.add(overlap)
            if correlation is not None:
                correlations.add(correlation)
            if old[:DEPTH] == new[:DEPTH]:
                queries["unchanged"] += 1
                continue
            # A heap of those that differ most: the least different of them is the first, and is replaced.
            key = (-overlap, -(1 if correlation is None else correlation))
            moved = Moved(query_id, "", overlap, correlation, old[:DEPTH], new[:DEPTH])
            entry = (*key, query_id, moved)
            if len(farthest) < top:
                heapq.heappush(farthest, entry)
            elif top and entry > farthest[0]:
                heapq.heapreplace(farthest, entry)
    found = [moved for *_, moved in sorted(farthest, key=lambda entry: (-entry[0], -entry[1], entry[2]))]
    texts = _texts(output, other, [moved.query_id for moved in found])
    named = [moved._replace(query=texts[moved.query_id]) for moved in found]
    return queries, overlaps.value, correlations.value, named


class _Mean:
    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        self._sum, self._count = self._sum + value, self._count + 1

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


def _by_parts(output: str, one: Manifest, other: Manifest) -> Iterator[tuple[Lists, Lists]]:
    """The lists of both runs, one range of query ids after the other."""
    rows = max(manifest.tables["reranked"].rows for manifest in (one, other))
    total = min(MOST_PARTS, max(1, -(-rows // ROWS_AT_ONCE)))
    with tempfile.TemporaryDirectory(prefix="nightrank-diff-") as folder:
        for name, manifest in (("one", one), ("other", other)):
            _partition(output, manifest, Path(folder, name), total)
        for number in range(total):
            yield _lists(Path(folder, "one", str(number))), _lists(Path(folder, "other", str(number)))


def _partition(output: str, manifest: Manifest, folder: Path, total: int) -> None:
    """Write the ranks of a run into `total` files by ranges of query ids, which are hashes: about equally many each."""
    folder.mkdir()
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.OSFile(str(folder / str(number)), "wb")) for number in range(total)]
        streams = [stack.enter_context(pa.ipc.new_stream(writer, _TYPES)) for writer in writers]
        for path in table_files(output, manifest, "reranked"):
            table = read_table(path, COLUMNS).select(COLUMNS).cast(_TYPES)
            numbers = _part_numbers(table["query_id"].to_pylist(), total, path)
            for number in pc.unique(numbers).to_pylist():
                streams[number].write_table(table.filter(pc.equal(numbers, number)))


def _part_numbers(query_ids: list[str], total: int, path: str) -> pa.Array:
    try:
        return pa.array([int(query_id[:8], 16) * total >> 32 for query_id in query_ids], pa.int64())
    except ValueError:
        raise ManifestError(f"{path} is damaged: it has a query_id that is no hash") from None


def _lists(path: Path) -> Lists:
    with pa.OSFile(str(path)) as file:
        table = (
            pa.ipc.open_stream(file).read_all().sort_by([("query_id", "ascending"), ("rank", "ascending")])
        )
    rows = zip(table["query_id"].to_pylist(), table["passage_id"].to_pylist(), strict=True)
    return {
        query_id: [passage_id for _, passage_id in group]
        for query_id, group in itertools.groupby(rows, key=lambda row: row[0])
    }


def _texts(output: str, manifest: Manifest, query_ids: list[str]) -> dict[str, str]:
    """Texts of some queries of a run."""
    wanted, texts = pa.array(query_ids, pa.string()), dict[str, str]()
    for path in table_files(output, manifest, "reranked") if query_ids else ():
        table = read_table(path, ["query_id", "query"])
        found = table.filter(pc.is_in(table["query_id"], wanted))
        texts.update(zip(found["query_id"].to_pylist(), found["query"].to_pylist(), strict=True))
    return texts
