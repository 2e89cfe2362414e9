"""A night as one plan: its steps in their order, each skipped if it was done with the same inputs, then the alerts.

From the shell: `nightrank nightly --config FILE`. A plan that was interrupted anywhere is started again with the same
command, and goes on from what was published and from the record of its steps (pipelines.storage.plan_records).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pipelines.beam_options import beam_options
from pipelines.plan import done
from pipelines.plan.context import Context
from pipelines.plan.steps import NAMES, STEPS, Result, Step, key
from pipelines.storage.clean import clean
from pipelines.storage.lock import Lock, lock
from pipelines.storage.plan_records import read_plan, write_plan
from rerank_core.config.night import Config, require
from rerank_core.errors import ConfigError, Locked, NightHeld, is_panic, user_error
from rerank_core.redact import redact
from rerank_core.trace import span
from schemas.errors import NightrankError
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord, StepState


class Outcome(NamedTuple):
    """What became of a night."""

    record: PlanRecord
    manifest: Manifest | None  # of the run, published or held; None: there is none of this date
    ran: tuple[str, ...]  # steps that were run now; the others were done before, or not due
    failures: tuple[BaseException, ...]  # in the order of the steps; the first one decides the exit code
    unsent: tuple[str, ...]  # alerts that could not be sent, one line each


def run_plan(
    config: Config,
    *,
    run_date: datetime.date,
    from_step: str = "",
    only: str = "",
    interrupted: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda name: None,
    **options: Any,
) -> Outcome:
    """Run the steps of a night that are due and not done yet, then send its alerts.

    Args:
        config: the night's configuration.
        run_date: last day of the log's window.
        from_step: run this step and those after it, also those that were done; the steps before it are not run.
        only: run this step alone, though it was done, and write the report anew.
        interrupted: whether the process is being ended, so that nothing more may begin.
        tell: called with the name of each step after reranking, as it begins.
        options: beam_flags, load, show, set_latest and finish_by, of `pipelines.nightly.run.run`.

    Returns:
        The outcome; what failed is in it.

    Raises:
        ConfigError: no output folder, no such step, or steps that need a run of this date, of which there is none.
        Locked: another night is writing to the output folder, or has taken its lock from this one.
    """
    require(config, "output.path")
    with contextlib.suppress(ConfigError):  # which the step that needs the flags reports
        beam_options(
            options.get("beam_flags", ())
        )  # an endpoint of the store among them: the lock is there too
    names = chosen(from_step, only)
    context = Context(config, run_date, PlanRecord(run_date.isoformat()), only=only, **options)
    context.forced = frozenset(names if from_step or only else ())
    plan = _Plan(context, interrupted, tell)
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(lock(context.output, f"the night of {run_date}", shared=True))
        except Locked:
            raise  # the other night reports itself
        except (NightrankError, OSError) as error:
            plan.note("rerank", "failed", message(error))
            plan.failures.append(error)
        else:
            plan.run(names, held)
    unsent = _send_alerts(plan) if plan.ran or plan.failures else ()
    return Outcome(context.record, context.manifest, tuple(plan.ran), tuple(plan.failures), unsent)


def chosen(from_step: str, only: str) -> tuple[str, ...]:
    """The steps to look at.

    Raises:
        ConfigError: there is no such step, or both are given.
    """
    if from_step and only:
        raise ConfigError("--from-step and --only exclude each other; give one of them")
    for name in (from_step, only):
        if name and name not in NAMES:
            raise ConfigError(f"no step {name!r}; the steps are {', '.join(NAMES)}")
    if only:
        return tuple(dict.fromkeys((only, "report")))
    return NAMES[NAMES.index(from_step) :] if from_step else NAMES


def message(error: BaseException) -> str:
    """What a failure is recorded as: the error's message without secrets, or the class of a defect."""
    known = user_error(error)
    text = str(known) if known else f"a defect: {type(error).__name__}; the traceback was printed"
    return " ".join(redact(text).split())


@dataclasses.dataclass
class _Attempt:
    """A step that is being done."""

    key: str = ""
    result: Result = dataclasses.field(default_factory=dict)
    skipped: bool = False  # it was done before


class _Plan:
    """The steps of one night as they are run; `failures` and `ran` grow."""

    def __init__(
        self, context: Context, interrupted: Callable[[], bool], tell: Callable[[str], None]
    ) -> None:
        self.context, self._interrupted, self._tell = context, interrupted, tell
        self.failures: list[BaseException] = []
        self.ran: list[str] = []
        self._held: Lock | None = None

    def run(self, names: tuple[str, ...], held: Lock) -> None:
        """Run the steps of these names, under the lock."""
        self._held = held
        self.context.record = read_plan(self.context.output, self.context.run_date.isoformat())
        if "rerank" in names:
            self._rerank()
        else:
            self._find_run(names)
        for step in (one for one in STEPS if one.name in names):
            self._step(step, held)
        self._write()
        self._write_page()

    # --- the steps

    def _rerank(self) -> None:
        from pipelines.nightly import run as nightly

        context = self.context
        with self._attempt("rerank") as attempt:
            if "rerank" not in context.forced and self._was_reranked():
                attempt.skipped = True
                return
            context.manifest = manifest = nightly.run(
                context.config,
                run_date=context.run_date,
                beam_flags=context.beam_flags,
                load=context.load,
                show=context.show,
                set_latest=context.set_latest,
                finish_by=context.finish_by,
            )
            attempt.key, attempt.result = manifest.inputs, run_result(manifest)

    def _was_reranked(self) -> bool:
        """Whether a run of this date and of these inputs is published; a run that is held is raised again."""
        context = self.context
        run = done.published_run(context)
        if run and done.is_complete(context, run) and done.has_same_inputs(context, run):
            clean(context.output)  # a night that was killed may have left the tables' folders behind
            context.manifest = run
            self._note_run(run)
            return True
        held = done.held_run(context)
        if held and done.has_same_inputs(context, held):
            raise _held_again(held, context.record.step("rerank"))
        return False

    def _find_run(self, names: tuple[str, ...]) -> None:
        """The run that later steps are about, where reranking is not among the steps."""
        context = self.context
        context.manifest, held = done.run_of_later_steps(context)
        if context.manifest and not held:
            self._note_run(context.manifest)
        if context.manifest is None and context.only != "clean_up":
            raise no_run(context, names)
        needed = next(step.needs for step in STEPS if step.name == names[0])
        if context.only and (unmet := self._unmet(needed)):
            raise ConfigError(f"{context.only} cannot be run alone: {unmet}; use --from-step {needed}")

    def _note_run(self, run: Manifest) -> None:
        """Record a published run as reranked, where a night was killed before it could."""
        recorded = self.context.record.step("rerank")
        if not recorded or (recorded.state, recorded.result.get("run_id")) != ("done", run.run_id):
            self.note("rerank", "done", "", key=run.inputs, result=run_result(run), seconds=run.seconds)
            self._write()

    def _step(self, step: Step, held: Lock) -> None:
        context = self.context
        with self._attempt(step.name, optional=step.optional) as attempt:
            held.check()
            if why := self._unmet(step.needs) or step.why_not(context):
                self.note(step.name, "not_due", why)
                self._write()
                attempt.skipped = True
                return
            attempt.key, before = key(step, context), context.record.step(step.name)
            same = before is not None and (before.state, before.key) == ("done", attempt.key)
            if same and not step.repeated and step.name not in context.forced and step.holds(context):
                attempt.skipped = True
                return
            self._tell(step.name)
            attempt.result = step.run(context)

    def _unmet(self, needs: str) -> str:
        """Why a step that needs another one cannot run; "" if it can."""
        needed = self.context.record.step(needs)
        if not needs or (needed and needed.state == "done"):
            return ""
        states = {"not_due": "was not due", "held": "was held back", "failed": "failed"}
        return f"{needs} {states[needed.state] if needed else 'was not done'}"

    # --- what becomes of them

    @contextlib.contextmanager
    def _attempt(self, name: str, *, optional: bool = False) -> Iterator[_Attempt]:
        """Record how a step ends. What a person must see goes to `failures`, and the next steps go on."""
        attempt, started = _Attempt(), time.monotonic()
        state: StepState = "done"
        reason = ""
        try:
            with span(name):
                yield attempt
        except BaseException as error:
            self._raise_the_end(error)
            state, reason = ("held" if isinstance(error, NightHeld) else "failed"), message(error)
            if isinstance(error, NightHeld):
                self.context.manifest = error.manifest
                attempt.result = run_result(error.manifest) if error.manifest else {}
            if not optional:
                self.failures.append(error)
        if attempt.skipped and state == "done":
            return
        self.ran.append(name)
        seconds = round(time.monotonic() - started, 3)
        self.note(name, state, reason, key=attempt.key, result=attempt.result, seconds=seconds)
        self._write()

    def _raise_the_end(self, error: BaseException) -> None:
        """Raise what ends the plan, and not only a step: the process's end, and the loss of the lock."""
        if self._interrupted() or not (isinstance(error, Exception) or is_panic(error)):
            raise error
        if isinstance(error, Locked) and self._held:  # it may also be the lock of a training
            self._held.check()

    def note(
        self,
        name: str,
        state: StepState,
        reason: str,
        *,
        key: str = "",
        result: Result | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Put a step into the record."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        step = StepRecord(name, state, reason, key, now, seconds, result or {})
        self.context.put(step, NAMES)

    def _write(self) -> None:
        """Write the record to the output folder; if that fails, the night has failed."""
        error = self._keep(write_plan)
        if error and not self.failures:
            self.failures.append(error)

    def _write_page(self) -> None:
        """Give a night without a report a page all the same, and remove it once there is a report."""
        from pipelines.report.failed import update_failed_page

        if error := self._keep(update_failed_page):
            self.failures.append(error)

    def _keep(self, write: Callable[[str, PlanRecord], object]) -> Exception | None:
        """Write something of the record, under the lock; the error if it cannot be written."""
        assert self._held is not None
        try:
            self._held.check()
            write(self.context.output, self.context.record)
        except Locked:
            raise
        except (OSError, NightrankError) as error:
            return error
        return None


def no_run(context: Context, names: tuple[str, ...]) -> ConfigError:
    """What is wrong with steps that need a run where there is none."""
    return ConfigError(
        f"the steps {', '.join(names)} need a published run of {context.run_date}, and {context.output} has none; "
        "run the night first"
    )


def run_result(manifest: Manifest) -> Result:
    """What the record of reranking keeps of a run."""
    return {"run_id": manifest.run_id, "model": (manifest.model or {}).get("id", "")}


def _held_again(held: Manifest, recorded: StepRecord | None) -> NightHeld:
    reasons = "; ".join((held.drift or {}).get("reasons", ())) or "it differs from earlier nights"
    text = (
        recorded.reason if recorded and recorded.state == "held" else f"run {held.run_id} is held: {reasons}"
    )
    return NightHeld(text, held)


def _send_alerts(plan: _Plan) -> tuple[str, ...]:
    from pipelines.alerts.send import send

    context, problem = plan.context, message(plan.failures[0]) if plan.failures else ""
    return tuple(
        send(context.config.alerts, context.record, context.manifest, problem, output=context.output)
    )
