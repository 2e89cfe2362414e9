"""Rows: each text read once and joined, and yet what the tokenizer makes of the pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from rerank_core.errors import ModelError
from rerank_core.inference import encoding
from rerank_core.inference.encoding import (
    TEXT_COSTS,
    PairEncoder,
    cut,
    few_at_a_time,
    load_tokenizer,
    template_of,
    unlimited,
)

WORDS = "who wrote dune frank herbert sand moves the novel".split()
TEXTS = st.text(st.sampled_from("abé ü砂<>/[]E\n.'  "), max_size=30) | st.lists(
    st.sampled_from(WORDS), max_size=12
).map(" ".join)


def wordpiece() -> Tokenizer:
    """BERT's kind: "[CLS] a [SEP] b [SEP]", two types."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = "abcdefghijklmnopqrstuvwxyzé"
    vocab = {t: i for i, t in enumerate([*specials, *WORDS, *letters, *(f"##{c}" for c in letters)])}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens(specials)
    return made


def bytelevel() -> Tokenizer:
    """RoBERTa's kind: "<s> a </s></s> b </s>", one type, bytes."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {t: i for i, t in enumerate([*specials, *alphabet, "th", "the"])}
    made = Tokenizer(models.BPE(vocab, [("t", "h"), ("th", "e")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.add_special_tokens(specials)
    return made


def metaspace() -> Tokenizer:
    """XLM-R's kind: "<s> a </s></s> b </s>", a mark for the space before each word."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*specials, "▁", *(f"▁{w}" for w in WORDS), *"abcdefghijklmnopqrstuvwxyzé"]
    made = Tokenizer(models.Unigram([(p, -float(i)) for i, p in enumerate(pieces)], unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.add_special_tokens(specials)
    return made


KINDS = {"wordpiece": wordpiece, "bytelevel": bytelevel, "metaspace": metaspace}


def expected(
    make: Callable[[], Tokenizer], pairs: Sequence[tuple[str, str]], max_length: int
) -> list[tuple[Any, Any]]:
    """What the library itself makes of whole pairs."""
    whole = unlimited(make())
    whole.enable_truncation(max_length, strategy="longest_first")
    return [(e.ids, e.type_ids) for e in whole.encode_batch(list(pairs))]


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=6), max_length=st.integers(6, 40))
def test_rows_are_the_tokenizers_own(kind: str, pairs: list[tuple[str, str]], max_length: int) -> None:
    encoder = PairEncoder(unlimited(KINDS[kind]()), max_length=max_length)
    for _ in range(2):  # read, then remembered
        rows = [(row.ids.tolist(), row.types.tolist()) for row in encoder.encode(pairs)]
        assert rows == expected(KINDS[kind], pairs, max_length)
    whole = unlimited(KINDS[kind]())
    assert encoder.overflow(pairs).tolist() == [
        max(0, len(whole.encode(*pair).ids) - max_length) for pair in pairs
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_known_kind_has_a_template(kind: str) -> None:
    template = template_of(unlimited(KINDS[kind]()))
    assert template is not None
    assert template.size == {"wordpiece": 3, "bytelevel": 4, "metaspace": 4}[kind]


@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=6), max_length=st.integers(6, 40))
def test_a_tokenizer_that_does_more_to_a_pair_is_asked_for_every_pair(
    pairs: list[tuple[str, str]], max_length: int
) -> None:
    def passage_first() -> Tokenizer:
        made = wordpiece()
        made.post_processor = processors.TemplateProcessing(
            single="$A [SEP]", pair="$B:1 [SEP]:1 $A [SEP]", special_tokens=[("[SEP]", 3)]
        )
        return made

    assert template_of(unlimited(passage_first())) is None
    encoder = PairEncoder(unlimited(passage_first()), max_length=max_length)
    rows = [(row.ids.tolist(), row.types.tolist()) for row in encoder.encode(pairs)]
    assert rows == expected(passage_first, pairs, max_length)


@pytest.mark.parametrize(
    ("kind", "word"),
    [("wordpiece", "[SEP]"), ("bytelevel", "</s>"), ("metaspace", "<s>"), ("metaspace", "</s>")],
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_text_cannot_write_a_special_token(kind: str, word: str, whole: bool) -> None:
    tokenizer = unlimited(KINDS[kind]())
    forged = tokenizer.token_to_id(word)
    encoder = PairEncoder(tokenizer, max_length=99)
    encoder._template = None if whole else encoder._template
    rows = encoder.encode([("who", f"dune {word} dune"), ("who", "dune")])
    assert rows[0].ids.tolist().count(forged) == rows[1].ids.tolist().count(forged)
    assert len(rows[0].ids) > len(rows[1].ids)  # it was not swallowed either


def test_tags_that_are_special_tokens_stay_tokens() -> None:
    tokenizer = wordpiece()
    tokenizer.add_special_tokens(["[HOP:0]"])
    (row,) = PairEncoder(unlimited(tokenizer), max_length=20).encode([("[HOP:0] who", "dune")])
    assert tokenizer.token_to_id("[HOP:0]") in row.ids


def test_each_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Counting:
        def __init__(self, tokenizer: Tokenizer) -> None:
            self._tokenizer = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokenizer, name)

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            read.extend(texts)
            return self._tokenizer.encode_batch_fast(texts, **options)

    encoder = PairEncoder(Counting(unlimited(wordpiece())), max_length=20)
    encoder.encode([("who", "dune"), ("who", "sand"), ("wrote", "dune")])
    encoder.encode([("who", "sand"), ("herbert", "dune")])
    encoder.overflow([("who", "sand")])
    assert sorted(read) == ["dune", "herbert", "sand", "who", "wrote"]


@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(st.sampled_from([*WORDS, ",", "é"])),
    gaps=st.lists(st.sampled_from([" ", "\n", "  ", " \t"])),
)
def test_a_long_text_is_read_in_slices(kind: str, words: list[str], gaps: list[str]) -> None:
    text = "".join(f"{gap}{word}" for gap, word in zip(gaps, words, strict=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "SLICE", 16)
        patch.setattr(encoding, "BATCH", 20)
        (row,) = PairEncoder(unlimited(KINDS[kind]()), max_length=10_000).encode([("who", text)])
    assert [(row.ids.tolist(), row.types.tolist())] == expected(KINDS[kind], [("who", text)], 10_000)


def test_few_characters_are_encoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 10)
    texts = ["sand moves", "", "who", "wrote dune", "dune " * 9, "who"]
    batches: list[list[str]] = []

    def encode(batch: list[str]) -> list[Any]:
        batches.append(batch)
        return list(unlimited(wordpiece()).encode_batch(batch))

    ids = [found.ids for found in few_at_a_time(encode, texts)]
    assert ids == [unlimited(wordpiece()).encode(text).ids for text in texts]
    assert batches == [texts[:1], texts[1:4], texts[4:5], texts[5:]]


def test_the_oldest_texts_make_room() -> None:
    encoder = PairEncoder(unlimited(wordpiece()), max_length=20, cache_tokens=3 * TEXT_COSTS)
    pairs = [(word, "sand moves") for word in WORDS]
    rows = encoder.encode(pairs)
    assert 0 < encoder._cached_tokens <= 3 * TEXT_COSTS
    assert len(encoder._cache) < 3
    assert [row.ids.tolist() for row in encoder.encode(pairs)] == [row.ids.tolist() for row in rows]


@given(first=st.integers(0, 30), second=st.integers(0, 30), room=st.integers(2, 40))
def test_cutting_fills_the_room_and_spares_the_shorter_text(first: int, second: int, room: int) -> None:
    n, m = cut(first, second, room=room)
    assert n <= first
    assert m <= second
    assert n + m == min(first + second, room)
    if min(first, second) <= room // 2:
        assert min(n, m) == min(first, second) or n + m < room


@pytest.mark.parametrize(("content", "said"), [(None, "no .*tokenizer.json"), ("{}", "is not a tokenizer")])
def test_a_tokenizer_that_cannot_be_read(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=said):
        load_tokenizer(path)


def test_too_little_room_for_two_texts() -> None:
    with pytest.raises(ValueError, match="max_length is 4; two texts and 3 special tokens need more"):
        PairEncoder(unlimited(wordpiece()), max_length=4)


def test_rows_are_small() -> None:
    (row,) = PairEncoder(unlimited(wordpiece()), max_length=20).encode([("who", "dune")])
    assert (row.ids.dtype, row.types.dtype) == (np.int32, np.int8)
