"""The stages of a night as pure functions on query groups; pipelines/nightly/stages.py runs them on Beam.

Each returns groups and the records that it could not handle, which together account for all of its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rerank_core.candidates import units
from rerank_core.candidates.decomposition import decompose
from rerank_core.config.night import Tagging
from rerank_core.config.source import Candidates
from rerank_core.features import tagger
from rerank_core.features.render import Rendered, passage_text, render
from rerank_core.querylog.privacy import mask, shown
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.protocol import MeasuresOverflow, Scorer
from rerank_core.scoring.reuse import PreviousScore, input_fingerprint
from rerank_core.text import fingerprint
from schemas.records import Candidate, Document, PassageFacts, Query, QueryGroup, Rejected, ScoredCandidate

Pair = tuple[str, str]
Rejects = list[Rejected]


def make_group(
    query: Query, retrieved: list[Document] | Rejected, *, config: Candidates
) -> tuple[QueryGroup, Rejects]:
    """Split a query's documents into units; if no candidate is left, the rejects say why."""
    if isinstance(retrieved, Rejected):
        return QueryGroup(query, ()), [retrieved]
    rejected: Rejects = []
    candidates: list[Candidate] = []
    seen: set[str] = set()
    for document in retrieved:
        record = f"{query.query_id}/{document.doc_id}"
        split = units.split(document, config=config)
        if document.doc_id in seen:
            detail = "the index returned this document twice; index each document once"
            rejected.append(_reject("FetchCandidates", "pair", record, "duplicate_doc_id", detail))
        elif not split:
            detail = f"document {shown(document.doc_id)} has no text, and a title alone is not scored; index its text"
            rejected.append(_reject("FetchCandidates", "pair", record, "no_text", detail))
        else:
            candidates.extend(split)
        seen.add(document.doc_id)
    parts = decompose(query.text) if config.score_parts else ()
    group = QueryGroup(query, tuple(ScoredCandidate(c, None, "", None, False, 0) for c in candidates), parts)
    return group, rejected + ([] if candidates else [_left_empty("FetchCandidates", query)])


def passages_to_read(groups: Sequence[QueryGroup]) -> list[tuple[str, str]]:
    """The distinct (title, text) whose facts tagging needs: of the queries, without title, and of the candidates."""
    queries = [("", group.query.text) for group in groups]
    candidates = [(c.candidate.title, c.candidate.text) for group in groups for c in group.candidates]
    return list(dict.fromkeys(queries + candidates))


def tag_group(
    group: QueryGroup, facts: Mapping[tuple[str, str], PassageFacts], *, config: Tagging
) -> QueryGroup:
    """Tag every candidate, from the facts of its (title, text) and of the query's ("", text)."""
    passages = [(c.candidate.title, c.candidate.text) for c in group.candidates]
    tags = tagger.tag_facts(
        group.query.text,
        facts["", group.query.text],
        passages,
        [facts[passage] for passage in passages],
        names=[c.candidate.passage_id for c in group.candidates],
        config=config,
    )
    tagged = tuple(c._replace(tags=t) for c, t in zip(group.candidates, tags, strict=True))
    return group._replace(candidates=tagged)


def rendered(group: QueryGroup, candidate: ScoredCandidate, *, tagged: bool) -> tuple[Rendered, ...]:
    """The model's inputs for a candidate of a group, with its tags or without: for the query, and for its parts."""
    passage = passage_text(candidate.candidate.title, candidate.candidate.text)
    tags = candidate.tags if tagged else None
    return tuple(render(text, passage, tags) for text in (group.query.text, *group.parts))


def reuse_scores(
    group: QueryGroup, previous: dict[str, PreviousScore], *, model_fingerprint: str, tagged: bool
) -> QueryGroup:
    """Fingerprint every input, and carry over the scores of equal inputs from an earlier run."""

    def look_up(candidate: ScoredCandidate) -> ScoredCandidate:
        sides = rendered(group, candidate, tagged=tagged)
        keys = [input_fingerprint(*side, model_fingerprint=model_fingerprint) for side in sides]
        key = keys[0] if len(keys) == 1 else fingerprint(*keys)[:32]
        known = previous.get(key)
        if known is None:
            return candidate._replace(fingerprint=key)
        return candidate._replace(
            fingerprint=key,
            logit=known.logit,
            reused=known.logit is not None,
            overflow=known.overflow,
            evidence=known.evidence,
            first_stage=known.first_stage,
        )

    return group._replace(candidates=tuple(look_up(c) for c in group.candidates))


def first_stage_scores(groups: Sequence[QueryGroup], scorer: Scorer) -> tuple[list[QueryGroup], int]:
    """Score every candidate that has no first-stage score, without tags.

    The second value counts the candidates that could not be scored: their score stays None.
    """
    missing = [(g, c) for g in groups for c in g.candidates if c.first_stage is None]
    sides = [rendered(group, candidate, tagged=False)[0] for group, candidate in missing]
    outcome = score_checked(scorer, [(side.query, side.passage) for side in sides])
    scores = iter(outcome.logits)

    def scored(candidate: ScoredCandidate) -> ScoredCandidate:
        return candidate._replace(first_stage=next(scores)) if candidate.first_stage is None else candidate

    made = [group._replace(candidates=tuple(map(scored, group.candidates))) for group in groups]
    return made, len(outcome.errors)


def parts_by_value(groups: Sequence[QueryGroup], *, size: int) -> Iterator[list[int]]:
    """The groups that have something to score, most valuable first, in parts that are scored together.

    The value of a query is how often it is asked, then how many of its inputs have no score from an earlier run. A part
    is whole queries, up to `size` inputs where more than one fits.

    Yields:
        Indices into `groups`.
    """
    missing = [sum(map(is_open, group.candidates)) * (1 + len(group.parts)) for group in groups]
    order = sorted(
        (i for i in range(len(groups)) if missing[i]),
        key=lambda i: (-groups[i].query.count, -missing[i], groups[i].query.query_id),
    )
    part: list[int] = []
    filled = 0
    for i in order:
        if part and filled + missing[i] > size:
            yield part
            part, filled = [], 0
        part.append(i)
        filled += missing[i]
    if part:
        yield part


def score_groups(
    groups: Sequence[QueryGroup],
    scorer: Scorer,
    *,
    tagged: bool,
    on_scored: Callable[[int], None] | None = None,
) -> tuple[list[QueryGroup], Rejects]:
    """Score the candidates that have no logit and were not pruned, all groups together; equal inputs are scored once.

    Args:
        groups: groups whose candidates carry fingerprints.
        scorer: the model.
        tagged: whether it reads the tags.
        on_scored: called with the number of inputs scored since its last call.
    """
    pending: dict[Pair, int] = {}
    inputs: dict[str, list[int]] = {}  # by the candidate's fingerprint: its inputs' indices in `pending`
    for group in groups:
        for candidate in group.candidates:
            if is_open(candidate) and candidate.fingerprint not in inputs:
                pairs = [(side.query, side.passage) for side in rendered(group, candidate, tagged=tagged)]
                inputs[candidate.fingerprint] = [pending.setdefault(pair, len(pending)) for pair in pairs]
    outcome = score_checked(scorer, list(pending), on_scored=on_scored)
    measures = isinstance(scorer, MeasuresOverflow) and pending
    overflow = scorer.overflow(list(pending)).tolist() if measures else [0] * len(pending)  # type: ignore[attr-defined]

    scored_groups: list[QueryGroup] = []
    rejected: Rejects = []
    for group in groups:
        remaining = []
        for candidate in group.candidates:
            if not is_open(candidate):
                remaining.append(candidate)
                continue
            own = inputs[candidate.fingerprint]
            if failed := [outcome.errors[i] for i in own if i in outcome.errors]:
                record = f"{group.query.query_id}/{candidate.candidate.passage_id}"
                detail = mask(failed[0].detail)  # an engine's message may quote the query
                rejected.append(_reject("ScoreCandidates", "pair", record, failed[0].reason, detail))
            else:
                best = max(logit for i in own if (logit := outcome.logits[i]) is not None)
                remaining.append(candidate._replace(logit=best, overflow=max(overflow[i] for i in own)))
        if not remaining and group.candidates:
            rejected.append(_left_empty("ScoreCandidates", group.query))
        scored_groups.append(group._replace(candidates=tuple(remaining)))
    return scored_groups, rejected


def is_open(candidate: ScoredCandidate) -> bool:
    """Whether the model must score a candidate: it has no logit, and was not pruned."""
    return candidate.logit is None and candidate.pruned is None


def _reject(stage: str, unit: str, record: str, reason: str, detail: str) -> Rejected:
    return Rejected(stage, unit, record, reason, detail)


def _left_empty(stage: str, query: Query) -> Rejected:
    detail = f"no candidate of {shown(query.text)} was left; see its pairs' dead letters"
    return _reject(stage, "query", query.query_id, "all_candidates_rejected", detail)
