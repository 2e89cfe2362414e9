"""The previous run as a cache: which run to reuse, and its scores by query.

With a deadline it also has the lists that tonight's queries keep if they are not reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.nightly.facts import BY_KEY, StoredFacts
from pipelines.nightly.shards import Earlier
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.config.night import Config
from rerank_core.scoring.reuse import PreviousScore, pack
from schemas.errors import ManifestError, Unanswered
from schemas.manifest import Manifest
from schemas.records import Evidence

STALE = "stale_since"
COLUMNS = ["query_id", "input_fingerprint", "logit", "overflow_tokens"]
EVIDENCE = ["evidence_sentences", "evidence_logit"]
FIRST_STAGE = ["cheap_score"]

LISTS_VERSIONS = (5, 6)
"""Schema versions of `reranked` whose rows can be copied into tonight's files: 5 lacks a column that may be null."""


class Lists(NamedTuple):
    """The lists that are in service; of a night for an earlier date, those that its date or an earlier one made."""

    run_id: str = ""  # "": none
    run_date: str = ""
    files: tuple[str, ...] = ()  # of `reranked`


class Previous(NamedTuple):
    """The newest published run, as far as this night can reuse it."""

    run_id: str | None  # None: nothing is reused
    files: tuple[str, ...] = ()
    facts: StoredFacts = StoredFacts()  # of its passages, if its recogniser was the same
    evidence: bool = False  # its evidence was chosen with the same options and calibration
    first_stage: bool = False  # its first-stage scores are of the same model
    problem: str | None = None  # why a published run is not reused; shown in the manifest
    lists: Lists = Lists()  # whatever its model; only with a deadline


def find_previous(
    config: Config,
    model_fingerprint: str,
    *,
    facts_fingerprint: str | None,
    first_stage_fingerprint: str = "",
    calibration_record: dict[str, Any] | None = None,
    lists_until: str = "",
    every_byte: bool = False,
) -> Previous:
    """The newest published run, if it is undamaged and was made with the same models.

    Scores are reused of a later date, too: they are the same by their inputs' fingerprints. A list is of its date, so a
    night for an earlier date keeps none of a later one. A damaged run is no error: everything is computed anew, and
    the manifest says why.

    Args:
        lists_until: lists are needed too, for queries that are not reached, of a run of at most this date, YYYY-MM-DD.
        every_byte: read the run's files whole in an object store, too.

    Raises:
        Unanswered: a file of it could not be read, and may be whole.
    """
    if not (config.reuse.enabled or lists_until):
        return Previous(None)
    output = config.output.path
    try:
        manifest = stored_runs.latest(output)
        if manifest is None:
            return Previous(None)
        found = Previous(None)
        if config.reuse.enabled:
            found = _reusable(
                config,
                manifest,
                model_fingerprint,
                facts_fingerprint=facts_fingerprint,
                first_stage_fingerprint=first_stage_fingerprint,
                calibration_record=calibration_record,
                every_byte=every_byte,
            )
        if lists_until and (kept := _newest_until(output, manifest, lists_until)):
            found = _with_lists(found, output, kept, every_byte=every_byte)
        return found
    except Unanswered:  # it may be whole: another try may reuse it
        raise
    except ManifestError as error:
        return Previous(None, problem=str(error))


def _newest_until(output: str, newest: Manifest, run_date: str) -> Manifest | None:
    """The run whose lists may be kept on a date: the newest one, or of the last date before, the one published last."""
    if newest.run_date <= run_date:
        return newest
    dates = [run for run in stored_runs.run_ids(output) if run[0] <= run_date]
    manifests = [stored_runs.read_manifest(output, *run) for run in dates if run[0] == dates[-1][0]]
    return max(manifests, key=lambda manifest: (manifest.created_at, manifest.run_id), default=None)


def _reusable(
    config: Config,
    manifest: Manifest,
    model_fingerprint: str,
    *,
    facts_fingerprint: str | None,
    first_stage_fingerprint: str,
    calibration_record: dict[str, Any] | None,
    every_byte: bool,
) -> Previous:
    output, facts = config.output.path, StoredFacts()
    if facts_fingerprint is not None and manifest.facts_fingerprint == facts_fingerprint:
        files = _whole_files(output, manifest, "passage_tags", every_byte=every_byte)
        facts = StoredFacts(files, manifest.tables["passage_tags"].schema_version >= BY_KEY)
    if manifest.model_fingerprint != model_fingerprint:
        problem = f"run {manifest.run_id} was scored by another model, so its scores are not reused"
        return Previous(None, facts=facts, problem=problem)
    evidence = manifest.config.get("evidence", {})
    first_stage = (manifest.cascade or manifest.fusion or {}).get("cheap_fingerprint")
    return Previous(
        manifest.run_id,
        _whole_files(output, manifest, "reranked", every_byte=every_byte),
        facts,
        evidence=evidence.get("keep_share") == config.evidence.keep_share
        and manifest.calibration == calibration_record,
        first_stage=bool(first_stage_fingerprint) and first_stage == first_stage_fingerprint,
    )


def _with_lists(found: Previous, output: str, manifest: Manifest, *, every_byte: bool) -> Previous:
    """With the files of a run's lists; `problem` says why it has none that can be kept."""
    version = manifest.tables["reranked"].schema_version if "reranked" in manifest.tables else 0
    if version not in LISTS_VERSIONS:
        problem = (
            f"the lists of run {manifest.run_id} have version {version} of `reranked`, and none can be kept"
        )
        return found._replace(problem="; ".join(filter(None, (found.problem, problem))))
    same = found.run_id == manifest.run_id
    files = found.files if same else _whole_files(output, manifest, "reranked", every_byte=every_byte)
    return found._replace(lists=Lists(manifest.run_id, manifest.run_date, files))


def _whole_files(output: str, manifest: Manifest, table: str, *, every_byte: bool) -> tuple[str, ...]:
    """Files of a table that are as published: a worker that met a damaged page would end the night's first try."""
    return tuple(stored_runs.check_to_read(output, manifest, table, every_byte=every_byte))


class ReadPreviousScores(beam.PTransform):
    """PBegin -> PCollection[(query_id, Earlier)] from the files of published `reranked` tables.

    A file that has both scores and lists is read once.
    """

    def __init__(self, previous: Previous):
        numbers = {path: number for number, path in enumerate(previous.lists.files)}
        scored = dict.fromkeys(previous.files, tuple(score_columns(previous)))
        columns = dict.fromkeys(previous.lists.files, ("query_id",)) | scored
        self._files = [(numbers.get(path, -1), path, columns[path]) for path in columns]

    def expand(self, begin: beam.Pipeline) -> beam.PCollection:
        files = begin | beam.Create(self._files, reshuffle=False) | beam.Reshuffle()
        return files | beam.FlatMapTuple(_read_earlier)


def score_columns(previous: Previous) -> list[str]:
    """The columns of `reranked` of which a night reuses what the previous run scored."""
    return COLUMNS + (EVIDENCE if previous.evidence else []) + (FIRST_STAGE if previous.first_stage else [])


def _read_earlier(number: int, path: str, columns: Sequence[str]) -> Iterator[tuple[str, Earlier]]:
    for query_id, scores in read_scores(path, columns):
        yield query_id, Earlier(scores, number)


def read_scores(path: str, columns: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """One (query_id, packed scores) for each run of rows with the same query; a published file is sorted by query.

    Of a stale list only the logits are read, which its inputs' fingerprints vouch for: its evidence and its first-stage
    scores may be of other options and models than its run's.

    Args:
        columns: some of `reranked`; with query_id alone, there are no scores.

    Raises:
        ManifestError: the file was damaged after the night began.
    """
    file = filesystem.open_parquet(path)
    if len(columns) > 1 and STALE in file.schema_arrow.names:  # version 5 has no such column
        columns = (*columns, STALE)
    for batch in filesystem.read_batches(file, path, columns=list(columns)):
        yield from _by_query(batch)


def _by_query(batch: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
    runs = pc.run_end_encode(batch.column("query_id"))
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    scored = len(columns) > 1
    start = 0
    for query_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        span = range(start, end) if scored else ()
        rows_of_query = ({name: column[n] for name, column in columns.items()} for n in span)
        yield query_id, pack((row["input_fingerprint"], _previous_score(row)) for row in rows_of_query)
        start = end


def _previous_score(row: dict[str, Any]) -> PreviousScore:
    if row.get(STALE):
        return PreviousScore(row["logit"], row["overflow_tokens"])
    sentences = row.get("evidence_sentences")
    evidence = Evidence(tuple(sentences), row["evidence_logit"]) if sentences else None
    return PreviousScore(row["logit"], row["overflow_tokens"], evidence, row.get("cheap_score"))
