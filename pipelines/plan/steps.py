"""The steps of a night: when each is due, what its inputs are, and what it does.

    rerank        reranks the queries and mines hard negatives, in one pass over the pairs; publishes or holds back
    train         trains a candidate model from published runs, on its days
    evaluate      measures the candidate on judged sets and on the run's queries
    promote       lets the candidate serve, or rejects it
    publish_back  puts the lists into Elasticsearch
    clean_up      removes runs that retention does not keep
    report        writes report.html beside the manifest; the last one, so that it tells of all the others

Each step is imported when it runs: a night that does not train needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.plan.context import Context
from pipelines.storage.runs import latest
from rerank_core.files import read_text
from rerank_core.text import fingerprint
from schemas.errors import NightrankError

Result = dict[str, Any]
"""What a step leaves for later ones, the report and alerts: JSON data."""


class Step(NamedTuple):
    """A step after reranking."""

    name: str
    needs: str  # the step that must be done before; "": none
    why_not: Callable[[Context], str]  # why it is not due; "": it is
    inputs: Callable[[Context], tuple[str, ...]]  # what decides its result, beside the step that it needs
    run: Callable[[Context], Result]
    holds: Callable[[Context], bool] = lambda _: (
        True
    )  # whether what was done with the same inputs is still so
    repeated: bool = False  # run again though it was done: it costs little, and shows what other steps did
    optional: bool = False  # its failure is reported, but does not fail the night


def key(step: Step, context: Context) -> str:
    """Fingerprint of a step's inputs: done with the same one, it need not be run again."""
    needed = context.record.step(step.needs)
    before = (needed.key, json.dumps(needed.result, sort_keys=True)) if needed else ()
    return fingerprint(step.name, *before, *step.inputs(context))


def _no_training(context: Context) -> str:
    plan, day = context.config.plan, context.run_date.strftime("%A").lower()
    if not plan.train:
        return "plan.train is not set"
    if day not in plan.train_days and context.only != "train":
        return f"{context.run_date} is a {day.title()}, and plan.train_days are {', '.join(plan.train_days)}"
    return ""


def _train(context: Context) -> Result:
    from pipelines.promotion.steps import train_candidate

    result: Result = train_candidate(context.config, run_date=context.run_date)
    return result


def _no_candidate(context: Context) -> str:
    """A candidate comes from tonight's training, or was put into the registry by hand."""
    if not context.config.registry.path:
        return "registry.path is not set"
    from pipelines.promotion.steps import NOTHING, undecided

    return "" if undecided(context.config, run_date=context.run_date) else NOTHING


def _candidate(context: Context) -> tuple[str, ...]:
    from pipelines.promotion.steps import undecided

    return (undecided(context.config, run_date=context.run_date), repr(context.config.promotion))


def _evaluate(context: Context) -> Result:
    from pipelines.promotion.steps import evaluate_candidate

    result: Result = evaluate_candidate(context.config, run_date=context.run_date)
    return result


def _promote(context: Context) -> Result:
    from pipelines.promotion.steps import promote_candidate

    result: Result = promote_candidate(context.config, run_date=context.run_date)
    return result


def _no_run(context: Context) -> str:
    return "" if context.manifest else f"there is no run of {context.run_date}"


def _report(context: Context) -> Result:
    from pipelines.report.write import write_report

    rerank = context.record.step("rerank")
    held = rerank is not None and rerank.state == "held"
    return {"path": write_report(context.output, context.run, held=held)}


def _not_served(context: Context) -> str:
    """The alias follows `latest.json`: the night of an earlier date does not take it back."""
    if not context.config.publish_back.url:
        return "publish_back.url is not set"
    served = latest(context.output)
    if context.only == "publish_back" or (served and served.run_id == context.run.run_id):
        return ""
    return f"latest.json names {f'run {served.run_id} of {served.run_date}' if served else 'no run'}"


def _publish_back(context: Context) -> Result:
    from pipelines.elasticsearch.publish import publish
    from pipelines.elasticsearch.write import open_cluster

    back = context.config.publish_back
    cluster = open_cluster(back.url, ca_file=back.ca_file)
    done = publish(cluster, context.output, context.run, alias=back.alias, keep=back.keep)
    return {"index": done.index, "queries": done.queries, "alias": done.alias}


def _names_the_run(context: Context) -> bool:
    """Whether the alias names the run: nights of other dates, and people, move it. If it is unknown, it is not."""
    from pipelines.elasticsearch.publish import served
    from pipelines.elasticsearch.write import open_cluster, source_errors

    back = context.config.publish_back
    try:
        cluster = open_cluster(back.url, ca_file=back.ca_file)
        with source_errors(cluster):
            current = served(cluster, back.alias)
    except NightrankError:
        return False
    return current is not None and current.run_id == context.run.run_id


def _no_retention(context: Context) -> str:
    retention = context.config.retention
    kept = retention.keep_runs or retention.keep_days
    return "" if kept else "retention.keep_runs and keep_days are 0: every run is kept"


def _clean_up(context: Context) -> Result:
    from pipelines.storage.retention import remove_old_runs

    named = _named_runs(context)
    removed = remove_old_runs(
        context.output,
        context.config.retention,
        run_date=context.run_date,
        keep=frozenset(named) | ({context.manifest.run_id} if context.manifest else set()),
        now=context.now(),
    )
    return {"removed": removed, "kept": named}


def _named_runs(context: Context) -> dict[str, str]:
    """What names a run, by its id: a model that was trained on it, an index that an alias can go back to."""
    named = dict[str, str]()
    if context.config.registry.path:
        from pipelines.registry.store import Registry

        models = Registry(context.config.registry.path).lineage_runs()
        named |= {run_id: f"model {model} was trained on it" for run_id, model in models.items()}
    if back := context.config.publish_back.url:
        from pipelines.elasticsearch.publish import publications
        from pipelines.elasticsearch.write import open_cluster

        cluster = open_cluster(back, ca_file=context.config.publish_back.ca_file)
        known = publications(cluster, context.config.publish_back.alias)
        named |= {one.run_id: f"{one.index} was published back from it" for one in known.values()}
    return named


STEPS = (
    Step(
        "train",
        "rerank",
        _no_training,
        lambda context: (read_text(Path(context.config.plan.train)),),
        _train,
    ),
    Step("evaluate", "rerank", _no_candidate, _candidate, _evaluate),
    Step("promote", "evaluate", lambda _: "", _candidate, _promote),
    Step(
        "publish_back",
        "rerank",
        _not_served,
        lambda context: (repr(context.config.publish_back),),
        _publish_back,
        holds=_names_the_run,
    ),
    Step(
        "clean_up",
        "",
        _no_retention,
        lambda context: (repr(context.config.retention), context.manifest.run_id if context.manifest else ""),
        _clean_up,
        optional=True,
    ),
    Step("report", "", _no_run, lambda _: (), _report, repeated=True),
)
"""In their order."""

NAMES = ("rerank", *(step.name for step in STEPS))
