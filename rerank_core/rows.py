"""Builds the published tables from ranked groups, in a fixed order: by query, then by rank."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rerank_core.features.render import passage_text, render_tags
from rerank_core.mining.hard_negatives import training_pairs
from rerank_core.ranking.calibration import UNCALIBRATED, Calibration, score_of
from rerank_core.ranking.evidence import quote
from rerank_core.redact import redact
from schemas.records import HardNegative, Mention, PassageFacts, RankedCandidate, RankedGroup, Rejected
from schemas.tables import DEAD_LETTERS, HARD_NEGATIVES, MENTION, PASSAGE_TAGS, RERANKED, TRAINING_PAIRS
from schemas.tags import Tags


def reranked(
    groups: Iterable[RankedGroup],
    *,
    model_fingerprint: str,
    store_text: bool,
    calibration: Calibration = UNCALIBRATED,
) -> pa.Table:
    """The `reranked` table of some groups."""
    rows = [
        _reranked_row(group, ranked, document_ranks, store_text=store_text, calibration=calibration)
        for group in groups
        for document_ranks in [_document_ranks_before(group)]
        for ranked in group.candidates
    ]
    constant = {"model_fingerprint": model_fingerprint}
    return pa.Table.from_pylist([row | constant for row in rows], schema=RERANKED)


def hard_negatives(negatives: Sequence[HardNegative], *, model_fingerprint: str) -> pa.Table:
    """The `hard_negatives` table."""
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
        }
        for n in negatives
    ]
    return pa.Table.from_pylist(rows, schema=HARD_NEGATIVES)


def training_table(negatives: Sequence[HardNegative], *, tagged: bool) -> pa.Table:
    """The `training_pairs` table: three columns in the order that sentence-transformers expects."""
    rows = [
        {"query": q, "passage": p, "label": label} for q, p, label in training_pairs(negatives, tagged=tagged)
    ]
    return pa.Table.from_pylist(rows, schema=TRAINING_PAIRS)


def passage_tags(facts: Mapping[str, PassageFacts]) -> pa.Table:
    """The `passage_tags` table, sorted by key."""
    ordered = sorted(facts.items())
    mentions = [mention for _, passage in ordered for mention in passage.mentions]
    offsets = [0, *itertools.accumulate(len(passage.mentions) for _, passage in ordered)]
    fields = [pa.array([m[at] for m in mentions], field.type) for at, field in enumerate(MENTION)]
    columns = {
        "passage_key": [key for key, _ in ordered],
        "mentions": pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()),
            pa.StructArray.from_arrays(fields, fields=list(MENTION)),
            type=PASSAGE_TAGS.field("mentions").type,
        ),
        "words": [passage.words for _, passage in ordered],
        "role": [passage.role for _, passage in ordered],
        "causal": [passage.causal for _, passage in ordered],
    }
    return pa.Table.from_pydict(columns, schema=PASSAGE_TAGS)


def read_passage_tags(batch: pa.RecordBatch | pa.Table) -> dict[str, PassageFacts]:
    """The facts in rows of `passage_tags`, by key; read by column, which is ten times faster than by struct."""
    lists = batch.column("mentions")
    lists = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    spans = lists.flatten().flatten()
    mentions = [Mention(*row) for row in zip(*(field.to_pylist() for field in spans), strict=True)]
    ends = list(itertools.accumulate(pc.list_value_length(lists).to_pylist()))
    rows = zip(
        *(batch.column(name).to_pylist() for name in ("passage_key", "words", "role", "causal")), strict=True
    )
    facts, start = {}, 0
    for (key, words, role, causal), end in zip(rows, ends, strict=True):
        facts[key] = PassageFacts(tuple(mentions[start:end]), words, role, causal)
        start = end
    return facts


def dead_letters(rejected: Iterable[Rejected]) -> pa.Table:
    """The `dead_letters` table, sorted, so that equal runs give equal files; no detail holds a secret."""
    rows = [record._replace(detail=redact(record.detail))._asdict() for record in sorted(rejected)]
    return pa.Table.from_pylist(rows, schema=DEAD_LETTERS)


def _document_ranks_before(group: RankedGroup) -> dict[str, int]:
    """Ranks of the group's documents in BM25's order, from 1, without gaps."""
    order = sorted(group.candidates, key=lambda ranked: ranked.rank_before)
    documents = dict.fromkeys(ranked.scored.candidate.doc_id for ranked in order)
    return {doc_id: rank for rank, doc_id in enumerate(documents, start=1)}


def _reranked_row(
    group: RankedGroup,
    ranked: RankedCandidate,
    document_ranks: dict[str, int],
    *,
    store_text: bool,
    calibration: Calibration,
) -> dict[str, object]:
    candidate, tags = ranked.scored.candidate, ranked.scored.tags
    logit, evidence = ranked.scored.logit, ranked.scored.evidence
    if logit is None and ranked.scored.pruned is None:
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
        "fused_logit": ranked.scored.fused,
        "score": score_of(ranked.scored, calibration),
        "cheap_score": ranked.scored.first_stage,
        **(tags._asdict() if tags else dict.fromkeys(Tags._fields)),
        "evidence": quote(candidate.text, evidence) if evidence else None,
        "evidence_sentences": list(evidence.sentences) if evidence else None,
        "evidence_logit": evidence.logit if evidence else None,
        "evidence_score": calibration(evidence.logit) if evidence else None,
        "overflow_tokens": ranked.scored.overflow,
        "reused": ranked.scored.reused,
        "input_fingerprint": ranked.scored.fingerprint,
        "stale_since": None,
    }


def _passage(ranked: RankedCandidate) -> str:
    return passage_text(ranked.scored.candidate.title, ranked.scored.candidate.text)
