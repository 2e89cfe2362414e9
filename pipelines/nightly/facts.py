"""The facts of passages that an earlier run published, looked up by key in its table `passage_tags`.

Keys are hashes, so equal ranges of keys hold about equally many passages: file k of n holds the keys from k/n to
(k+1)/n of all, sorted, each once. A look-up opens the files of its keys, and reads the row groups that may hold some.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.storage.parquet import damage, open_parquet
from rerank_core import rows
from schemas.layout import file_of_id
from schemas.records import PassageFacts

BY_KEY = 3
"""From this version of `passage_tags` on, a file holds a range of keys."""

COLUMNS = ["passage_key", "mentions", "words", "role", "causal"]


def file_of_key(key: str, total: int) -> int:
    """Number of the file that holds the facts of a passage."""
    return file_of_id(key[:16], total)


class StoredFacts(NamedTuple):
    """The table `passage_tags` of an earlier run."""

    files: tuple[str, ...] = ()
    by_key: bool = True  # file k of n holds the k-th range of keys; else any file may hold any key


def read_facts(stored: StoredFacts, wanted: set[str]) -> dict[str, PassageFacts]:
    """The facts of the wanted passage keys, as far as the table holds them.

    Of each file that may hold some, the row groups whose statistics say so are read.

    Raises:
        ManifestError: a file was damaged after the night began.
    """
    facts: dict[str, PassageFacts] = {}
    for path, keys in _keys_by_file(stored, sorted(wanted)):
        file = open_parquet(path)
        if groups := _groups(file.metadata, keys):
            with damage(path):
                table = file.read_row_groups(groups, columns=COLUMNS, use_threads=False)
            selected = table.filter(pc.is_in(table["passage_key"], pa.array(keys, pa.string())))
            facts.update(rows.read_passage_tags(selected))
    return facts


def _keys_by_file(stored: StoredFacts, keys: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Each file that may hold some of the sorted keys, and these."""
    if not stored.by_key:
        yield from ((path, keys) for path in stored.files)
        return
    files = {_number(path): path for path in stored.files}
    if not files:
        return
    total = next(iter(files))[1]
    for number, some in itertools.groupby(keys, lambda key: file_of_key(key, total)):
        if path := files.get((number, total)):
            yield path, list(some)


def _number(path: str) -> tuple[int, int]:
    """(k, n) of a file .../part-k-of-n.parquet."""
    _, number, _, total = path.rpartition("/")[2].removesuffix(".parquet").split("-")
    return int(number), int(total)


def _groups(metadata: pq.FileMetaData, keys: list[str]) -> list[int]:
    """The row groups that may hold one of the sorted keys; the table's keys are sorted within a file."""
    groups, at = [], 0
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(0).statistics
        if statistics is None or not statistics.has_min_max:
            groups.append(number)
            continue
        while at < len(keys) and keys[at] < statistics.min:
            at += 1
        if at < len(keys) and keys[at] <= statistics.max:
            groups.append(number)
    return groups
