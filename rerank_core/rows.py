"""From ranked groups to rows of the published tables, in a fixed order: by query, then by rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from rerank_core.features.render import passage_text, render_tags
from rerank_core.mining import training_pairs
from rerank_core.ranking import sigmoid
from schemas.records import HardNegative, RankedCandidate, RankedGroup, Rejected
from schemas.tables import DEAD_LETTERS, HARD_NEGATIVES, RERANKED, TRAINING_PAIRS


def reranked(
    groups: Iterable[RankedGroup], *, run_id: str, model_fingerprint: str, store_text: bool
) -> pa.Table:
    """The `reranked` table of some groups."""
    rows = [
        _reranked_row(group, ranked, document_ranks, store_text)
        for group in groups
        for document_ranks in [_document_ranks_before(group)]
        for ranked in group.candidates
    ]
    constant = {"model_fingerprint": model_fingerprint, "run_id": run_id}
    return pa.Table.from_pylist([row | constant for row in rows], schema=RERANKED)


def hard_negatives(negatives: Sequence[HardNegative], *, run_id: str, model_fingerprint: str) -> pa.Table:
    """The `hard_negatives` table, rich enough to choose and re-tag from."""
    rows = [
        {
            "query_id": n.query.query_id,
            "query": n.query.text,
            "positive_id": n.positive.scored.candidate.passage_id,
            "positive": _passage(n.positive),
            "positive_logit": n.positive.scored.logit,
            "negative_id": n.negative.scored.candidate.passage_id,
            "negative": _passage(n.negative),
            "negative_logit": n.negative.scored.logit,
            "negative_rank": n.negative.rank,
            "negative_rank_before": n.negative.rank_before,
            "margin": n.margin,
            "label_source": n.label_source,
            "kept_by": n.kept_by,
            "positive_tags": render_tags(n.positive.scored.tags),
            "negative_tags": render_tags(n.negative.scored.tags),
            "model_fingerprint": model_fingerprint,
            "run_id": run_id,
        }
        for n in negatives
    ]
    return pa.Table.from_pylist(rows, schema=HARD_NEGATIVES)


def training_table(negatives: Sequence[HardNegative], *, tagged: bool) -> pa.Table:
    """The lean `training_pairs` view: three columns in the order that sentence-transformers expects."""
    rows = [
        {"query": q, "passage": p, "label": label} for q, p, label in training_pairs(negatives, tagged=tagged)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING_PAIRS)


def dead_letters(rejected: Iterable[Rejected], *, run_id: str) -> pa.Table:
    """The `dead_letters` table, sorted, so that equal runs give equal files."""
    rows = [record._asdict() | {"run_id": run_id} for record in sorted(rejected)]
    return pa.Table.from_pylist(rows, schema=DEAD_LETTERS)


def _document_ranks_before(group: RankedGroup) -> dict[str, int]:
    """Places of the group's documents in BM25's order, from 1, without gaps."""
    order = sorted(group.candidates, key=lambda ranked: ranked.rank_before)
    documents = dict.fromkeys(ranked.scored.candidate.doc_id for ranked in order)
    return {doc_id: place for place, doc_id in enumerate(documents, start=1)}


def _reranked_row(
    group: RankedGroup, ranked: RankedCandidate, document_ranks: dict[str, int], store_text: bool
) -> dict[str, object]:
    candidate, tags = ranked.scored.candidate, ranked.scored.tags
    logit = ranked.scored.logit
    if logit is None:
        raise ValueError(f"{group.query.query_id}/{candidate.passage_id} reached publishing without a logit")
    return {
        "query_id": group.query.query_id,
        "query": group.query.text,
        "doc_id": candidate.doc_id,
        "passage_id": candidate.passage_id,
        "title": candidate.title if store_text else None,
        "text": candidate.text if store_text else None,
        "rank": ranked.rank,
        "rank_before": ranked.rank_before,
        "doc_rank": ranked.doc_rank,
        "doc_rank_before": document_ranks[candidate.doc_id],
        "bm25_score": candidate.bm25_score,
        "logit": logit,
        "score": sigmoid(logit),
        "hop": tags.hop if tags else None,
        "role": tags.role if tags else None,
        "entities": list(tags.entities) if tags else None,
        "causal": tags.causal if tags else None,
        "reasoning": tags.reasoning if tags else None,
        "overflow_tokens": ranked.scored.overflow,
        "reused": ranked.scored.reused,
        "input_fingerprint": ranked.scored.fingerprint,
    }


def _passage(ranked: RankedCandidate) -> str:
    return passage_text(ranked.scored.candidate.title, ranked.scored.candidate.text)
