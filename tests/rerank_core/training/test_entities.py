"""What the entity recogniser is taught with: titles with definitions, sequences of tags, words set as prose."""

from __future__ import annotations

import numpy as np
import pytest

from rerank_core.features.recognisers.bio import TAGS
from rerank_core.training.entity_chain import marginals, spans, transitions, well_formed
from rerank_core.training.entity_titles import label_of_title, title_spans


@pytest.mark.parametrize(
    ("title", "text", "label"),
    [
        ("Kuno (river)", "The Kuno is a river in Uttar Pradesh.", "LOC"),
        ("Sarah Drew", "Sarah Drew (born October 1, 1980) is an American actress.", "PER"),
        ("Arthur Chung", "Arthur Chung (January 10, 1918 – June 23, 2008) was the first of his name.", "PER"),
        ("CJXY-FM", "CJXY-FM is a Canadian radio station.", "ORG"),
        ("The Invitations", '"The Invitations" is a song by nobody.', "MISC"),
        ("Oxygen", "Oxygen is a chemical element.", None),
        ("Beyoncé", "The remaining band members recorded a song.", None),
    ],
)
def test_a_definition_gives_the_label_of_its_subject(title: str, text: str, label: str | None) -> None:
    assert label_of_title(title, text) == label


def test_a_persons_last_name_is_a_mention_unless_it_is_anothers() -> None:
    text = "Rufus Sisson is a basketball player. Sisson is a brother of Ann Sisson and lived in Rufus Sisson Hall."
    assert [text[start:end] for start, end, _ in title_spans("Rufus Sisson", text)] == [
        "Rufus Sisson",
        "Sisson",
    ]


def test_an_inside_that_continues_nothing_begins() -> None:
    tags = well_formed(["I-PER", "I-PER", "O", "B-ORG", "I-LOC"])
    assert tags == ("B-PER", "I-PER", "O", "B-ORG", "B-LOC")
    assert spans(tags) == [(0, 2, "PER"), (3, 4, "ORG"), (4, 5, "LOC")]


def test_words_in_doubt_follow_their_neighbours() -> None:
    follows = transitions([("B-ORG", "I-ORG", "O", "O"), ("O", "B-LOC", "O")])
    p = np.zeros((3, len(TAGS)), np.float32)
    p[0, TAGS.index("B-ORG")], p[0, TAGS.index("B-LOC")] = 0.9, 0.1
    p[1, TAGS.index("I-ORG")], p[1, TAGS.index("I-LOC")] = 0.45, 0.55
    result = marginals(p, follows)  # the last word is unknown
    assert TAGS[result[1].argmax()] == "I-ORG"
    assert result[:2].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert result[2].sum() == 0


def test_words_set_as_prose_keep_their_places() -> None:
    student = pytest.importorskip("rerank_core.training.entity_student", exc_type=ImportError)
    words = ["Ann", "(", "born", "1970", ")", "did", "n't", "see", "Bob", "'s", "dog", "."]
    text, starts = student.joined(words, tight=True)
    assert text == "Ann (born 1970) didn't see Bob's dog."
    assert [text[start : start + len(word)] for start, word in zip(starts, words, strict=True)] == words


def test_a_token_inside_a_word_goes_on_with_its_entity() -> None:
    student = pytest.importorskip("rerank_core.training.entity_student", exc_type=ImportError)
    spacy = pytest.importorskip("spacy")
    doc = spacy.blank("en")("Saxony-Anhalt  won")
    p = np.eye(len(TAGS), dtype=np.float32)[[TAGS.index("B-LOC"), TAGS.index("O")]]
    lesson = student.Lesson(doc.text, np.array([0, 15], np.int32), p)
    wanted = {"Saxony": "B-LOC", "-": "I-LOC", "Anhalt": "I-LOC", " ": "O", "won": "O"}
    assert [TAGS[i] for i in student.targets(doc, lesson).argmax(axis=1)] == [wanted[t.text] for t in doc]
