"""Units: sentences by rules, windows without tails, ids that point back into the document."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.candidates.units import sentences, split, unit_index, windows
from rerank_core.config.source import Candidates
from rerank_core.text import clean
from schemas.records import Document

PASSAGE = Candidates(unit="passage")
SENTENCE = Candidates(unit="sentence")
WINDOW = Candidates(unit="window", window_words=4, window_stride=2)


def document(text: str, *, title: str = "", given: tuple[str, ...] = ()) -> Document:
    return Document("d", title, text, given, bm25_score=7.5, bm25_rank=3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there.", ["One is here.", "Two is there."]),
        ("Dr. Smith met Mrs. Jones vs. Mr. Low.", ["Dr. Smith met Mrs. Jones vs. Mr. Low."]),
        ("J. R. R. Tolkien wrote it. He sang.", ["J. R. R. Tolkien wrote it.", "He sang."]),
        ("The U.S. Army came. It left.", ["The U.S. Army came.", "It left."]),
        ("She lives in the U.S. The army came.", ["She lives in the U.S.", "The army came."]),
        ("Washington, D.C. It rains.", ["Washington, D.C.", "It rains."]),
        ("Animals, e.g. Bob the cat, i.e. Robert.", ["Animals, e.g. Bob the cat, i.e. Robert."]),
        ("Symphony No. 5 of Vol. 12 is long.", ["Symphony No. 5 of Vol. 12 is long."]),
        ("Did he? No. He left.", ["Did he?", "No.", "He left."]),
        ("It cost $3.14 in 1990. 200 people paid.", ["It cost $3.14 in 1990.", "200 people paid."]),
        ("On Jan. 5 it began. By Feb. The end.", ["On Jan. 5 it began.", "By Feb.", "The end."]),
        ("Acme Inc. Holdings grew, etc. It fell.", ["Acme Inc. Holdings grew, etc.", "It fell."]),
        ("She has a Ph.D. from MIT.", ["She has a Ph.D. from MIT."]),
        (
            'He said "Go." She went (slowly.) Then stop.',
            ['He said "Go."', "She went (slowly.)", "Then stop."],
        ),
        ("“Why?” he asked. ‘Now!’ Fine.", ["“Why?” he asked.", "‘Now!’", "Fine."]),
        ('It ended. "A new one," he said.', ["It ended.", '"A new one," he said.']),
        (
            "Well... Then he went. One ... Two. A . . . B.",
            ["Well...", "Then he went.", "One ... Two.", "A . . . B."],
        ),
        ("Wait… What?! Yes.", ["Wait…", "What?!", "Yes."]),
        (
            "Yahoo! is a firm. See example.com or v2.0 now.",
            ["Yahoo! is a firm.", "See example.com or v2.0 now."],
        ),
        ("It is so.[1] Next one.[22][3] Last.", ["It is so.[1]", "Next one.[22][3]", "Last."]),
        ("1. Open it. 2. Close it.", ["1. Open it.", "2. Close it."]),
        ("Is it plan B. It was.", ["Is it plan B.", "It was."]),
        ("A heading\n\nThe text follows. End", ["A heading", "The text follows.", "End"]),
        ("One line\nwrapped here. Next.", ["One line\nwrapped here.", "Next."]),
        ("今日は。元気？はい！", ["今日は。", "元気？", "はい！"]),
        ("It rose 5%. $5 million was lost.", ["It rose 5%.", "$5 million was lost."]),
        ("Ada (b. 1815) lived . She wrote.", ["Ada (b. 1815) lived .", "She wrote."]),
        ("", []),
        (" \n\n ", []),
        ("...", ["..."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


FRAGMENTS = st.sampled_from(
    [
        "Dr.",
        "U.S.",
        "e.g.",
        "J.",
        "No.",
        "5",
        "3.14",
        "He",
        "left",
        "...",
        "…",
        "?!",
        '"',
        ")",
        "[1]",
        " ",
        "\n\n",
        "。",
        "\r",
        "\u2028",
    ]
)


@given(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join), st.lists(FRAGMENTS).map(" ".join)))
@settings(deadline=None)
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    pieces = sentences(text)

    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece and piece == piece.strip() for piece in pieces)


@given(st.integers(0, 40), st.integers(1, 12), st.data())
@settings(deadline=None)
def test_windows_cover_every_word_and_have_no_tail(count: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, size))
    every = [f"w{n}" for n in range(count)]

    found = [window.split() for window in windows(" ".join(every), words=size, stride=stride)]

    assert all(len(window) == min(size, count) for window in found)
    starts = [int(window[0][1:]) for window in found]
    assert [every[s : s + size] for s in starts] == found
    assert all(0 < later - sooner <= stride for sooner, later in itertools.pairwise(starts))
    assert {word for window in found for word in window} == set(every)
    assert not found or (found[0][0] == every[0] and found[-1][-1] == every[-1])


def test_windows_by_example() -> None:
    assert windows("a b c d e f g", words=4, stride=2) == ["a b c d", "c d e f", "d e f g"]
    assert windows("a b c d e f", words=4, stride=2) == ["a b c d", "c d e f"]
    assert windows("a b c", words=4, stride=2) == ["a b c"]
    assert windows(" ", words=4, stride=2) == []


def test_a_passage_keeps_the_document_whole_under_its_own_id() -> None:
    (one,) = split(document(" One.\n Two\u200b. ", title=" T "), config=PASSAGE)

    assert one == ("d", "d", "T", "One. Two.", 7.5, 3)


def test_the_index_sentences_are_taken_where_given() -> None:
    units = split(document("One. Two.", given=("One.  Two.", "  Three.")), config=SENTENCE)

    assert [(u.passage_id, u.text) for u in units] == [("d#0", "One. Two."), ("d#1", "Three.")]


def test_a_blank_sentence_gives_no_unit_but_keeps_its_number() -> None:
    units = split(document("", given=("One.", " \u200b ", "Three.")), config=SENTENCE)

    assert [u.passage_id for u in units] == ["d#0", "d#2"]


def test_windows_are_numbered_and_carry_the_document() -> None:
    units = split(document("a b c d e", title="T"), config=WINDOW)

    assert [(u.passage_id, u.text) for u in units] == [("d#0", "a b c d"), ("d#1", "b c d e")]
    assert {(u.doc_id, u.title, u.bm25_score, u.bm25_rank) for u in units} == {("d", "T", 7.5, 3)}


@pytest.mark.parametrize("config", [PASSAGE, SENTENCE, WINDOW])
def test_a_title_alone_is_scored_as_the_text(config: Candidates) -> None:
    (one,) = split(document(" \n", title="Only a title"), config=config)

    assert (one.title, one.text) == ("Only a title", "Only a title")
    assert one.passage_id == ("d" if config is PASSAGE else "d#0")


@pytest.mark.parametrize("config", [PASSAGE, SENTENCE, WINDOW])
@pytest.mark.parametrize("text", ["", "  ", "\n\n", "\u200b\x00"])
def test_a_document_without_any_text_gives_nothing(config: Candidates, text: str) -> None:
    assert split(document(text, title="\u200b "), config=config) == []


@given(st.text(), st.sampled_from([PASSAGE, SENTENCE, WINDOW]))
@settings(deadline=None)
def test_units_are_clean_and_their_ids_differ(text: str, config: Candidates) -> None:
    units = split(document(text, title="T"), config=config)

    assert units
    assert all(u.text and u.text == clean(u.text) for u in units)
    assert len({u.passage_id for u in units}) == len(units)


@pytest.mark.parametrize(
    ("doc_id", "passage_id", "expected"),
    [
        ("d", "d", -1),
        ("d", "d#0", 0),
        ("d", "d#12", 12),
        ("a#1", "a#1", -1),
        ("a#1", "a#1#2", 2),
        ("d", "d#x", -1),
    ],
)
def test_unit_index(doc_id: str, passage_id: str, expected: int) -> None:
    assert unit_index(doc_id, passage_id) == expected


@pytest.mark.parametrize(
    "text",
    [
        "word " * 100_000,
        "A b c. " * 33_000,
        "J. " * 100_000,
        "." * 300_000,
        ".[1]" * 100_000,
        "\n \n" * 100_000,
    ],
)
def test_long_texts_take_linear_time(text: str) -> None:
    started = time.perf_counter()

    for config in (PASSAGE, SENTENCE, Candidates(unit="window")):
        split(document(text), config=config)

    assert time.perf_counter() - started < 10  # seconds; a quadratic rule takes minutes
