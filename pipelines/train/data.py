"""The training data: published runs as files of groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.exchange.import_run import is_imported
from pipelines.storage import filesystem
from pipelines.storage import runs as stored_runs
from rerank_core.config.labels import Labels
from rerank_core.config.training import TrainingStage, split_run
from rerank_core.text import query_id
from rerank_core.training.groups import (
    COLUMNS,
    Group,
    check_version,
    hard_negative_groups,
    positive_keys,
    training_pair_groups,
    without_duplicates,
    write_groups,
)
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.parsing import parse_json

_BATCH_ROWS = 1024
Run = tuple[str, Manifest]


def find_runs(stage: TrainingStage) -> list[Run]:
    """(output folder, manifest) of each of a stage's runs, the newest first, without duplicates.

    Raises:
        ManifestError: no such run, no published run, or a run without the table.
    """
    runs: dict[tuple[str, str], Run] = {}
    for name in stage.runs:
        output, run_id = split_run(name)
        manifest = stored_runs.open_run(output, run_id)
        if stage.source not in manifest.tables:
            raise ManifestError(
                f"run {manifest.run_id} in {output} has no table {stage.source}; turn mining.enabled on for a night"
            )
        runs[output, manifest.run_id] = (output, manifest)
    return sorted(
        runs.values(), key=lambda run: (run[1].run_date, run[1].created_at, run[1].run_id), reverse=True
    )


def prepare_stage(
    stage: TrainingStage,
    path: Path,
    *,
    held_out: frozenset[str] = frozenset(),
    on_progress: Callable[[int], None] = lambda more: None,
) -> dict[str, Any]:
    """Write a stage's groups to `path` and return their record for the model card; if it exists, only read it.

    Args:
        stage: the stage whose runs to read.
        path: file of the groups.
        held_out: query_ids of the dev sets, which are not trained on.
        on_progress: called with the number of new groups.

    Raises:
        ManifestError: a run cannot be used or has no group, or no tags although the stage keeps them.
    """
    # Written last: a resumed training learns from the same groups, whatever was published since.
    record_path = path.with_suffix(".json")
    if record_path.exists():
        prepared: dict[str, Any] = parse_json(record_path.read_text(encoding="utf-8"))
        return prepared
    counts: Counter[str] = Counter()
    runs = find_runs(stage)
    write_groups(_counted(_all_groups(stage, runs, held_out, counts), on_progress), path)
    if not counts["groups"]:
        names = ", ".join(f"{manifest.run_id} in {output}" for output, manifest in runs)
        raise ManifestError(
            f"stage {stage.name!r}: no positive with a negative in {names} (left out because their queries are in a "
            f"dev set: {counts['groups_held_out']}); change [labels] or [mining] of the night, or lower dev_queries"
        )
    record: dict[str, Any] = {"name": stage.name, "source": stage.source, "counts": dict(counts)}
    record["runs"] = [_run_record(output, manifest, stage.source) for output, manifest in runs]
    filesystem.write_bytes(str(record_path), json.dumps(record).encode())
    return record


def _run_record(output: str, manifest: Manifest, table: str) -> dict[str, Any]:
    """A run for the model card, with what a later round needs to find it again."""
    return {
        "output": output,
        "run_id": manifest.run_id,
        "run_date": manifest.run_date,
        "created_at": manifest.created_at,
        "rows": manifest.tables[table].rows,
        "model_fingerprint": manifest.model_fingerprint,
        "labels": "import"
        if is_imported(manifest)
        else stored_runs.section(manifest, Labels, "labels").source,
    }


def _all_groups(
    stage: TrainingStage, runs: list[Run], held_out: frozenset[str], counts: Counter[str]
) -> Iterator[Group]:
    seen: set[bytes] = set()
    positives = labelled(stage, runs)

    def not_held_out(groups: Iterator[Group]) -> Iterator[Group]:
        for group in groups:
            if query_id(group.query) in held_out:
                counts["groups_held_out"] += 1
            else:
                yield group

    for output, manifest in runs:
        groups = not_held_out(_groups(stage, output, manifest, counts, positives))
        for group in without_duplicates(groups, seen, counts):
            if stage.tags.policy == "keep" and not all(group.tags):
                raise ManifestError(_untagged(stage, output, manifest))
            yield group


def labelled(stage: TrainingStage, runs: list[Run]) -> frozenset[bytes]:
    """Keys of the positives of all runs, as `positive_key` makes them: clicked in one night, mined in another.

    A single run needs none: its own positives are no negatives already.
    """
    columns = {"hard_negatives": ["query", "positive"]}.get(stage.source)
    return frozenset(
        key
        for output, manifest in (runs if len(runs) > 1 else ())
        for path in stored_runs.table_files(output, manifest, stage.source)
        for key in positive_keys(_batches(path, stage.source, columns))
    )


def _groups(
    stage: TrainingStage,
    output: str,
    manifest: Manifest,
    counts: Counter[str],
    positives: frozenset[bytes],
) -> Iterator[Group]:
    options: dict[str, Any] = {"negatives": stage.negatives, "counts": counts, "positives": positives}
    for path in stored_runs.table_files(output, manifest, stage.source):
        batches = _batches(path, stage.source)
        if stage.source == "hard_negatives":
            yield from hard_negative_groups(batches, **options)
        else:
            yield from training_pair_groups(batches, name=path, **options)


def _batches(path: str, table: str, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    file = filesystem.open_parquet(path)
    check_version(file.schema_arrow, table, name=path)
    yield from filesystem.read_batches(
        file, path, columns=columns or list(COLUMNS[table]), batch_size=_BATCH_ROWS
    )


def _counted(groups: Iterator[Group], on_progress: Callable[[int], None]) -> Iterator[Group]:
    for group in groups:
        on_progress(1)
        yield group


def _untagged(stage: TrainingStage, output: str, manifest: Manifest) -> str:
    problem = f"stage {stage.name!r} keeps tags, but run {manifest.run_id} in {output} "
    if stage.source == "training_pairs":
        return problem + "has training_pairs of a model that reads no tags; set source = 'hard_negatives'"
    return (
        problem + "was published without tags; turn tags.enabled on for a night, or set tags.policy = 'drop'"
    )
