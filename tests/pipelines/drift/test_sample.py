"""Which queries a sample has, and what is measured on it."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.drift import sample
from pipelines.drift.sample import COLUMNS, Sample, boundary, constant_queries
from schemas.tables import TABLES


@given(st.integers(1, 10**7), st.integers(1, 1000))
def test_a_sample_is_bounded_in_queries_and_rows(queries: int, per_query: int) -> None:
    share = min(1.0, int(boundary(queries, queries * per_query).replace("g", "f" * 16), 16) / 16**16)
    expected = share * queries
    assert expected <= sample.MOST_QUERIES + 1
    assert expected * per_query <= max(sample.MOST_ROWS, per_query) + 1
    if queries <= sample.MOST_QUERIES and queries * per_query <= sample.MOST_ROWS:
        assert boundary(queries, queries * per_query) == "g"  # all


def test_the_boundary_draws_the_share_that_it_says() -> None:
    ids = [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(20_000)]
    below = boundary(len(ids), len(ids))
    assert sum(one < below for one in ids) == pytest.approx(sample.MOST_QUERIES, rel=0.1)


def of_logits(*lists: list[float | None], fused: bool = False) -> Sample:
    rows = [
        {"query_id": f"q{n}", "passage_id": f"p{k}", "rank": k + 1, "logit": 1.0 if fused else logit}
        | ({"fused_logit": logit} if fused else {})
        for n, logits in enumerate(lists)
        for k, logit in enumerate(logits)
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema([TABLES["reranked"].field(name) for name in COLUMNS]))
    return Sample(table, [f"q{n}" for n in range(len(lists))])


@pytest.mark.parametrize(
    ("lists", "share", "compared"),
    [
        ([[1.0, 1.0], [2.0, 1.0]], 0.5, 2),
        ([[1.0, 1.0], [2.0]], 1.0, 1),  # one candidate is no comparison
        ([[1.0, None], [None, None]], 0.0, 0),  # nor are those that were pruned
        ([[1.0, 1.0004], [1.0, 1.01]], 0.5, 2),
        ([], 0.0, 0),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_constant_scores(lists: list[list[float | None]], share: float, compared: int, fused: bool) -> None:
    if fused:
        lists = [[logit for logit in logits if logit is not None] for logits in lists]
        lists = [logits for logits in lists if logits]
        compared = sum(len(logits) > 1 for logits in lists)
    assert constant_queries(of_logits(*lists, fused=fused)) == (share if compared else 0.0, compared)
