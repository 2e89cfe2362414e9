from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rerank_core.errors import ModelError
from rerank_core.features.ner import pieces, windows
from rerank_core.features.ner.tokens import read_tags
from rerank_core.features.ner.windows import (
    CLOSE,
    Reader,
    WindowRow,
    find_edges,
    find_frame,
    longest_input,
    merge,
    plan_windows,
)

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-DATE"]
TAGS = read_tags(dict(enumerate(NAMES)), source="test")
LETTERS = "abcdefghijklmnopqrstuvwxyz.,"


def make_tokenizer() -> Tokenizer:
    """One token a letter; words at white space and punctuation."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A [SEP]:2", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


TOKENIZER = make_tokenizer()


class ByToken:
    """A model that looks at single tokens; keeps the batches that it was given."""

    def __init__(self) -> None:
        self.batches: list[list[WindowRow]] = []

    def classify(self, batches: Sequence[list[WindowRow]]) -> Iterable[list[np.ndarray]]:
        for batch in batches:
            self.batches.append(batch)
            yield [self.logits(row) for row in batch]

    def logits(self, row: WindowRow) -> np.ndarray:
        return np.eye(len(NAMES), dtype=np.float32)[np.array(row.ids) * 7 // 3 % len(NAMES)]


def make_reader(model: ByToken, *, max_length: int = 1000, max_tokens: int = 4096) -> Reader:
    return Reader(TOKENIZER, TAGS, classify=model.classify, max_length=max_length, max_tokens=max_tokens)


TEXTS = st.text(alphabet=[*"abcdefgh", " ", " ", ".", "é", "\ud800"], max_size=80)


@given(texts=st.lists(TEXTS, max_size=4), max_length=st.integers(3, 40), max_tokens=st.integers(1, 60))
@settings(deadline=None)
def test_windows_and_batches_read_as_one_window_does(
    texts: list[str], max_length: int, max_tokens: int
) -> None:
    passages = [("", text) for text in texts]
    expected = [make_reader(ByToken()).recognise([passage])[0] for passage in passages]
    model = ByToken()
    assert make_reader(model, max_length=max_length, max_tokens=max_tokens).recognise(passages) == expected
    assert all(len(row.ids) <= max_length for batch in model.batches for row in batch)
    for text, mentions in zip(texts, expected, strict=True):
        assert all(text[m.start : m.end] == m.text for m in mentions)
        assert all(one.end <= after.start for one, after in itertools.pairwise(mentions))


def test_a_long_text_is_read_in_pieces_and_its_mentions_keep_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["abc def gh. " * 40, "abcd", "fgh abc " * 30]
    whole = make_reader(ByToken()).recognise([("", text) for text in texts])
    monkeypatch.setattr(pieces, "LONGEST", 50)
    monkeypatch.setattr(windows, "MOST_CHARACTERS", 120)
    model = ByToken()
    assert make_reader(model).recognise([("", text) for text in texts]) == whole
    assert max(sum(len(row.ids) for row in batch) for batch in model.batches) < 200


@given(lengths=st.lists(st.integers(1, 30), max_size=60), room=st.integers(1, 40))
def test_every_token_is_in_a_window_that_fits(lengths: list[int], room: int) -> None:
    firsts = [0, *itertools.accumulate(lengths)][: len(lengths)]
    edges = find_edges(firsts, sum(lengths), room=room)
    windows = plan_windows(edges, room)
    read = {i for window in windows for i in range(*window)}
    assert read == set(range(sum(lengths)))
    assert all(0 < end - start <= room and {start, end} <= set(edges) for start, end in windows)
    for one, after in itertools.pairwise(windows):
        assert one.start < after.start <= one.end - room // 4
        assert one.end < after.end


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=60), room=st.integers(4, 40))
def test_a_label_comes_from_the_window_with_the_most_context(lengths: list[int], room: int) -> None:
    firsts = [0, *itertools.accumulate(lengths)][: len(lengths)]
    edges = find_edges(firsts, sum(lengths), room=room)
    windows = plan_windows(edges, room)
    answers = [np.full(end - start, i) for i, (start, end) in enumerate(windows)]
    expected = []
    for start, end in itertools.pairwise(edges):
        context = [
            min(
                (start - window.start) if window.start else 10**6,
                (window.end - end) if window.end < edges[-1] else 10**6,
            )
            if window.start <= start and end <= window.end
            else -1
            for window in windows
        ]
        expected += [int(np.argmax(context))] * (end - start)
    assert merge(edges, windows, answers).tolist() == expected


def test_windows_are_cut_between_words() -> None:
    edges = find_edges([0, 3, 6, 7, 9, 12], 14, room=8)
    assert edges == [0, 2, 3, 5, 6, 7, 9, 11, 12, 14]  # words of 3 exceed a quarter of 8
    assert plan_windows(edges, 8) == [(0, 7), (5, 12), (6, 14)]


def test_a_word_longer_than_a_window_is_read_whole() -> None:
    model = ByToken()
    text = "a" + "b" * 50
    (mentions,) = make_reader(model, max_length=10).recognise([("", text)])
    (expected,) = make_reader(ByToken()).recognise([("", text)])
    assert mentions == expected
    assert len(model.batches[0]) > 5


def test_equal_texts_are_read_once_and_empty_ones_never() -> None:
    model = ByToken()
    passages = [("x", "ab cd"), ("", ""), ("y", "ab cd"), ("", " \n"), ("", "e")]
    found = make_reader(model).recognise(passages)
    assert sum(map(len, model.batches)) == 2
    assert found[0] == found[2]
    assert found[1] == found[3] == ()
    assert make_reader(model).recognise([]) == []


def test_special_tokens_and_their_types_stand_around_each_window() -> None:
    assert find_frame(TOKENIZER) == ((([2], [1])), ([3], [2]), 0)
    model = ByToken()
    make_reader(model, max_length=6).recognise([("", "ab cd ef gh")])
    rows = [row for batch in model.batches for row in batch]
    assert len(rows) > 1
    assert all(row.ids[0] == 2 and row.ids[-1] == 3 for row in rows)
    assert all(row.types == [1, *[0] * (len(row.ids) - 2), 2] for row in rows)


def test_batches_keep_to_the_budget() -> None:
    model = ByToken()
    make_reader(model, max_tokens=24).recognise([("", "ab " * n) for n in range(1, 9)])
    sizes = [len(batch) * max(len(row.ids) for row in batch) for batch in model.batches]
    assert max(sizes) <= 24
    assert [len(batch) for batch in model.batches] == [1, 1, 1, 2, 3]  # 18, 16, 14, 12, 10, 8, 6 and 4 tokens


class Shaky(ByToken):
    """Its logits nearly tie, and company turns the tie: the trap of comparing floats of different batches."""

    def classify(self, batches: Sequence[list[WindowRow]]) -> Iterable[list[np.ndarray]]:
        for batch, answer in zip(batches, super().classify(batches), strict=True):
            for row, logits in zip(batch, answer, strict=True):
                if 4 in row.ids:  # "a"
                    logits[:] = 0
                    logits[:, 1] = CLOSE / 4 * (1 if len(batch) > 1 else -1)
            yield answer


def test_a_near_tie_is_read_alone() -> None:
    passages = [("", "a"), ("", "b"), ("", "c"), ("", "d")]
    model = Shaky()
    together = make_reader(model).recognise(passages)
    assert [len(batch) for batch in model.batches] == [4, 1]
    assert together == [make_reader(Shaky()).recognise([passage])[0] for passage in passages]


class Broken(ByToken):
    """NaN or infinity at the letter b, and nowhere else."""

    value = np.nan

    def logits(self, row: WindowRow) -> np.ndarray:
        logits = super().logits(row)
        logits[np.array(row.ids) == LETTERS.index("b") + 4, 0] = self.value
        return logits


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_no_number_names_the_passage(value: float) -> None:
    model = Broken()
    model.value = value
    with pytest.raises(ModelError, match=r"NaN or infinite for the passage 'c b d'; the model"):
        make_reader(model).recognise([("", "c d"), ("", "c b d")])


def test_a_label_that_is_masked_out_is_no_error() -> None:
    model = Broken()
    model.value = -np.inf
    assert make_reader(model).recognise([("", "c b d")])


@pytest.mark.parametrize(("option", "value"), [("max_length", 2), ("max_tokens", 0)])
def test_senseless_settings(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value}"):
        make_reader(ByToken(), **{option: value})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, 512),
        ({"max_position_embeddings": 64}, 64),
        ({"max_position_embeddings": 4096}, 512),
        ({"max_position_embeddings": -1}, 512),
        ({"max_position_embeddings": 514, "model_type": "roberta"}, 512),
        ({"max_position_embeddings": 130, "model_type": "xlm-roberta"}, 128),
    ],
)
def test_the_longest_input(config: dict[str, object], expected: int) -> None:
    assert longest_input(config, pad_id=1, wanted=512) == expected
