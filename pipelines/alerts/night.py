"""How a night ended, in the words of its alerts: what happened, what readers see now, and what to do."""

from __future__ import annotations

import contextlib
import datetime
import shlex
from typing import Literal, NamedTuple

from pipelines.storage.runs import held_path, latest, run_path
from rerank_core.querylog.masks import mask
from rerank_core.redact import redact
from schemas.errors import NightrankError
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord, StepRecord

State = Literal["published", "warn", "held", "failed"]
STATES: tuple[State, ...] = ("published", "warn", "held", "failed")
LONGEST_LINE, MOST_REASONS = 600, 5


class Night(NamedTuple):
    """What alerts are made of."""

    record: PlanRecord
    manifest: Manifest | None  # of tonight's run, published or held; None: there is none
    problem: str  # the first failure's message; "": none
    output: str  # the output folder; "" if not known
    serving: Manifest | None  # what latest.json names; None: nothing, or not known
    ended: datetime.datetime

    @property
    def is_held(self) -> bool:
        """Whether tonight's run was held back."""
        rerank = self.record.step("rerank")
        return rerank is not None and rerank.state == "held"

    @property
    def run(self) -> Manifest | None:
        """Tonight's run, if reranking came to its end."""
        rerank = self.record.step("rerank")
        return None if rerank is not None and rerank.state == "failed" else self.manifest

    @property
    def state(self) -> State:
        """The worst that a person should know of."""
        if self.is_held:
            return "held"
        if self.problem or any(step.state == "failed" for step in self.record.steps):
            return "failed"
        verdict = (self.run.drift or {}).get("verdict") if self.run else None
        rejected = any(
            step.state == "held" for step in self.record.steps
        )  # such as a model that was not promoted
        return "warn" if verdict == "warn" or rejected else "published"

    @property
    def folder(self) -> str:
        """Folder of tonight's run, relative to the output folder; "" without a run."""
        if self.run is None:
            return ""
        return (held_path if self.is_held else run_path)(self.run.run_date, self.run.run_id)


def end_of_night(record: PlanRecord, manifest: Manifest | None, problem: str, *, output: str = "") -> Night:
    """A night that has just ended, with what it left in service."""
    output = output or str((manifest.config.get("output") or {}).get("path", "") if manifest else "")
    serving = None
    with contextlib.suppress(NightrankError, OSError):
        serving = latest(output) if output else None
    return Night(record, manifest, _shown(problem), output, serving, datetime.datetime.now(datetime.UTC))


def _shown(text: str) -> str:
    """An error's message as it may leave this machine: on one line, without secrets and numbers of persons."""
    text = mask(" ".join(redact(text).split()))
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."


TITLES: dict[State, str] = {
    "published": "Nightrank published the night of {}",
    "warn": "Nightrank published the night of {}, with warnings",
    "held": "Nightrank held back the night of {}",
    "failed": "Nightrank failed in the night of {}",
}


def title(night: Night) -> str:
    """One line."""
    return TITLES[night.state].format(night.record.run_date)


def happened(night: Night) -> list[str]:
    """What happened, a line each; with counts, but without any text of a query or a document."""
    lines = []
    if night.run:
        queries, gain = night.run.balance.queries, _gain(night.run)
        lines.append(f"{queries.get('published', 0):,} of {queries.get('read', 0):,} queries reranked{gain}.")
    reasons = [_shown(reason) for reason in (night.run.drift or {}).get("reasons", ())] if night.run else []
    lines += reasons[:MOST_REASONS]
    if len(reasons) > MOST_REASONS:
        lines.append(f"{len(reasons) - MOST_REASONS} more reasons are in the manifest.")
    for step in _troubled(night):
        lines.append(
            f"Step {step.name} {'was held' if step.state == 'held' else 'failed'}: {_shown(step.reason)}"
        )
    if night.problem and not _troubled(night) and not night.is_held:
        lines.append(night.problem)
    return lines


def _troubled(night: Night) -> list[StepRecord]:
    """Steps to report; a held rerank is reported by its reasons."""
    bad = [step for step in night.record.steps if step.state in ("held", "failed")]
    return [step for step in bad if not (step.name == "rerank" and step.state == "held")]


def _gain(manifest: Manifest) -> str:
    for gain in manifest.gains.values():  # of documents first, where they are judged
        return f", {100 * gain:+.1f} points of nDCG@10 against BM25"
    return ""


def readers(night: Night) -> str:
    """Which run is in service."""
    if night.serving is None:
        return (
            "Nothing was published yet." if night.output else "Readers keep the run that latest.json names."
        )
    new = night.run is not None and night.serving.run_id == night.run.run_id
    verb = "Readers see tonight's run" if new else "Readers keep run"
    return f"{verb} {night.serving.run_id} of {night.serving.run_date}."


def remedy(night: Night) -> str:
    """What to do."""
    if night.state == "published":
        return "Nothing to do."
    if night.state == "warn":
        return "Look into it by day; the limits are in [drift.warn], and promotion's in [promotion]."
    if night.state == "held" and night.run:
        release = f"nightrank release {shlex.quote(night.output)} {night.run.run_id}"
        return (
            f"If the change is real, publish the run by: {release}. If not, mend the cause and start again."
        )
    return "Mend the cause and start the night again; steps that are done are not repeated."
