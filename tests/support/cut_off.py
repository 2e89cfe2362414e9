"""Nights over a log of six queries that a deadline cuts off, by models that take the clock's time or never return."""

from __future__ import annotations

import datetime
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from schemas.manifest import Manifest
from tests.support.clock import CLOCK
from tests.support.fakes import FakeScorer
from tests.support.tiny import DAY, rows

NEXT = DAY + datetime.timedelta(days=1)


ASKED = {
    "who wrote dune": 9,
    "solaris novel": 7,
    "seattle or tacoma": 5,
    "where was frank herbert born": 3,
    "why does rain fall": 2,
    "an empire falls": 1,
}
"""Queries of a log, by how often they are asked."""


class Slow(FakeScorer):
    """Each query takes `seconds` of the clock."""

    chunk = 1

    def __init__(
        self, name: str = "fake", *, seconds: float = 0.0, seen: str = "", nan_for: str = ""
    ) -> None:
        super().__init__(name, seen=seen, nan_for=nan_for)
        self._takes = seconds
        self._met: set[str] = set()

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        queries = {text_of(query) for query, _ in pairs}
        CLOCK.pass_by(self._takes * len(queries - self._met))
        self._met |= queries
        return super().score(pairs)


def text_of(query_side: str) -> str:
    """The query of an input, without its tags."""
    return query_side.rpartition("]")[2].strip()


class Blocking(Slow):
    """Never returns from the first call about a query, or if `of_evidence`, from the first about its evidence."""

    def __init__(self, *, query: str, of_evidence: bool = False) -> None:
        super().__init__()
        self._query, self._of_evidence, self._scored = query, of_evidence, set[str]()

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        (one,) = pairs
        if text_of(one[0]).lower() == self._query and (len(one[1]) < 40) == self._of_evidence:
            block()
        return super().score(pairs)


def block() -> NoReturn:
    """06:00 comes in a call that never returns."""
    CLOCK.pass_by(2000)
    threading.Event().wait()
    raise AssertionError


def slow(name: str = "fake", **options: Any) -> Callable[[], Slow]:
    return functools.partial(Slow, name, **options)


def blocking(**options: Any) -> Callable[[], Blocking]:
    return functools.partial(Blocking, **options)


MakeNight = Callable[..., Manifest]


def lists(output: Path, manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """The rows of each query, by its text in lower case."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows(output, manifest):
        found.setdefault(row["query"].lower(), []).append(row)
    return found


def fresh(output: Path, manifest: Manifest) -> set[str]:
    return {query for query, own in lists(output, manifest).items() if own[0]["stale_since"] is None}
