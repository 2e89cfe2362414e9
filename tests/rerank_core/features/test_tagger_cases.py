"""The tags by hand-made cases, half of them traps: every line says what it is about.

All go through `tag`, with the recogniser that needs no model. The examples and traps of single rules are tested
with their tables.
"""

from __future__ import annotations

import pytest

from rerank_core.config.night import Tagging
from rerank_core.features.ner.rules import RulesRecogniser
from rerank_core.features.tagger import tag
from schemas.tags import HOP_UNREACHABLE, Tags

FAR = HOP_UNREACHABLE
CONFIG = Tagging(recogniser="rules", reasoning_density=0.18)


def tags_of(query: str, *passages: tuple[str, str]) -> list[Tags]:
    return tag(query, passages, config=CONFIG, recogniser=RulesRecogniser())


def tags_of_text(text: str) -> Tags:
    return tags_of("", ("", text))[0]


@pytest.mark.parametrize(
    ("about", "text", "expected"),
    [
        ("a term explained", "A sextant is an instrument that measures angles.", "Definition"),
        ("trap: a work is described, not defined", "Sextant is a 1971 album by Tinted Glass.", "Description"),
        ("trap: a place is described", "Harrow is a village on the Tarn.", "Description"),
        ("trap: a person is no term", "Ann Moss is a Welsh potter and actress.", "Biography"),
        ("a life's dates", "Bob Lee (1860 – 3 May 1921) was an inventor of clocks.", "Biography"),
        ("trap: the dates of a bridge", "The bridge (1860–1921) carried two tracks.", "Main_Claim"),
        ("trap: born in a figure of speech", "A plan born of need seldom lasts.", "Main_Claim"),
        ("a definition in a contract", '"Deposit" means the sum that the tenant pays.', "Definition"),
        ("trap: to mean something by it", "She means well.", "Main_Claim"),
        ("trap: a pronoun opens no definition", "It is a pity that the mill burned.", "Main_Claim"),
        ("a rule", "Visitors must wear a helmet.", "Regulation"),
        ("trap: must as a guess", "Visitors must have taken it.", "Main_Claim"),
        ("an instruction", "To reset the clock, press both keys.", "Procedure"),
        ("trap: the noun press", "The press was oiled.", "Main_Claim"),
        ("trap: an instruction somebody followed", "She pressed both keys.", "Main_Claim"),
        ("a contrast", "Unlike her brother, Ann could swim.", "Comparison"),
        ("trap: a number is no comparison", "More than 40 came.", "Main_Claim"),
        ("an objection", "However, nobody had asked the miller.", "Counter_Argument"),
        ("trap: however as much as", "However long it takes, we wait.", "Main_Claim"),
        ("a conclusion", "In short, the dam was too low.", "Conclusion"),
        ("trap: thus far is a time", "Thus far the dam has held.", "Main_Claim"),
        ("evidence", "A survey of farms found fewer bees.", "Supporting_Evidence"),
        ("trap: according to plan", "It went according to plan.", "Main_Claim"),
        ("an example", "Some birds, for instance herons, wait.", "Example"),
        ("trap: to set an example", "The heron set an example.", "Main_Claim"),
        ("a quantity", "The harvest fell by 12 percent.", "Statistic"),
        ("trap: a number that is a name", "Room 12 is locked.", "Main_Claim"),
        ("history", "The mill opened in 1871.", "Background"),
        ("trap: a number that is no year", "The mill has 1871 windows.", "Main_Claim"),
        ("a question", "Who owns the mill?", "Question"),
        ("trap: a question retold", "They asked who owned the mill.", "Main_Claim"),
    ],
)
def test_role(about: str, text: str, expected: str) -> None:
    assert tags_of_text(text).role == expected, about


@pytest.mark.parametrize(
    ("about", "text", "expected"),
    [
        ("a reason", "The ferry stayed because of fog.", True),
        ("a reason that since gives", "Since it was foggy, the ferry stayed.", True),
        ("trap: since of time", "The ferry has run since 1990.", False),
        ("trap: since then", "The ferry has not run since then.", False),
        ("trap: since somebody's youth", "Since she was a child she has sung.", False),
        ("a cause with due to", "The delay was due to fog.", True),
        ("trap: due to arrive", "The ferry is due to arrive at noon.", False),
        ("trap: due on a day", "The rent is due on Monday.", False),
        ("an effect", "The drought led to hunger.", True),
        ("trap: a road leads somewhere", "The lane led to the old mill and the church.", False),
        ("trap: led by somebody", "The choir is led by Ann Moss.", False),
        ("an outcome", "The error resulted in a fine.", True),
        ("trap: the results of a race", "The results in the second heat were void.", False),
        ("trap: thanks to people", "Our thanks to all who helped.", False),
        ("trap: a work attributed to a painter", "The fresco was attributed to Moss.", False),
        ("a cause attributed", "The loss was attributed to a lack of salt.", True),
        ("trap: a good cause", "She ran for a good cause.", False),
        ("trap: hence of time", "Ten years hence it will be dry.", False),
    ],
)
def test_causal(about: str, text: str, expected: bool) -> None:
    assert tags_of_text(text).causal is expected, about


@pytest.mark.parametrize(
    ("about", "text", "expected"),
    [
        ("names joined", "In Tulsa the judge Ann Moss met Bob Lee.", True),
        ("trap: one name alone is nothing to reason over", "There came Ann.", False),
        (
            "trap: two names in a long text",
            "Once Ann Moss had " + "very " * 20 + "long talks with Bob Lee.",
            False,
        ),
        ("trap: capitals at sentence starts are no names", "Rain fell. Wind blew. Snow came.", False),
    ],
)
def test_reasoning(about: str, text: str, expected: bool) -> None:
    assert tags_of_text(text).reasoning is expected, about


LEE = ("Ann Lee", "Ann Lee led the choir of Dunmore.")
DUNMORE = ("Dunmore", "Dunmore lies near Harrow Bay.")
BAY = ("Harrow Bay", "Harrow Bay is deep.")
ROSES = ("Roses", "Water them daily.")


@pytest.mark.parametrize(
    ("about", "query", "passages", "expected"),
    [
        ("a chain of two bridges", "Who was Ann Lee?", [LEE, DUNMORE, BAY, ROSES], [0, 1, 2, FAR]),
        ("a query without capitals", "who was ann lee", [LEE, DUNMORE], [0, 1]),
        ("trap: a query that names nothing", "who sang there", [LEE, DUNMORE], [FAR, FAR]),
        ("trap: part of a word is no name", "annual leeway", [LEE, DUNMORE], [FAR, FAR]),
        ("a possessive in the query", "What was Ann Lee's choir?", [LEE, ROSES], [0, FAR]),
        ("a surname in the query", "What did Lee lead?", [LEE, ROSES], [0, FAR]),
        (
            "trap: the surname of two candidates",
            "What did Lee lead?",
            [LEE, ("Bob Lee", "Bob Lee fished.")],
            [FAR, FAR],
        ),
        (
            "an abbreviation for the country",
            "Which states of the USA border it?",
            [("Farming", "They left the United States."), ROSES],
            [0, FAR],
        ),
        (
            "trap: tell us is no country",
            "tell us who wrote it",
            [("Farming", "They left the U.S. after rain."), ROSES],
            [FAR, FAR],
        ),
        (
            "trap: who is no health organization",
            "who wrote it",
            [("Report", "It was sent to the WHO."), ROSES],
            [FAR, FAR],
        ),
        (
            "an acronym explained in a candidate",
            "What does the Mill Owners Union want?",
            [("Strike", "The Mill Owners Union (MOU) met in Dunmore."), DUNMORE],
            [0, 1],
        ),
        (
            "a disambiguated title",
            "songs on tinted glass",
            [("Tinted Glass (album)", "It has ten songs."), ROSES],
            [0, FAR],
        ),
        (
            "trap: an entity that all candidates hold joins nothing",
            "Who was Ann Lee?",
            [LEE, *[(f"Fair {n}", f"The fair number {n} is held in Dunmore.") for n in range(8)]],
            [0, *[FAR] * 8],
        ),
        (
            "trap: York is not New York",
            "hotels in York",
            [("Lodging", "The best are in New York."), ("Walls", "They stand around York.")],
            [FAR, 0],
        ),
        (
            "accents and dashes",
            "who was zoe lecka-moss",
            [("Poets", "One was Zoë Łęcka–Moss."), ROSES],
            [0, FAR],
        ),
    ],
)
def test_hop(about: str, query: str, passages: list[tuple[str, str]], expected: list[int]) -> None:
    assert [one.hop for one in tags_of(query, *passages)] == expected, about


@pytest.mark.parametrize(
    ("about", "query", "passage", "expected"),
    [
        (
            "the query's own entity first",
            "What is in Dunmore?",
            ("", "Then Ann Lee saw Dunmore."),
            ("Dunmore", "Ann Lee"),
        ),
        ("a person once, as first spelled", "", ("", "There Ann Lee sang. Later, Lee left."), ("Ann Lee",)),
        ("an acronym is its name", "", ("", "The Mill Owners Union (MOU) met."), ("Mill Owners Union",)),
        ("the country once", "", ("", "From the U.S. he wrote that the United States grew."), ("U.S.",)),
        ("trap: two people of one name", "", ("", "There Ann Lee met Bob Lee."), ("Ann Lee", "Bob Lee")),
        ("trap: a heading is no country", "", ("", "ABOUT US"), ()),
        ("trap: weekdays and months name nothing", "", ("", "He came on Monday or in May."), ()),
        (
            "trap: a city is not its university",
            "",
            ("", "The University of Leeds is in Leeds."),
            ("University of Leeds", "Leeds"),
        ),
    ],
)
def test_entities(about: str, query: str, passage: tuple[str, str], expected: tuple[str, ...]) -> None:
    assert tags_of(query, passage)[0].entities == expected, about
