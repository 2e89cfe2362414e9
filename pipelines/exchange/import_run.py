"""Training data of other tools as a published run, which `nightrank train` reads as it reads a night.

The folder has the layout of a night's output, with `training_pairs` and, where the data has scores, `hard_negatives`.
Nothing else is claimed: there are no lists, and the manifest's source says that it was imported.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

import pipelines
from pipelines.exchange.parse import FORMATS, read
from pipelines.exchange.rows import Example, Row
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from pipelines.storage.clean import clean
from pipelines.storage.lock import lock
from pipelines.storage.publish import publish
from rerank_core.errors import ConfigError, OutputError, SourceError
from rerank_core.features.render import render
from rerank_core.text import fingerprint, query_id
from schemas.manifest import Balance, FileInfo, Manifest, TableInfo, file_info
from schemas.tables import TABLES, schema_version

KIND = "import"
"""The kind of source that an imported run's manifest names."""

_ROWS = 20_000  # of a file, which training reads as a whole


class Imported(NamedTuple):
    """What was imported."""

    output: str
    run_id: str
    counts: dict[str, int]  # examples, and rows by table


def import_files(
    files: Sequence[str], *, format: str, to: str, run_date: datetime.date, now: datetime.datetime
) -> Imported:
    """Publish training data as a run of a folder of its own.

    Args:
        files: JSON lines or Parquet, local or on an object store.
        format: one of FORMATS.
        to: output folder, new or of earlier imports.
        run_date: date of the run; training takes a newer run's examples before an older one's.
        now: the moment of publishing.

    Raises:
        ConfigError: an unknown format.
        OutputError: the folder holds nights, or cannot be written. Locked: another run writes to it.
        SourceError: a record cannot be used; the message names file, line and remedy.
    """
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} cannot be imported; choose one of {', '.join(FORMATS)}")
    _refuse_nights(to)
    sources = {path: _checksum(path) for path in files}
    run_id = f"{run_date.isoformat().replace('-', '')}-{fingerprint(format, *sources.values())[:12]}"
    with lock(to, run_id):
        clean(to)
        examples = (one for path in files for one in read(path, format))
        try:
            infos, counts = _write(examples, to, run_id, run_date.isoformat())
            publish(to, _manifest(run_id, run_date, now, infos, {"files": sources, "format": format}))
        except BaseException:
            filesystem.remove(stored_runs.staging(to, run_id))
            raise
    rows = {name: info.rows for name, info in infos.items() if info.rows}
    return Imported(to, run_id, {**counts, **rows})


def is_imported(manifest: Manifest) -> bool:
    """Whether a run was imported, and is no night."""
    return manifest.source.get("kind") == KIND


def _refuse_nights(output: str) -> None:
    newest = stored_runs.latest(output)
    if newest is not None and not is_imported(newest):
        raise OutputError(f"{output} holds nights, which readers are served; name a folder for imported runs")


def _checksum(path: str) -> str:
    try:
        return filesystem.sha256(path)
    except OSError as error:
        raise SourceError(f"cannot read {path!r}: {error.strerror or error}") from None


def _write(
    examples: Iterator[Example], output: str, run_id: str, run_date: str
) -> tuple[dict[str, TableInfo], dict[str, int]]:
    """Write the tables' files; gives what the manifest says of them, and counts."""
    first = next(examples, None)
    if first is None:
        raise SourceError("the files hold no example; give others")
    names = ["training_pairs", "hard_negatives"] if first.logits else ["training_pairs"]
    infos = {  # the others have no files, for there are no rows
        name: TableInfo(
            stored_runs.table_path(name, run_date, run_id),
            schema_version(TABLES[name]),
            0,
            dict[str, FileInfo](),
        )
        for name in TABLES
        if first.logits or name != "hard_negatives"
    }
    counts = {"examples": 0, "queries": 0}
    for part, chunk in enumerate(_chunks(itertools.chain([first], examples))):
        if any(bool(one.logits) != bool(first.logits) for one in chunk):
            raise SourceError("some records have scores and others have none; import them separately")
        counts["examples"] += len(chunk)
        counts["queries"] += len({one.query for one in chunk})
        for name in names:
            rows = [row for one in chunk for row in _ROWS_OF[name](one)]
            data = _parquet(pa.Table.from_pylist(rows, schema=TABLES[name]))
            file = f"part-{part:05d}.parquet"
            filesystem.write_bytes(filesystem.join(stored_runs.staging(output, run_id), name, file), data)
            infos[name].files[file] = file_info(data)
            infos[name] = dataclasses.replace(infos[name], rows=infos[name].rows + len(rows))
    return infos, counts


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _chunks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Examples of about _ROWS rows together, never divided within a query."""
    chunk: list[Example] = []
    size = 0
    for _, adjacent in itertools.groupby(examples, key=lambda one: one.query):
        of_query = list(adjacent)
        chunk += of_query
        size += sum(1 + len(one.negatives) for one in of_query)
        if size >= _ROWS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _pairs(one: Example) -> Iterator[Row]:
    for number, passage in enumerate((one.positive, *one.negatives)):
        rendered = render(one.query, passage)
        yield {"query": rendered.query, "passage": rendered.passage, "label": float(number == 0)}


def _negatives(one: Example) -> Iterator[Row]:
    """Rows of `hard_negatives`; ranks are by the scores, those before are the file's order."""
    ids = one.ids or tuple(fingerprint(text)[:16] for text in (one.positive, *one.negatives))
    order = sorted(range(len(one.logits)), key=lambda n: -one.logits[n])
    rank = {n: at for at, n in enumerate(order, start=1)}
    shared = {
        "query_id": query_id(one.query),
        "query": one.query,
        "positive_id": ids[0],
        "positive": one.positive,
        "positive_logit": one.logits[0],
        "label_source": KIND,
        "kept_by": KIND,
        "positive_tags": "",
        "negative_tags": "",
        "model_fingerprint": "",
    }
    for n, negative in enumerate(one.negatives, start=1):
        yield shared | {
            "negative_id": ids[n],
            "negative": negative,
            "negative_logit": one.logits[n],
            "negative_rank": rank[n],
            "negative_rank_before": n,
            "margin": one.logits[0] - one.logits[n],
        }


_ROWS_OF: dict[str, Any] = {"training_pairs": _pairs, "hard_negatives": _negatives}


def _manifest(
    run_id: str,
    run_date: datetime.date,
    now: datetime.datetime,
    infos: dict[str, TableInfo],
    source: dict[str, Any],
) -> Manifest:
    return Manifest(
        run_id=run_id,
        run_date=run_date.isoformat(),
        created_at=now.astimezone(datetime.UTC).isoformat(timespec="milliseconds"),
        nightrank_version=pipelines.__version__,
        config={},
        source={"kind": KIND, **source},
        window=None,
        previous_run_id=None,
        model_fingerprint="",
        tagger_fingerprint=None,
        stages={},
        balance=Balance({"read": 0}, {"read": 0, "published": 0}, {"read": 0, "published": 0}),  # no lists
        mining={},
        degraded={},
        rejected={},
        metrics={},
        tables=infos,
        seconds=0.0,
    )
