"""Last night's output as tonight's cache: which run to reuse, and its scores by query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import store
from rerank_core.config import Config
from rerank_core.scoring.reuse import PreviousScore, pack
from schemas.manifest import ManifestError

COLUMNS = ["query_id", "input_fingerprint", "logit", "overflow_tokens"]


class Previous(NamedTuple):
    """The newest published run, as far as tonight can use it."""

    run_id: str | None  # None: nothing is reused
    files: tuple[str, ...] = ()
    problem: str | None = None  # why a run that is there is not used; shown in the manifest


def find_previous(config: Config, model_fingerprint: str) -> Previous:
    """The run whose scores tonight may reuse: the newest one, if it is whole and of the same model.

    A damaged run costs time, not truth: the night scores afresh, and says so.
    """
    if not config.reuse.enabled:
        return Previous(None)
    try:
        manifest = store.latest(config.output.path)
        if manifest is None:
            return Previous(None)
        if manifest.model_fingerprint != model_fingerprint:
            return Previous(
                None, problem=f"run {manifest.run_id} was scored by another model: nothing to reuse"
            )
        files = store.table_files(config.output.path, manifest, "reranked")
    except ManifestError as error:
        return Previous(None, problem=str(error))
    return Previous(manifest.run_id, tuple(files))


class ReadPreviousScores(beam.PTransform):
    """PBegin -> PCollection[(query_id, packed scores)] of the files of a published `reranked` table."""

    def __init__(self, files: tuple[str, ...]):
        self._files = files

    def expand(self, begin: beam.Pipeline) -> beam.PCollection:
        files = begin | beam.Create(self._files, reshuffle=False) | beam.Reshuffle()
        return files | beam.FlatMap(read_scores)


def read_scores(path: str) -> Iterator[tuple[str, bytes]]:
    """One (query_id, packed scores) for each run of rows of one query; a published file is sorted by query.

    Raises:
        ManifestError: the file's pages are not what was written. Its footer was whole when the night started.
    """
    file = store.open_parquet(path)
    try:
        for batch in file.iter_batches(columns=COLUMNS, batch_size=50_000, use_threads=False):
            yield from _by_query(batch)
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(
            f"{path} of the run to reuse is damaged: {error}; set reuse.enabled = false for one night"
        ) from None


def _by_query(batch: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
    runs = pc.run_end_encode(batch.column("query_id"))
    columns = [batch.column(name).to_pylist() for name in COLUMNS[1:]]
    start = 0
    for query_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        rows = zip(*(column[start:end] for column in columns), strict=True)
        yield query_id, pack((key, PreviousScore(logit, overflow)) for key, logit, overflow in rows)
        start = end
