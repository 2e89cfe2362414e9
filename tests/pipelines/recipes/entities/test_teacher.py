"""What the teacher of the named-entity recogniser reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.recipes.entities.teacher import Sentence, kind_of, open_words, read_conll, shape_of


def test_sentences_are_read_from_conll(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("Ann\tB-PER\nleft\tO\n\n\nBonn\tB-LOC\n")
    assert read_conll(path) == [Sentence(("Ann", "left"), ("B-PER", "O")), Sentence(("Bonn",), ("B-LOC",))]


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("rhine", "lower"),
        ("Rhine", "capitalised"),
        ("R", "initial"),
        ("R.", "initial"),
        ("NATO", "upper"),
        ("iPad", "mixed"),
        ("1970", "digits"),
        ("A380", "alphanumeric"),
        ("--", "other"),
    ],
)
def test_shapes(word: str, shape: str) -> None:
    assert shape_of(word) == shape


def test_tweets_are_told_from_wikipedia_and_leave_misc_open() -> None:
    tweet = Sentence(("RT", "@ann", "loves", "Dune", "lol"), ("O",) * 5)
    assert kind_of(tweet.words) == "web"
    assert kind_of(("The", "Rhine", "rises", "in", "the", "Alps", ".")) == "wikipedia"
    assert open_words(tweet, "web") == [0, 3]
    assert open_words(tweet, "wikipedia") == []
