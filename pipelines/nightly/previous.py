"""The previous run as a cache: which run to reuse, its scores by query, and the facts of its passages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core import rows
from rerank_core.config.night import Config
from rerank_core.scoring.reuse import PreviousScore, pack
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.records import Evidence, PassageFacts

COLUMNS = ["query_id", "input_fingerprint", "logit", "overflow_tokens"]
EVIDENCE = ["evidence_sentences", "evidence_logit"]
FIRST_STAGE = ["cheap_score"]
FACTS = ["passage_key", "mentions", "words", "role", "causal"]


class Previous(NamedTuple):
    """The newest published run, as far as this night can reuse it."""

    run_id: str | None  # None: nothing is reused
    files: tuple[str, ...] = ()
    facts_files: tuple[str, ...] = ()  # of `passage_tags`, if its recogniser was the same
    evidence: bool = False  # its evidence was chosen with the same options and calibration
    first_stage: bool = False  # its first-stage scores are of the same model
    problem: str | None = None  # why a published run is not reused; shown in the manifest


def find_previous(
    config: Config,
    model_fingerprint: str,
    *,
    facts_fingerprint: str | None,
    first_stage_fingerprint: str = "",
    calibration_record: dict[str, Any] | None = None,
) -> Previous:
    """The newest published run, if it is undamaged and was made with the same models.

    A damaged run is no error: everything is computed anew, and the manifest says why.
    """
    if not config.reuse.enabled:
        return Previous(None)
    output, facts = config.output.path, tuple[str, ...]()
    try:
        manifest = stored_runs.latest(output)
        if manifest is None:
            return Previous(None)
        if facts_fingerprint is not None and manifest.facts_fingerprint == facts_fingerprint:
            facts = _whole_files(output, manifest, "passage_tags")
        if manifest.model_fingerprint != model_fingerprint:
            problem = f"run {manifest.run_id} was scored by another model, so its scores are not reused"
            return Previous(None, facts_files=facts, problem=problem)
        files = _whole_files(output, manifest, "reranked")
    except ManifestError as error:
        return Previous(None, problem=str(error))
    evidence = manifest.config.get("evidence", {})
    first_stage = (manifest.cascade or manifest.fusion or {}).get("cheap_fingerprint")
    return Previous(
        manifest.run_id,
        files,
        facts,
        evidence=evidence.get("keep_share") == config.evidence.keep_share
        and manifest.calibration == calibration_record,
        first_stage=bool(first_stage_fingerprint) and first_stage == first_stage_fingerprint,
    )


def _whole_files(output: str, manifest: Manifest, table: str) -> tuple[str, ...]:
    """Files of a table whose every byte is as published: a worker that met a damaged page would end the night."""
    stored_runs.check_run(output, manifest, tables=[table])
    return tuple(stored_runs.table_files(output, manifest, table))


class ReadPreviousScores(beam.PTransform):
    """PBegin -> PCollection[(query_id, packed scores)] from the files of a published `reranked` table."""

    def __init__(self, previous: Previous):
        self._files = previous.files
        self._columns = (
            COLUMNS + (EVIDENCE if previous.evidence else []) + (FIRST_STAGE if previous.first_stage else [])
        )

    def expand(self, begin: beam.Pipeline) -> beam.PCollection:
        files = begin | beam.Create(self._files, reshuffle=False) | beam.Reshuffle()
        return files | beam.FlatMap(read_scores, self._columns)


def read_scores(path: str, columns: list[str]) -> Iterator[tuple[str, bytes]]:
    """One (query_id, packed scores) for each run of rows with the same query; a published file is sorted by query.

    Raises:
        ManifestError: the file was damaged after the night began.
    """
    file = filesystem.open_parquet(path)
    for batch in filesystem.read_batches(file, path, columns=columns):
        yield from _by_query(batch)


def _by_query(batch: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
    runs = pc.run_end_encode(batch.column("query_id"))
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    start = 0
    for query_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        rows_of_query = ({name: column[n] for name, column in columns.items()} for n in range(start, end))
        yield query_id, pack((row["input_fingerprint"], _previous_score(row)) for row in rows_of_query)
        start = end


def _previous_score(row: dict[str, Any]) -> PreviousScore:
    sentences = row.get("evidence_sentences")
    evidence = Evidence(tuple(sentences), row["evidence_logit"]) if sentences else None
    return PreviousScore(row["logit"], row["overflow_tokens"], evidence, row.get("cheap_score"))


def read_facts(files: Iterable[str], wanted: set[str]) -> dict[str, PassageFacts]:
    """The facts of the wanted passage keys, as far as files of `passage_tags` hold them.

    All files are read for every shard, since a passage may be in any of them: a million rows take a second, and hardly
    any memory.

    Raises:
        ManifestError: a file was damaged after the night began.
    """
    keys = pa.array(sorted(wanted), pa.string())
    facts: dict[str, PassageFacts] = {}
    for path in files:
        file = filesystem.open_parquet(path)
        for batch in filesystem.read_batches(file, path, columns=FACTS):
            selected = batch.filter(pc.is_in(batch.column("passage_key"), keys))
            facts.update(rows.read_passage_tags(selected))
    return facts
