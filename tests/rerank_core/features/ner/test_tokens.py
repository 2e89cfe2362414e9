from __future__ import annotations

from typing import NamedTuple

import pytest

from rerank_core.errors import ModelError
from rerank_core.features.ner import LABELS
from rerank_core.features.ner.tokens import TYPES, Tag, find_mentions, group_words, read_tag, read_tags
from schemas.records import Mention


class Encoding(NamedTuple):
    """What `tokens` reads of a tokenizers.Encoding."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]


def encode(text: str, tokens: str) -> Encoding:
    """Tokens of a text, spelt "|" between words and "·" within them: "Par·is| in"; a space is the token's."""
    offsets: list[tuple[int, int]] = []
    words: list[int | None] = []
    at = 0
    for i, word in enumerate(tokens.split("|")):
        for piece in word.split("·"):
            at = text.index(piece, at)
            offsets.append((at, at + len(piece)))
            words.append(i)
            at += len(piece)
    return Encoding([0] * len(offsets), offsets, words)


def read(text: str, tokens: str, labels: str) -> list[tuple[str, str]]:
    """Mentions, given a label of each token."""
    encoded = encode(text, tokens)
    given = labels.split()
    assert len(given) == len(encoded.ids)
    words = group_words(text, encoded)
    mentions = find_mentions(text, words, [read_tag(given[word.decides]) for word in words])
    assert all(text[m.start : m.end] == m.text for m in mentions)
    return [(m.text, m.label) for m in mentions]


# Labels


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("O", Tag("O", "")),
        ("B-PER", Tag("PER", "PER", opens=True)),
        ("I-PER", Tag("PER", "PER")),
        ("L-PER", Tag("PER", "PER", closes=True)),
        ("E-PER", Tag("PER", "PER", closes=True)),
        ("U-PER", Tag("PER", "PER", opens=True, closes=True)),
        ("S-PER", Tag("PER", "PER", opens=True, closes=True)),
        ("W-PER", Tag("PER", "PER", opens=True, closes=True)),
        ("M-PER", Tag("PER", "PER")),
        ("B_ORG", Tag("ORG", "ORG", opens=True)),
        ("PERSON", Tag("PERSON", "PER")),
        ("person", Tag("person", "PER")),
        ("B-WORK_OF_ART", Tag("WORK_OF_ART", "MISC", opens=True)),
        ("I-creative-work", Tag("creative-work", "MISC")),
        ("creative-work", Tag("creative-work", "MISC")),
        ("work of art", Tag("work of art", "MISC")),
        ("B-DATE", Tag("DATE", "", opens=True)),
        ("LAW", Tag("LAW", "MISC")),
        ("B-", Tag("B-", "")),
        ("LABEL_0", Tag("LABEL_0", "")),
    ],
)
def test_what_a_label_says(label: str, expected: Tag) -> None:
    assert read_tag(label) == expected


@pytest.mark.parametrize(
    ("types", "label"),
    [
        ("PER PERSON person", "PER"),
        ("ORG corporation group", "ORG"),
        ("LOC GPE FAC location", "LOC"),
        ("MISC NORP PRODUCT EVENT WORK_OF_ART LAW LANGUAGE product creative-work", "MISC"),
        ("DATE TIME PERCENT MONEY QUANTITY ORDINAL CARDINAL O", ""),
    ],
)
def test_types_of_the_usual_corpora(types: str, label: str) -> None:
    assert {read_tag(f"B-{kind}").label for kind in types.split()} == {label}


def test_the_table_maps_to_the_protocols_labels() -> None:
    assert set(TYPES.values()) == set(LABELS)
    assert all(kind == kind.casefold() and "_" not in kind for kind in TYPES)


def test_labels_are_read_in_the_order_of_their_ids() -> None:
    kinds = [
        tag.kind
        for tag in read_tags({"10": "O", **{str(i): f"B-{i}" for i in range(9)}, 9: "PER"}, source="m")
    ]
    assert kinds == [*"012345678", "PER", "O"]


@pytest.mark.parametrize(
    ("id2label", "said"),
    [
        (None, r"^m has no labels; take a token-classification model"),
        ({}, r"^m has no labels"),
        ({"0": "O", "2": "PER"}, r"^m: the ids of id2label are 0, 2; number them from 0"),
        (
            {"0": "LABEL_0", "1": "LABEL_1"},
            r"^m has no label for persons.*: LABEL_0, LABEL_1\. Take a named-entity",
        ),
        ({"0": "O", "1": "B-DATE"}, r"O, B-DATE"),
    ],
)
def test_labels_that_are_of_no_use(id2label: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read_tags(id2label, source="m")


# Schemes

BONN = ("Anna Bo lives in Bad Bonn", "Anna|Bo|lives|in|Bad|Bonn")


@pytest.mark.parametrize(
    "labels",
    [
        "B-PER I-PER O O B-LOC I-LOC",  # BIO
        "I-PER I-PER O O I-LOC I-LOC",  # IOB1
        "B-PER L-PER O O B-LOC L-LOC",  # BILOU
        "B-PER E-PER O O B-LOC E-LOC",  # BIOES
        "PER PER O O LOC LOC",
        "PERSON PERSON O O GPE GPE",
        "B-PER I-PER B-DATE I-DATE I-LOC I-LOC",  # a dropped type parts as O does
    ],
)
def test_every_scheme_reads_alike(labels: str) -> None:
    assert read(*BONN, labels) == [("Anna Bo", "PER"), ("Bad Bonn", "LOC")]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("B-PER B-PER O", "Ann/PER Bob/PER"),
        ("I-PER B-PER O", "Ann/PER Bob/PER"),  # IOB1: B- only to part neighbours
        ("O I-PER O", "Bob/PER"),  # follows nothing
        ("B-ORG I-PER O", "Ann/ORG Bob/PER"),  # follows another type
        ("U-PER I-PER O", "Ann/PER Bob/PER"),  # after a unit comes a new one
        ("B-PER L-PER I-PER", "Ann Bob/PER Cid/PER"),
        ("I-PER S-PER I-PER", "Ann/PER Bob/PER Cid/PER"),
        ("B-LOC I-GPE O", "Ann/LOC Bob/LOC"),  # two types of the model, though one label
        ("E-PER O O", "Ann/PER"),
        ("L-PER L-PER O", "Ann/PER Bob/PER"),
        ("PER PER ORG", "Ann Bob/PER Cid/ORG"),
        ("B-PER M-PER E-PER", "Ann Bob Cid/PER"),
        ("B-DATE I-DATE O", ""),
        ("O O O", ""),
    ],
)
def test_where_mentions_begin_and_end(labels: str, expected: str) -> None:
    found = read("Ann Bob Cid", "Ann|Bob|Cid", labels)
    assert " ".join(f"{text}/{label}" for text, label in found) == expected


# Words


@pytest.mark.parametrize(
    ("text", "tokens", "labels", "expected"),
    [
        # The first token decides, whatever the others say.
        ("in Paris", "in|Par·is", "O B-LOC O", [("Paris", "LOC")]),
        ("in Paris", "in|Par·is", "O O B-LOC", []),
        ("in Paris", "in|Par·is", "O B-LOC B-PER", [("Paris", "LOC")]),
        ("Par Is", "Par|Is", "B-LOC B-PER", [("Par", "LOC"), ("Is", "PER")]),
        # Punctuation that is a word of its own is as its label says.
        ("Yahoo! is", "Yahoo|!|is", "B-ORG I-ORG O", [("Yahoo!", "ORG")]),
        ("Yahoo! is", "Yahoo|!|is", "B-ORG O O", [("Yahoo", "ORG")]),
        ("U.S. of", "U|.|S|.|of", "B-LOC I-LOC I-LOC I-LOC O", [("U.S.", "LOC")]),
        ("Jean-Luc", "Jean|-|Luc", "B-PER I-PER I-PER", [("Jean-Luc", "PER")]),
        ("a - b", "a|-|b", "O B-PER O", []),  # no letter, no name
        # Byte-level BPE: the space before a word is the token's.
        ("in New York now", "in| New| York| now", "O B-LOC I-LOC O", [("New York", "LOC")]),
        # SentencePiece: a word holds its punctuation; the first token that is none decides, the ends are trimmed.
        ("at (NASA), now", "at| (·NAS·A·),| now", "O O B-ORG O O O", [("NASA", "ORG")]),
        ("in Paris, Rome.", "in| Paris·,| Rome·.", "O B-LOC O B-LOC O", [("Paris", "LOC"), ("Rome", "LOC")]),
        ("in Paris, Rome.", "in| Paris·,| Rome·.", "O LOC O LOC O", [("Paris, Rome", "LOC")]),
        ("“Dune”", "“Dune”", "B-MISC", [("Dune", "MISC")]),
        # ... and where it takes a whole text for one word, white space parts words.
        ("in New York", "in· New· York", "O B-LOC I-LOC", [("New York", "LOC")]),
        ("in\u00a0New\nYork", "in·\u00a0New·\nYork", "O B-LOC B-PER", [("New", "LOC"), ("York", "PER")]),
        # A token of white space alone is no word, and parts nothing.
        ("New  York", "New| |York", "B-LOC O I-LOC", [("New  York", "LOC")]),
    ],
)
def test_words(text: str, tokens: str, labels: str, expected: list[tuple[str, str]]) -> None:
    assert read(text, tokens, labels) == expected


def test_bytes_of_one_character_are_one_word() -> None:
    """As byte-level BPE gives them: three tokens with the offsets of one character."""
    text = "砂é"
    encoded = Encoding([0] * 5, [(0, 1)] * 3 + [(1, 2)] * 2, [0] * 5)
    (word,) = group_words(text, encoded)
    assert find_mentions(text, [word], [read_tag("LOC")]) == (Mention(text, "LOC", 0, 2),)


def test_tokens_without_a_word_are_words() -> None:
    """An added token in the text belongs to no word."""
    words = group_words("ab", Encoding([0, 0], [(0, 1), (1, 2)], [None, None]))
    assert [(word.start, word.end, word.first) for word in words] == [(0, 1, 0), (1, 2, 1)]


def test_offsets_are_of_the_text_not_of_its_normal_form() -> None:
    text = "İn \U0001f600 ZÜRICH"
    assert read(text, "İn|\U0001f600|ZÜ·RICH", "O O LOC O") == [("ZÜRICH", "LOC")]


def test_no_tokens() -> None:
    assert group_words(" ", Encoding([], [], [])) == []
    assert find_mentions(" ", [], []) == ()
