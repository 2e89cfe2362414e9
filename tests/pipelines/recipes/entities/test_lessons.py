"""The lessons of the named-entity recogniser."""

from __future__ import annotations

import numpy as np
import spacy

from pipelines.recipes.entities.lessons import placed_sentences, title_tags, with_title, words_of
from pipelines.recipes.entities.student import Lesson
from pipelines.recipes.entities.teacher import UNKNOWN
from rerank_core.features.ner.bio import TAGS


def test_words_are_whole_at_hyphens() -> None:
    text = "Saxony-Anhalt  won 3-1."
    words, starts = words_of(spacy.blank("en"), text)
    assert words == ["Saxony-Anhalt", "won", "3-1", "."]
    assert [text[start : start + len(word)] for start, word in zip(starts, words, strict=True)] == words


def test_only_the_title_and_lower_case_words_are_annotated() -> None:
    text = "Kuno is in India"
    words, starts = words_of(spacy.blank("en"), text)
    assert title_tags(words, starts, [(0, 4, "LOC")]) == ("B-LOC", "O", "O", UNKNOWN)


def test_sentences_have_their_positions() -> None:
    text = "The Kuno rises in India. It flows north to the Chambal."
    assert all(text[at : at + len(sentence)] == sentence for sentence, at in placed_sentences(text))
    assert len(list(placed_sentences(text))) == 2


def test_the_definition_overrides_the_teacher() -> None:
    text = "Big Kuno is a river."
    p = np.full((5, len(TAGS)), 1 / len(TAGS), np.float32)
    lesson = with_title(Lesson(text, np.array([0, 4, 9, 12, 14], np.int32), p), "Big Kuno")
    assert [TAGS[i] for i in lesson.p[:2].argmax(axis=1)] == ["B-LOC", "I-LOC"]
    assert np.array_equal(lesson.p[2:], p[2:])
