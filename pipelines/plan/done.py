"""Whether a night was reranked already: a published run of its date, made of the same inputs, that is whole.

The published run itself is the evidence, not the record of the plan: a night that is killed between the two is not
reranked again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

from pipelines.beam_options import beam_options
from pipelines.nightly.deadline import Deadline, once
from pipelines.nightly.prepare import inputs_fingerprint, prepare
from pipelines.plan.context import Context
from pipelines.storage import runs
from rerank_core.config.night import Config, to_dict
from schemas.errors import ManifestError, NightrankError
from schemas.manifest import Manifest

SERVING = "registry:serving"
logger = logging.getLogger(__name__)


def published_run(context: Context) -> Manifest | None:
    """The run of this date that was published last, if its files have the sizes that its manifest says."""
    try:
        found = [run for run in _published(context) if _is_whole(context.output, run)]
    except (NightrankError, OSError):
        return None
    return max(found, key=lambda run: (run.created_at, run.run_id), default=None)


def is_complete(context: Context, run: Manifest) -> bool:
    """Whether nothing was left to do after the run itself was put in its place: `latest.json` follows it."""
    try:
        newest = runs.latest(context.output)
    except NightrankError:
        return False
    if newest is None:
        return False
    return newest.run_id == run.run_id or (newest.run_date > run.run_date and not context.set_latest)


def has_same_inputs(context: Context, run: Manifest) -> bool:
    """Whether reranking now would have the inputs of a run: log, index, model, configuration.

    A source that has no fingerprints of its content has never the same inputs. The serving model of a registry is the
    one that the run had: a model that was promoted since then begins with the next night. Where the deadline leaves no
    time to compare them, the answer is yes, since there is none to rerank either: the run stays as it is.
    """
    if not run.inputs:
        return False
    config = _with_model_of(run, context.config)
    without_reuse = dataclasses.replace(config, reuse=dataclasses.replace(config.reuse, enabled=False))
    try:
        # Without reuse, so that the previous run is not read: which one it would be does not count.
        options = beam_options(context.beam_flags)
        night = once(
            Deadline(context.finish_by, rows_per_shard=0).of(0),
            lambda: prepare(without_reuse, run_date=context.run_date, options=options, load=context.load),
        )
    except NightrankError:
        return False  # the night itself says what is wrong
    if night is None:
        logger.warning("run %s stays: no time is left to see whether its inputs have changed", run.run_id)
        return True
    resolved = dataclasses.replace(night.config, reuse=config.reuse)
    now = inputs_fingerprint(resolved, night.source_record, night.models, labels=night.labels)
    return now == run.inputs


def held_run(context: Context, *, run_id: str = "") -> Manifest | None:
    """The run of this date that is held back, if the limits by which it was held are still the same.

    Args:
        run_id: take the run of this id, whatever its limits.
    """
    from pipelines.storage.held import held_runs

    try:
        found = [run for run in held_runs(context.output) if run.run_date == context.run_date.isoformat()]
    except (NightrankError, OSError):
        return None
    limits = to_dict(context.config)["drift"]
    same = [
        run for run in found if run.run_id == run_id or (not run_id and run.config.get("drift") == limits)
    ]
    return max(same, key=lambda run: (run.created_at, run.run_id), default=None)


def run_of_later_steps(context: Context) -> tuple[Manifest | None, bool]:
    """The run that the steps after reranking are about where that is not done again, and whether it is held back."""
    recorded = context.record.step("rerank")
    if recorded and recorded.state == "held":
        held = held_run(context, run_id=recorded.result.get("run_id", ""))
        if held:  # otherwise it may have been released
            return held, True
    return published_run(context), False


def _with_model_of(run: Manifest, config: Config) -> Config:
    if config.scoring.model != SERVING:
        return config
    model = f"registry:{run.model['id']}" if run.model else ""  # none served then: the bundled one
    return dataclasses.replace(config, scoring=dataclasses.replace(config.scoring, model=model))


def _published(context: Context) -> Iterator[Manifest]:
    day = context.run_date.isoformat()
    for run_date, run_id in runs.run_ids(context.output):
        if run_date == day:
            try:
                yield runs.read_manifest(context.output, run_date, run_id)
            except ManifestError:
                continue  # a damaged run is made anew


def _is_whole(output: str, run: Manifest) -> bool:
    try:
        for table in run.tables:
            runs.table_files(output, run, table)
    except ManifestError:
        return False
    return True
