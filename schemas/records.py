"""The records that travel from the index to Parquet.

NamedTuples, because Beam pickles them compactly and they cannot be changed by a stage that only reads them.
Scores are logits of one cross-encoder; sigmoid and calibration come when a table is written.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.tags import Tags


class LogEvent(NamedTuple):
    """One search of one user, as the query log holds it, fields named but nothing normalised."""

    record: str  # where it was read, "queries.jsonl:17": what a dead letter names
    timestamp: str  # ISO-8601, or "" where the log has no times
    query: str
    user: str  # as the log names it: hashed before anything is grouped or written; "" where the log has none
    clicks: tuple[str, ...]  # doc ids clicked
    impressions: tuple[str, ...]  # doc ids shown, in order; () where the log has none


class Placed(NamedTuple):
    """How often a document was shown and clicked at one place of a query's result list."""

    rank: int  # from 1
    impressions: int
    clicks: int


class Query(NamedTuple):
    """One distinct normalised query of the window, with what its users did."""

    query_id: str
    text: str
    count: int  # type: ignore[assignment]  # events in the window; tuple.count is not missed here
    users: int  # distinct users; 0 where the log names none
    clicks: tuple[tuple[str, int], ...]  # (doc_id, clicks), sorted by doc_id
    click_positions: tuple[float, ...] = ()  # mean place of each clicked one among those shown; 0: unknown
    first_seen: str = ""  # ISO-8601, UTC; "" where the log has no times
    last_seen: str = ""
    shown: tuple[tuple[str, tuple[Placed, ...]], ...] = ()  # by doc_id; only on the way to `attraction`
    attraction: tuple[
        tuple[str, float], ...
    ] = ()  # by doc_id, clicks without the bias of position; see labels.debias


class Document(NamedTuple):
    """One document that BM25 found for a query, whole."""

    doc_id: str
    title: str
    text: str
    sentences: tuple[str, ...]  # of the text, where the index holds them; else ()
    bm25_score: float
    bm25_rank: int  # from 1


class Candidate(NamedTuple):
    """One unit (passage, sentence or window) of a document that BM25 found for a query."""

    doc_id: str
    passage_id: str  # doc_id for a whole passage, "doc_id#3" for its fourth unit
    title: str
    text: str
    bm25_score: float  # of the document
    bm25_rank: int  # of the document, from 1


class Mention(NamedTuple):
    """One mention of a named entity in a text."""

    text: str  # as it stands there: text_of_the_passage[start:end]
    label: str  # PER, ORG, LOC or MISC
    start: int  # in characters, from 0
    end: int


class PassageFacts(NamedTuple):
    """What a passage says of itself, whatever was asked: kept from one night to the next."""

    mentions: tuple[Mention, ...]
    words: int
    role: str
    causal: bool


class Evidence(NamedTuple):
    """The sentences that speak for a unit."""

    sentences: tuple[int, ...]  # their numbers in the unit's text, from 0, rising
    logit: float  # of these sentences alone


class ScoredCandidate(NamedTuple):
    """A candidate on its way through scoring; `logit` is None until a score is found or computed."""

    candidate: Candidate
    tags: Tags | None  # None in plain mode
    fingerprint: str  # of the exact model input and the model: see rerank_core.scoring.reuse
    logit: float | None
    reused: bool  # the logit comes from an earlier run
    overflow: int  # tokens of the input beyond max_length, which the model did not see
    evidence: Evidence | None = None  # of the best units only
    first_stage: float | None = None  # the first-stage model's score; None without one, or where it failed
    pruned: float | None = None  # the first-stage score by which the cascade pruned it, which leaves no logit
    fused: float | None = None  # the logit that fusion makes of this one and others; None without fusion


class RankedCandidate(NamedTuple):
    """A scored or pruned candidate with its places; `rank` orders units, `doc_rank` documents by their best unit."""

    scored: ScoredCandidate
    rank: int  # from 1
    doc_rank: int  # from 1
    rank_before: int  # place of the unit in BM25's order, from 1


class QueryGroup(NamedTuple):
    """One query and all its candidates: the element that pure functions take and return."""

    query: Query
    candidates: tuple[ScoredCandidate, ...]
    parts: tuple[str, ...] = ()  # sub-queries that candidates are scored for too


class RankedGroup(NamedTuple):
    """A query group in its final order."""

    query: Query
    candidates: tuple[RankedCandidate, ...]


class HardNegative(NamedTuple):
    """One (query, positive, negative) with the rule that kept it."""

    query: Query
    positive: RankedCandidate
    negative: RankedCandidate
    label_source: str  # clicks | qrels | answers
    kept_by: str  # top | random | easy
    margin: float  # positive's score minus negative's, sigmoid scale


class Rejected(NamedTuple):
    """A record that a stage could not handle: nothing leaves the job without one of these."""

    stage: str
    unit: str  # what one such record is: event | query | pair
    record: str  # its id: "queries.jsonl:17", a query_id, "query_id/passage_id"
    reason: str  # a stable slug: empty_query, no_candidates, nan_logit ...
    detail: str  # for a person: the value and the remedy; never a user's identity
