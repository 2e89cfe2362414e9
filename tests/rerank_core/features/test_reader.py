"""Passages are read once: looked up where an earlier run or this process knows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from rerank_core.errors import ModelError
from rerank_core.features.ner.rules import RulesRecogniser
from rerank_core.features.reader import PassageReader
from rerank_core.features.tagger import facts_fingerprint
from schemas.records import Mention, PassageFacts


class Counting(RulesRecogniser):
    """Tells what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[str, str]] = []

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        self.shown += passages
        return super().recognise(passages)


PASSAGES = [("", "In Tulsa, Ann Lee sang."), ("Tulsa", "It lies on the river, because of trade."), ("", "")]


def reader(recogniser: Counting, kept: Mapping[str, PassageFacts] | None = None) -> PassageReader:
    earlier = kept or {}
    return PassageReader(
        recogniser,
        facts_fingerprint=facts_fingerprint(recogniser),
        look_up=lambda wanted: {key: earlier[key] for key in wanted if key in earlier},
    )


def test_each_passage_is_shown_once() -> None:
    recogniser = Counting()
    reading = reader(recogniser)
    first = reading.read(PASSAGES)
    assert first.read == 3
    assert sorted(recogniser.shown) == sorted(PASSAGES)
    again = reading.read([*reversed(PASSAGES), ("new", "Rome.")])
    assert again.read == 1
    assert recogniser.shown[3:] == [("new", "Rome.")]
    assert [again.facts[key] for key in again.keys[:3]] == [first.facts[key] for key in reversed(first.keys)]
    assert [mention.text for mention in first.facts[first.keys[0]].mentions] == ["Tulsa", "Ann Lee"]
    assert first.facts[first.keys[1]].causal


def test_what_the_last_night_read_is_not_read_again() -> None:
    last = reader(Counting()).read(PASSAGES)
    recogniser = Counting()
    tonight = reader(recogniser, last.facts).read([*PASSAGES, ("", "Rome fell.")])
    assert tonight.read == 1
    assert recogniser.shown == [("", "Rome fell.")]
    assert {key: tonight.facts[key] for key in last.facts} == last.facts


def test_title_and_text_make_the_key() -> None:
    keys = reader(Counting()).read([("a", "b"), ("ab", ""), ("", "ab")]).keys
    assert len(set(keys)) == 3


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_core.features.reader.REMEMBERED", 2)
    recogniser = Counting()
    reading = reader(recogniser)
    assert reading.read(PASSAGES).read == 3  # all of one call are given, whatever is remembered
    assert reading.read(PASSAGES).read == 1


def test_memory_does_not_follow_a_text_full_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_core.features.reader.REMEMBERED_MENTIONS", 50)
    recogniser = Counting()
    reading = reader(recogniser)
    names = [("", f"In Rome{i} it rained. We saw Tulsa{i}.") for i in range(10)]
    crowded = ("", "We saw " + " and we saw ".join(f"Rome{i}" for i in range(100)))
    assert reading.read([*names, crowded]).read == 11
    assert reading.read([crowded]).read == 1  # more than is remembered
    assert reading.read(names).read == 10
    assert reading.read(names).read == 0


def test_a_worker_with_another_recogniser_stops_the_night() -> None:
    with pytest.raises(ModelError, match="give every worker the same recogniser"):
        PassageReader(RulesRecogniser(), facts_fingerprint="0" * 16, look_up=lambda wanted: {})
