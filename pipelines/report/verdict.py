"""What the head of a page says: whether the night was published, how good it is, and what needs a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pipelines.report.remedies import DEGRADED
from pipelines.report.text import count, legible, message, share
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord

NOTABLE_SHARE = 0.01
"""A smaller share of records of one kind needs no attention."""

State = Literal["published", "held"]
NO_HITS = "FetchCandidates/no_candidates"
STEP_NAMES = {
    "rerank": "Reranking",
    "train": "Training",
    "evaluate": "Evaluation of the candidate model",
    "promote": "Promotion",
    "publish_back": "Publishing back to the search cluster",
    "clean_up": "Removal of old runs",
    "report": "The report",
}
"""In the order in which they are run."""
MARKS = {"done": "✓", "not_due": "–", "held": "■", "failed": "✗"}


class Task(NamedTuple):
    """Something that a person should look at."""

    what: str
    why: str
    remedy: str = ""


class StepRow(NamedTuple):
    """A step of the night as a page shows it."""

    mark: str
    step: str  # as --from-step names it
    name: str
    state: str
    seconds: float | None  # None: it was not run
    why: str


class Gain(NamedTuple):
    """A difference in nDCG@10, 0 to 1, with the ends of its 95 % interval where there are queries enough."""

    value: float
    low: float | None
    high: float | None
    queries: int

    @property
    def verdict(self) -> Literal["better", "worse", "open"]:
        """open: the interval holds zero, or there is none."""
        if self.low is None or self.high is None:
            return "open"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def gain_over_bm25(manifest: Manifest) -> Gain | None:
    """The gain in nDCG@10 over BM25; None where it was not measured."""
    for level in ("document", "unit"):
        values = manifest.metrics.get(level, {})
        if (gain := values.get("gain nDCG@10")) is not None:
            low, high = (values.get(f"gain nDCG@10 {end}") for end in ("low", "high"))
            return Gain(gain, low, high, int(values["queries"]))
    return None


def drift_reasons(manifest: Manifest) -> tuple[list[str], list[str]]:
    """Why drift holds the night back, and why it warns."""
    drift = manifest.drift or {}
    reasons = [_sentence(message(str(reason))) for reason in drift.get("reasons") or ()]
    verdicts = [measure.get("verdict") for measure in drift.get("measures", {}).values()]
    holding = verdicts.count("hold")  # their reasons come first
    return reasons[:holding], reasons[holding:]


def stale_lists(manifest: Manifest) -> int:
    """Queries that kept an earlier night's list."""
    return sum((manifest.stale or {}).values())


def tasks(
    manifest: Manifest, *, held: bool, plan: PlanRecord | None, decisions: list[Mapping[str, Any]]
) -> list[Task]:
    """Everything about a night that a person should look at, the gravest first."""
    return [
        *_of_drift(manifest, held=held),
        *step_tasks(plan),
        *_of_quality(manifest),
        *_of_candidates(manifest, plan, decisions),
        *_of_stale(manifest),
        *_of_rejects(manifest),
        *_of_degraded(manifest),
    ]


def _of_drift(manifest: Manifest, *, held: bool) -> Iterator[Task]:
    holds, warns = drift_reasons(manifest)
    if held:
        yield Task(
            "Held back",
            "Find out whether the change is meant.",
            f"If so: nightrank release {manifest.run_id} publishes it. If not, mend the cause and start again.",
        )
    for reason in holds:
        yield Task("Beyond the limit that holds", reason)
    for reason in warns:
        yield Task("Drift", reason)


def step_rows(plan: PlanRecord | None) -> list[StepRow]:
    """Every step of a night in order, also those of which nothing is recorded; none without a record."""
    rows = []
    for name, title in STEP_NAMES.items() if plan and plan.steps else ():
        step = plan.step(name) if plan else None
        if step is None:
            rows.append(StepRow("–", name, title, "not recorded", None, ""))
            continue
        seconds = None if step.state == "not_due" else step.seconds
        rows.append(
            StepRow(
                MARKS[step.state], name, title, step.state.replace("_", " "), seconds, message(step.reason)
            )
        )
    return rows


def without_report(plan: PlanRecord | None) -> PlanRecord | None:
    """The steps that a report tells of: of its own step there is only what an earlier attempt left."""
    return plan and dataclasses.replace(
        plan, steps=tuple(step for step in plan.steps if step.name != "report")
    )


def step_tasks(plan: PlanRecord | None) -> Iterator[Task]:
    """What failed in a night, and what of it is not known."""
    if plan is None or not plan.steps:
        return
    command = f"nightrank nightly --config … --run-date {plan.run_date}"
    for step in plan.steps:
        if step.state == "failed":
            again = "" if step.name == "rerank" else f" --from-step {step.name}"
            remedy = f"Mend the cause, then: {command}{again}"
            yield Task(f"{STEP_NAMES.get(step.name, step.name)} failed", message(step.reason), remedy)
    missing = [name for name in STEP_NAMES if name != "report" and plan.step(name) is None]
    if missing:
        why = f"Nothing is recorded of {', '.join(missing)}: the night is not over, was killed, or was to do a part."
        yield Task("Not finished", why, f"If it was killed: {command} goes on from what was done.")


def _of_quality(manifest: Manifest) -> Iterator[Task]:
    gain = gain_over_bm25(manifest)
    if gain and gain.verdict == "worse":
        why = "On the judged queries the reranked lists are worse than BM25's, and by more than chance."
        yield Task(
            "Worse than BM25", why, "Look at the losses below, and at the model and its fusion weights."
        )


def _of_candidates(
    manifest: Manifest, plan: PlanRecord | None, decisions: list[Mapping[str, Any]]
) -> Iterator[Task]:
    """Candidate models that were not promoted tonight, by the registry's log or by the night's own step."""
    step = plan.step("promote") if plan else None
    refused = [
        decision
        for decision in decisions
        if decision.get("run_date") == manifest.run_date and decision.get("action") == "rejected"
    ]
    if step and step.result.get("promoted") is False:
        refused.append(step.result)
    for model, reason in {str(one.get("model", "")): str(one.get("reason", "")) for one in refused}.items():
        what = f"Candidate model {legible(model, 60)} was not promoted"
        yield Task(what, message(reason), "The section Model has every check.")


def _of_stale(manifest: Manifest) -> Iterator[Task]:
    if stale := stale_lists(manifest):
        read = manifest.balance.queries.get("read", 0)
        yield Task(
            "Lists of an earlier night",
            f"The deadline came before {count(stale)} of {count(read)} queries; they keep an earlier list, the oldest "
            f"from {min(manifest.stale or {})}.",
            "Remedy: a later plan.finish_by, a faster engine (nightrank autotune), or fewer candidates.",
        )


def _of_rejects(manifest: Manifest) -> Iterator[Task]:
    without_hits = manifest.rejected.get(NO_HITS, 0)
    for unit in ("events", "queries", "pairs"):
        counts: dict[str, int] = getattr(manifest.balance, unit)
        rejected, read = counts.get("rejected", 0), counts.get("read", 0)
        rejected -= without_hits if unit == "queries" else 0
        if read and rejected >= NOTABLE_SHARE * read:
            yield Task(
                "Dead letters",
                f"{count(rejected)} of {count(read)} {unit} ({share(rejected / read)}) could not be handled.",
                "The section Dead letters has reasons and examples.",
            )


def _of_degraded(manifest: Manifest) -> Iterator[Task]:
    wholes = {"queries_without_candidates": "queries"}
    for key, value in manifest.degraded.items():
        entry = DEGRADED.get(key)
        title = key.replace("_", " ").capitalize()
        if isinstance(value, str):  # it names its remedy; of the deadline there is a task already
            if key != "deadline" or not manifest.stale:
                yield Task(title, _sentence(message(value)))
            continue
        read = getattr(manifest.balance, wholes.get(key, "pairs")).get("read", 0)
        if value and value >= NOTABLE_SHARE * read:
            unit = wholes.get(key, "pairs")
            of = f"{count(value)} of {count(read)} {unit} ({share(value / read)})" if read else count(value)
            meaning = (entry.meaning if entry else title).replace("`", "")
            yield Task(title, f"{of}: {meaning}.", _remedy(entry.remedy if entry else ""))


def _remedy(text: str) -> str:
    return f"Remedy: {text}.".replace("`", "") if text else ""


def _sentence(text: str) -> str:
    """A text with a capital at its start and a stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?", "…")) else ".")
