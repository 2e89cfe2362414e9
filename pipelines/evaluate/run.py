"""Measures rerankers on judged sets, side by side: `nightrank evaluate`.

Every system is measured over the same questions; a question for which it returns nothing counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipelines.evaluate.judged_sets import (
    JudgedSet,
    MinRelevance,
    Selection,
    lowest_grade,
    read_sets,
    set_names,
)
from pipelines.evaluate.published import NIGHTS_SYSTEMS, JudgedRun, evaluate_run
from pipelines.evaluate.scores import Count, candidate_groups, fuse_groups, score_by_mode
from pipelines.evaluate.systems import LoadedSystem, System, load_bi_encoder, load_system, parse
from rerank_core.errors import ConfigError
from rerank_core.evaluation.comparison import (
    Order,
    Result,
    SetResult,
    SystemResult,
    check_baseline,
    compare_systems,
    judged_orders,
    measure_system,
)
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import Qrels
from rerank_core.ranking.order import final_logit, rank
from schemas.records import QueryGroup, RankedGroup


def evaluate(
    sets: Sequence[Path] = (),
    *,
    systems: Sequence[str] = (),
    split: str = "dev",
    top_k: int = 100,
    own: bool = False,
    own_only: bool = False,
    baseline: str = "",
    tags: Sequence[str] = ("auto",),
    level: Level = "document",
    min_relevance: MinRelevance = 1,
    bi_encoder: str = "",
    max_length: int = 256,
    max_queries: int = 0,
    night: str = "",
    run_id: str = "",
    queries: str = "",
    qrels: str = "",
    work: Path | None = None,
    on_indexed: Callable[[int], None] | None = None,
    on_scored: Count = lambda pairs: None,
) -> Result:
    """Measure systems on judged sets, and a published night before and after.

    Args:
        sets: folders in BEIR's layout, with qrels/SPLIT.tsv.
        systems: "[LABEL=][KIND:]NAME" each: bm25, default, a cross-encoder's folder or name on the Hub, BACKEND:NAME,
            bi:NAME (a bi-encoder), run:FILE (a TREC run file), alone:MODEL (without its fusion weights).
        split: of the queries and judgements.
        top_k: candidates of a question, BM25's best.
        own: rank a question's own candidates instead, if it has some.
        own_only: the same, and leave out the questions that have none.
        baseline: name of the system that the others are tested against; "" is the first.
        tags: modes of the tag ablation, the measured one first; "auto" is all for a model that reads tags.
        level: what is ranked and judged, documents or units (sentences).
        min_relevance: lowest relevant grade; by set, "night" is the published night.
        bi_encoder: folder of the bi-encoder that fusion weights need.
        max_length: tokens that a model reads.
        max_queries: questions of a set, drawn by hash; 0 is all.
        night: output folder of a published night.
        run_id: of the night; "" is the newest.
        queries, qrels: judgements of the night: BEIR's queries.jsonl, and qrels of documents, or of sentences at level
            "unit".
        work: folder that caches the sets' indices, and scores, for the next call.
        on_indexed: called with the number of passages indexed since the last call.
        on_scored: called with the number of inputs scored since the last call.

    Raises:
        ConfigError: options that do not go together, or a wrong value.
        JudgementError, SourceError, ManifestError: a set, run file or night cannot be used.
        ModelError, MissingEngine: a model cannot be loaded.
        ScoringFailed: a model is broken.
    """
    names, parsed = set_names(sets), parse(systems)
    _check(names, parsed, night=night, judgements=bool(queries and qrels))
    check_baseline(baseline, [*(system.name for system in parsed), *(NIGHTS_SYSTEMS if night else ())])
    encoder = load_bi_encoder(bi_encoder, max_length=max_length, work=work)
    loaded = [
        load_system(system, tags=tags, max_length=max_length, bi_encoder=encoder, work=work)
        for system in parsed
    ]
    grades = {name: lowest_grade(min_relevance, name) for name in (*names, "night")}
    of_night = []
    if night:
        run = JudgedRun(night, queries, qrels, run_id, level, grades["night"])
        of_night.append(evaluate_run(run, [system for system in loaded if system.run is not None]))
    selection = Selection(split, level, own, own_only, top_k, max_queries)
    with read_sets(
        sets, selection=selection, min_relevance=grades, work=work, on_progress=on_indexed
    ) as judged:
        results = [evaluate_set(one_set, loaded, on_scored=on_scored) for one_set in judged]
    return compare_systems(
        [*results, *of_night],
        baseline=baseline,
        fingerprints={system.system.name: system.scorer.fingerprint for system in loaded if system.scorer},
        settings=selection._asdict()
        | {"min_relevance": grades, "max_length": max_length, "tags": list(tags)},
    )


def _check(sets: Sequence[str], systems: Sequence[System], *, night: str, judgements: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: what is missing or too much.
    """
    if not sets and not night:
        raise ConfigError("nothing to measure on: give SET, a folder of judged questions, or --night OUTPUT")
    if sets and not systems:
        raise ConfigError("nothing to measure: give --system bm25, default, a model's folder or run:FILE")
    if night and not judgements:
        raise ConfigError("--night needs --queries and --qrels, to know what is relevant")
    if judgements and not night:
        raise ConfigError("--queries and --qrels are judgements of a --night; a SET has its own")
    if not sets and any(system.kind != "run" for system in systems):
        raise ConfigError(
            "a night is measured as it was published: give a SET for --system, or only run:FILE as systems"
        )


class _Scores:
    """Collects the results of one system in one mode of tags."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.failed = self.truncated = 0

    def add(self, groups: Sequence[RankedGroup]) -> None:
        for group in groups:
            self.orders[group.query.query_id] = [
                (c.scored.candidate.passage_id, final_logit(c.scored)) for c in group.candidates
            ]
            self.truncated += sum(c.scored.overflow > 0 for c in group.candidates)


def evaluate_set(
    judged: JudgedSet, systems: Sequence[LoadedSystem], *, on_scored: Count = lambda pairs: None
) -> SetResult:
    """Measure every system on one set.

    Args:
        judged: the set.
        systems: with distinct names.
        on_scored: called with the number of inputs scored since the last call.

    Raises:
        JudgementError: a run file ranks none of the set's queries.
        ScoringFailed: a model is broken.
    """
    scores, relevant_candidates, without_text = _score_all(judged, systems, on_scored=on_scored)
    lowest = judged.selection.min_relevance
    relevant = sum(grade >= lowest for grades in judged.qrels.values() for grade in grades.values())
    return SetResult(
        name=judged.name,
        level=judged.selection.level,
        candidates=_describe_candidates(judged),
        fingerprint=judged.bm25.fingerprint,
        queries=len(judged.queries),
        types=judged.types,
        candidate_recall=relevant_candidates / relevant,
        counts=judged.counts | {"with_own_candidates": len(judged.own), "without_text": without_text},
        systems={
            system.system.name: _measure(system, scores, qrels=judged.qrels, min_relevance=lowest)
            for system in systems
        },
    )


def logits_of(judged: JudgedSet, system: LoadedSystem, *, on_scored: Count) -> dict[str, Order]:
    """A system's rankings of a set's questions with its logits, by query_id; fused ones if it has fusion weights."""
    scores, *_ = _score_all(judged, [system], on_scored=on_scored)
    return scores[system.system.name, system.tag_modes[0]].orders


def _score_all(
    judged: JudgedSet, systems: Sequence[LoadedSystem], *, on_scored: Count
) -> tuple[dict[tuple[str, str], _Scores], int, int]:
    """(scores by system and mode, number of relevant candidates, number of candidates without a text)."""
    scores = {(system.system.name, mode): _Scores() for system in systems for mode in system.tag_modes}
    for system in systems:
        if system.run is not None:
            orders = judged_orders(system.run, judged.qrels, files=f"{system.system.path} and {judged.name}")
            scores[system.system.name, "none"].orders = orders
    relevant = without_text = 0
    tagged = any(set(system.tag_modes) - {"none"} for system in systems)
    for groups, rejected in candidate_groups(judged, tagged=tagged):
        relevant += sum(_count_relevant(judged, group) for group in groups)
        without_text += sum(record.unit == "pair" for record in rejected)
        for system in systems:
            if system.system.kind == "bm25":
                scores[system.system.name, "none"].add([_in_bm25_order(group) for group in groups])
            elif system.scorer is not None:
                for scored in score_by_mode(groups, system, on_scored=on_scored):
                    of_mode = scores[system.system.name, scored.mode]
                    of_mode.add([rank(group) for group in fuse_groups(scored.groups, system)])
                    of_mode.failed += scored.failed
    return scores, relevant, without_text


def _describe_candidates(judged: JudgedSet) -> str:
    own, best = len(judged.own), f"BM25's best {judged.selection.top_k}"
    if own == len(judged.queries):
        return "their own"
    return f"{own:,} with their own, else {best}" if own else best


def _measure(
    system: LoadedSystem, scores: Mapping[tuple[str, str], _Scores], *, qrels: Qrels, min_relevance: int
) -> SystemResult:
    """A system in its first mode of tags, and its MAP in all of them."""
    results = {
        mode: measure_system(
            scores[system.system.name, mode].orders,
            qrels=qrels,
            min_relevance=min_relevance,
            logits=system.gives_logits,
        )
        for mode in system.tag_modes
    }
    first = scores[system.system.name, system.tag_modes[0]]
    return results[system.tag_modes[0]]._replace(
        failed=first.failed,
        truncated=first.truncated,
        by_tags={mode: result.means["MAP"] for mode, result in results.items()} if system.scorer else {},
    )


def _in_bm25_order(group: QueryGroup) -> RankedGroup:
    """BM25's own order, with its scores as logits."""
    ranked = rank(
        group._replace(candidates=tuple(c._replace(logit=c.candidate.bm25_score) for c in group.candidates))
    )
    return ranked._replace(candidates=tuple(sorted(ranked.candidates, key=lambda c: c.rank_before)))


def _count_relevant(judged: JudgedSet, group: QueryGroup) -> int:
    grades = judged.qrels[group.query.query_id]
    of_candidates = (grades.get(c.candidate.passage_id, 0) for c in group.candidates)
    return sum(grade >= judged.selection.min_relevance for grade in of_candidates)
