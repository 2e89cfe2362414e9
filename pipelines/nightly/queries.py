"""The table `queries`, merged by the driver from what the shards staged: one row a query, sorted by its id.

Ids are hashes, so equal ranges of ids hold about equally many queries: file k of n holds the ids from k/n to (k+1)/n of
all 64-bit numbers. A reader computes the file of an id, and finds the row group by the statistics.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.nightly.prepare import Run
from pipelines.nightly.query_table import STAGED
from pipelines.nightly.sinks import file_name, write_table
from pipelines.storage.filesystem import files, join, open_parquet, read_table
from schemas.layout import first_id
from schemas.tables import QUERIES

QUERIES_PER_FILE, QUERIES_PER_GROUP = 100_000, 2_000
"""More a file: a larger footer at the first look-up. More a row group: more rows to decode at each."""
FILES_AT_ONCE = 20
"""Files of `queries` made from one reading of the staged parts: two million rows, some 500 MB."""


def merge_queries(run: Run) -> None:
    """Write `queries` into the run's staging folder.

    Raises:
        ManifestError: a staged part is damaged.
    """
    staged = files(join(run.staging, STAGED), "part-*.parquet")
    with ThreadPoolExecutor(16) as threads:
        rows = sum(threads.map(lambda path: open_parquet(path).metadata.num_rows, staged))
        total = max(1, -(-rows // QUERIES_PER_FILE))
        for first in range(0, total, FILES_AT_ONCE):
            last = min(first + FILES_AT_ONCE, total)
            low, high = first_id(first, total), first_id(last, total)
            parts = threads.map(
                lambda path, low=low, high=high: _between(read_table(path), low, high), staged
            )
            found = pa.concat_tables([QUERIES.empty_table(), *parts]).sort_by("query_id")
            for number in range(first, last):
                table = _between(found, first_id(number, total), first_id(number + 1, total))
                whole, rest = divmod(table.num_rows, QUERIES_PER_GROUP)
                sizes = [QUERIES_PER_GROUP] * whole + [rest] * bool(rest)
                write_table(run, "queries", file_name(number, total), table, row_groups=sizes)


def _between(table: pa.Table, low: str, high: str) -> pa.Table:
    ids = table["query_id"]
    return table.filter(pc.and_(pc.greater_equal(ids, low), pc.less(ids, high)))
