"""The records that travel from the index to Parquet.

NamedTuples, because Beam pickles them compactly and they cannot be changed by a stage that only reads them.
Scores are logits of one cross-encoder; sigmoid and calibration are applied when a table is written.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.tags import Tags


class LogEvent(NamedTuple):
    """One search of one user as recorded in the query log: fields named, nothing normalised."""

    record: str  # file and line, "queries.jsonl:17", for dead letters
    timestamp: str  # ISO-8601, or "" where the log has no times
    query: str
    user: str  # as in the log: hashed before anything is grouped or written; "" where the log has none
    clicks: tuple[str, ...]  # doc ids clicked
    impressions: tuple[str, ...]  # doc ids shown, in order; () where the log has none


class ShownAtRank(NamedTuple):
    """How often a document was shown and clicked at one rank of a query's result list."""

    rank: int  # from 1
    impressions: int
    clicks: int


class Query(NamedTuple):
    """One distinct normalised query of the window, with what its users did."""

    query_id: str
    text: str
    count: int  # type: ignore[assignment]  # events in the window; hides tuple.count
    users: int  # distinct users; 0 where the log names none
    clicks: tuple[tuple[str, int], ...]  # (doc_id, clicks), sorted by doc_id
    click_positions: tuple[float, ...] = ()  # mean rank at which each clicked document was shown; 0: unknown
    first_seen: str = ""  # ISO-8601, UTC; "" where the log has no times
    last_seen: str = ""
    # (doc_id, counts at each rank); only until `attraction` is estimated
    shown: tuple[tuple[str, tuple[ShownAtRank, ...]], ...] = ()
    # (doc_id, click probability corrected for position bias); see labels.debias
    attraction: tuple[tuple[str, float], ...] = ()
    typed: str = ""  # as most of its users typed `text`, for an index with analysers of its own; "": just so


class Document(NamedTuple):
    """One whole document that BM25 retrieved for a query."""

    doc_id: str
    title: str
    text: str
    sentences: tuple[str, ...]  # of the text, where the index stores them; else ()
    bm25_score: float
    bm25_rank: int  # from 1


class Candidate(NamedTuple):
    """One unit (passage, sentence or window) of a document that BM25 retrieved for a query."""

    doc_id: str
    passage_id: str  # doc_id for a whole passage, "doc_id#3" for its fourth unit
    title: str
    text: str
    bm25_score: float  # of the document
    bm25_rank: int  # of the document, from 1


class Mention(NamedTuple):
    """One mention of a named entity in a text."""

    text: str  # as spelled: text_of_the_passage[start:end]
    label: str  # PER, ORG, LOC or MISC
    start: int  # in characters, from 0
    end: int


class PassageFacts(NamedTuple):
    """What was read in a passage; it does not depend on the query, and is reused from night to night."""

    mentions: tuple[Mention, ...]
    words: int
    role: str
    causal: bool


class Evidence(NamedTuple):
    """The sentences of a unit that support its score."""

    sentences: tuple[int, ...]  # their numbers in the unit's text, from 0, ascending
    logit: float  # of these sentences alone


class ScoredCandidate(NamedTuple):
    """A candidate while it is tagged and scored; `logit` is None until it is reused or computed."""

    candidate: Candidate
    tags: Tags | None  # None where tagging is off
    fingerprint: str  # of the exact model input and the model: see rerank_core.scoring.reuse
    logit: float | None
    reused: bool  # whether the logit comes from an earlier run
    overflow: int  # tokens of the input beyond max_length, which the model did not see
    evidence: Evidence | None = None  # of the best units only
    first_stage: float | None = None  # the first-stage model's score; None without one, or where it failed
    pruned: float | None = None  # the first-stage score by which the cascade pruned it, which leaves no logit
    fused: float | None = None  # the fused logit; None without fusion


class RankedCandidate(NamedTuple):
    """A scored or pruned candidate with its ranks; `rank` is that of the unit, `doc_rank` of its document (MaxP)."""

    scored: ScoredCandidate
    rank: int  # from 1
    doc_rank: int  # from 1
    rank_before: int  # of the unit in BM25's order, from 1


class QueryGroup(NamedTuple):
    """One query and all its candidates."""

    query: Query
    candidates: tuple[ScoredCandidate, ...]
    parts: tuple[str, ...] = ()  # sub-queries that the candidates are also scored for


class RankedGroup(NamedTuple):
    """A query group in its final order."""

    query: Query
    candidates: tuple[RankedCandidate, ...]


class HardNegative(NamedTuple):
    """One (query, positive, negative) and the rule that chose the negative."""

    query: Query
    positive: RankedCandidate
    negative: RankedCandidate
    label_source: str  # clicks | qrels | answers
    kept_by: str  # top | random | easy
    margin: float  # positive's score minus negative's, sigmoid scale


class Rejected(NamedTuple):
    """A record that a stage could not handle. No record is dropped without one of these."""

    stage: str
    unit: str  # event | query | pair
    record: str  # its id: "queries.jsonl:17", a query_id, "query_id/passage_id"
    reason: str  # a stable slug: empty_query, no_candidates, nan_logit ...
    detail: str  # the value and the remedy, in words; never a user's identity
