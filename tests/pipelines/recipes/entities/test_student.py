"""What the entity recogniser is taught with: titles with definitions, sequences of tags, words set as prose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rerank_core.features.ner.bio import TAGS

CONFIG = Path(__file__).parents[4] / "pipelines" / "recipes" / "entities" / "spacy.cfg"


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
