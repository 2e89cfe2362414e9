"""The facts of passages, each read once: only what no earlier run or call has read goes to the recogniser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rerank_core.errors import ModelError
from rerank_core.features import tagger
from rerank_core.features.ner import Recogniser
from rerank_core.text import fingerprint
from rerank_core.trace import span
from schemas.records import PassageFacts

REMEMBERED = 20_000
"""Passages that a process remembers: a popular one is a candidate of many queries."""

REMEMBERED_MENTIONS = 400_000
"""Mentions of all remembered passages together, some 200 bytes each; usual ones have up to 20."""


class ReadPassages(NamedTuple):
    """The facts of some passages."""

    keys: list[str]  # of each passage, in order
    facts: dict[str, PassageFacts]  # by key
    read: int  # passages that went to the recogniser


class PassageReader:
    """Reads passages, with a cache that the threads of a process share.

    Args:
        recogniser: finds the entities.
        facts_fingerprint: the fingerprint that the job was started with.
        look_up: the facts that an earlier run published for some keys; those that it did not are missing.

    Raises:
        ModelError: this process has another recogniser than the job was started with.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        *,
        facts_fingerprint: str,
        look_up: Callable[[set[str]], Mapping[str, PassageFacts]],
    ) -> None:
        if (own := tagger.facts_fingerprint(recogniser)) != facts_fingerprint:
            raise ModelError(
                f"this worker's recogniser has the fingerprint {own}, the job was started with {facts_fingerprint}: "
                "give every worker the same recogniser"
            )
        self._recogniser, self._fingerprint, self._look_up = recogniser, facts_fingerprint, look_up
        self._known: dict[str, PassageFacts] = {}
        self._mentions = 0  # of `_known`
        self._lock = threading.Lock()

    def read(self, passages: Sequence[tuple[str, str]]) -> ReadPassages:
        """The facts of each distinct (title, text)."""
        keys = [fingerprint(self._fingerprint, title, text)[:32] for title, text in passages]
        by_key = dict(zip(keys, passages, strict=True))
        with self._lock:
            facts = {key: self._known[key] for key in by_key if key in self._known}
        if missing := set(by_key) - set(facts):
            with span("look up facts", passages=len(missing)):
                facts |= self._look_up(missing)
        new = sorted(set(by_key) - set(facts))
        with span("read passages", passages=len(new)):
            facts.update(zip(new, tagger.read([by_key[key] for key in new], self._recogniser), strict=True))
        self._remember(facts)
        return ReadPassages(keys, facts, len(new))

    def _remember(self, facts: Mapping[str, PassageFacts]) -> None:
        with self._lock:
            new = {key: known for key, known in facts.items() if key not in self._known}
            self._known.update(new)
            self._mentions += sum(len(known.mentions) for known in new.values())
            while len(self._known) > REMEMBERED or self._mentions > REMEMBERED_MENTIONS:
                oldest = next(iter(self._known))  # a dict keeps the order
                self._mentions -= len(self._known.pop(oldest).mentions)
