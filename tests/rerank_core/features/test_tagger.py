"""The tagger as a whole: tags follow their candidates, and nothing but query and candidates decides them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.config.night import Tagging
from rerank_core.features import tagger
from rerank_core.features.ner.rules import RulesRecogniser
from rerank_core.features.role import ROLES
from rerank_core.features.tagger import facts_fingerprint, tag_facts, tagger_fingerprint
from schemas.records import Mention
from schemas.tags import HOP_UNREACHABLE, Tags

tag = functools.partial(tagger.tag, recogniser=RulesRecogniser())
QUERY = "Which city was Ann Lee's band from?"
PASSAGES = [
    ("Ann Lee", "Ann Lee was born in 1970. She founded Tinted Glass with Bob Moss."),
    ("Tinted Glass", "Tinted Glass is a band from Tulsa, because Bob Moss lived there."),
    ("Tulsa", "Tulsa lies on the river."),
    ("Gardening", "Water the roses daily."),
]


def test_by_example() -> None:
    tags = tag(QUERY, PASSAGES)

    assert [one.hop for one in tags] == [0, 1, 2, HOP_UNREACHABLE]
    assert [one.role for one in tags] == ["Biography", "Description", "Main_Claim", "Main_Claim"]
    assert tags[0].entities == ("Ann Lee", "Tinted Glass", "Bob Moss")  # the query's own first
    assert [one.causal for one in tags] == [False, True, False, False]
    assert tags[1].reasoning
    assert not tags[3].reasoning


NAMES = [
    "Ann Lee",
    "Bob Moss",
    "Tulsa",
    "Rome",
    "the river",
    "because",
    "in 1990",
    "is a city",
    ".",
    "unlike",
    "Ann",
]
TEXTS = st.lists(st.sampled_from(NAMES), max_size=8).map(" ".join)
PAIRS = st.lists(st.tuples(st.sampled_from(["", "Ann Lee", "Rome", "Tulsa"]), TEXTS), max_size=12)


@given(TEXTS, PAIRS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_permuting_the_candidates_permutes_the_tags_and_nothing_else(
    query: str, passages: list[tuple[str, str]], rng: random.Random
) -> None:
    order = list(range(len(passages)))
    rng.shuffle(order)

    names = [f"p{n}" for n in range(len(passages))]
    tags = tag(query, passages, names=names)

    shuffled = tag(query, [passages[n] for n in order], names=[names[n] for n in order])
    assert shuffled == [tags[n] for n in order]


@given(TEXTS, PAIRS, st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None)
def test_every_passage_gets_one_valid_tag(
    query: str, passages: list[tuple[str, str]], max_hop: int, max_entities: int
) -> None:
    tags = tag(query, passages, config=Tagging(max_hop=max_hop, max_entities=max_entities))

    assert len(tags) == len(passages)
    for one in tags:
        assert HOP_UNREACHABLE <= one.hop <= max_hop
        assert one.role in ROLES
        assert len(one.entities) <= max_entities
        assert len(set(one.entities)) == len(one.entities)


@given(st.text(), st.lists(st.tuples(st.text(), st.text()), max_size=4))
@settings(deadline=None)
def test_no_text_breaks_the_tagger(query: str, passages: list[tuple[str, str]]) -> None:
    assert len(tag(query, passages)) == len(passages)


def test_no_passages_and_empty_passages() -> None:
    assert tag(QUERY, []) == []
    assert tag(QUERY, [("", "")]) == [Tags(HOP_UNREACHABLE, "Main_Claim", (), False, False)]


def test_a_query_without_entities_reaches_only_what_it_spells_out() -> None:
    assert [one.hop for one in tag("why do things fall", PASSAGES)] == [HOP_UNREACHABLE] * 4
    assert [one.hop for one in tag("which city was ann lee from", PASSAGES)] == [0, 1, 2, HOP_UNREACHABLE]


class Fixed:
    """A recogniser that finds one span, whatever the text."""

    fingerprint = "fixed"

    def recognise(self, passages: Sequence[tuple[str, str]]) -> list[tuple[Mention, ...]]:
        return [(Mention("...", "MISC", 0, 3),) for _ in passages]


def test_mentions_that_name_nothing_join_nothing() -> None:
    tags = tag("", [("", "... a"), ("", "... b")], recogniser=Fixed())

    assert [one.hop for one in tags] == [HOP_UNREACHABLE] * 2


def test_the_tagger_cannot_see_labels_or_scores() -> None:
    assert list(inspect.signature(tagger.tag).parameters) == [
        "query",
        "passages",
        "config",
        "recogniser",
        "names",
    ]
    assert list(inspect.signature(tag_facts).parameters) == [
        "query",
        "query_facts",
        "passages",
        "facts",
        "names",
        "config",
    ]


def test_the_fingerprint_follows_every_parameter_that_decides_a_tag() -> None:
    rules = RulesRecogniser()
    prints = {tagger_fingerprint(Tagging(), rules), tagger_fingerprint(Tagging(), Fixed())}
    named = ("enabled", "model_input", "recogniser", "recogniser_model")  # the last two: by their fingerprint
    deciding = [f for f in dataclasses.fields(Tagging) if f.name not in named]
    for field in deciding:
        value = getattr(Tagging(), field.name)
        other = value + 1 if isinstance(value, int) else value / 2
        prints.add(tagger_fingerprint(dataclasses.replace(Tagging(), **{field.name: other}), rules))

    assert len(prints) == len(deciding) + 2
    plain = Tagging(enabled=False, model_input="plain")
    assert tagger_fingerprint(Tagging(), rules) == tagger_fingerprint(plain, rules)
    assert facts_fingerprint(rules) != facts_fingerprint(Fixed())
