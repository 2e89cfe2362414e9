"""Sending requests until every query has its outcome."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from elastic_transport import ConnectionError, ConnectionTimeout

from pipelines.elasticsearch import retry
from pipelines.elasticsearch.client import Connection
from pipelines.elasticsearch.request import send_all
from pipelines.elasticsearch.retry import Answered, Batch, Outcome, Pace, Refused, Retry
from rerank_core.errors import SourceError
from tests.support.es_config import settings

BUSY = Retry("queue full", "busy")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)


def outcomes(
    count: int, send: Callable[[Batch], Sequence[Outcome]], *, alive: bool = True, retries: int = 3
) -> list[Answered | Refused]:
    with ThreadPoolExecutor(4) as threads:
        connection = Connection(None, threads, Pace(4), threading.Lock())  # type: ignore[arg-type]
        found = send_all(
            count,
            send,
            connection=connection,
            settings=settings(),
            batch_size=5,
            max_retries=retries,
            alive=lambda: alive,
        )
    assert connection.pace.in_flight == 0
    return found


@pytest.mark.usefixtures("quick")
def test_answers_come_back_in_order_through_all_troubles() -> None:
    chance, lock, running, most = random.Random(3), threading.Lock(), 0, 0

    def send(batch: Batch) -> Sequence[Outcome]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            luck = chance.random()
        try:
            if luck < 0.2:
                raise ConnectionTimeout("slow")
            return [BUSY if luck < 0.3 else Answered(at) for at in batch.positions]
        finally:
            with lock:
                running -= 1

    found = outcomes(100, send, retries=30)
    assert found == [Answered(at) for at in range(100)]
    assert most <= 4


@pytest.mark.usefixtures("quick")
def test_a_cluster_that_is_gone_stops_the_night() -> None:
    def send(batch: Batch) -> Sequence[Outcome]:
        raise ConnectionError("refused")

    with pytest.raises(SourceError, match=r"no connection to https://search.example:9200.*is the cluster up"):
        outcomes(20, send, alive=False)


@pytest.mark.usefixtures("quick")
def test_one_query_that_is_always_too_slow_is_given_up_alone() -> None:
    def send(batch: Batch) -> Sequence[Outcome]:
        if 7 in batch.positions:
            raise ConnectionTimeout("slow")
        return [Answered(at) for at in batch.positions]

    found = outcomes(20, send, retries=6)
    assert [at for at, outcome in enumerate(found) if isinstance(outcome, Refused)] == [7]
    assert "no response within source.elasticsearch.timeout_seconds = 30" in found[7].detail  # type: ignore[union-attr]


def test_an_error_that_ends_the_night_gives_its_place_back() -> None:
    def send(batch: Batch) -> Sequence[Outcome]:
        raise SourceError("the index is gone")

    with pytest.raises(SourceError, match="the index is gone"):
        outcomes(100, send)
