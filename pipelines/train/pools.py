"""What a later round of a training mines from: the queries and positives of published runs, with all candidates known.

A shard's files of `reranked` and `hard_negatives` hold the same queries, so that a shard is read at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.storage import filesystem, runs
from pipelines.train.data import Run
from pipelines.train.dense_candidates import DenseCandidates
from rerank_core.config.night import Labels, Tagging
from rerank_core.features.render import render_tags
from rerank_core.features.tagger import tag
from rerank_core.features.tags import input_tags
from rerank_core.mining import labels
from rerank_core.mining.labels import Judgements, load_judgements
from rerank_core.text import fingerprint
from rerank_core.training.groups import COLUMNS, check_version
from rerank_core.training.remine import Pool
from schemas.errors import ManifestError
from schemas.manifest import Manifest
from schemas.records import Candidate, Query, RankedCandidate, RankedGroup, ScoredCandidate
from schemas.tags import Tags

_RERANKED = ["query_id", "query", "doc_id", "passage_id", "title", "text", "doc_rank_before", "bm25_score",
             *input_tags()]  # fmt: skip
_Found = dict[str, tuple[Candidate, str]]  # by passage_id, with its tags


class _Known(NamedTuple):
    """What `hard_negatives` says of a query."""

    query: str
    positives: frozenset[str]
    mined: _Found  # positives and negatives: they may lie below what `reranked` was cut to


def read_pools(
    run: Run,
    *,
    held_out: frozenset[str],
    seen: set[bytes],
    dense: DenseCandidates | None,
    tagged: bool,
    counts: Counter[str],
    candidates: Counter[str],
) -> Iterator[list[Pool]]:
    """The pools of a run, a shard at a time.

    Args:
        run: output folder and manifest.
        held_out: query_ids that are not trained on.
        seen: keys of groups that newer runs gave; a query all of whose positives are there is left out.
        dense: searched for each query; None: the run's candidates alone.
        tagged: candidates need tags.
        counts: learns of "groups_held_out" and "groups_known".
        candidates: learns where candidates come from: published, dense, dense_published, dense_labelled.

    Raises:
        ManifestError: the run has no texts or no tags, or its files do not belong together.
        JudgementError: the judgements that the run's labels were made of are not to be had.
    """
    output, manifest = run
    reranked = {Path(path).name: path for path in runs.table_files(output, manifest, "reranked")}
    known_labels = _known_labels(manifest) if dense else None
    for path in runs.table_files(output, manifest, "hard_negatives"):
        if Path(path).name not in reranked:
            raise ManifestError(f"{path} has no file of `reranked` beside it; publish the night anew")
        known = {}
        for query_id, one in _read_known(path, whole=_whole(manifest)).items():
            keys = {bytes.fromhex(fingerprint(query_id, p)[:16]) for p in one.positives}
            if query_id in held_out:
                counts["groups_held_out"] += len(keys)
            elif keys <= seen:
                counts["groups_known"] += len(keys)
            else:
                known[query_id] = one
        pools = _published(reranked[Path(path).name], known, run, candidates)
        if dense:
            config = Tagging(**manifest.config["tags"]) if tagged else None
            pools = _with_dense(pools, dense, known_labels, config=config, candidates=candidates)
        if tagged and not all(all(pool.tags) for pool in pools):
            raise ManifestError(
                f"run {manifest.run_id} in {output} was published without tags, which the model or the teacher reads; "
                "turn tags.enabled on for a night, or set tags.policy = 'drop'"
            )
        yield pools


def _whole(manifest: Manifest) -> bool:
    """Whether the run's units are whole documents, so that passage_id is doc_id."""
    return bool(manifest.config["candidates"]["unit"] == "passage")


def _read_known(path: str, *, whole: bool) -> dict[str, _Known]:
    file = filesystem.open_parquet(path)
    check_version(file.schema_arrow, "hard_negatives", name=path)
    found: dict[str, _Known] = {}
    for row in file.read(columns=list(COLUMNS["hard_negatives"]), use_threads=False).to_pylist():
        known = found.setdefault(row["query_id"], _Known(row["query"], frozenset(), {}))
        for side in ("positive", "negative"):
            name = row[f"{side}_id"]
            doc_id = name if whole else name.rpartition("#")[0] or name
            # Its place in BM25's order is known of the negative alone, and only that of a unit.
            place = row["negative_rank_before"] if side == "negative" else 1
            known.mined.setdefault(
                name, (Candidate(doc_id, name, "", row[side], 0.0, place), row[f"{side}_tags"])
            )
        positives = known.positives | {row["positive_id"]}
        found[row["query_id"]] = known._replace(positives=positives)
    return found


def _published(path: str, known: dict[str, _Known], run: Run, candidates: Counter[str]) -> list[Pool]:
    file = filesystem.open_parquet(path)
    check_version(file.schema_arrow, "reranked", name=path)
    found: dict[str, _Found] = {query_id: {} for query_id in known}
    for batch in file.iter_batches(columns=_RERANKED, use_threads=False):
        for row in batch.to_pylist():
            if row["query_id"] not in known:
                continue
            if row["text"] is None:
                raise ManifestError(
                    f"run {run[1].run_id} in {run[0]} has no texts, which a second round mines from; publish one with "
                    "output.store_text = true, or set rounds = 1"
                )
            found[row["query_id"]][row["passage_id"]] = (_candidate(row), render_tags(Tags.from_row(row)))
    pools = []
    for query_id, one in known.items():
        members = one.mined | found[query_id]  # where both have it, `reranked` tells more
        candidates["published"] += len(members)
        order = sorted(members.values(), key=lambda member: (member[0].bm25_rank, member[0].passage_id))
        pools.append(
            Pool(query_id, one.query, one.positives, tuple(c for c, _ in order), tuple(t for _, t in order))
        )
    return pools


def _candidate(row: dict[str, Any]) -> Candidate:
    return Candidate(
        row["doc_id"], row["passage_id"], row["title"] or "", row["text"], row["bm25_score"], row["doc_rank_before"]
    )  # fmt: skip


def _with_dense(
    pools: list[Pool],
    dense: DenseCandidates,
    known: tuple[Labels, Judgements] | None,
    *,
    config: Tagging | None,
    candidates: Counter[str],
) -> list[Pool]:
    """The pools with what the bi-encoder finds beyond them; all of a query's candidates are then tagged anew."""
    made = []
    for pool, near in zip(pools, dense.search([pool.query for pool in pools]), strict=True):
        documents = {one.doc_id for one in pool.candidates}  # all units of a published document are there
        new = [one for one in near if one.doc_id not in documents]
        candidates["dense_published"] += len(near) - len(new)
        kept = _unlabelled(pool, new, known)
        candidates.update(dense=len(kept), dense_labelled=len(new) - len(kept))
        last = max(one.bm25_rank for one in pool.candidates)  # BM25 did not find them: they come after
        both = (*pool.candidates, *(one._replace(bm25_rank=last + one.bm25_rank) for one in kept))
        heads = [*pool.tags, *("" for _ in kept)]
        if config:
            found = tag(pool.query, [(one.title, one.text) for one in both], config=config)
            heads = [render_tags(tags) for tags in found]
        made.append(pool._replace(candidates=both, tags=tuple(heads)))
    return made


def _known_labels(manifest: Manifest) -> tuple[Labels, Judgements] | None:
    """The run's labels, to hold new candidates against; clicks are of what was shown, and say nothing of them."""
    config = Labels(**manifest.config["labels"])
    if config.source == "clicks":
        return None
    return config, load_judgements(config, opener=filesystem.open_text)


def _unlabelled(pool: Pool, new: list[Candidate], known: tuple[Labels, Judgements] | None) -> list[Candidate]:
    """New candidates but those of documents that the run's labels call positive: BM25 had missed them."""
    if known is None:
        return new
    ranked = tuple(
        RankedCandidate(ScoredCandidate(one, None, "", None, False, 0), place, place, place)
        for place, one in enumerate(new, start=1)
    )
    group = RankedGroup(Query(pool.query_id, pool.query, 1, 0, ()), ranked)
    positives = labels.positives(group, config=known[0], judgements=known[1])
    documents = {one.doc_id for one in new if one.passage_id in positives}
    return [one for one in new if one.doc_id not in documents]
