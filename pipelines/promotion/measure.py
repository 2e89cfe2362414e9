"""Measures a candidate and the serving model side by side, by the functions of a night."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines import autotune
from pipelines.beam_options import beam_options
from pipelines.evaluate import judged_sets
from pipelines.evaluate.scores import Count, candidate_groups, fuse_groups, score_by_mode
from pipelines.evaluate.systems import LoadedSystem, System
from pipelines.nightly.models import (
    first_stage_loader,
    load_checked,
    read_calibration,
    read_fusion,
    scorer_loader,
)
from pipelines.promotion import last_night
from pipelines.registry.resolve import with_model
from rerank_core import stages
from rerank_core.config.night import Config, Tagging
from rerank_core.errors import ModelError, ScoringFailed
from rerank_core.evaluation.comparison import Order, measure_system
from rerank_core.evaluation.tag_ablation import MODES
from rerank_core.promotion.rules import JudgedSet, Measures, OnSet, Speed
from rerank_core.ranking.calibration import Calibration, expected_error, score_of
from rerank_core.ranking.fusion import check_bi_encoder
from rerank_core.ranking.order import final_logit, rank
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import reads_tags
from rerank_core.scoring.tuning import renewed
from schemas.records import QueryGroup, RankedGroup

TOP_K = 50
"""Candidates of a judged question, BM25's best."""

SPEED_PAIRS, SPEED_SECONDS, SPEED_TURNS = 128, 1.0, (3, 50)
"""Pairs by which the speed is measured; for so long, and so many times at least and at most."""

Clock = Callable[[], float]
Pair = tuple[str, str]


class Model(NamedTuple):
    """A model of the registry on this machine."""

    id: str  # "" is the one that ships
    folder: str


class Loaded(NamedTuple):
    """A model as the night runs it."""

    system: LoadedSystem
    calibration: Calibration


class Broken(Exception):
    """The candidate cannot be measured; the message says why."""


def measure(
    config: Config,
    *,
    candidate: Model,
    serving: Model,
    on_scored: Count = lambda pairs: None,
    clock: Clock = time.perf_counter,
) -> Measures:
    """Measure both models.

    Args:
        config: the night's configuration.
        candidate: it may be broken, which is a result.
        serving: what it is compared with.
        on_scored: called with the number of inputs scored since the last call.
        clock: in seconds.

    Raises:
        ConfigError, JudgementError, SourceError, ManifestError: the sets or the last night cannot be used.
        ModelError, ScoringFailed: the serving model cannot be used.
        MissingEngine: the engine of the night is not installed.
    """
    theirs = load(config, serving)
    night = last_night.find(config)
    try:
        with _fault_of_the_candidate():
            ours = load(config, candidate)
        sets, pairs = _on_sets(config, ours, theirs, on_scored)
        with _fault_of_the_candidate():
            speed = measure_speed(ours, theirs, pairs, clock=clock) if pairs else None
            rankings = last_night.compare(config, night, ours.system, on_scored=on_scored) if night else None
    except Broken as error:
        return Measures(candidate.id, serving.id, problem=str(error))
    return Measures(
        candidate.id,
        serving.id,
        sets=tuple(sets),
        speed=speed,
        last_night=last_night.load_of(night, config.plan) if night else None,
        rankings=rankings,
    )


@contextlib.contextmanager
def _fault_of_the_candidate() -> Iterator[None]:
    """What a broken model raises; a missing engine or a wrong option is no fault of the model."""
    try:
        yield
    except (ModelError, ScoringFailed) as error:
        raise Broken(str(error)) from None


def load(config: Config, model: Model) -> Loaded:
    """Load a model as the night does, with its calibration, its fusion weights, and their bi-encoder.

    Raises:
        ModelError, ConfigError, MissingEngine: it cannot be used.
    """
    options, name = beam_options(()), model.id or "the model that ships"
    config = autotune.resolve(with_model(config, model.folder), local=True)
    scorer = load_checked(scorer_loader(config, options))
    fusion = read_fusion(config)[0]
    load_encoder = first_stage_loader(config, options, fusion) if fusion and fusion.bi_encoder else None
    encoder = load_checked(load_encoder) if load_encoder else None
    tagged = reads_tags(scorer, Tagging()) or bool(fusion and fusion.reads_tags)
    system = LoadedSystem(
        System(name, "model", model.folder, config.scoring.backend),
        scorer=scorer,
        fusion=fusion,
        bi_encoder=check_bi_encoder(fusion, encoder, model=name) if fusion else None,
        tag_modes=MODES if tagged else ("none",),
    )
    return Loaded(system, read_calibration(config)[0])


def _on_sets(
    config: Config, ours: Loaded, theirs: Loaded, on_scored: Count
) -> tuple[list[JudgedSet], list[Pair]]:
    """Both models on every judged set, and some of its pairs to measure the speed by."""
    limits, sets, pairs = config.promotion, [], list[Pair]()
    selection = judged_sets.Selection(limits.split, top_k=TOP_K, max_queries=limits.max_queries)
    with judged_sets.read_sets([*map(Path, limits.judged_sets)], selection=selection) as read:
        for judged in read:
            tallies = [_Tally(judged, model) for model in (ours, theirs)]
            tagged = any(set(model.system.tag_modes) - {"none"} for model in (ours, theirs))
            for groups, _ in candidate_groups(judged, tagged=tagged):
                pairs += _pairs(groups, tagged=ours.system.reads_tags)[: SPEED_PAIRS - len(pairs)]
                with _fault_of_the_candidate():
                    tallies[0].add(groups, on_scored)
                tallies[1].add(groups, on_scored)
            sets.append(JudgedSet(judged.name, *(tally.result() for tally in tallies)))
    return sets, pairs


class _Tally:
    """Collects what one model makes of a judged set."""

    def __init__(self, judged: judged_sets.JudgedSet, model: Loaded) -> None:
        self._judged, self._model = judged, model
        self._orders: dict[str, dict[str, Order]] = {mode: {} for mode in model.system.tag_modes}
        self._probabilities: list[float] = []
        self._relevant: list[bool] = []
        self._spreads: list[float] = []
        self._failed = 0

    def add(self, groups: Sequence[QueryGroup], on_scored: Count) -> None:
        """Score some questions in every mode of tags.

        Raises:
            ScoringFailed: the model is broken.
        """
        system = self._model.system
        for scored in score_by_mode(groups, system, on_scored=on_scored):
            ranked = [rank(group) for group in fuse_groups(scored.groups, system)]
            for group in ranked:
                self._orders[scored.mode][group.query.query_id] = [
                    (c.scored.candidate.passage_id, final_logit(c.scored)) for c in group.candidates
                ]
            if scored.mode == system.tag_modes[0]:
                self._failed += scored.failed
                self._add_scores(ranked)

    def _add_scores(self, ranked: Sequence[RankedGroup]) -> None:
        lowest = self._judged.selection.min_relevance
        for group in ranked:
            grades = self._judged.qrels[group.query.query_id]
            logits = [c.scored.logit for c in group.candidates if c.scored.logit is not None]
            self._spreads += [max(logits) - min(logits)] if len(logits) > 1 else []
            for c in group.candidates:
                score = score_of(c.scored, self._model.calibration)
                if score is not None:
                    self._probabilities.append(score)
                    self._relevant.append(grades.get(c.scored.candidate.passage_id, 0) >= lowest)

    def result(self) -> OnSet:
        by_mode = {
            mode: measure_system(
                orders,
                qrels=self._judged.qrels,
                min_relevance=self._judged.selection.min_relevance,
                logits=True,
            )
            for mode, orders in self._orders.items()
        }
        first, *others = by_mode.values()
        lost = [first.means["nDCG@10"] - other.means["nDCG@10"] for other in others]
        return OnSet(
            ndcg=first.by_query["nDCG@10"],
            shortcut_gap=max(0.0, *lost) if lost else 0.0,
            calibration_error=expected_error(self._probabilities, self._relevant),
            auc=first.auc,
            spread=sum(self._spreads) / max(1, len(self._spreads)),
            pairs=len(self._probabilities) + self._failed,
            failed=self._failed,
        )


def _pairs(groups: Sequence[QueryGroup], *, tagged: bool) -> list[Pair]:
    sides = [stages.rendered(group, c, tagged=tagged)[0] for group in groups for c in group.candidates]
    return [(side.query, side.passage) for side in sides]


def measure_speed(
    ours: Loaded, theirs: Loaded, pairs: Sequence[Pair], *, clock: Clock = time.perf_counter
) -> Speed:
    """Pairs a second of both models on the same pairs, in turns, so that a busy machine slows both; the best turn.

    Raises:
        ScoringFailed: a model is broken.
    """
    scorers = [model.system.scorer for model in (ours, theirs)]
    best, total = [float("inf")] * 2, 0.0
    for turn in range(SPEED_TURNS[1]):
        if turn >= SPEED_TURNS[0] and total > SPEED_SECONDS:
            break
        fresh = renewed(pairs, turn)
        for n in (0, 1) if turn % 2 else (1, 0):
            scorer = scorers[n]
            assert scorer is not None
            started = clock()
            score_checked(scorer, fresh)
            seconds = clock() - started
            best[n], total = min(best[n], seconds), total + seconds
    return Speed(*(len(pairs) / max(1e-9, seconds) for seconds in best))
