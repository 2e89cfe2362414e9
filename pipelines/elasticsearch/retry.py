"""When to retry, and how many requests at once: pure state, no network, no clock of its own.

Each kind of failure has its own reaction:
- busy (429, a circuit breaker): fewer requests at once, and these later.
- no response (no connection, a timeout): the whole cluster may be down. Everything waits, then one request probes.
- one query is refused: that query alone is given up.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds


class Answered(NamedTuple):
    """The query has its result."""

    value: Any


class Refused(NamedTuple):
    """The query is given up; `detail` is Elasticsearch's reason."""

    detail: str


class Retry(NamedTuple):
    """The query failed and may be sent again."""

    detail: str
    cause: Literal["busy", "no_response", "failed"]
    charged: bool = True  # counts as an attempt of the query; an outage of the cluster does not


class Split(NamedTuple):
    """The request was refused as a whole because of one of its queries: send it in halves, to find which."""

    detail: str


Outcome = Answered | Refused | Retry


def backoff(attempt: int, *, random_share: float) -> float:
    """Seconds to wait before retry `attempt` (from 1): doubled each time, half of it random.

    Without the random part, workers that failed together would retry together, and fail together again.
    """
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 20))
    return wait * (0.5 + 0.5 * random_share)


class Pace:
    """How many requests may be in flight: halved whenever the cluster is busy, one more after `limit` successes."""

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.in_flight = most, most, 0
        self._successes = 0

    def acquire(self) -> bool:
        """Whether one more request may be sent; it then counts as in flight."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def release(self, *, busy: bool = False) -> None:
        """End a request; `busy`: the cluster could not take it."""
        self.in_flight -= 1
        if busy:
            self.limit, self._successes = max(1, self.limit // 2), 0
            return
        self._successes += 1
        if self._successes >= self.limit and self.limit < self.most:
            self.limit, self._successes = self.limit + 1, 0


class Batch(NamedTuple):
    """Positions of the queries of one request, to be sent from `ready` on (seconds on the caller's clock)."""

    positions: tuple[int, ...]
    ready: float = 0.0
    retry: bool = False


class Work:
    """Queries until each has an outcome: what to send next, and what to retry.

    Args:
        count: number of queries.
        batch_size: queries per request.
        max_retries: of a query, before it is given up.
        random_source: for the jitter.
    """

    def __init__(
        self, count: int, *, batch_size: int, max_retries: int, random_source: random.Random | None = None
    ) -> None:
        everything = range(count)
        self._waiting = deque(
            Batch(tuple(everything[start : start + batch_size])) for start in range(0, count, batch_size)
        )
        self._max_retries = max_retries
        self._attempts = [0] * count
        self._random = random_source or random.Random()
        self._quiet_until = 0.0
        self.outcomes: list[Answered | Refused | None] = [None] * count
        self.unanswered = 0  # requests in a row without a response
        self.last_failure = ""

    @property
    def done(self) -> bool:
        """Whether nothing waits; requests may still be in flight."""
        return not self._waiting

    @property
    def unreachable(self) -> bool:
        """Whether so many requests in a row had no response that the cluster may be down."""
        return self.unanswered > self._max_retries

    def take(self, now: float, *, in_flight: int) -> Batch | None:
        """The next request, if one is due; after a missing response, only one at a time."""
        if now < self._quiet_until or (self.unanswered and in_flight):
            return None
        for _ in range(len(self._waiting)):
            batch = self._waiting.popleft()
            if batch.ready <= now:
                return batch
            self._waiting.append(batch)
        return None

    def wait(self, now: float) -> float:
        """Seconds until something is due."""
        due = min((batch.ready for batch in self._waiting), default=now)
        return max(0.0, max(due, self._quiet_until) - now)

    def settle(self, batch: Batch, answer: Sequence[Outcome] | Retry | Split, *, now: float) -> None:
        """Record the outcomes of a request: one per query, or one for all."""
        if isinstance(answer, Split):
            self._split(batch, answer, now=now)
            return
        outcomes = [answer] * len(batch.positions) if isinstance(answer, Retry) else answer
        if isinstance(answer, Retry) and answer.cause == "no_response":
            self.unanswered += 1
            self._quiet_until = now + self._jittered(self.unanswered)
        else:
            self.unanswered, self._quiet_until = 0, 0.0
        failed: list[int] = []
        for position, outcome in zip(batch.positions, outcomes, strict=True):
            if not isinstance(outcome, Retry):
                self.outcomes[position] = outcome
            elif self._may_retry(position, outcome):
                failed.append(position)
        self._requeue(failed, now=now)

    def _may_retry(self, position: int, outcome: Retry) -> bool:
        self.last_failure = outcome.detail
        self._attempts[position] += outcome.charged
        if self._attempts[position] <= self._max_retries:
            return True
        tries = f"{self._attempts[position]} attempts"
        self.outcomes[position] = Refused(f"{outcome.detail} ({tries}; source.elasticsearch.max_retries)")
        return False

    def _requeue(self, positions: list[int], *, now: float) -> None:
        """Send these later, in two halves: smaller requests get through where larger ones do not."""
        if positions:
            attempt = max(1, max(self._attempts[position] for position in positions))
            for half in _halves(positions):
                self._waiting.append(Batch(half, now + self._jittered(attempt), retry=True))

    def _split(self, batch: Batch, answer: Split, *, now: float) -> None:
        self.unanswered, self._quiet_until = 0, 0.0
        if len(batch.positions) == 1:
            self.outcomes[batch.positions[0]] = Refused(answer.detail)
            return
        self._waiting.extend(Batch(half, now, batch.retry) for half in _halves(batch.positions))

    def _jittered(self, attempt: int) -> float:
        return backoff(attempt, random_share=self._random.random())


def _halves(positions: Sequence[int]) -> list[tuple[int, ...]]:
    middle = -(-len(positions) // 2)
    return [tuple(half) for half in (positions[:middle], positions[middle:]) if half]
