"""What the entity recogniser is taught with: titles with definitions, sequences of tags, words set as prose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.recipes.entities.titles import label_of_title, title_spans
from pipelines.recipes.entities.viterbi import marginals, spans, transitions, well_formed
from rerank_core.features.ner.bio import TAGS

CONFIG = Path(__file__).parents[4] / "pipelines" / "recipes" / "entities" / "spacy.cfg"


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
    student = pytest.importorskip("pipelines.recipes.entities.student", exc_type=ImportError)
    words = ["Ann", "(", "born", "1970", ")", "did", "n't", "see", "Bob", "'s", "dog", "."]
    text, starts = student.joined(words, tight=True)
    assert text == "Ann (born 1970) didn't see Bob's dog."
    assert [text[start : start + len(word)] for start, word in zip(starts, words, strict=True)] == words


def test_a_token_inside_a_word_goes_on_with_its_entity() -> None:
    student = pytest.importorskip("pipelines.recipes.entities.student", exc_type=ImportError)
    spacy = pytest.importorskip("spacy")
    doc = spacy.blank("en")("Saxony-Anhalt  won")
    p = np.eye(len(TAGS), dtype=np.float32)[[TAGS.index("B-LOC"), TAGS.index("O")]]
    lesson = student.Lesson(doc.text, np.array([0, 15], np.int32), p)
    wanted = {"Saxony": "B-LOC", "-": "I-LOC", "Anhalt": "I-LOC", " ": "O", "won": "O"}
    assert [TAGS[i] for i in student.targets(doc, lesson).argmax(axis=1)] == [wanted[t.text] for t in doc]


def test_sentences_are_read_until_each_word_was() -> None:
    vectors = pytest.importorskip("pipelines.recipes.entities.vectors", exc_type=ImportError)
    sentences = [["The", "Kuno", "rose"], ["the", "Kuno", "fell"], ["The", "kuno", "rose"], ["Once"]]
    words = vectors.vocabulary(sentences, most=10)
    assert words == {"the": "The", "kuno": "Kuno", "rose": "rose"}
    chosen = vectors.covering(sentences, words, readings=1, seed=0)
    assert {word.lower() for sentence in chosen for word in sentence} >= set(words)
    assert len(vectors.covering(sentences, words, readings=3, seed=0)) == 3


def test_vectors_are_found_by_lower_case_and_lie_around_zero() -> None:
    vectors = pytest.importorskip("pipelines.recipes.entities.vectors", exc_type=ImportError)
    spacy = pytest.importorskip("spacy")
    rows = vectors.reduced(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32), 3)
    assert rows.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert rows.std() == pytest.approx(1, abs=1e-5)
    nlp = spacy.blank("en")
    nlp.vocab.vectors = vectors.as_vectors([f"word{i}" for i in range(50)], np.arange(50), rows)
    keys = nlp.make_doc("Word7 word8 other").to_array(nlp.vocab.vectors.attr)
    assert nlp.vocab.vectors.find(keys=keys).tolist() == [7, 8, -1]


def test_rare_words_that_are_alike_share_a_vector() -> None:
    vectors = pytest.importorskip("pipelines.recipes.entities.vectors", exc_type=ImportError)
    rows = np.array([[0.0], [1.0], [5.0], [5.2], [9.0], [9.2]], np.float32)
    places, table = vectors.shared(rows, own=2, most=2, seed=0)
    assert places[:2].tolist() == [0, 1]
    assert table[:2].tolist() == [[0.0], [1.0]]
    assert places[2] == places[3] != places[4] == places[5]
    assert table[places[2:], 0] == pytest.approx([5.1, 5.1, 9.1, 9.1])
    assert vectors.shared(rows, own=2, most=4, seed=0)[0].tolist() == list(range(6))


def test_what_is_written_answers_alike_and_holds_no_word_that_was_read(tmp_path: Path) -> None:
    student = pytest.importorskip("pipelines.recipes.entities.student", exc_type=ImportError)
    vectors = pytest.importorskip("pipelines.recipes.entities.vectors", exc_type=ImportError)
    table = vectors.as_vectors(["kuno", "river"], np.arange(2), np.eye(2, 48, dtype=np.float32))
    nlp = student.blank_student(CONFIG, table)
    (output,) = (node for node in nlp.get_pipe("tagger").model.walk() if node.name == "softmax")
    rng = np.random.default_rng(0)
    output.set_param("W", rng.normal(size=output.get_param("W").shape).astype(np.float32))
    text = "The Kuno is a Xylophonic river."
    wanted = nlp.get_pipe("tagger").model.predict([nlp.make_doc(text)])[0]
    student.save(nlp, CONFIG, tmp_path / "made")
    written = student.load(tmp_path / "made")
    doc = written.make_doc(text)
    assert written.get_pipe("tagger").model.predict([doc])[0] == pytest.approx(wanted, abs=1e-5)
    table = written.vocab.vectors
    assert table.find(keys=doc.to_array(table.attr)).tolist() == [-1, 0, -1, -1, -1, 1, -1]
    assert "Xylophonic" not in (tmp_path / "made" / "vocab" / "strings.json").read_text(encoding="utf-8")
