"""What a published run holds against its manifest, and the output folder against its runs: one line a finding.

Nothing is changed, and nothing locked: a run's files never change, but what is said of the tables' folders while a
night publishes may be of the moment before.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.nightly.counts import Counts, count_rows, read_part
from pipelines.nightly.verify import imbalances
from pipelines.storage.clean import newest_of_date
from pipelines.storage.filesystem import folders, is_local, join, listing, read_table, sha256
from pipelines.storage.runs import is_part, latest, run_ids, run_path
from schemas.errors import ManifestError
from schemas.manifest import FileInfo, Manifest, TableInfo
from schemas.tables import TABLES, schema_version


def check_files(output: str, manifest: Manifest) -> list[str]:
    """What is wrong with a run, published or held: its files, schemas, counts, balance; one file is read at a time."""
    found = [line for name, info in manifest.tables.items() for line in _table(output, name, info)]
    found += imbalances(manifest.balance)
    if any(name not in manifest.tables for name in ("reranked", "dead_letters")):
        return [*found, "the manifest lacks the table reranked or dead_letters"]
    try:
        folder = join(output, manifest.tables["reranked"].path.rpartition("/")[0])
        found += _counts(manifest, count_rows(folder))
        if "queries" in manifest.tables:
            found += _places(output, manifest)
    except (ManifestError, OSError):
        if not found:  # damaged since it was read above
            raise
    return found


def _table(output: str, name: str, info: TableInfo) -> Iterator[str]:
    folder = join(output, info.path)
    try:
        there = {file for file in listing(folder) if is_part(file)}
    except OSError as error:
        yield f"cannot read {folder}: {error.strerror or error}"
        return
    for file in sorted(there - info.files.keys()):
        yield f"{name}/{file}: its manifest does not name this file"
    for file in sorted(info.files.keys() - there):
        yield f"{name}/{file}: there is no such file"
    rows = 0
    for file in sorted(info.files.keys() & there):
        try:
            found, schema, written = read_part(join(folder, file))
        except ManifestError as error:
            yield str(error)
            continue
        rows += found
        if problem := _file(written, info.files[file]):
            yield f"{name}/{file}: {problem}"
        try:
            version = schema_version(schema)
        except ValueError as error:
            yield f"{name}/{file}: {error}"
            continue
        if version != info.schema_version:
            yield f"{name}/{file}: schema version {version}, where its manifest says {info.schema_version}"
        elif not _has_columns(name, schema, version):
            yield f"{name}/{file}: not the columns of version {version} of this table"
    if not there ^ info.files.keys() and rows != info.rows:
        yield f"{name}: {rows:,} rows, where its manifest says {info.rows:,}"


def _has_columns(name: str, schema: pa.Schema, version: int) -> bool:
    """Whether a file has the columns of its table; those of another version than this one's are not known."""
    known = TABLES.get(name)
    return known is None or version != schema_version(known) or schema.equals(known, check_metadata=False)


def _file(written: FileInfo, expected: FileInfo) -> str:
    if written.bytes != expected.bytes:
        return f"{written.bytes:,} bytes, where its manifest says {expected.bytes:,}"
    return "" if written == expected else "another checksum than its manifest says"


def _counts(manifest: Manifest, counts: Counts) -> Iterator[str]:
    """The manifest's counts against those of the files; what only the log or the index knew cannot be counted again."""
    events, queries, pairs = manifest.balance.events, manifest.balance.queries, manifest.balance.pairs
    for name, found, said in (
        ("queries published", counts.queries, queries.get("published", 0)),
        ("queries stale", counts.stale.total(), queries.get("stale", 0)),
        ("queries rejected", counts.rejected_units["query"], queries.get("rejected", 0)),
        ("pairs published", counts.fresh, pairs.get("published", 0)),
        ("pairs reused", counts.reused, pairs.get("reused", 0)),
        ("pairs pruned", counts.pruned, pairs.get("pruned", 0)),
        ("pairs rejected", counts.rejected_units["pair"], pairs.get("rejected", 0)),
        ("events rejected", counts.rejected_units["event"], events.get("rejected", 0)),
    ):
        if found != said:
            yield f"{name}: {found:,} in the files, where the manifest's balance says {said:,}"
    if dict(counts.rejected_reasons) != manifest.rejected:
        yield "dead letters by reason: the files hold others than the manifest says"


def _places(output: str, manifest: Manifest) -> Iterator[str]:
    """The table `queries` against `reranked`: each file has as many queries and rows as `queries` says."""
    said: Counter[tuple[str, str]] = Counter()
    for file in manifest.tables["queries"].files:
        table = read_table(join(output, manifest.tables["queries"].path, file), ["part", "rows"])
        for row in table.group_by("part").aggregate([("rows", "sum"), ("rows", "count")]).to_pylist():
            said[row["part"], "rows"] += row["rows_sum"]
            said[row["part"], "queries"] += row["rows_count"]
    parts = manifest.tables["reranked"].files
    for part in sorted({part for part, _ in said} - parts.keys()):
        yield f"queries: {part} is no file of reranked"
    for part in sorted(parts):
        ids = read_table(join(output, manifest.tables["reranked"].path, part), ["query_id"])["query_id"]
        for what, found in (("rows", len(ids)), ("queries", pc.count_distinct(ids).as_py())):
            if found != said[part, what]:
                yield f"queries: says {said[part, what]:,} {what} of reranked/{part}, which has {found:,}"


def check_folder(output: str, run_date: str = "") -> list[str]:
    """What is wrong with `latest.json`, and where a table's folder does not show the newest run of a date.

    Args:
        run_date: look at this date only; "" is every date.
    """
    by_date: dict[str, list[str]] = {}
    for date, run_id in run_ids(output):
        by_date.setdefault(date, []).append(run_id)
    found = []
    try:
        latest(output)
    except ManifestError as error:
        found.append(str(error))
    for table in () if run_date else TABLES:
        shown = folders(join(output, table), listing(join(output, table)), depth=1)
        dates = [folder for folder in shown if folder.startswith("run_date=")]
        found += [
            f"{table}/{date} is of no run" for date in dates if date.removeprefix("run_date=") not in by_date
        ]
    for date in [run_date] if run_date else by_date:
        newest = newest_of_date(output, date, by_date[date])
        found += [line for table in TABLES for line in _shown(output, table, date, newest)]
    return found


def _shown(output: str, table: str, run_date: str, run_id: str) -> Iterator[str]:
    source, place = (
        join(output, run_path(run_date, run_id), table),
        join(output, table, f"run_date={run_date}"),
    )
    own = {name: stamp for name, stamp in listing(source).items() if is_part(name)}
    there = {
        name: stamp for name, stamp in listing(place).items() if not name.rpartition("/")[2].startswith(".")
    }
    expected = {f"run_id={run_id}/{name}": stamp for name, stamp in own.items()}
    for name in sorted(expected.keys() ^ there.keys()):
        what = "has no" if name in expected else "has a"
        yield f"{table}/run_date={run_date} {what} {name}, and the newest run of the date is {run_id}"
    for name in sorted(expected.keys() & there.keys()):
        one, other = join(source, name.rpartition("/")[2]), join(place, name)
        if not _is_copy(one, other):
            yield f"{table}/run_date={run_date}/{name} is not the same as the run's own file"


def _is_copy(one: str, other: str) -> bool:
    """Whether two files are one, or have the same bytes."""
    if is_local(one) and os.path.samefile(one, other):
        return True
    return sha256(one) == sha256(other)
