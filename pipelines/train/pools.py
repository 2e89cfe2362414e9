"""The pools that a later round mines from: queries and positives of published runs with all their known candidates.

A shard's files of `reranked` and `hard_negatives` hold the same queries, so one shard is read at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.storage import filesystem, runs
from pipelines.train.data import Run
from pipelines.train.dense_candidates import DenseCandidates
from rerank_core.config.labels import Labels
from rerank_core.config.night import Tagging
from rerank_core.config.source import Candidates
from rerank_core.features.render import passage_text, render_tags
from rerank_core.features.tagger import tag
from rerank_core.features.tags import input_tags
from rerank_core.mining import labels
from rerank_core.mining.labels import Judgements, load_judgements
from rerank_core.text import fingerprint
from rerank_core.training.groups import COLUMNS, check_version, positive_key
from rerank_core.training.remine import Pool
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.records import Candidate, Query, RankedCandidate, RankedGroup, ScoredCandidate
from schemas.tags import Tags

_TEXTS = ("query_id", "query", "doc_id", "passage_id", "title", "text", "doc_rank_before", "bm25_score")
_RERANKED = [*_TEXTS, *input_tags()]
_Members = dict[str, tuple[Candidate, str]]  # passage_id -> candidate and its rendered tags


class _Known(NamedTuple):
    """A query as `hard_negatives` has it."""

    query: str
    positives: frozenset[str]
    mined: _Members  # positives and negatives; `reranked` may have been cut above them


def read_pools(
    run: Run,
    *,
    held_out: frozenset[str],
    seen: set[bytes],
    dense: DenseCandidates | None,
    tagged: bool,
    counts: Counter[str],
    candidates: Counter[str],
    positives: frozenset[bytes] = frozenset(),
) -> Iterator[list[Pool]]:
    """The pools of a run, one shard at a time.

    Args:
        run: output folder and manifest.
        held_out: query_ids that are not trained on.
        seen: keys of the groups of newer runs; a query all of whose positives are in it is left out.
        dense: adds candidates for each query; None: the run's candidates only.
        tagged: candidates need tags.
        counts: "groups_held_out" and "groups_known" are added.
        candidates: counts by origin are added: published, dense, dense_published, dense_labelled, other_labelled.
        positives: keys of what is a positive of a query in any run; a candidate that is one in another run only is
            left out.

    Raises:
        ManifestError: the run has no texts or no tags, or lacks files.
        JudgementError: the judgements of the run's labels cannot be read.
    """
    output, manifest = run
    reranked = {Path(path).name: path for path in runs.table_files(output, manifest, "reranked")}
    known_labels = _known_labels(manifest) if dense else None
    for path in runs.table_files(output, manifest, "hard_negatives"):
        if Path(path).name not in reranked:
            raise ManifestError(f"{path} has no file of the same name in `reranked`; run the night again")
        known = {}
        for query_id, query in _read_known(path, whole=_whole(manifest)).items():
            keys = {bytes.fromhex(fingerprint(query_id, p)[:16]) for p in query.positives}
            if query_id in held_out:
                counts["groups_held_out"] += len(keys)
            elif keys <= seen:
                counts["groups_known"] += len(keys)
            else:
                known[query_id] = query
        pools = _published(reranked[Path(path).name], known, run, candidates)
        if dense:
            config = runs.section(manifest, Tagging, "tags") if tagged else None
            pools = _with_dense(pools, dense, known_labels, config=config, candidates=candidates)
        if positives:  # only with several runs: the keys of all candidates take a while
            pools = [_without_labelled(pool, positives, candidates) for pool in pools]
        if tagged and not all(all(pool.tags) for pool in pools):
            raise ManifestError(
                f"run {manifest.run_id} in {output} was published without tags, which the model or the teacher needs; "
                "turn tags.enabled on for a night, or set tags.policy = 'drop'"
            )
        yield pools


def _whole(manifest: Manifest) -> bool:
    """Whether the run's units are whole documents, so that passage_id is doc_id."""
    return bool(runs.section(manifest, Candidates, "candidates").unit == "passage")


def _read_known(path: str, *, whole: bool) -> dict[str, _Known]:
    file = filesystem.open_parquet(path)
    check_version(file.schema_arrow, "hard_negatives", name=path)
    queries: dict[str, _Known] = {}
    for row in filesystem.read_table(path, list(COLUMNS["hard_negatives"])).to_pylist():
        known = queries.setdefault(row["query_id"], _Known(row["query"], frozenset(), {}))
        for side in ("positive", "negative"):
            name = row[f"{side}_id"]
            doc_id = name if whole else name.rpartition("#")[0] or name
            # The table has BM25's rank of negatives only, and that of the unit, not of the document.
            rank = row["negative_rank_before"] if side == "negative" else 1
            known.mined.setdefault(
                name, (Candidate(doc_id, name, "", row[side], 0.0, rank), row[f"{side}_tags"])
            )
        positives = known.positives | {row["positive_id"]}
        queries[row["query_id"]] = known._replace(positives=positives)
    return queries


def _published(path: str, known: dict[str, _Known], run: Run, candidates: Counter[str]) -> list[Pool]:
    file = filesystem.open_parquet(path)
    check_version(file.schema_arrow, "reranked", name=path)
    published: dict[str, _Members] = {query_id: {} for query_id in known}
    for batch in filesystem.read_batches(file, path, columns=list(_RERANKED)):
        for row in batch.to_pylist():
            if row["query_id"] not in known:
                continue
            if row["text"] is None:
                raise ManifestError(
                    f"run {run[1].run_id} in {run[0]} has no texts, which a second round needs; run a night with "
                    "output.store_text = true, or set rounds = 1"
                )
            tags = render_tags(Tags.from_row(row))
            published[row["query_id"]][row["passage_id"]] = (_candidate(row), tags)
    pools = []
    for query_id, (query, positives, mined) in known.items():
        members = mined | published[query_id]  # where both have a passage, `reranked` has more of its fields
        candidates["published"] += len(members)
        order = sorted(members.values(), key=lambda member: (member[0].bm25_rank, member[0].passage_id))
        pools.append(
            Pool(query_id, query, positives, tuple(c for c, _ in order), tuple(tags for _, tags in order))
        )
    return pools


def _candidate(row: dict[str, Any]) -> Candidate:
    names = ("doc_id", "passage_id", "title", "text", "bm25_score", "doc_rank_before")
    doc_id, passage_id, title, text, score, rank = (row[name] for name in names)
    return Candidate(doc_id, passage_id, title or "", text, score, rank)


def _with_dense(
    pools: list[Pool],
    dense: DenseCandidates,
    known: tuple[Labels, Judgements] | None,
    *,
    config: Tagging | None,
    candidates: Counter[str],
) -> list[Pool]:
    """The pools with the bi-encoder's new candidates; all of a query's candidates are then tagged again, together."""
    extended = []
    for pool, nearest in zip(pools, dense.search([pool.query for pool in pools]), strict=True):
        documents = {c.doc_id for c in pool.candidates}  # all units of a published document are in the pool
        new = [c for c in nearest if c.doc_id not in documents]
        candidates["dense_published"] += len(nearest) - len(new)
        added = _unlabelled(pool, new, known)
        candidates.update(dense=len(added), dense_labelled=len(new) - len(added))
        last = max(c.bm25_rank for c in pool.candidates)  # BM25 did not find the new ones: they follow
        both = (*pool.candidates, *(c._replace(bm25_rank=last + c.bm25_rank) for c in added))
        rendered = [*pool.tags, *("" for _ in added)]
        if config:
            tagged = tag(pool.query, [(c.title, c.text) for c in both], config=config)
            rendered = [render_tags(tags) for tags in tagged]
        extended.append(pool._replace(candidates=both, tags=tuple(rendered)))
    return extended


def _without_labelled(pool: Pool, positives: frozenset[bytes], candidates: Counter[str]) -> Pool:
    """The pool without what is a positive of its query in another run, and not in its own."""
    keys = [positive_key(pool.query, passage_text(c.title, c.text)) for c in pool.candidates]
    own = {key for key, c in zip(keys, pool.candidates, strict=True) if c.passage_id in pool.positives}
    kept = [n for n, key in enumerate(keys) if key in own or key not in positives]
    candidates["other_labelled"] += len(keys) - len(kept)
    return pool._replace(
        candidates=tuple(pool.candidates[n] for n in kept), tags=tuple(pool.tags[n] for n in kept)
    )


def _known_labels(manifest: Manifest) -> tuple[Labels, Judgements] | None:
    """The run's labels, by which new candidates are checked; None for clicks, which new candidates cannot have."""
    config = runs.section(manifest, Labels, "labels")
    if config.source == "clicks":
        return None
    return config, load_judgements(config, opener=filesystem.open_binary)


def _unlabelled(pool: Pool, new: list[Candidate], known: tuple[Labels, Judgements] | None) -> list[Candidate]:
    """New candidates without those of documents that the run's labels call positive, which BM25 missed."""
    if known is None:
        return new
    ranked = tuple(
        RankedCandidate(ScoredCandidate(candidate, None, "", None, False, 0), rank, rank, rank)
        for rank, candidate in enumerate(new, start=1)
    )
    group = RankedGroup(Query(pool.query_id, pool.query, 1, 0, ()), ranked)
    positives = labels.positives(group, config=known[0], judgements=known[1])
    documents = {candidate.doc_id for candidate in new if candidate.passage_id in positives}
    return [candidate for candidate in new if candidate.doc_id not in documents]
