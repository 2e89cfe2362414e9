"""Titles with definitions as annotations."""

from __future__ import annotations

import pytest

from pipelines.recipes.entities.titles import label_of_title, title_spans


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
