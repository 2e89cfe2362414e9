"""Published rows as training groups: a query, its positive and its negatives.

Rows are read as Arrow batches, grouped one group at a time, and written to one Arrow file, which is memory-mapped and
read at random positions while training. In memory are 20 bytes per group and, while reading, its key.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rerank_core.config.training import Negatives
from rerank_core.features.render import split_tags
from rerank_core.mining.copies import Copies, text_key
from rerank_core.querylog.privacy import shown
from rerank_core.text import fingerprint, query_id
from schemas.errors import ManifestError
from schemas.tables import TABLES, schema_version

COLUMNS = {
    "hard_negatives": (
        *("query_id", "query", "positive_id", "positive", "positive_logit", "positive_tags"),
        *(
            "negative_id",
            "negative",
            "negative_logit",
            "negative_tags",
            "negative_rank",
            "negative_rank_before",
        ),
        *("margin", "kept_by"),
    ),
    "training_pairs": ("query", "passage", "label"),
}
"""Columns that are read from each table."""

GROUPS = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("query", pa.string()),
        pa.field("passages", pa.list_(pa.string())),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("logits", pa.list_(pa.float32())),
        pa.field("margin", pa.float32()),
        pa.field("rank_before", pa.int32()),
    ]
)
_CHUNK = 256


class Group(NamedTuple):
    """A query with its passages, the positive first and then the negatives, hardest first."""

    key: str  # 16 hex digits: the same for a query and positive in every run
    query: str
    passages: tuple[str, ...]
    tags: tuple[str, ...]  # rendered, one per passage; "" without tags
    logits: tuple[float, ...]  # those of the night's model; () in training_pairs
    margin: float  # least difference between the positive's score and a negative's; 0 in training_pairs
    rank_before: int  # best rank of a negative in BM25's order; 0 in training_pairs


class Facts(NamedTuple):
    """The numbers of a file of groups that are kept in memory, one entry per group."""

    keys: np.ndarray  # uint64
    sizes: np.ndarray  # int32: number of passages
    margins: np.ndarray  # float32
    ranks: np.ndarray  # int32: Group.rank_before


def check_version(schema: pa.Schema, table: str, *, name: str) -> None:
    """Refuse a file whose schema version this version of Nightrank does not read.

    Raises:
        ManifestError: naming the file, both versions and the remedy.
    """
    known = schema_version(TABLES[table])
    try:
        version = schema_version(schema)
    except ValueError as error:
        raise ManifestError(f"{name}: {error}; name the output folder of a night") from None
    if version != known:
        raise ManifestError(
            f"{name} has version {version} of {table}, this Nightrank reads version {known}: "
            + ("install a newer Nightrank" if version > known else "run the night again")
        )


def positive_key(query: str, passage: str) -> bytes:
    """What a query and a text have in common in every run, whatever the ids: 16 bytes."""
    return bytes.fromhex(fingerprint(query_id(query), text_key(passage))[:32])


def positive_keys(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """Keys of the positives in one file of either table."""
    for row in _rows(batches):
        if "positive" in row:
            yield positive_key(row["query"], row["positive"])
        elif row["label"] >= 0.5:
            yield positive_key(split_tags(row["query"])[1], row["passage"])


def hard_negative_groups(
    batches: Iterable[pa.RecordBatch],
    *,
    negatives: Negatives,
    counts: Counter[str],
    positives: Container[bytes] = frozenset(),
) -> Iterator[Group]:
    """Groups of one file of `hard_negatives`, where the rows of a query are adjacent.

    The hardest of each kind are taken, by their rank after reranking, and none that is a copy of one of the query's
    positives, in this run or, by `positives`, in another. Adds "negatives_copies", "negatives_left_out" and
    "groups_without_negatives" to `counts`.
    """
    for _, of_query in itertools.groupby(_rows(batches), key=lambda row: row["query_id"]):
        by_positive: dict[str, list[dict[str, Any]]] = {}
        for row in of_query:
            by_positive.setdefault(row["positive_id"], []).append(row)
        copies = _copies((rows[0]["positive"] for rows in by_positive.values()), negatives)
        for published in by_positive.values():
            rows = [
                row
                for row in published
                if not copies.rule("", row["negative"])
                and positive_key(row["query"], row["negative"]) not in positives
            ]
            rows.sort(key=lambda row: (row["negative_rank"], row["negative_id"]))
            easy = [row for row in rows if row["kept_by"] == "easy"][: negatives.easy]
            hard = [row for row in rows if row["kept_by"] != "easy"][: negatives.hard]
            taken = [*hard, *easy]
            counts["negatives_copies"] += len(published) - len(rows)
            counts["negatives_left_out"] += len(rows) - len(taken)
            if taken:
                yield _hard_group(rows[0], taken)
            else:
                counts["groups_without_negatives"] += 1


def training_pair_groups(
    batches: Iterable[pa.RecordBatch],
    *,
    negatives: Negatives,
    counts: Counter[str],
    name: str,
    positives: Container[bytes] = frozenset(),
) -> Iterator[Group]:
    """Groups of one file of `training_pairs`, where a positive is followed by its negatives, hardest first.

    The table does not distinguish hard from easy negatives: the first `hard + easy` are taken. Adds to `counts` as
    `hard_negative_groups` does.

    Raises:
        ManifestError: a query begins with a negative.
    """
    for query, adjacent in itertools.groupby(_rows(batches), key=lambda row: split_tags(row["query"])[1]):
        published = list(adjacent)
        if published[0]["label"] < 0.5:
            raise ManifestError(f"{name} begins with a negative of {shown(query)}; run the night again")
        copies = _copies((row["passage"] for row in published if row["label"] >= 0.5), negatives)
        rows = [
            row
            for row in published
            if row["label"] >= 0.5
            or not (copies.rule("", row["passage"]) or positive_key(query, row["passage"]) in positives)
        ]
        counts["negatives_copies"] += len(published) - len(rows)
        starts = [n for n, row in enumerate(rows) if row["label"] >= 0.5]
        for start, end in itertools.pairwise([*starts, len(rows)]):
            of_positive = rows[start + 1 : end]
            taken = of_positive[: negatives.hard + negatives.easy]
            counts["negatives_left_out"] += len(of_positive) - len(taken)
            if taken:
                yield _pair_group(rows[start], taken)
            else:
                counts["groups_without_negatives"] += 1


def _copies(positives: Iterable[str], negatives: Negatives) -> Copies:
    return Copies((("", passage) for passage in positives), near=negatives.near_copies)


def _hard_group(first: dict[str, Any], taken: Sequence[dict[str, Any]]) -> Group:
    return Group(
        fingerprint(first["query_id"], first["positive_id"])[:16],
        first["query"],
        (first["positive"], *(row["negative"] for row in taken)),
        (first["positive_tags"], *(row["negative_tags"] for row in taken)),
        (first["positive_logit"], *(row["negative_logit"] for row in taken)),
        min(row["margin"] for row in taken),
        min(row["negative_rank_before"] for row in taken),
    )


def write_groups(groups: Iterable[Group], path: Path) -> Facts:
    """Write groups to an Arrow file atomically: it appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f"_{path.name}")
    with pa.OSFile(str(building), "wb") as sink, pa.ipc.new_file(sink, GROUPS) as writer:
        iterator = iter(groups)
        while chunk := list(itertools.islice(iterator, _CHUNK)):
            writer.write_batch(
                pa.RecordBatch.from_pylist([group._asdict() for group in chunk], schema=GROUPS)
            )
    os.replace(building, path)
    return GroupFile(path).facts()


class GroupFile:
    """Groups of an Arrow file by number; memory-mapped, so that only the requested ones are read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))

    def __reduce__(self) -> Any:
        return GroupFile, (self._path,)  # each process of a data loader maps the file itself

    def __getitem__(self, number: int) -> Group:
        chunk = self._reader.get_batch(number // _CHUNK)
        (row,) = chunk.slice(number % _CHUNK, 1).to_pylist()
        row |= {name: tuple(row[name]) for name in ("passages", "tags", "logits")}
        return Group(**row)

    def facts(self) -> Facts:
        """The numbers of all groups."""
        chunks = [self._reader.get_batch(n) for n in range(self._reader.num_record_batches)]

        def column(
            name: str, kind: type, value: Any = lambda array: array.to_numpy(zero_copy_only=False)
        ) -> Any:
            parts: list[np.ndarray] = [np.asarray(value(chunk.column(name)), kind) for chunk in chunks]
            return np.concatenate([np.empty(0, kind), *parts])

        return Facts(
            column("key", np.uint64, lambda keys: [int(key, 16) for key in keys.to_pylist()]),
            column("passages", np.int32, lambda lists: np.diff(lists.offsets.to_numpy())),
            column("margin", np.float32),
            column("rank_before", np.int32),
        )


def without_duplicates(groups: Iterable[Group], seen: set[bytes], counts: Counter[str]) -> Iterator[Group]:
    """Groups whose key is not in `seen`; the others are counted as "groups_known": a newer run has them."""
    for group in groups:
        key = bytes.fromhex(group.key)
        if key in seen:
            counts["groups_known"] += 1
        else:
            seen.add(key)
            counts.update(groups=1, negatives=len(group.passages) - 1)
            yield group


def _pair_group(positive: dict[str, Any], negatives: Sequence[dict[str, Any]]) -> Group:
    rows = [positive, *negatives]
    sides = [split_tags(row["query"]) for row in rows]
    query = sides[0][1]
    return Group(
        fingerprint(query, positive["passage"])[:16],
        query,
        tuple(row["passage"] for row in rows),
        tuple(tags for tags, _ in sides),
        (),
        0.0,
        0,
    )


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    return itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
