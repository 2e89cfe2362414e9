"""ENT: names by capitals; a lone capital at a sentence's start needs proof."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.features.entities import normalise, normalise_text, recognise


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
        ("", "NASA launched it.", ("NASA",)),
        ("", "The River Thames runs through London.", ("River Thames", "London")),
        ("", "He read the Guardian's report on Ann's dog.", ("Guardian", "Ann")),
        ("", "She knew James O'Neil and the Jones' house.", ("James O'Neil", "Jones")),
        ("", "We joined the U.S. Army with J. R. R. Tolkien.", ("U.S. Army", "J. R. R. Tolkien")),
        ("", "all lower case words", ()),
        ("", "", ()),
    ],
)
def test_recognise(title: str, text: str, expected: tuple[str, ...]) -> None:
    assert recognise(title, text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("U.S.", "US"),
        ("Ann Lee's", "ann lee"),
        ("Sir Ian McKellen", "Ian McKellen"),
        ("The Beatles", "Beatles"),
        ("Dr. Strange", "Strange"),
        ("Jean-Luc Picard", "Jean Luc Picard"),
        ("O'Neil", "o neil"),  # as normalise_text reads it in a query
    ],
)
def test_mentions_of_one_entity_are_one(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_a_title_of_honour_alone_stays() -> None:
    assert normalise("Queen") == "queen"
    assert normalise("The The") == "the"


@given(st.text())
@settings(deadline=None)
def test_mentions_name_something_and_stand_in_the_text(text: str) -> None:
    for mention in recognise("", text):
        assert normalise(mention)
        assert mention == mention.strip()
        assert set(normalise_text(mention).split()) <= set(
            normalise_text(text.replace("'s", " ")).split()
        ) | set(normalise_text(text).split())
