"""A night's page: everything that the template shows of a run, gathered from its tables, manifest and plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.evaluate.published import read_judgements
from pipelines.report import charts, facts, lists, models, tables, verdict
from pipelines.report.movement import Found
from pipelines.report.page import render
from pipelines.report.sample import Run
from pipelines.report.scan import SHOWN, Scan, scan
from pipelines.report.text import count, day, legible, message, number, points, share
from pipelines.storage.runs import section
from rerank_core.config.night import Evaluation, Output
from rerank_core.drift.rules import RULES
from rerank_core.evaluation.measures import MEASURES, Level
from rerank_core.evaluation.qrels import Qrels
from schemas.errors import NightrankError
from schemas.manifest import Manifest
from schemas.outcome import PlanRecord

SECTIONS = [
    ("moved", "Queries that moved most"),
    ("judged", "Wins and losses"),
    ("clicks", "Clicks"),
    ("scores", "Scores"),
    ("negatives", "Hard negatives"),
    ("drift", "Drift"),
    ("letters", "Dead letters"),
    ("counts", "Where every record went"),
    ("time", "Time by stage"),
    ("model", "Model"),
    ("configuration", "Configuration"),
    ("words", "Words on this page"),
]
WORDS = [
    ("BM25", "the search index's own order by shared words, which reranking starts from"),
    ("nDCG@10", "how well the first ten places hold what is relevant, 0 to 100 points; higher places weigh more"),
    ("judged query", "a query whose relevant documents people have named; the files are in [evaluation]"),
    ("95 % interval", "where the change would lie for other queries of this kind; if zero is in it, it may be chance"),
    ("pair", "a query and one of its candidate passages: what the model scores"),
    ("logit", "the model's raw output for a pair, before it becomes a score"),
    ("reused", "a pair whose query, text, tags and model are as last night, so that its score is kept"),
    ("HOP, ROLE, ENT, CAUSAL, REASONING", "tags of a passage: its distance from the query over shared names, "
     "its rhetorical role, its names, causal language, many names"),
    ("chain", "the names by which HOP leads from the query to the document"),
    ("evidence", "the sentence of a passage that supports its score most; it is underlined"),
    ("PSI, KS", "two distances between distributions; 0 is the same"),
]  # fmt: skip


class Sources(NamedTuple):
    """What a page is made of."""

    run: Run
    last_night: Run | None
    held: bool
    plan: PlanRecord | None


def night_page(sources: Sources) -> str:
    """The page as HTML.

    Raises:
        ManifestError: a table is damaged.
    """
    decisions, problem = _decisions(sources.run.manifest)
    return render("night.html", night=gather(sources, decisions, problem), sections=SECTIONS, words=WORDS)


def gather(sources: Sources, decisions: list[Mapping[str, Any]], problem: str = "") -> dict[str, Any]:
    """What the template shows."""
    run, manifest = sources.run, sources.run.manifest
    last = sources.last_night.manifest if sources.last_night else None
    texts = section(manifest, Output, "output").store_text
    qrels, level, unreadable = _judgements(manifest)
    cut = bool(manifest.balance.pairs.get("below_top_n"))
    found = scan(run, sources.last_night, qrels=qrels, level=level, cut=cut)
    tasks = verdict.tasks(manifest, held=sources.held, plan=sources.plan, decisions=decisions)
    if problem:
        tasks.append(verdict.Task("Model registry", problem))
    return {
        **_head(sources, found, tasks),
        **_moved(found, manifest, last, texts),
        "judged": _judged(found, texts),
        "not_judged": unreadable or facts.why_not_judged(manifest),
        "measures": _measures(manifest),
        **_plots(manifest, found),
        **_negatives(run, texts),
        "drift": _drift(manifest),
        "letters": tables.dead_letters(run),
        "balance": tables.balance(manifest),
        **_times(manifest, sources.plan),
        "model": models.lineage(manifest),
        "forgetting": models.forgetting(manifest),
        "decisions": models.decided(decisions, manifest.run_date),
        "settings": tables.settings(manifest),
    }


def _head(sources: Sources, found: Scan, tasks: list[verdict.Task]) -> dict[str, Any]:
    manifest = sources.run.manifest
    last = sources.last_night.manifest if sources.last_night else None
    return {
        "run_id": manifest.run_id,
        "run_date": manifest.run_date,
        "day": day(manifest.run_date),
        "held": sources.held,
        "state": "Held back" if sources.held else "Published",
        "sentence": _sentence(sources),
        "facts": facts.facts(manifest, last, found),
        "tasks": tasks,
        "version": manifest.nightrank_version,
        "created": manifest.created_at[:16].replace("T", " ") + " UTC",
        "seconds": manifest.seconds,
    }


def _sentence(sources: Sources) -> str:
    manifest = sources.run.manifest
    if sources.held:
        last = sources.last_night
        serving = (
            f"readers keep the lists of {day(last.manifest.run_date)}" if last else "readers get no new lists"
        )
        return f"Tonight differs too much from earlier nights, so {serving}. {_beyond(manifest)}"
    failed = [step.name for step in sources.plan.steps if step.state == "failed"] if sources.plan else []
    stale = verdict.stale_lists(manifest)
    parts = [f"Readers get the lists of this run since {manifest.created_at[11:16]} UTC."]
    if stale:
        parts.append(f"{count(stale)} of them are of an earlier night, as the deadline came first.")
    if failed:
        parts.append(f"After that a step failed: {', '.join(failed)}.")
    return " ".join(parts)


def _beyond(manifest: Manifest) -> str:
    """The measures that hold the night back, in a few words; the reasons in full are among the tasks."""
    measures = (manifest.drift or {}).get("measures", {})
    beyond = [
        f"{_measure_name(name)} {number(measure.get('tonight'))} (holds {_limit(name, measure.get('hold'))})"
        for name, measure in measures.items()
        if measure.get("verdict") == "hold"
    ]
    return f"Beyond its limit: {'; '.join(beyond[:2])}." if beyond else ""


def _moved(found: Scan, manifest: Manifest, last: Manifest | None, texts: bool) -> dict[str, Any]:
    published = manifest.balance.lists
    unmoved = share(found.unmoved / found.common) if found.common else "0 %"
    where = "in both nights" if found.whole else "in both nights, of those that were read"
    return {
        "whole": found.whole,
        "read": found.queries,
        "published": published,
        "last_night_id": last.run_id if last else None,
        "last_night_sentence": f"{count(found.common)} queries were published {where}; {unmoved} of them kept "
        f"their first ten documents in the same order."
        + (f" The earlier one is run {last.run_id} of {day(last.run_date)}." if last else ""),
        "moved_last_night": lists.against_last_night(found.against_last_night, texts=texts),
        "moved_bm25": lists.against_bm25(found.against_bm25, texts=texts),
    }


def _judged(found: Scan, texts: bool) -> dict[str, Any] | None:
    judged = found.judged
    if judged is None or not judged.before:
        return None
    changes = judged.changes()
    worst = sorted(changes.items(), key=lambda item: (item[1], item[0]))

    def views(chosen: list[tuple[str, float]]) -> list[lists.ListView]:
        queries = [Found(change, query, (judged.places[query],)) for query, change in chosen]
        return lists.against_bm25(queries, texts=texts, relevant=judged.relevant)

    return {
        "queries": len(changes),
        "wins": sum(change > 0 for change in changes.values()),
        "losses": sum(change < 0 for change in changes.values()),
        "ties": sum(change == 0 for change in changes.values()),
        "lost": views([one for one in worst[:SHOWN] if one[1] < 0]),
        "won": views([one for one in worst[: -SHOWN - 1 : -1] if one[1] > 0]),
    }


def _measures(manifest: Manifest) -> list[list[str]]:
    rows = []
    for level, values in manifest.metrics.items():
        for name in (name for name in MEASURES if f"after {name}" in values):
            after, before = values[f"after {name}"], values.get(f"before {name}")
            low, high = (values.get(f"gain {name} {end}") for end in ("low", "high"))
            rows.append(
                [
                    f"{name} of {'documents' if level == 'document' else 'units'}",
                    "–" if before is None else f"{100 * before:.1f}",
                    f"{100 * after:.1f}",
                    "–" if before is None else points(after - before),
                    "–" if low is None or high is None else f"{points(low)} to {points(high)}",
                ]
            )
    return rows


def _plots(manifest: Manifest, found: Scan) -> dict[str, Any]:
    debias = manifest.config.get("labels", {}).get("debias")
    plots: dict[str, Any] = {
        "histogram": charts.score_histogram(found.scores, found.last_scores),
        "propensities": charts.propensities(manifest.places) if manifest.places else None,
        "no_propensities": "The log says of no event which documents were shown, so clicks could not be corrected."
        if debias
        else "Clicks are taken as they are; labels.debias = true corrects them for position.",
        "reliability": None,
    }
    if reliable := found.reliability:
        plots["reliability"] = charts.reliability_diagram(reliable.bins, reliable.error)
        source = {
            "judgements": "the judgements; what is not judged counts as not relevant",
            "clicks": "clicks, which say little about results that users did not see",
        }[reliable.labels]
        plots["reliability_note"] = (
            f"Of {count(reliable.pairs)} pairs; labels are from {source}. A larger dot is more pairs; on the dotted "
            "line a score is a probability."
        )
    return plots


def _negatives(run: Run, texts: bool) -> dict[str, Any]:
    mining = run.manifest.mining
    enabled = run.manifest.config.get("mining", {}).get("enabled", True)
    return {
        "negatives": tables.negatives(run, texts=texts),
        "mined": sum(mining.get("kept", {}).values()),
        "rules": [
            [rule.replace("_", " "), outcome, count(number)]
            for outcome in ("kept", "rejected")
            for rule, number in sorted(mining.get(outcome, {}).items(), key=lambda item: -item[1])
        ],
        "not_mined": "Nothing was mined: no query has a positive."
        if enabled
        else "Mining is off (mining.enabled).",
    }


def _drift(manifest: Manifest) -> dict[str, Any] | None:
    drift = manifest.drift
    if not drift:
        return None
    said = {
        "ok": "Nothing differs from earlier nights by more than the limits allow.",
        "warn": "Some measures are beyond the limit that warns.",
        "hold": "Some measures are beyond the limit that holds a night back.",
    }
    marks = {"ok": "✓ ok", "warn": "▲ warns", "hold": "■ holds"}
    order = {"hold": 0, "warn": 1}
    measures = sorted(
        drift.get("measures", {}).items(), key=lambda item: order.get(item[1].get("verdict"), 2)
    )
    return {
        "sentence": said.get(drift.get("verdict", ""), ""),
        "notes": [message(str(note)) for note in drift.get("notes") or ()],
        "rows": [
            [
                _measure_name(name),
                *(number(measure.get(key)) for key in ("tonight", "previous", "median")),
                *(_limit(name, measure.get(key)) for key in ("warn", "hold")),
                marks.get(measure.get("verdict"), "–"),
            ]
            for name, measure in measures
        ],
    }


def _measure_name(name: str) -> str:
    """What a measure of drift is, in words; of dead letters also which."""
    kind, _, which = name.partition(":")
    rule = RULES.get(kind)
    return legible(f"{which}: {rule.meaning}" if rule and which else rule.meaning if rule else name, 120)


LIMITS = {
    "count": "below {} of an earlier night",
    "mean": "below {} of an earlier night",
    "least": "below {}",
    "most": "above {}",
    "psi": "above {}",
    "ks": "above {}",
    "fall": "by a fall of {}",
    "gain": "by a fall of {}",
    "rise": "by a rise of {}",
    "change": "by a change of {}",
}
"""How a limit of drift is read, by the kind of the measure."""


def _limit(name: str, limit: float | None) -> str:
    rule = RULES.get(name.partition(":")[0])
    if limit is None:
        return "–"
    if rule and rule.kind in ("count", "mean"):
        return LIMITS[rule.kind].format(share(limit))
    return LIMITS[rule.kind].format(number(limit)) if rule else number(limit)


def _times(manifest: Manifest, plan: PlanRecord | None) -> dict[str, Any]:
    times = tables.times(manifest)
    return {
        "times": times,
        "longest": max([stage.seconds for stage in times], default=0) or 1,
        "steps": [row for row in verdict.step_rows(plan) if row.step != "report"],
    }


def _judgements(manifest: Manifest) -> tuple[Qrels, Level, str]:
    """Judgements as far as they can be read here, their level, and what keeps them from being read."""
    try:
        judged = read_judgements(section(manifest, Evaluation, "evaluation"))
    except NightrankError as error:
        return {}, "document", f"The judgements cannot be read here: {message(str(error))}"
    level: Level = "document" if "document" in judged or not judged else "unit"
    return judged.get(level, {}), level, ""


def _decisions(manifest: Manifest) -> tuple[list[Mapping[str, Any]], str]:
    try:
        return models.read_decisions(manifest), ""
    except (NightrankError, OSError) as error:  # such as of a bucket that cannot be reached from here
        return [], message(str(error) or type(error).__name__)
