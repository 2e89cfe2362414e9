"""When to ask Elasticsearch again, and how much at once: pure state, no network, no clock of its own.

Three kinds of trouble are told apart, because each calls for something else:
- pushback (429, a breaker): the cluster is too busy. Fewer requests at once, and these later.
- silence (no connection, no answer in time): perhaps the whole cluster. Everything waits, then one request probes.
- refusal of one query: nobody else's business. That query alone is given up.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds


class Answered(NamedTuple):
    """The query's answer."""

    value: Any


class Refused(NamedTuple):
    """This query will never be answered; `detail` is Elasticsearch's own reason."""

    detail: str


class Again(NamedTuple):
    """Not answered yet, perhaps later."""

    detail: str
    cause: Literal["busy", "silent", "failed"]
    charged: bool = True  # counts against the query; an outage of the cluster does not


class Split(NamedTuple):
    """The request was refused as a whole, because of one of its queries: ask in halves, to find which."""

    detail: str


Outcome = Answered | Refused | Again


def backoff(attempt: int, *, random_share: float) -> float:
    """Seconds to wait before retry `attempt` (from 1): doubled each time, half of it random.

    Workers that failed together would otherwise come back together, and fail together again.
    """
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt - 1, 20))
    return wait * (0.5 + 0.5 * random_share)


class Pace:
    """How many requests may be on their way at once: halved by every pushback, one more after `limit` successes."""

    def __init__(self, most: int) -> None:
        self.most, self.limit, self.in_flight = most, most, 0
        self._successes = 0

    def acquire(self) -> bool:
        """Take a place, if there is one."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def release(self, *, pushed_back: bool = False) -> None:
        """Give the place back, and learn from how it went."""
        self.in_flight -= 1
        if pushed_back:
            self.limit, self._successes = max(1, self.limit // 2), 0
            return
        self._successes += 1
        if self._successes >= self.limit and self.limit < self.most:
            self.limit, self._successes = self.limit + 1, 0


class Batch(NamedTuple):
    """Positions of the queries of one request; not before `ready` (seconds on the caller's clock)."""

    positions: tuple[int, ...]
    ready: float = 0.0
    retry: bool = False


class Work:
    """Queries on their way to an outcome each: what to send next, and what becomes of what failed.

    Args:
        count: number of queries.
        batch_size: queries of a request.
        max_retries: how often a query is asked again before it is given up.
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
        self.silent = 0  # requests in a row without any answer
        self.last_trouble = ""

    @property
    def done(self) -> bool:
        """Whether nothing waits; requests may still be on their way."""
        return not self._waiting

    @property
    def unreachable(self) -> bool:
        """Whether so many requests in a row stayed without an answer that the cluster must be looked at."""
        return self.silent > self._max_retries

    def take(self, now: float, *, in_flight: int) -> Batch | None:
        """The next request, if one is due. After a silence only one at a time goes out."""
        if now < self._quiet_until or (self.silent and in_flight):
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

    def settle(self, batch: Batch, answer: Sequence[Outcome] | Again | Split, *, now: float) -> bool:
        """Take in what became of a request, one outcome a query or one for all; True if it was pushed back."""
        if isinstance(answer, Split):
            self._split(batch, answer, now=now)
            return False
        outcomes = [answer] * len(batch.positions) if isinstance(answer, Again) else answer
        if isinstance(answer, Again) and answer.cause == "silent":
            self.silent += 1
            self._quiet_until = now + self._jittered(self.silent)
        else:
            self.silent, self._quiet_until = 0, 0.0
        again: list[int] = []
        for position, outcome in zip(batch.positions, outcomes, strict=True):
            if not isinstance(outcome, Again):
                self.outcomes[position] = outcome
            elif self._keep_trying(position, outcome):
                again.append(position)
        self._requeue(again, now=now)
        return any(isinstance(outcome, Again) and outcome.cause != "failed" for outcome in outcomes)

    def _keep_trying(self, position: int, outcome: Again) -> bool:
        self.last_trouble = outcome.detail
        self._attempts[position] += outcome.charged
        if self._attempts[position] <= self._max_retries:
            return True
        tries = f"{self._attempts[position]} attempts"
        self.outcomes[position] = Refused(f"{outcome.detail} ({tries}; source.elasticsearch.max_retries)")
        return False

    def _requeue(self, positions: list[int], *, now: float) -> None:
        """Ask for these later, in two halves: smaller requests get through where larger ones do not."""
        if positions:
            attempt = max(1, max(self._attempts[position] for position in positions))
            for half in _halves(positions):
                self._waiting.append(Batch(half, now + self._jittered(attempt), retry=True))

    def _split(self, batch: Batch, answer: Split, *, now: float) -> None:
        self.silent, self._quiet_until = 0, 0.0
        if len(batch.positions) == 1:
            self.outcomes[batch.positions[0]] = Refused(answer.detail)
            return
        self._waiting.extend(Batch(half, now, batch.retry) for half in _halves(batch.positions))

    def _jittered(self, attempt: int) -> float:
        return backoff(attempt, random_share=self._random.random())


def _halves(positions: Sequence[int]) -> list[tuple[int, ...]]:
    middle = -(-len(positions) // 2)
    return [tuple(half) for half in (positions[:middle], positions[middle:]) if half]
