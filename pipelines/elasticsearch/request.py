"""Sends queries in batches through the process's connection until each has its outcome."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from elastic_transport import TransportError
from elasticsearch import ApiError

from pipelines.elasticsearch.client import Connection, Failure, Settings, classify_error, classify_status
from pipelines.elasticsearch.retry import Answered, Batch, Outcome, Refused, Retry, Split, Work
from rerank_core.errors import SourceUnavailable

Answers = Sequence[Outcome] | Retry | Split
_POLL = 0.02  # seconds between two looks at the pace, while other threads of this process use it up


def send_all(
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
        send: sends one batch and reads the response; may raise the client's exceptions.
        connection, settings: the process's connection, and what it was opened with.
        batch_size, max_retries: see `Work`.
        alive: whether the cluster responds at all; called when too many requests in a row had no response.
        random_source: for the jitter.

    Raises:
        SourceError: no connection, wrong credentials, or the index is gone.
    """
    work = Work(count, batch_size=batch_size, max_retries=max_retries, random_source=random_source)
    running: dict[Future[Answers], Batch] = {}
    try:
        while running or not work.done:
            _start(work, send, running, connection=connection, settings=settings)
            if not running:
                time.sleep(max(_POLL, work.wait(time.monotonic())))
                continue
            finished, _ = wait(running, timeout=work.wait(time.monotonic()) or 1, return_when=FIRST_COMPLETED)
            for future in finished:
                work.settle(running.pop(future), future.result(), now=time.monotonic())
            if work.unreachable and not work.done:
                if not alive():
                    raise SourceUnavailable(
                        f"{work.last_failure}; {work.unanswered} requests in a row failed: is the cluster up?"
                    )
                work.unanswered = 0  # it is up: some queries are too slow, and will be given up one by one
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
    """Send whatever is due, as far as the pace allows."""
    while _acquire(connection):
        batch = work.take(time.monotonic(), in_flight=len(running))
        if batch is None:
            with connection.lock:
                connection.pace.in_flight -= 1
            return
        future = connection.threads.submit(_guarded, send, batch, settings)
        future.add_done_callback(lambda done: _release(connection, done))
        running[future] = batch


def _guarded(send: Callable[[Batch], Sequence[Outcome]], batch: Batch, settings: Settings) -> Answers:
    try:
        return send(batch)
    except (ApiError, TransportError) as error:
        return _request_failed(classify_error(error, settings=settings))


def _request_failed(failure: Failure) -> Retry | Split:
    """What the failure of a whole request means for its queries."""
    if failure.kind == "refused":
        return Split(failure.detail)
    if failure.kind == "no_response":
        return Retry(failure.detail, "no_response", charged=failure.timeout)
    return Retry(failure.detail, "busy" if failure.kind == "busy" else "failed")


def item_failed(item: dict[str, Any], *, settings: Settings) -> Retry | Refused:
    """What the failure of one item of a response means for its query."""
    failure = classify_status(item.get("status", 500), item, settings=settings)
    if failure.kind == "refused":
        return Refused(failure.detail)
    return Retry(failure.detail, "busy" if failure.kind == "busy" else "failed")


def _acquire(connection: Connection) -> bool:
    with connection.lock:
        return connection.pace.acquire()


def _release(connection: Connection, done: Future[Answers]) -> None:
    busy = not done.cancelled() and not done.exception() and _busy(done.result())
    with connection.lock:
        connection.pace.release(busy=busy)


def _busy(answer: Answers) -> bool:
    outcomes = [answer] if isinstance(answer, (Retry, Split)) else answer
    return any(isinstance(outcome, Retry) and outcome.cause != "failed" for outcome in outcomes)
