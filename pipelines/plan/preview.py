"""What a night that was reranked already would still do, without doing it: nothing is written or locked."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pipelines.nightly.models import Loader
from pipelines.plan import done
from pipelines.plan.context import Context
from pipelines.plan.run import chosen, message, no_run, run_result
from pipelines.plan.steps import NAMES, STEPS, Step, key
from pipelines.storage.plan_records import read_plan
from rerank_core.config.night import Config
from schemas.errors import NightrankError
from schemas.manifest import Manifest
from schemas.outcome import StepRecord


class Preview(NamedTuple):
    """One step of a night that would be started again."""

    name: str
    would: Literal["be done", "be skipped", "fail"]
    why: str


@dataclasses.dataclass(frozen=True)
class Again:
    """A night whose run is there: from the same inputs, unless steps were named, which are done whatever changed."""

    run_date: str
    run_id: str
    held: bool
    steps: tuple[Preview, ...]  # after reranking; of a night that is held, those that were named


def preview(
    config: Config,
    *,
    run_date: datetime.date,
    beam_flags: Sequence[str] = (),
    load: Loader | None = None,
    set_latest: bool = False,
    from_step: str = "",
    only: str = "",
) -> Again | None:
    """What a night that is published or held would do if it were started again; None: it would be reranked.

    Args:
        as `pipelines.plan.run.run_plan` takes them.

    Raises:
        OutputError, ManifestError: the output folder cannot be read.
        ConfigError: there is no such step, or no run for it.
    """
    names = chosen(from_step, only)
    context = Context(config, run_date, read_plan(config.output.path, run_date.isoformat()))
    context.beam_flags, context.load, context.set_latest, context.only = beam_flags, load, set_latest, only
    if from_step or only:
        return _forced(context, names)
    run = done.published_run(context)
    if run and done.is_complete(context, run) and done.has_same_inputs(context, run):
        _take(context, run)
        return Again(run.run_date, run.run_id, False, tuple(_steps(context, names)))
    held = done.held_run(context)
    if held and done.has_same_inputs(context, held):
        return Again(held.run_date, held.run_id, True, ())
    return None


def _forced(context: Context, names: tuple[str, ...]) -> Again | None:
    """As `preview`, of steps that are done whatever was done before."""
    if "rerank" in names:
        return None
    run, held = done.run_of_later_steps(context)
    if run is None:
        raise no_run(context, names)
    if held:
        context.manifest = run
    else:
        _take(context, run)
    context.forced = frozenset(names)
    return Again(run.run_date, run.run_id, held, tuple(_steps(context, names)))


def _take(context: Context, run: Manifest) -> None:
    """Let the context be about a run, recorded as reranked."""
    recorded, context.manifest = context.record.step("rerank"), run
    if not recorded or (recorded.state, recorded.result.get("run_id")) != ("done", run.run_id):
        result = run_result(run)
        context.put(StepRecord("rerank", "done", "", run.inputs, run.created_at, run.seconds, result), NAMES)


def _steps(context: Context, names: tuple[str, ...]) -> Iterator[Preview]:
    again = set[str]()
    for step in (one for one in STEPS if one.name in names):
        try:
            found = _step(step, context, again)
        except (NightrankError, OSError) as error:
            found = Preview(step.name, "fail", message(error))
        if found.would == "be done":
            again.add(step.name)
        yield found


def _step(step: Step, context: Context, again: set[str]) -> Preview:
    if step.needs in again:
        return Preview(step.name, "be done", f"after {step.needs}")
    needed, before = context.record.step(step.needs), context.record.step(step.name)
    if step.needs and not (needed and needed.state == "done"):
        return Preview(step.name, "be skipped", f"{step.needs} was not done")
    if why := step.why_not(context):
        return Preview(step.name, "be skipped", why)
    if step.name in context.forced:
        return Preview(step.name, "be done", "whatever was done before")
    if not before or before.state != "done":
        return Preview(step.name, "be done", f"it {before.state.replace('_', ' ')} before" if before else "")
    if step.repeated:
        return Preview(step.name, "be done", "as in every night")
    if before.key != key(step, context):
        return Preview(step.name, "be done", "its inputs changed")
    if not step.holds(context):
        return Preview(step.name, "be done", "what it did no longer holds")
    return Preview(step.name, "be skipped", f"done {before.finished_at[:16].replace('T', ' ')}")
