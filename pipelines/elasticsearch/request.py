"""Sends the requests of a piece of `Work` through the process's connection until every query has its outcome."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError

from pipelines.elasticsearch.client import Connection, Settings, Trouble, refusal, trouble
from pipelines.elasticsearch.retry import Again, Answered, Batch, Outcome, Pace, Refused, Split, Work
from rerank_core.errors import SourceError

Answers = Sequence[Outcome] | Again | Split
_OTHERS_WAIT = 0.02  # seconds between two looks at a pace that other threads of this process use up


def ask(
    count: int,
    send: Callable[[Batch], Sequence[Outcome]],
    *,
    connection: Connection,
    settings: Settings,
    batch_size: int,
    max_retries: int,
    alive: Callable[[], bool],
    random_source: random.Random | None = None,
) -> list[Answered | Refused]:
    """An outcome for each of `count` queries, in order.

    Args:
        count: number of queries.
        send: asks one batch, and reads its items; the client's exceptions are taken care of here.
        connection, settings: the process's connection, and what it was opened with.
        batch_size, max_retries: see `Work`.
        alive: whether the cluster answers the cheapest question; asked when too many requests stayed unanswered.
        random_source: for the jitter.

    Raises:
        SourceError: nothing can be read here: no connection, wrong credentials, the index is gone.
    """
    work = Work(count, batch_size=batch_size, max_retries=max_retries, random_source=random_source)
    running: dict[Future[Answers], Batch] = {}
    try:
        while running or not work.done:
            _start(work, send, running, connection=connection, settings=settings)
            if not running:
                time.sleep(max(_OTHERS_WAIT, work.wait(time.monotonic())))
                continue
            finished, _ = wait(running, timeout=work.wait(time.monotonic()) or 1, return_when=FIRST_COMPLETED)
            for future in finished:
                work.settle(running.pop(future), future.result(), now=time.monotonic())
            if work.unreachable and not work.done:
                if not alive():
                    raise SourceError(f"{work.last_trouble}; {work.silent} requests in a row: is it up?")
                work.silent = 0  # it is: some queries are too slow, and will be given up one by one
    finally:
        for future in running:
            future.cancel()
    return [outcome for outcome in work.outcomes if outcome is not None]


def _start(
    work: Work,
    send: Callable[[Batch], Sequence[Outcome]],
    running: dict[Future[Answers], Batch],
    *,
    connection: Connection,
    settings: Settings,
) -> None:
    """Send whatever is due, as far as the pace lets it."""
    while _acquire(connection):
        batch = work.take(time.monotonic(), in_flight=len(running))
        if batch is None:
            _give_back(connection)
            return
        future = connection.threads.submit(_guarded, send, batch, settings)
        future.add_done_callback(lambda done: _release(connection, done))
        running[future] = batch


def _guarded(send: Callable[[Batch], Sequence[Outcome]], batch: Batch, settings: Settings) -> Answers:
    try:
        return send(batch)
    except (ApiError, TransportError) as error:
        return of_request(trouble(error, settings=settings))


def of_request(found: Trouble) -> Again | Split:
    """What the failure of a whole request means for its queries."""
    if found.kind == "refused":
        return Split(found.detail)
    if found.kind == "silent":
        return Again(found.detail, "silent", charged=found.timeout)
    return Again(found.detail, "busy" if found.kind == "busy" else "failed")


def of_item(item: dict[str, Any], *, settings: Settings) -> Again | Refused:
    """What the failure of one item of an answer means for its query."""
    found = refusal(item.get("status", 500), item, settings=settings)
    if found.kind == "refused":
        return Refused(found.detail)
    return Again(found.detail, "busy" if found.kind == "busy" else "failed")


def _acquire(connection: Connection) -> bool:
    with connection.lock:
        return connection.pace.acquire()


def _give_back(connection: Connection) -> None:
    with connection.lock:
        connection.pace.in_flight -= 1


def _release(connection: Connection, done: Future[Answers]) -> None:
    pushed_back = not done.cancelled() and not done.exception() and _pushed_back(done.result())
    with connection.lock:
        connection.pace.release(pushed_back=pushed_back)


def _pushed_back(answer: Answers) -> bool:
    outcomes = [answer] if isinstance(answer, (Again, Split)) else answer
    return any(isinstance(outcome, Again) and outcome.cause != "failed" for outcome in outcomes)


__all__ = ["Pace", "ask", "of_item", "of_request"]
