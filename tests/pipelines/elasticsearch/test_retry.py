"""When to ask again, and how much at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.elasticsearch import retry
from pipelines.elasticsearch.retry import Answered, Batch, Outcome, Pace, Refused, Retry, Split, Work, backoff

BUSY, FAILED = Retry("queue full", "busy"), Retry("HTTP 503", "failed")
GONE = Retry("no connection", "no_response", charged=False)
SLOW = Retry("no answer", "no_response")


@given(st.integers(1, 50), st.floats(0, 1))
def test_waits_grow_to_a_limit_and_half_of_them_is_random(attempt: int, share: float) -> None:
    wait = backoff(attempt, random_share=share)
    full = min(retry.LONGEST_WAIT, retry.FIRST_WAIT * 2 ** (attempt - 1))
    assert full / 2 <= wait <= full


def test_the_pace_is_halved_by_pushback_and_comes_back_slowly() -> None:
    pace = Pace(8)
    assert [pace.acquire() for _ in range(9)] == [True] * 8 + [False]
    pace.release(busy=True)
    assert (pace.limit, pace.in_flight, pace.acquire()) == (4, 7, False)
    for _ in range(7):
        pace.release()
    assert pace.limit == 5  # four successes gave one more; three are not five
    successes = 0
    while pace.limit < 8:
        assert pace.acquire()
        pace.release()
        successes += 1
    assert successes == 2 + 6 + 7


@given(st.integers(1, 9), st.lists(st.sampled_from(["take", "well", "busy"]), max_size=200))
def test_the_pace_keeps_its_bounds(most: int, steps: list[str]) -> None:
    pace, taken = Pace(most), 0
    for step in steps:
        if step == "take":
            assert pace.acquire() == (taken < pace.limit) or taken >= pace.limit
            taken = pace.in_flight
        elif taken:
            pace.release(busy=step == "busy")
            taken -= 1
        assert pace.in_flight == taken
        assert 1 <= pace.limit <= most


def drive(work: Work, answer: Callable[[Batch], Any], *, limit: int = 10_000) -> list[Batch]:
    """Run work to its end, one request at a time, on a clock of its own."""
    now, sent = 0.0, []
    while not work.done:
        batch = work.take(now, in_flight=0)
        if batch is None:
            wait = work.wait(now)
            assert wait > 0
            now += wait
            continue
        sent.append(batch)
        assert len(sent) < limit
        work.settle(batch, answer(batch), now=now)
    return sent


@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 4), st.integers(0, 2**32))
def test_every_query_gets_one_outcome_whatever_happens(
    count: int, size: int, retries: int, seed: int
) -> None:
    chance = random.Random(seed)
    answers = [0] * count

    def answer(batch: Batch) -> Any:
        if chance.random() < 0.3:
            return chance.choice([SLOW, BUSY, FAILED, Split("malformed")])
        outcomes: list[Outcome] = []
        for at in batch.positions:
            outcomes.append(chance.choice([Answered(at), BUSY, FAILED, Refused("bad")]))
            answers[at] += isinstance(outcomes[-1], (Answered, Refused))
        return outcomes

    work = Work(count, batch_size=size, max_retries=retries, random_source=chance)
    sent = drive(work, answer)
    assert all(isinstance(outcome, (Answered, Refused)) for outcome in work.outcomes)
    assert all(
        outcome.value == at for at, outcome in enumerate(work.outcomes) if isinstance(outcome, Answered)
    )
    assert all(n <= 1 for n in answers)  # none is asked again once it has its outcome
    assert all(len(batch.positions) <= size for batch in sent)


@pytest.mark.parametrize("bad", [0, 17, 49])
def test_a_malformed_query_is_found_by_halving_and_costs_itself_alone(bad: int) -> None:
    work = Work(50, batch_size=50, max_retries=0)

    def answer(batch: Batch) -> Any:
        return Split("unknown query") if bad in batch.positions else [Answered(at) for at in batch.positions]

    sent = drive(work, answer)
    assert [at for at, outcome in enumerate(work.outcomes) if outcome == Refused("unknown query")] == [bad]
    assert len(sent) <= 13  # about twice the logarithm


def test_only_failing_queries_are_asked_again() -> None:
    work, asked = Work(4, batch_size=4, max_retries=2), [0] * 4

    def answer(batch: Batch) -> list[Outcome]:
        for at in batch.positions:
            asked[at] += 1
        return [BUSY if at == 2 else Refused("bad") if at == 1 else Answered(at) for at in batch.positions]

    sent = drive(work, answer)
    assert asked == [1, 1, 3, 1]
    assert [batch.retry for batch in sent] == [False, True, True]
    refused = work.outcomes[2]
    assert isinstance(refused, Refused)
    assert refused.detail == "queue full (3 attempts; source.elasticsearch.max_retries)"


def test_an_outage_is_not_held_against_the_queries_and_is_probed_one_by_one() -> None:
    work = Work(100, batch_size=50, max_retries=1)
    first = work.take(0.0, in_flight=0)
    assert first is not None
    work.settle(first, GONE, now=0.0)
    assert work.take(0.0, in_flight=0) is None
    assert work.take(100.0, in_flight=1) is None
    for at in range(5):
        probe = work.take(1000.0 * (at + 1), in_flight=0)
        assert probe is not None
        work.settle(probe, GONE, now=1000.0 * (at + 1))
    assert (work.unanswered, work.unreachable) == (6, True)
    drive(work, lambda batch: [Answered(at) for at in batch.positions])
    assert (work.unanswered, work.unreachable) == (0, False)
    assert all(isinstance(outcome, Answered) for outcome in work.outcomes)
