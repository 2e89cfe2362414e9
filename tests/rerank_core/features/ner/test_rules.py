"""Rules on capitals: what is a mention, where it lies, and what a lone capital at a sentence's start needs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.names import normal_form
from rerank_core.features.ner import LABELS
from rerank_core.features.ner.rules import RulesRecogniser
from schemas.records import Mention


def found(title: str, text: str) -> tuple[Mention, ...]:
    return RulesRecogniser().recognise([(title, text)])[0]


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("", "She met Ann Lee in New York.", ("Ann Lee", "New York")),
        ("", "The University of Oxford is in England.", ("University of Oxford", "England")),
        ("", "It was written by Ludwig van der Berg.", ("Ludwig van der Berg",)),
        ("", "They flew Apollo 11 to the Moon.", ("Apollo 11", "Moon")),
        ("", "Which band played there? However, it rained.", ()),
        ("", "Bridges are long. Rivers flow.", ()),  # a lone capital at a start proves nothing
        ("", "Bridges was a judge. Nobody knew Bridges.", ("Bridges", "Bridges")),  # proven inside a sentence
        ("Bridges (judge)", "Bridges was a judge.", ("Bridges",)),  # proven by the title
        ("", "Although Shaw left, it went on.", ("Shaw",)),  # stands inside the sentence
        ("", "NASA launched it.", ("NASA",)),
        ("", "The River Thames runs through London.", ("River Thames", "London")),
        ("", "He read the Guardian's report on Ann's dog.", ("Guardian", "Ann")),
        ("", "She knew James O'Neil and the Jones' house.", ("James O'Neil", "Jones")),
        ("", "We joined the U.S. Army with J. R. R. Tolkien.", ("U.S. Army", "J. R. R. Tolkien")),
        ("", "He lives in the U.S.", ("U.S.",)),
        ("", "Dr. Smith saw Mr. Lee.", ("Dr. Smith", "Mr. Lee")),
        ("", "ABOUT US", ()),  # a heading, not the country
        ("", "The US and the WHO agreed.", ("US", "WHO")),
        ("", "WHO WROTE THIS?", ("WROTE",)),
        ("", "They saw the Blue\nLantern there.", ("Blue",)),  # no name runs on to the next line
        ("", "all lower case words", ()),
        ("", "", ()),
    ],
)
def test_mentions(title: str, text: str, expected: tuple[str, ...]) -> None:
    assert tuple(mention.text for mention in found(title, text)) == expected


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("by Dr. Smith", "PER"),
        ("by Queen Ann", "PER"),
        ("the Queen of Hearts", "MISC"),  # trap: a card
        ("at Acme Inc.", "ORG"),
        ("the University of Tulsa", "ORG"),
        ("the River Thames", "LOC"),
        ("on Baker Street", "LOC"),
        ("saw Ann Lee", "MISC"),  # the rules do not guess
        ("at the University", "MISC"),
    ],
)
def test_labels_that_a_word_gives_away(text: str, label: str) -> None:
    assert [mention.label for mention in found("", text)] == [label]


PIECES = [
    "Ann Lee",
    "Ann",
    "U.S.",
    "the",
    "'s",
    "’",
    ".",
    " ",
    "\n",
    "of",
    "WHO",
    "É",
    "&",
    "12",
    '"',
    "(",
    "-",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)), st.text(max_size=20))
@settings(deadline=None)
def test_mentions_lie_where_they_say_in_order_and_apart(text: str, title: str) -> None:
    end = 0
    for mention in found(title, text):
        assert text[mention.start : mention.end] == mention.text
        assert end <= mention.start < mention.end
        assert mention.label in LABELS
        assert normal_form(mention.text)
        assert mention.text == mention.text.strip()
        end = mention.end


def test_a_passage_is_read_the_same_whatever_stands_beside_it() -> None:
    one, other = ("Bridges (judge)", "Bridges sat."), ("", "Bridges are long.")
    rules = RulesRecogniser()

    assert rules.recognise([one, other]) == rules.recognise([one]) + rules.recognise([other])
    assert rules.recognise([]) == []


def test_the_fingerprint_is_stable() -> None:
    assert RulesRecogniser().fingerprint == RulesRecogniser().fingerprint != ""
