"""One pass over tonight's lists and one over last night's: what moved, what judgements say, how scores lie."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pipelines.report.movement import DEPTH, Found, Highest, movement
from pipelines.report.sample import QueryRows, Row, Run, read_queries, read_rows, sample
from rerank_core.evaluation.measures import Level, measure_by_query
from rerank_core.evaluation.qrels import Qrels
from rerank_core.ranking.calibration import expected_error, reliability

COLUMNS = [
    "query_id",
    "doc_id",
    "passage_id",
    "rank",
    "rank_before",
    "doc_rank",
    "doc_rank_before",
    "score",
    "stale_since",
]
SHOWN = 5  # queries of each kind
SCORE_BINS = 20
RELIABILITY_BINS = 10
MEASURE = f"nDCG@{DEPTH}"


class Judged(NamedTuple):
    """nDCG@10 of the sampled judged queries by query_id, 0 to 1."""

    before: dict[str, float]  # BM25; empty where the lists were cut
    after: dict[str, float]
    last_night: dict[str, float]  # of those that it published too
    places: dict[str, str]  # file by query_id
    relevant: Qrels

    def changes(self) -> dict[str, float]:
        """Gain over BM25 of each query."""
        return {query: self.after[query] - self.before[query] for query in self.before}

    def since_last_night(self) -> list[float]:
        """Change of each query that both nights published."""
        return [self.after[query] - value for query, value in sorted(self.last_night.items())]


class Reliability(NamedTuple):
    """Whether scores mean what they say."""

    labels: str  # where the labels are from: judgements or clicks
    bins: list[tuple[float, float, int]]  # mean score, share relevant, pairs
    error: float  # expected calibration error, 0 to 1
    pairs: int


class Scan(NamedTuple):
    """What both passes found."""

    queries: int  # read
    whole: bool  # every query was read
    against_bm25: list[Found]
    against_last_night: list[Found]
    common: int  # queries that both nights published and that were read in both
    unmoved: int  # of them, those whose first ten stayed as they were
    judged: Judged | None
    scores: list[int]  # by bins of equal width from 0 to 1
    last_scores: list[int]
    reliability: Reliability | None


class _Tonight:
    """What is kept of tonight's lists: the first ten of each query."""

    def __init__(self, qrels: Qrels, level: Level, positives: dict[str, set[str]]) -> None:
        self.item, self.rank = ("passage_id", "rank") if level == "unit" else ("doc_id", "doc_rank")
        self.qrels, self.positives = qrels, positives
        self.lists: dict[str, dict[str, int]] = {}
        self.places: dict[str, str] = {}
        self.orders: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
        self.moved = Highest(SHOWN)
        self.scores: Counter[int] = Counter()
        self.pairs, self.relevant = array("d"), bytearray()

    def add(self, query: QueryRows) -> None:
        after, before = (ranks_of(query.rows, "doc_id", name) for name in ("doc_rank", "doc_rank_before"))
        if not _is_stale(query):  # an earlier night's list and scores say nothing of tonight
            self.lists[query.query_id] = _first(after)
            self.places[query.query_id] = query.path
            if moved := movement(before, after):
                self.moved.add(moved, query.query_id, query.path)
            self.scores.update(_score_bins(query.rows))
            for score, relevant in self._labelled(query):
                self.pairs.append(score)
                self.relevant.append(relevant)
        if query.query_id in self.qrels:  # whose lists are measured as readers get them
            self.places[query.query_id] = query.path
            for order, rank in zip(self.orders, (f"{self.rank}_before", self.rank), strict=True):
                order[query.query_id] = _order(ranks_of(query.rows, self.item, rank))

    def _labelled(self, query: QueryRows) -> Iterator[tuple[float, bool]]:
        """Scores with labels: of a judged query's items, or of the units of a query that has a clicked one."""
        grades, clicked = self.qrels.get(query.query_id), self.positives.get(query.query_id)
        seen: set[str] = set()
        for row in query.rows:
            if row["score"] is None:
                continue
            if grades is not None and row[self.item] not in seen:
                seen.add(row[self.item])
                yield row["score"], grades.get(row[self.item], 0) > 0
            elif grades is None and clicked is not None:
                yield row["score"], row["passage_id"] in clicked


def scan(
    tonight: Run, last_night: Run | None, *, qrels: Qrels, level: Level = "document", cut: bool = False
) -> Scan:
    """Read both runs, as far as `sample` goes.

    Args:
        tonight: the run that the report is of.
        last_night: the run it is compared with.
        qrels: judgements; empty without.
        level: what they judge.
        cut: whether tonight's lists lack BM25's lower documents, so that its order is not known.

    Raises:
        ManifestError: a file is damaged.
    """
    files = sample(tonight, "reranked")
    found = _Tonight(qrels, level, {} if qrels else _positives(tonight))
    for query in read_queries(files.files, COLUMNS):
        found.add(query)
    moved, common, unmoved = Highest(SHOWN), 0, 0
    last_orders: dict[str, list[str]] = {}
    last_scores: Counter[int] = Counter()
    for query in read_queries(sample(last_night, "reranked").files if last_night else [], COLUMNS):
        if not _is_stale(query):
            last_scores.update(_score_bins(query.rows))
        if query.query_id in found.orders[1]:
            last_orders[query.query_id] = _order(ranks_of(query.rows, found.item, found.rank))
        tonights = found.lists.get(query.query_id)
        if tonights is None:
            continue
        common += 1
        if change := movement(ranks_of(query.rows, "doc_id", "doc_rank"), tonights):
            moved.add(change, query.query_id, found.places[query.query_id], query.path)
        else:
            unmoved += 1
    return Scan(
        queries=len(found.places),
        whole=files.whole,
        against_bm25=found.moved.best(),
        against_last_night=moved.best(),
        common=common,
        unmoved=unmoved,
        judged=_judged(found, last_orders, cut=cut),
        scores=[found.scores[n] for n in range(SCORE_BINS)],
        last_scores=[last_scores[n] for n in range(SCORE_BINS)],
        reliability=_reliability(found),
    )


def _is_stale(query: QueryRows) -> bool:
    """Whether the list was made by an earlier night than the run that holds it."""
    return bool(query.rows[0].get("stale_since"))


def ranks_of(rows: list[Row], item: str, rank: str) -> dict[str, int]:
    """The rank of each item, that of its best unit."""
    ranks: dict[str, int] = {}
    for row in rows:
        ranks[row[item]] = min(row[rank], ranks.get(row[item], row[rank]))
    return ranks


def _first(ranks: dict[str, int]) -> dict[str, int]:
    return {item: rank for item, rank in ranks.items() if rank <= DEPTH}


def _order(ranks: dict[str, int]) -> list[str]:
    return sorted(_first(ranks), key=lambda item: (ranks[item], item))


def _score_bins(rows: list[Row]) -> Iterator[int]:
    for row in rows:
        if row["score"] is not None and math.isfinite(row["score"]):
            yield min(int(row["score"] * SCORE_BINS), SCORE_BINS - 1)


def _positives(run: Run) -> dict[str, set[str]]:
    """Positives of mining by query_id, where they are from clicks."""
    positives: dict[str, set[str]] = {}
    files = sample(run, "hard_negatives").files
    for row in read_rows(files, ["query_id", "positive_id", "label_source"]):
        if row["label_source"] == "clicks":
            positives.setdefault(row["query_id"], set()).add(row["positive_id"])
    return positives


def _judged(found: _Tonight, last_orders: dict[str, list[str]], *, cut: bool) -> Judged | None:
    before, after = found.orders
    if not after:
        return None

    def measured(orders: dict[str, list[str]]) -> dict[str, float]:
        relevant = {query: found.qrels[query] for query in sorted(orders)}
        return measure_by_query(orders, relevant)[MEASURE] if orders else {}

    return Judged(
        before={} if cut else measured(before),
        after=measured(after),
        last_night=measured(last_orders),
        places={query: found.places[query] for query in after},
        relevant={query: found.qrels[query] for query in after},
    )


def _reliability(found: _Tonight) -> Reliability | None:
    relevant = [bool(flag) for flag in found.relevant]
    if not any(relevant):
        return None
    return Reliability(
        labels="judgements" if found.qrels else "clicks",
        bins=reliability(found.pairs, relevant, bins=RELIABILITY_BINS),
        error=expected_error(found.pairs, relevant, bins=RELIABILITY_BINS),
        pairs=len(relevant),
    )
