"""Judged sets in BEIR's layout, and the candidates of their questions, by the functions of a night.

`nightrank evaluate`, `fuse` and `calibrate` read sets here, and so do the dev sets of a training: queries are
normalised, documents cleaned and split into units as in a night.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.sources.local.bm25_index import INDEX_FORMAT, REJECTED, LocalIndex, build_index
from pipelines.sources.local.corpus_files import LineError, corpus_file, corpus_lines, parse_passage
from rerank_core.config.source import Candidates
from rerank_core.errors import ConfigError, JudgementError
from rerank_core.evaluation.measures import Level
from rerank_core.evaluation.qrels import BeirQuery, Qrels, read_qrels, read_queries, read_sentence_qrels
from rerank_core.files import plain_or_gz
from rerank_core.inference.model_folder import file_digest
from rerank_core.querylog.privacy import shown
from rerank_core.stages import Rejects, make_group
from rerank_core.text import fingerprint, normalise_query
from schemas.records import Document, Query, QueryGroup, Rejected

OWN_DEPTH = 1000
"""Depth to which BM25 orders a question's own candidates; those that it does not return follow, by doc id."""

MinRelevance = int | Mapping[str, int]
"""The lowest relevant grade: of all sets, or by set name, where "" is every other set."""


class Selection(NamedTuple):
    """Which questions and candidates of a set are used."""

    split: str = "dev"
    level: Level = "document"
    own: bool = False  # rank a question's own candidates, if it has some
    own_only: bool = False  # and leave out the questions that have none
    top_k: int = 100  # otherwise rank BM25's best
    max_queries: int = 0  # the first by a hash of their ids; 0 is all
    min_relevance: int = 1


class JudgedSet(NamedTuple):
    """The questions of one split that have a relevant document, under the set's own ids."""

    name: str
    queries: tuple[Query, ...]  # with normalised texts
    types: dict[str, str]  # by query_id, of those that have one
    qrels: Qrels  # documents, or at level "unit" sentences ("doc_id#n"); grades below 0 count as 0
    # own candidates by query_id, of the questions that are to be ranked over them
    own: dict[str, tuple[Document, ...]]
    bm25: LocalIndex
    selection: Selection
    counts: dict[str, int]  # what was left out


def set_names(folders: Sequence[Path]) -> list[str]:
    """Names of sets: those of their folders.

    Raises:
        ConfigError: two folders have one name.
    """
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two sets are called {name!r}; give each once, or rename a folder")
    return names


def lowest_grade(min_relevance: MinRelevance, name: str) -> int:
    """The lowest relevant grade of the set called `name`."""
    if isinstance(min_relevance, int):
        return min_relevance
    return min_relevance.get(name, min_relevance.get("", 1))


@contextlib.contextmanager
def read_sets(
    folders: Sequence[Path],
    *,
    selection: Selection,
    min_relevance: MinRelevance = 1,
    work: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[list[JudgedSet]]:
    """Several sets; their indices are removed at the end, unless `work` is a folder to keep them in.

    Raises:
        ConfigError: two folders have one name.
        JudgementError, SourceError: see `read_set`.
    """
    names = set_names(folders)
    with contextlib.ExitStack() as stack:
        into = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield [
            read_set(
                folder,
                selection=selection._replace(min_relevance=lowest_grade(min_relevance, name)),
                work=into,
                on_progress=on_progress,
            )
            for folder, name in zip(folders, names, strict=True)
        ]


def open_index(folder: Path, work: Path, *, on_progress: Callable[[int], None] | None = None) -> LocalIndex:
    """The set's BM25 index in `work`, built unless it is there for the same corpus.

    Raises:
        SourceError: no corpus, or one that cannot be indexed.
    """
    corpus = corpus_file(folder)
    target = work / f"{folder.name}-{file_digest(corpus)[:12]}-{INDEX_FORMAT}"
    if not target.exists():
        build_index(corpus, target, on_progress=on_progress)
    return LocalIndex(target)


def read_set(
    folder: Path, *, selection: Selection, work: Path, on_progress: Callable[[int], None] | None = None
) -> JudgedSet:
    """Read a set's questions and judgements, and index its corpus.

    Args:
        folder: corpus.jsonl, queries.jsonl, and qrels/SPLIT.tsv or sentence_qrels/SPLIT.tsv; each also gzipped, .gz.
        selection: what of it.
        work: folder for the index.
        on_progress: called with the number of passages indexed since the last call.

    Raises:
        JudgementError: a file is missing or damaged, or nothing in it can be measured.
        SourceError: the corpus cannot be indexed.
    """
    folder, split, lowest = folder.resolve(), selection.split, selection.min_relevance
    queries = read_queries(plain_or_gz(folder / "queries.jsonl"))
    qrels = _qrels(folder, selection)
    of_split = {name: q for name, q in queries.items() if q.split in ("", split)}
    judged = [name for name in qrels if name in of_split]
    answered = [name for name in judged if max(qrels[name].values()) >= lowest]
    if not answered:
        raise JudgementError(
            f"{folder}: no query of split {split!r} has a judgement of {lowest} or more; check the split and the "
            "lowest relevant grade"
        )
    asked = [name for name in answered if of_split[name].candidates or not selection.own_only]
    if not asked:
        raise JudgementError(f"{folder}: no judged query of split {split!r} has candidates of its own")
    order = sorted(asked, key=lambda name: fingerprint(folder.name, name))
    chosen = order[: selection.max_queries or len(order)]
    index = open_index(folder, work, on_progress=on_progress)
    with_own = chosen if selection.own or selection.own_only else []
    return JudgedSet(
        name=folder.name,
        queries=tuple(Query(n, normalise_query(of_split[n].text), 1, 0, ()) for n in chosen),
        types={name: of_split[name].type for name in chosen if of_split[name].type},
        qrels={name: {item: max(0, grade) for item, grade in qrels[name].items()} for name in chosen},
        own=_own_candidates(folder, {name: of_split[name] for name in with_own}, index),
        bm25=index,
        selection=selection,
        counts={
            "judged_but_unknown": len(qrels) - len(judged),
            "without_relevant": len(judged) - len(answered),
            "without_own_candidates": len(answered) - len(asked),
            "not_asked": len(asked) - len(chosen),
            "corpus_lines_rejected": len((index.path / REJECTED).read_bytes().splitlines()),
        },
    )


def candidates(judged: JudgedSet, queries: Sequence[Query]) -> tuple[list[QueryGroup], Rejects]:
    """The questions that have candidates, in units of the level, and records of what was rejected."""
    config = Candidates(unit="sentence" if judged.selection.level == "unit" else "passage")
    groups, rejected = [], []
    for query in queries:
        documents = list(judged.own.get(query.query_id, ())) or _search(judged, query)
        group, records = make_group(query, documents, config=config)
        groups.append(group)
        rejected += records
    return [group for group in groups if group.candidates], rejected


def _search(judged: JudgedSet, query: Query) -> list[Document] | Rejected:
    (documents,) = judged.bm25.search([query.text], top_k=judged.selection.top_k)
    detail = f"no document shares a word with {shown(query.text)}"
    return documents or Rejected("FetchCandidates", "query", query.query_id, "no_candidates", detail)


def _qrels(folder: Path, selection: Selection) -> Qrels:
    units = selection.level == "unit"
    path = plain_or_gz(folder / ("sentence_qrels" if units else "qrels") / f"{selection.split}.tsv")
    if not path.is_file():
        splits = (
            ", ".join(sorted({p.name.partition(".tsv")[0] for p in path.parent.glob("*.tsv*")})) or "none"
        )
        hint = "use --level document, or " if units else ""
        raise JudgementError(
            f"no judgements at {path} (splits there: {splits}); {hint}choose one of these splits"
        )
    return read_sentence_qrels(path) if units else read_qrels(path)


def _own_candidates(
    folder: Path, queries: dict[str, BeirQuery], index: LocalIndex
) -> dict[str, tuple[Document, ...]]:
    """Own candidates in BM25's order; those beyond OWN_DEPTH have the score 0 and come last."""
    corpus = _documents(folder, {doc_id for query in queries.values() for doc_id in query.candidates})
    own = {}
    for name, query in queries.items():
        if not query.candidates:
            continue
        for doc_id in query.candidates:
            if doc_id not in corpus:
                raise JudgementError(
                    f"{folder}: query {name!r} has the candidate {doc_id!r}, which is not in corpus.jsonl; add it there"
                )
        best = {d.doc_id: d for d in index.search([normalise_query(query.text)], top_k=OWN_DEPTH)[0]}
        documents = [best.get(doc_id) or corpus[doc_id] for doc_id in dict.fromkeys(query.candidates)]
        documents.sort(key=lambda d: (d.bm25_rank, d.doc_id))
        own[name] = tuple(d._replace(bm25_rank=rank) for rank, d in enumerate(documents, start=1))
    return own


def _documents(folder: Path, doc_ids: Iterable[str]) -> dict[str, Document]:
    wanted, documents = frozenset(doc_ids), {}
    if not wanted:
        return {}
    seen: set[str] = set()
    for line in corpus_lines(folder):
        try:
            passage = parse_passage(line, seen=seen)
        except LineError:  # counted when the corpus was indexed
            continue
        seen.add(passage.doc_id)
        if passage.doc_id in wanted:
            documents[passage.doc_id] = Document(*passage, bm25_score=0.0, bm25_rank=OWN_DEPTH + 1)
    return documents
