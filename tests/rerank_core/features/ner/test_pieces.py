"""Pieces join up to their text and keep to their bounds, whatever the text is made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.features.ner import pieces

BOUNDS = {"LONGEST": 30, "MOST_WORDS": 8}


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in pieces.cut(text)]


@given(text=st.text(alphabet=[*"abcdef", "é", "中", " ", " ", "\n", ".", ",", "_"], max_size=300))
def test_pieces_join_up_to_the_text_and_keep_to_the_bounds(text: str) -> None:
    with patch.multiple(pieces, **BOUNDS):
        cuts = cut(text)
    assert "".join(cuts) == text
    for piece in cuts:
        assert 0 < len(piece) <= 30
        assert pieces.words(piece) <= 8
    # A word is cut only where no white space is near; to cut at leading white space would leave a piece without a word.
    for one, after in itertools.pairwise(cuts):
        assert one[-1].isspace() or not {" ", "\n"} & set(one.lstrip()) or after[0].isspace()


def test_pieces_end_at_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LONGEST", 10)
    text = "one two three abcdefghijklmnopq four"
    assert cut(text) == ["one two ", "three ", "abcdefghij", "klmnopq ", "four"]


@pytest.mark.parametrize(
    ("text", "longest"),
    [("," * 20_000, 500), ("a" * 20_000, 500), ("中" * 20_000, 20_000), ("word " * 10_000, 50_000)],
)
def test_rows_of_marks_are_cut_and_scripts_without_spaces_are_not(text: str, longest: int) -> None:
    assert max(map(len, cut(text))) == longest


@pytest.mark.parametrize(
    ("sizes", "rows", "expected"),
    [
        ([4, 6, 1, 12, 1, 1, 1, 1], 3, [[4, 6], [1], [12], [1, 1, 1], [1]]),
        ([4, 6, 1, 12, 1, 1, 1, 1], None, [[4, 6], [1], [12], [1, 1, 1, 1]]),
        ([], None, []),
    ],
)
def test_groups_are_neighbours_within_the_budget(
    sizes: Sequence[int], rows: int | None, expected: list[list[int]]
) -> None:
    assert [[sizes[i] for i in group] for group in pieces.groups(sizes, most=10, rows=rows)] == expected
