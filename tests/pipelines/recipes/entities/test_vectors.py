"""Word vectors of the named-entity recogniser."""

from __future__ import annotations

import numpy as np
import pytest


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
