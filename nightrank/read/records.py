"""What a look-up returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from schemas.tags import Tags


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """One row of a query's list."""

    rank: int  # from 1
    doc_id: str
    passage_id: str
    title: str | None  # None where output.store_text is false
    text: str | None  # likewise
    score: float | None  # 0 to 1; None for a candidate that a cascade pruned
    tags: Tags | None  # None without tags
    evidence: str | None  # the sentences that support the score; None for lower ranks
    stale_since: str | None  # date of the night that ranked it; None: the run's own


@dataclasses.dataclass(frozen=True, slots=True)
class QueryEntry:
    """One published query, and where its rows are."""

    query_id: str
    query: str  # normalised
    count: int  # events in the log's window; 0: unknown (runs of earlier versions)
    rows: int
    part: str  # file of `reranked`
    row_group: int
    row: int  # first row within the row group
    stale_since: str | None = None  # date of the night that made the list; None: the run's own


@dataclasses.dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that a reader reads."""

    run_id: str
    run_date: str
    created_at: str  # UTC
    queries: int  # with a list, stale ones included
    stale: dict[str, int]  # of these, with the list of an earlier night, by that night's date


@dataclasses.dataclass(frozen=True, slots=True)
class Near:
    """A published query like one that was not found."""

    query: str
    similarity: float  # Dice coefficient of the trigrams, 0 to 1


@dataclasses.dataclass(frozen=True, slots=True)
class QueryList:
    """A query's list, best first; a sequence of its passages."""

    query: str  # the published query, normalised
    query_id: str
    similarity: float  # of the query asked: 1 for the same query, less for the nearest one
    run_id: str
    run_date: str
    stale_since: str | None
    passages: tuple[Passage, ...]

    def __iter__(self) -> Iterator[Passage]:
        return iter(self.passages)

    def __len__(self) -> int:
        return len(self.passages)

    def __getitem__(self, at: int) -> Passage:
        return self.passages[at]
