"""Queries made from raw text."""

import random

from pipelines.recipes.default_model import pseudo_queries
from pipelines.recipes.default_model.questions import (
    SetPassage,
)
from tests.support.rivers import CORPUS, RHINE


class TestPseudo:
    FREQUENCIES = pseudo_queries.document_frequencies([p.text for p in CORPUS.values()] + ["The sea."] * 40)

    def queries(self, passage):
        made = [
            pseudo_queries.pseudo_query(passage, self.FREQUENCIES, generator=random.Random(i))
            for i in range(40)
        ]
        return {q.way: q for q in made if q is not None}

    def test_every_way_is_taken(self):
        assert set(self.queries(RHINE)) == set(pseudo_queries.WAYS)

    def test_a_sentence_is_dropped_from_its_passage(self):
        query = self.queries(RHINE)["sentence"]
        assert query.query in RHINE.text
        assert query.query not in query.passage.text
        assert query.passage.doc_id == "rhine"

    def test_a_title_leaves_the_passage_whole(self):
        assert self.queries(RHINE)["title"] == pseudo_queries.PseudoQuery("Rhine", RHINE, "title")

    def test_keywords_are_telling_words_of_one_sentence(self):
        words = self.queries(RHINE)["keywords"].query.split()
        assert 2 <= len(words) <= 5
        assert set(words) <= {w.strip(".").lower() for w in RHINE.text.split()} - {"the", "it", "in"}

    def test_nothing_comes_of_nothing(self):
        assert self.queries(SetPassage("x", "", "Too short.")) == {}
        assert (
            pseudo_queries.keywords("The sea the sea", self.FREQUENCIES, count=3, generator=random.Random(1))
            == ""
        )

    def test_frequencies_count_texts_not_words(self):
        assert pseudo_queries.document_frequencies(["a a B", "b"]) == {"a": 1, "b": 2, "": 2}

    def test_sentences_split_at_marks_before_capitals(self):
        assert pseudo_queries.sentences("One is 3.5 m. Two? “Three” e.g. four.") == [
            "One is 3.5 m.",
            "Two?",
            "“Three” e.g. four.",
        ]
