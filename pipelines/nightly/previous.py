"""Last night's output as tonight's cache: which run to reuse, its scores by query, and its passages' facts."""

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
from rerank_core.text import shorten
from schemas.errors import ManifestError
from schemas.records import Evidence, PassageFacts

COLUMNS = ["query_id", "input_fingerprint", "logit", "overflow_tokens"]
EVIDENCE = ["evidence_sentences", "evidence_logit"]
CHEAP = ["cheap_score"]
FACTS = ["passage_key", "mentions", "words", "role", "causal"]


class Previous(NamedTuple):
    """The newest published run, as far as tonight can use it."""

    run_id: str | None  # None: nothing is reused
    files: tuple[str, ...] = ()
    facts_files: tuple[str, ...] = ()  # of `passage_tags`, where the same recogniser read the passages
    evidence: bool = False  # its evidence was chosen as tonight's is
    cheap: bool = False  # its cheap scores are those of tonight's cheap model
    problem: str | None = None  # why a run that is there is not used; shown in the manifest


def find_previous(
    config: Config,
    model_fingerprint: str,
    *,
    facts_fingerprint: str | None,
    cheap_fingerprint: str = "",
    calibrated: dict[str, Any] | None = None,
) -> Previous:
    """The run whose scores and facts tonight may reuse: the newest one, if it is whole and of the same models.

    A damaged run costs time, not truth: the night works afresh, and says so.
    """
    if not config.reuse.enabled:
        return Previous(None)
    try:
        manifest = stored_runs.latest(config.output.path)
        if manifest is None:
            return Previous(None)
        same_facts = facts_fingerprint is not None and manifest.facts_fingerprint == facts_fingerprint
        facts = stored_runs.table_files(config.output.path, manifest, "passage_tags") if same_facts else []
        if manifest.model_fingerprint != model_fingerprint:
            problem = f"run {manifest.run_id} was scored by another model: nothing to reuse"
            return Previous(None, facts_files=tuple(facts), problem=problem)
        files = stored_runs.table_files(config.output.path, manifest, "reranked")
    except ManifestError as error:
        return Previous(None, problem=str(error))
    chosen: dict[str, Any] = manifest.config.get("evidence", {})
    cheap = (manifest.cascade or manifest.fusion or {}).get("cheap_fingerprint")
    return Previous(
        manifest.run_id,
        tuple(files),
        tuple(facts),
        evidence=chosen.get("keep_share") == config.evidence.keep_share
        and manifest.calibration == calibrated,
        cheap=bool(cheap_fingerprint) and cheap == cheap_fingerprint,
    )


class ReadPreviousScores(beam.PTransform):
    """PBegin -> PCollection[(query_id, packed scores)] of the files of a published `reranked` table."""

    def __init__(self, previous: Previous):
        self._files = previous.files
        self._columns = COLUMNS + (EVIDENCE if previous.evidence else []) + (CHEAP if previous.cheap else [])

    def expand(self, begin: beam.Pipeline) -> beam.PCollection:
        files = begin | beam.Create(self._files, reshuffle=False) | beam.Reshuffle()
        return files | beam.FlatMap(read_scores, self._columns)


def read_scores(path: str, columns: list[str]) -> Iterator[tuple[str, bytes]]:
    """One (query_id, packed scores) for each run of rows of one query; a published file is sorted by query.

    Raises:
        ManifestError: the file's pages are not what was written. Its footer was whole when the night started.
    """
    file = filesystem.open_parquet(path)
    try:
        for batch in file.iter_batches(columns=columns, batch_size=50_000, use_threads=False):
            yield from _by_query(batch)
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(
            f"{path} of the run to reuse is damaged: {shorten(str(error))}; set reuse.enabled = false for one night"
        ) from None


def _by_query(batch: pa.RecordBatch) -> Iterator[tuple[str, bytes]]:
    runs = pc.run_end_encode(batch.column("query_id"))
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    start = 0
    for query_id, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        known = ({name: column[place] for name, column in columns.items()} for place in range(start, end))
        yield query_id, pack((row["input_fingerprint"], _previous_score(row)) for row in known)
        start = end


def _previous_score(row: dict[str, Any]) -> PreviousScore:
    evidence = (
        Evidence(tuple(row["evidence_sentences"]), row["evidence_logit"])
        if row.get("evidence_sentences")
        else None
    )
    return PreviousScore(row["logit"], row["overflow_tokens"], evidence, row.get("cheap_score"))


def read_facts(files: Iterable[str], wanted: set[str]) -> dict[str, PassageFacts]:
    """The facts of the wanted passages, as far as files of `passage_tags` hold them.

    Read through for every shard, since a passage may stand in any of them: a million rows take a second and no
    memory, and need no server that keeps them.

    Raises:
        ManifestError: a file's pages are not what was written.
    """
    keys = pa.array(sorted(wanted), pa.string())
    found: dict[str, PassageFacts] = {}
    for path in files:
        file = filesystem.open_parquet(path)
        try:
            for batch in file.iter_batches(columns=FACTS, batch_size=50_000, use_threads=False):
                found.update(
                    rows.read_passage_tags(batch.filter(pc.is_in(batch.column("passage_key"), keys)))
                )
        except (OSError, ValueError, KeyError) as error:
            raise ManifestError(
                f"{path} of the run to reuse is damaged: {shorten(str(error))}; set reuse.enabled = false for one night"
            ) from None
    return found
