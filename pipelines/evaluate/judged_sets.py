"""Judged sets in BEIR's layout, and the candidates of their questions as a night would have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.sources.local.bm25_index import REJECTED, LocalIndex, build_index
from pipelines.sources.local.corpus_files import LineError, corpus_file, parse_passage
from rerank_core.config.night import Candidates
from rerank_core.errors import JudgementError
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import BeirQuery, Qrels, read_qrels, read_queries, read_sentence_qrels
from rerank_core.inference.model_folder import file_digest
from rerank_core.stages import Rejects, make_group
from rerank_core.text import fingerprint, normalise_query, shorten
from schemas.records import Document, Query, QueryGroup, Rejected

OWN_DEPTH = 1000
"""How far down BM25's list a question's own candidates are looked for; the others follow, by doc id."""


class Wanted(NamedTuple):
    """What of a set is measured."""

    split: str = "dev"
    level: Level = "document"
    own: bool = False  # questions are ranked over their own candidates, where they have some
    own_only: bool = False  # and those that have none are left out
    top_k: int = 100  # else over BM25's best
    max_queries: int = 0  # the first by a hash of their ids; 0 is all
    min_relevance: int = 1


class JudgedSet(NamedTuple):
    """The questions of one split that have a relevant document, under the set's own ids."""

    name: str
    queries: tuple[Query, ...]  # texts normalised as a night normalises them
    types: dict[str, str]  # by query_id, of those that have one
    qrels: Qrels  # documents, or at level "unit" sentences ("doc_id#n"); grades below 0 count as 0
    own: dict[str, tuple[Document, ...]]  # candidates by query_id, where they are the question's own
    bm25: LocalIndex
    wanted: Wanted
    counts: dict[str, int]  # what of the set was left out


def open_index(folder: Path, work: Path, *, on_progress: Callable[[int], None] | None = None) -> LocalIndex:
    """The set's BM25 index in `work`, built where there is none of this very corpus.

    Raises:
        SourceError: no corpus, or one that cannot be indexed.
    """
    corpus = corpus_file(folder)
    target = work / f"{folder.name}-{file_digest(corpus)[:12]}"
    if not target.exists():
        build_index(corpus, target, on_progress=on_progress)
    return LocalIndex(target)


def read_set(
    folder: Path, *, wanted: Wanted, work: Path, on_progress: Callable[[int], None] | None = None
) -> JudgedSet:
    """Read a set's questions and judgements, and index its corpus.

    Raises:
        JudgementError: a file is missing or damaged, or nothing in it can be measured.
        SourceError: the corpus cannot be indexed.
    """
    folder = folder.resolve()
    queries = read_queries(folder / "queries.jsonl")
    qrels = _qrels(folder, wanted)
    of_split = {name: q for name, q in queries.items() if q.split in ("", wanted.split)}
    judged = [name for name in qrels if name in of_split]
    answered = [name for name in judged if max(qrels[name].values()) >= wanted.min_relevance]
    if not answered:
        raise JudgementError(
            f"{folder}: no query of split {wanted.split!r} has a judgement of {wanted.min_relevance} or more; check "
            "--split and --min-relevance"
        )
    asked = [name for name in answered if of_split[name].candidates or not wanted.own_only]
    if not asked:
        raise JudgementError(f"{folder}: no judged query of split {wanted.split!r} has candidates of its own")
    order = sorted(asked, key=lambda name: fingerprint(folder.name, name))
    chosen = order[: wanted.max_queries or len(order)]
    index = open_index(folder, work, on_progress=on_progress)
    own = (
        _own_candidates(folder, {n: of_split[n] for n in chosen}, index)
        if wanted.own or wanted.own_only
        else {}
    )
    return JudgedSet(
        name=folder.name,
        queries=tuple(Query(n, normalise_query(of_split[n].text), 1, 0, ()) for n in chosen),
        types={name: of_split[name].type for name in chosen if of_split[name].type},
        qrels={name: {item: max(0, grade) for item, grade in qrels[name].items()} for name in chosen},
        own=own,
        bm25=index,
        wanted=wanted,
        counts={
            "judged_but_unknown": len(qrels) - len(judged),
            "without_relevant": len(judged) - len(answered),
            "without_own_candidates": len(answered) - len(asked),
            "not_asked": len(asked) - len(chosen),
            "corpus_lines_rejected": len((index.path / REJECTED).read_bytes().splitlines()),
        },
    )


def candidates(judged: JudgedSet, queries: Sequence[Query]) -> tuple[list[QueryGroup], Rejects]:
    """The questions that have candidates, in units of the level, and a record of whatever else there was."""
    config = Candidates(unit="sentence" if judged.wanted.level == "unit" else "passage")
    groups, rejected = [], []
    for query in queries:
        found: list[Document] | Rejected = list(judged.own.get(query.query_id, ())) or _search(judged, query)
        group, records = make_group(query, found, config=config)
        groups.append(group)
        rejected += records
    return [group for group in groups if group.candidates], rejected


def _search(judged: JudgedSet, query: Query) -> list[Document] | Rejected:
    (found,) = judged.bm25.search([query.text], top_k=judged.wanted.top_k)
    detail = f"no document shares a word with {shorten(query.text, limit=80)!r}"
    return found or Rejected("FetchCandidates", "query", query.query_id, "no_candidates", detail)


def _qrels(folder: Path, wanted: Wanted) -> Qrels:
    units = wanted.level == "unit"
    path = folder / ("sentence_qrels" if units else "qrels") / f"{wanted.split}.tsv"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.tsv"))) or "none"
        hint = "measure it by --level document, or " if units else ""
        raise JudgementError(f"no judgements at {path} (splits there: {there}); {hint}name a --split that is")
    return read_sentence_qrels(path) if units else read_qrels(path)


def _own_candidates(
    folder: Path, queries: dict[str, BeirQuery], index: LocalIndex
) -> dict[str, tuple[Document, ...]]:
    """Own candidates in BM25's order; those beyond OWN_DEPTH have no score and come last."""
    corpus = _documents(folder, {doc_id for query in queries.values() for doc_id in query.candidates})
    own = {}
    for name, query in queries.items():
        if not query.candidates:
            continue
        for doc_id in query.candidates:
            if doc_id not in corpus:
                raise JudgementError(
                    f"{folder}: query {name!r} has the candidate {doc_id!r}, which corpus.jsonl lacks; add it there"
                )
        found = {d.doc_id: d for d in index.search([normalise_query(query.text)], top_k=OWN_DEPTH)[0]}
        documents = [found.get(doc_id) or corpus[doc_id] for doc_id in dict.fromkeys(query.candidates)]
        documents.sort(key=lambda d: (d.bm25_rank, d.doc_id))
        own[name] = tuple(d._replace(bm25_rank=rank) for rank, d in enumerate(documents, start=1))
    return own


def _documents(folder: Path, wanted: Iterable[str]) -> dict[str, Document]:
    wanted, found = frozenset(wanted), {}
    if not wanted:
        return {}
    seen: set[str] = set()
    with corpus_file(folder).open("rb") as lines:
        for line in lines:
            try:
                one = parse_passage(line, seen=seen)
            except LineError:  # counted when the corpus was indexed
                continue
            seen.add(one.doc_id)
            if one.doc_id in wanted:
                found[one.doc_id] = Document(*one, bm25_score=0.0, bm25_rank=OWN_DEPTH + 1)
    return found
