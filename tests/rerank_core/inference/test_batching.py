from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.inference.batching import padded, plan_batches
from rerank_core.inference.encoding import Row

LENGTHS = st.lists(st.integers(0, 60), max_size=40)


def fewest_batches(lengths: list[int], max_tokens: int) -> int:
    """The fewest batches of any cut of the sorted rows, by trying every cut (dynamic programming)."""
    rows = sorted(lengths, reverse=True)
    best = [0]
    for end in range(1, len(rows) + 1):
        fits = (s for s in range(end) if s == end - 1 or (end - s) * max(rows[s:end]) <= max_tokens)
        best.append(1 + min(best[start] for start in fits))
    return best[-1]


@given(LENGTHS, st.integers(1, 200))
def test_every_row_is_in_one_batch_that_keeps_the_budget(lengths: list[int], max_tokens: int) -> None:
    batches = plan_batches(lengths, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_tokens


@given(LENGTHS, st.integers(1, 200))
def test_longest_first_and_stable(lengths: list[int], max_tokens: int) -> None:
    flat = [i for batch in plan_batches(lengths, max_tokens) for i in batch]
    assert flat == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


@given(st.lists(st.integers(0, 60), max_size=14), st.integers(1, 200))
def test_no_cut_of_the_sorted_rows_needs_fewer_batches(lengths: list[int], max_tokens: int) -> None:
    assert len(plan_batches(lengths, max_tokens)) == fewest_batches(lengths, max_tokens)


def test_a_row_over_the_budget_is_alone() -> None:
    assert plan_batches([5, 900, 4], 10) == [[1], [0, 2]]


def test_no_rows_make_no_batches() -> None:
    assert plan_batches([], 10) == []


@pytest.mark.parametrize(
    ("lengths", "max_tokens", "said"), [([1], 0, "max_tokens is 0"), ([3, -2], 9, "row 1 has length -2")]
)
def test_senseless_input_is_refused(lengths: list[int], max_tokens: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_batches(lengths, max_tokens)


def row(*ids: int, types: tuple[int, ...] = ()) -> Row:
    return Row(np.array(ids, np.int32), np.array(types or [0] * len(ids), np.int8))


def test_rows_are_padded_to_the_longest() -> None:
    rows = [row(5, 6, 7, types=(0, 1, 1)), row(8)]
    types = {"input_ids": np.int64, "attention_mask": np.int32, "token_type_ids": np.int64}
    arrays = padded(rows, pad_id=9, dtypes=types)
    assert {name: (array.tolist(), array.dtype.type) for name, array in arrays.items()} == {
        "input_ids": ([[5, 6, 7], [8, 9, 9]], np.int64),
        "attention_mask": ([[1, 1, 1], [1, 0, 0]], np.int32),
        "token_type_ids": ([[0, 1, 1], [0, 0, 0]], np.int64),
    }


@pytest.mark.parametrize(("width", "columns"), [(0, 2), (2, 2), (4, 4)])
def test_rows_are_padded_to_a_least_width(width: int, columns: int) -> None:
    types = {"input_ids": np.int64, "attention_mask": np.int64}
    arrays = padded([row(5, 6)], pad_id=1, dtypes=types, width=width)
    assert set(arrays) == set(types)
    assert arrays["input_ids"].tolist() == [[5, 6, 1, 1][:columns]]
    assert arrays["attention_mask"].tolist() == [[1, 1, 0, 0][:columns]]
