"""The steps of a night that bring a model from training to serving: train, evaluate, promote.

Each may be killed anywhere and started again: the training resumes, a trained model is added to the registry once, what
was measured is not measured again, and a decision is made once. Their results are records of the plan.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pipelines
from pipelines.evaluate.scores import Count
from pipelines.promotion.measure import Model, measure
from pipelines.registry.entry import Decision, Entry
from pipelines.registry.resolve import DamagedModel, local_model
from pipelines.registry.store import Registry
from pipelines.storage import filesystem, runs
from rerank_core.config.night import Config
from rerank_core.config.operation import Promotion
from rerank_core.config.toml import validate
from rerank_core.errors import ConfigError
from rerank_core.files import plain_or_gz
from rerank_core.inference.model_folder import file_digest
from rerank_core.promotion.rules import Measures, decide
from rerank_core.text import fingerprint
from schemas.parsing import parse_json

Result = dict[str, Any]

NOTHING = "the registry has no candidate"
EVALUATIONS = "evaluations"


def train_candidate(
    config: Config, *, run_date: datetime.date, on_progress: Count = lambda groups: None
) -> Result:
    """Train as plan.train says, and add the model to the registry as a candidate; see `pipelines.promotion.training`.

    Raises:
        ConfigError: registry.path or the training's TOML cannot be used.
        TrainingError, ManifestError, ModelError, MissingEngine ...: as `pipelines.train.run.train`.
    """
    if not config.plan.train:
        return {"skipped": "plan.train names no training"}
    from pipelines.promotion import training  # only a night that trains imports what trains

    return training.train_candidate(config, open_registry(config), run_date=run_date, on_progress=on_progress)


def evaluate_candidate(
    config: Config, *, run_date: datetime.date, model: str = "", on_scored: Count = lambda pairs: None
) -> Result:
    """Measure the newest candidate, or `model`, beside the serving model, and store the measures in the registry.

    Raises:
        ConfigError, JudgementError, SourceError, ManifestError: the sets or the last night cannot be used.
        RegistryError, ModelError: the registry or the serving model cannot be used.
    """
    registry = open_registry(config)
    candidate = registry.entry(model) if model else newest_candidate(registry)
    if candidate is None:
        return {"skipped": NOTHING}
    measures = _measured(config, registry, candidate, on_scored=on_scored)
    return {
        "model": candidate.id,
        "serving": measures.serving,
        "problem": measures.problem,
        "sets": {
            judged.name: {
                side: {"nDCG@10": _mean(of.ndcg), "queries": len(of.ndcg)}
                | {"shortcut_gap": of.shortcut_gap, "calibration_error": of.calibration_error}
                for side, of in (("candidate", judged.candidate), ("serving", judged.serving))
            }
            for judged in measures.sets
        },
    }


def promote_candidate(
    config: Config,
    *,
    run_date: datetime.date,
    model: str = "",
    force: bool = False,
    reason: str = "",
    dry_run: bool = False,
    on_scored: Count = lambda pairs: None,
) -> Result:
    """Decide about the newest candidate, or `model`, and let it serve if every check passes.

    Older candidates are retired: what a newer one was trained on, it was not.

    Args:
        config: of the night.
        run_date: of the night, for the log of decisions.
        model: its id; "" is the newest candidate.
        force: let it serve whatever is measured, unmeasured too; the log says so.
        reason: why it is forced.
        dry_run: measure and decide, but change nothing.
        on_scored: called with the number of inputs scored since the last call.

    Raises:
        RegistryError: no such model, or another model serves than the one that it was measured against.
        ...: as `evaluate_candidate`.
    """
    registry, day = open_registry(config), run_date.isoformat()
    candidate = registry.entry(model) if model else newest_candidate(registry)
    if candidate is None:
        return _decided_before(registry, run_date)
    if candidate.state == "serving":
        return _result(registry.promote(candidate.id, reason=reason))
    if force:
        said = reason or "by hand"
        if dry_run:
            serving = registry.serving()
            outcome = {
                "model": candidate.id,
                "promoted": True,
                "forced": True,
                "reason": said,
                "dry_run": True,
            }
            return {**outcome, "previous": serving.id if serving else ""}
        return _result(registry.promote(candidate.id, reason=said, forced=True, run_date=day))
    measures = _measured(config, registry, candidate, store=not dry_run, on_scored=on_scored)
    decision = decide(measures, config.promotion)
    outcome = {"model": candidate.id, "promoted": decision.promoted, "reason": decision.reason}
    checks = [check._asdict() for check in decision.checks]
    outcome |= {"previous": measures.serving, "checks": checks}
    if dry_run:
        return {**outcome, "dry_run": True}
    if not config.promotion.judged_sets:
        return outcome  # nothing was seen of it: it stays a candidate
    if not model:
        _retire_older(registry, candidate, day)
    if decision.promoted:
        made = registry.promote(
            candidate.id, reason=decision.reason, checks=checks, run_date=day, over=measures.serving
        )
    else:
        made = registry.decide("rejected", candidate.id, reason=decision.reason, checks=checks, run_date=day)
    return _result(made)


def open_registry(config: Config) -> Registry:
    """The night's registry.

    Raises:
        ConfigError: registry.path is not set.
    """
    if not config.registry.path:
        raise ConfigError("registry.path is not set: training and promotion need a folder for models; set it")
    return Registry(config.registry.path)


def newest_candidate(registry: Registry) -> Entry | None:
    """The model that was added last, of those that nothing was decided about."""
    return next(iter(registry.candidates()), None)


def undecided(config: Config, *, run_date: datetime.date) -> str:
    """Id of the model that a night has to decide about, or did before it was interrupted; "" if there is none."""
    registry = open_registry(config)
    candidate = newest_candidate(registry)
    return candidate.id if candidate else str(_decided_before(registry, run_date).get("model", ""))


def _retire_older(registry: Registry, newest: Entry, day: str) -> None:
    reason = f"{newest.id}, a newer candidate, was decided in its place"
    for entry in registry.candidates():
        if entry.id != newest.id:
            registry.decide("retired", entry.id, reason=reason, run_date=day)


def _decided_before(registry: Registry, run_date: datetime.date) -> Result:
    """What the checks decided for this run date before the step was killed; or that there is nothing to decide.

    What a person changed since is not repeated as if it still held.
    """
    day, before = run_date.isoformat(), run_date.toordinal() - 1  # it may be tomorrow in UTC
    since = datetime.date.fromordinal(max(1, before)).isoformat()
    decided = ("promoted", "rejected")
    made = [d for d in registry.decisions(since=since) if d.run_date == day and d.action in decided]
    serving = registry.serving()
    if not made or made[-1].forced:
        return {"skipped": NOTHING}
    if made[-1].action == "promoted" and (serving is None or serving.id != made[-1].model):
        return {"skipped": NOTHING}
    return _result(made[-1])


def _result(decision: Decision) -> Result:
    return {
        "model": decision.model,
        "promoted": decision.action == "promoted",
        "forced": decision.forced,
        "reason": decision.reason,
        "previous": decision.previous,
        "decision": decision.number,
        "checks": [dict(check) for check in decision.checks],
    }


def _measured(
    config: Config,
    registry: Registry,
    candidate: Entry,
    *,
    store: bool = True,
    on_scored: Count,
) -> Measures:
    """The measures that are stored for these models, sets and night; else made, and stored."""
    serving = registry.serving()
    beside = Model(serving.id, str(local_model(registry, serving))) if serving else Model("", "")
    if not config.promotion.judged_sets:
        return Measures(candidate.id, beside.id)
    path = filesystem.join(registry.path, EVALUATIONS, f"{candidate.id}.json")
    key = _key(config, candidate, beside.id)
    if stored := _stored(path, key):
        return stored
    try:
        ours = Model(candidate.id, str(local_model(registry, candidate)))
    except DamagedModel as error:
        return Measures(candidate.id, beside.id, problem=str(error))
    measures = measure(config, candidate=ours, serving=beside, on_scored=on_scored)
    if store:
        contents = {"key": key, "measures": dataclasses.asdict(measures)}
        filesystem.write_bytes(path, (json.dumps(contents, indent=2) + "\n").encode(), durable=True)
    return measures


def _key(config: Config, candidate: Entry, serving: str) -> str:
    """Identity of everything that measures depend on."""
    night = runs.latest(config.output.path) if config.output.path else None
    sections = (config.promotion, config.scoring, config.fusion, config.plan.finish_by)
    return fingerprint(
        pipelines.__version__,
        candidate.fingerprint,
        serving,
        night.run_id if night else "",
        *map(repr, sections),
        *_contents(config.promotion),
    )[:32]


def _contents(limits: Promotion) -> Iterator[str]:
    """Checksums of the judged sets' files, which may be mended under their names; "" for one that is missing."""
    for folder in map(Path, limits.judged_sets):
        for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{limits.split}.tsv"):
            path = plain_or_gz(folder / name)
            yield file_digest(path) if path.is_file() else ""


def _stored(path: str, key: str) -> Measures | None:
    """Measures of an earlier start with this key; what is damaged is measured again."""
    data = filesystem.read_if_any(path)
    if data is None:
        return None
    try:
        contents = parse_json(data)
        return validate(Measures, contents["measures"], name=path) if contents["key"] == key else None
    except (ValueError, KeyError, TypeError):
        return None


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / max(1, len(values))
