"""Published rows as training groups: a query, its positive and its negatives, in memory that does not grow with a run.

Rows come in as Arrow batches, are put together group by group, and go out to one Arrow file, which is mapped and read
at random places while training. Held in memory are 16 bytes of numbers a group, and while reading its key.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rerank_core.config.training import Negatives
from rerank_core.features.render import split_tags
from rerank_core.text import fingerprint, shorten
from schemas.errors import ManifestError
from schemas.tables import TABLES, schema_version

COLUMNS = {
    "hard_negatives": (
        "query_id", "query", "positive_id", "positive", "positive_logit", "positive_tags", "negative_id", "negative",
        "negative_logit", "negative_tags", "negative_rank", "negative_rank_before", "margin", "kept_by",
    ),
    "training_pairs": ("query", "passage", "label"),
}  # fmt: skip
"""What is read of each table."""

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
    tags: tuple[str, ...]  # rendered, one a passage; "" without
    logits: tuple[float, ...]  # as the run was published with; () in training_pairs
    margin: float  # the least by which the positive's score exceeds a negative's; 0 in training_pairs
    rank_before: int  # the best place of a negative in BM25's order; 0 in training_pairs


class Facts(NamedTuple):
    """What is held in memory of a file of groups, an entry a group."""

    keys: np.ndarray  # uint64
    sizes: np.ndarray  # int32: passages
    margins: np.ndarray  # float32
    ranks: np.ndarray  # int32


def check_version(schema: pa.Schema, table: str, *, name: str) -> None:
    """Refuse a file of a schema version that this version of Nightrank does not know.

    Raises:
        ManifestError: naming the file, both versions and the remedy.
    """
    known = schema_version(TABLES[table])
    try:
        found = schema_version(schema)
    except ValueError as error:
        raise ManifestError(f"{name}: {error}; name the output folder of a nightly job") from None
    if found != known:
        raise ManifestError(
            f"{name} has version {found} of {table}, this Nightrank reads version {known}: "
            + ("install a newer one" if found > known else "run the night again")
        )


def hard_negative_groups(
    batches: Iterable[pa.RecordBatch], *, negatives: Negatives, counts: Counter[str]
) -> Iterator[Group]:
    """Groups of one file of `hard_negatives`, whose rows of a query and positive stand together.

    Of each kind the hardest are taken, by their place after reranking; `counts` learns of "negatives_left_out".
    """
    for (query_id, positive_id), found in itertools.groupby(
        _rows(batches), key=lambda row: (row["query_id"], row["positive_id"])
    ):
        rows = sorted(found, key=lambda row: (row["negative_rank"], row["negative_id"]))
        easy = [row for row in rows if row["kept_by"] == "easy"][: negatives.easy]
        hard = [row for row in rows if row["kept_by"] != "easy"][: negatives.hard]
        taken = [*hard, *easy]
        counts["negatives_left_out"] += len(rows) - len(taken)
        if not taken:
            counts["groups_without_negatives"] += 1
            continue
        first = rows[0]
        yield Group(
            fingerprint(query_id, positive_id)[:16],
            first["query"],
            (first["positive"], *(row["negative"] for row in taken)),
            (first["positive_tags"], *(row["negative_tags"] for row in taken)),
            (first["positive_logit"], *(row["negative_logit"] for row in taken)),
            min(row["margin"] for row in taken),
            min(row["negative_rank_before"] for row in taken),
        )


def training_pair_groups(
    batches: Iterable[pa.RecordBatch], *, negatives: Negatives, counts: Counter[str], name: str
) -> Iterator[Group]:
    """Groups of one file of `training_pairs`, where a positive stands before its negatives, hardest first.

    The table does not tell hard negatives from easy ones: the first `hard + easy` are taken.

    Raises:
        ManifestError: the file begins with a negative.
    """
    positive: dict[str, Any] | None = None
    taken: list[dict[str, Any]] = []
    for row in itertools.chain(_rows(batches), [None]):
        if row is not None and row["label"] < 0.5:
            if positive is None:
                raise ManifestError(
                    f"{name} begins with a negative of {shorten(row['query'])!r}; publish the run anew"
                )
            if len(taken) < negatives.hard + negatives.easy:
                taken.append(row)
            else:
                counts["negatives_left_out"] += 1
            continue
        if positive is not None and taken:
            yield _pair_group(positive, taken)
        elif positive is not None:
            counts["groups_without_negatives"] += 1
        positive, taken = row, []


def write_groups(groups: Iterable[Group], path: Path) -> Facts:
    """Write groups to an Arrow file, which appears under its name once it is whole."""
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
    """Groups of an Arrow file by their number. Mapped, so that only what is asked for is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))

    def __reduce__(self) -> Any:
        return GroupFile, (self._path,)  # a process of a data loader maps the file itself

    def __getitem__(self, number: int) -> Group:
        chunk = self._reader.get_batch(number // _CHUNK)
        (row,) = chunk.slice(number % _CHUNK, 1).to_pylist()
        row |= {name: tuple(row[name]) for name in ("passages", "tags", "logits")}
        return Group(**row)

    def facts(self) -> Facts:
        """The numbers of all groups, in one pass."""
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
    """Groups whose key was not seen before; the others are counted, since a newer run knows them already."""
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
