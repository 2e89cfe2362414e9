"""What all batched backends share: order, memory, reading ahead, threads, padding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.batching import Pair
from rerank_core.inference.encoding import Row
from rerank_core.scoring import batched
from rerank_core.scoring.batched import BatchedScorer, one_logit
from rerank_core.scoring.fault_tolerant import score_checked


def row(*ids: int, types: Sequence[int] = ()) -> Row:
    return Row(np.array(ids, np.int32), np.array(types or [0] * len(ids), np.int8))


class Numbers:
    """An encoder of passages that are numbers: "3 1 2" is the row of these ids."""

    def __init__(self, on_encode: Callable[[], None] = lambda: None) -> None:
        self._on_encode = on_encode

    def encode(self, pairs: Sequence[Pair]) -> list[Row]:
        self._on_encode()
        return [row(*map(int, passage.split())) for _, passage in pairs]

    def overflow(self, pairs: Sequence[Pair]) -> np.ndarray:
        return np.array([len(query) for query, _ in pairs], np.int32)


class Summing(BatchedScorer):
    """A row's logit is the sum of its ids by their places; a batch of more than `memory` tokens does not fit."""

    def __init__(
        self,
        *,
        max_tokens: int = 12,
        memory: int = 1000,
        streams: int = 1,
        encoder: Numbers | None = None,
        on_run: Callable[[], None] = lambda: None,
        window: int = 2048,
    ) -> None:
        super().__init__(
            encoder or Numbers(),
            fingerprint="f",
            max_tokens=max_tokens,
            streams=streams,
            chunk=batched.WINDOWS * window,
        )
        self._memory, self._on_run = memory, on_run
        self.sizes: list[int] = []

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        self._on_run()
        size = len(rows) * max(len(row.ids) for row in rows)
        self.sizes.append(size)
        if size > self._memory:
            raise OutOfMemory(f"{size} tokens do not fit")
        return logits(rows)


def logits(rows: Sequence[Row]) -> np.ndarray:
    return np.array([(row.ids * np.arange(1, len(row.ids) + 1)).sum() for row in rows], np.float32)


def pairs_of(lengths: Sequence[int]) -> list[Pair]:
    """Pairs of so many tokens, no two alike."""
    return [("q", " ".join(str(i + j) for j in range(length))) for i, length in enumerate(lengths)]


def expected(pairs: Sequence[Pair]) -> np.ndarray:
    return logits(Numbers().encode(pairs))


LENGTHS = st.lists(st.integers(1, 9), max_size=30)


@given(lengths=LENGTHS, window=st.integers(1, 8), max_tokens=st.integers(1, 40), memory=st.integers(9, 40))
def test_every_pair_gets_its_own_logit(lengths: list[int], window: int, max_tokens: int, memory: int) -> None:
    pairs = pairs_of(lengths)
    scorer = Summing(max_tokens=max_tokens, memory=memory, streams=2, window=window)
    answer = scorer.score(pairs)
    assert (answer.dtype, answer.shape) == (np.float32, (len(pairs),))
    np.testing.assert_array_equal(answer, expected(pairs))
    assert scorer.halvings == sum(size > memory for size in scorer.sizes)


def test_pairs_are_read_window_by_window_the_longest_first() -> None:
    scorer = Summing(max_tokens=100, window=3)
    scorer.score(pairs_of([1, 5, 2, 4, 3, 3, 1]))
    assert scorer.sizes == [15, 9, 1]  # of each window one batch, as wide as its longest row


def test_what_a_scorer_says_of_itself() -> None:
    scorer = Summing(max_tokens=12)
    assert (scorer.fingerprint, scorer.max_tokens, scorer.halvings, scorer.reads_tags) == ("f", 12, 0, False)
    assert scorer.overflow([("ab", "1"), ("", "2")]).tolist() == [2, 0]
    assert scorer.score([]).shape == (0,)


# --- memory


def test_a_batch_beyond_memory_is_halved_and_the_budget_stays_lowered() -> None:
    pairs = pairs_of([4] * 8)
    scorer = Summing(max_tokens=32, memory=10)
    np.testing.assert_array_equal(scorer.score(pairs), expected(pairs))
    # 8 rows, then 4, then what fits: 2. The second half of the first batch has to be halved as well.
    assert scorer.sizes == [32, 16, 8, 8, 16, 8, 8]
    assert (scorer.halvings, scorer.max_tokens) == (3, 8)
    scorer.sizes.clear()
    np.testing.assert_array_equal(scorer.score(pairs), expected(pairs))
    assert scorer.sizes == [8, 8, 8, 8]
    assert scorer.halvings == 3


def test_the_budget_falls_to_what_fits_however_many_batches_were_planned_by_the_old_one() -> None:
    scorer = Summing(max_tokens=16, memory=8)
    scorer.score(pairs_of([4] * 40))
    assert (scorer.halvings, scorer.max_tokens) == (10, 8)


def test_one_row_beyond_memory_is_an_error() -> None:
    with pytest.raises(OutOfMemory, match="9 tokens do not fit"):
        Summing(max_tokens=32, memory=8).score(pairs_of([2, 9, 2]))


def test_one_row_beyond_memory_costs_its_pair_alone() -> None:
    pairs = pairs_of([2] * 12 + [9] + [2] * 12)
    outcome = score_checked(Summing(max_tokens=32, memory=8), pairs)
    assert list(outcome.errors) == [12]
    assert outcome.errors[12].detail == "OutOfMemory: 9 tokens do not fit"
    del outcome.logits[12], pairs[12]
    assert outcome.logits == expected(pairs).tolist()


# --- threads


def test_the_next_window_is_read_while_this_one_runs() -> None:
    read, reads, waited = threading.Event(), [], []

    def on_encode() -> None:
        reads.append(1)
        if len(reads) == 2:
            read.set()

    # Were the second window read after the first has run, the first would wait for it in vain.
    scorer = Summing(
        encoder=Numbers(on_encode), on_run=lambda: waited.append(read.wait(timeout=600)), window=2
    )
    assert scorer.score(pairs_of([3, 3, 3, 3])).shape == (4,)
    assert waited
    assert all(waited)


def test_streams_run_at_once() -> None:
    both = threading.Barrier(2)
    scorer = Summing(max_tokens=3, streams=2, on_run=lambda: both.wait(timeout=600) and None)
    assert scorer.score(pairs_of([3, 3])).shape == (2,)


def test_what_a_reader_raises_is_raised_and_the_scorer_goes_on() -> None:
    scorer = Summing()
    with pytest.raises(ValueError, match="invalid literal"):
        scorer.score([("q", "1"), ("q", "no number")])
    assert scorer.score([("q", "7")]).tolist() == [7.0]


def test_threads_may_share_a_scorer() -> None:
    scorer = Summing(max_tokens=60, memory=20, streams=2, window=5)
    lists = [pairs_of([(i * n) % 9 + 1 for i in range(23)]) for n in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for pairs, answer in zip(lists * 4, pool.map(scorer.score, lists * 4), strict=True):
            np.testing.assert_array_equal(answer, expected(pairs))


# --- arrays


@pytest.mark.parametrize(
    ("output", "expected"),
    [([0.5, -1.0], [0.5, -1.0]), ([[0.5], [-1.0]], [0.5, -1.0]), ([[1.0, 3.0], [2.0, -2.0]], [2.0, -4.0])],
)
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_models_output_becomes_one_logit_a_row(output: list, expected: list[float], kind: type) -> None:
    answer = one_logit(np.array(output, kind))
    assert (answer.dtype, answer.tolist()) == (np.float32, expected)


@pytest.mark.parametrize("shape", [(), (2, 3), (2, 0), (2, 4, 1), (1, 2, 1)])
def test_an_output_of_another_shape_is_no_cross_encoders(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"not \[rows, 1\] or \[rows, 2\]"):
        one_logit(np.zeros(shape, np.float32))
