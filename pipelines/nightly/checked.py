"""The files of a run are read and counted by the workers, once all are written; the driver reads what they say.

A worker reports on a file by its name, size and time, or in an object store by its version. The driver lists the files
itself, and reads each of which there is no report that fits: a runner that loses a report, or a file that changed
afterwards, changes no count.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam

from pipelines.nightly.counts import Counts, count_file
from pipelines.nightly.prepare import Run
from pipelines.storage.filesystem import (
    Stamp,
    exists,
    join,
    listing,
    open_parquet,
    read_bytes,
    write_bytes,
)
from pipelines.storage.runs import is_part
from rerank_core.errors import NightError
from schemas.errors import ManifestError
from schemas.manifest import FileInfo, file_info
from schemas.tables import TABLES

REPORTS = "checked.json"
"""In the run's staging folder: the reports of its files."""


class Checked(NamedTuple):
    """What is in a file that was read whole."""

    rows: int
    info: FileInfo
    counts: Counts


Reports = dict[tuple[str, str, Stamp], Checked]
"""By table, name of the file, and the stamp that it had when it was read."""


class CheckFiles(beam.PTransform):
    """PCollection of one element, which comes when all files are written -> the reports in staging."""

    def __init__(self, run: Run):
        self._run = run

    def expand(self, written: beam.PCollection) -> beam.PCollection:
        staging = self._run.staging
        return (
            written
            | "List" >> beam.FlatMap(_list, staging)
            | "Spread" >> beam.Reshuffle()
            | "Check" >> beam.FlatMap(_report, staging)
            | "Gather" >> beam.combiners.ToList().without_defaults()
            | "Write" >> beam.Map(_write, staging)
        )


def _list(_: Any, staging: str) -> Iterator[tuple[str, str, Stamp]]:
    for table in TABLES:
        yield from ((table, name, stamp) for name, stamp in parts(staging, table).items())


def parts(staging: str, table: str) -> dict[str, Stamp]:
    """The files of a staged table."""
    listed = listing(join(staging, table), versions=True)
    return {name: stamp for name, stamp in listed.items() if is_part(name)}


def check(staging: str, table: str, name: str) -> Checked:
    """Read a staged file whole.

    Raises:
        ManifestError: it is damaged.
        NightError: it has another schema than its table.
    """
    path = join(staging, table, name)
    data = read_bytes(path)
    file = open_parquet(path, data)
    if not file.schema_arrow.equals(TABLES[table], check_metadata=False):
        raise NightError(f"{path} does not have the schema of {table}; this is a defect in Nightrank")
    return Checked(file.metadata.num_rows, file_info(data), count_file(table, path, file))


def _report(file: tuple[str, str, Stamp], staging: str) -> Iterator[list[Any]]:
    table, name, stamp = file
    with contextlib.suppress(
        ManifestError, NightError, OSError
    ):  # the driver reads it, and says what is wrong
        rows, info, counts = check(staging, table, name)
        yield [table, name, list(stamp), rows, dataclasses.asdict(info), list(counts)]


def _write(reports: Iterable[list[Any]], staging: str) -> None:
    write_bytes(join(staging, REPORTS), json.dumps(sorted(reports, key=lambda one: one[:2])).encode())


def read_reports(staging: str) -> Reports:
    """The reports of the workers; none if there are no such."""
    if not exists(path := join(staging, REPORTS)):
        return {}
    return {
        (table, name, (stamp[0], stamp[1])): Checked(rows, FileInfo(**info), _counts(counts))
        for table, name, stamp, rows, info, counts in json.loads(read_bytes(path))
    }


def _counts(counts: list[Any]) -> Counts:
    return Counts(*counts[:4], *(Counter(counter) for counter in counts[4:]))
