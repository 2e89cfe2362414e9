"""Cross-encoders of random weights and pairs of made-up words: a speed does not depend on what a model has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def random_model(folder: Path, size: Sequence[int]) -> Path:
    """A BERT cross-encoder of random weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    hidden, layers, heads, wide = size
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=write_tokenizer(folder),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=wide,
        num_labels=1,
        initializer_range=1.5 / hidden**0.5,  # with BERT's own 0.02, all pairs have nearly one logit
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, *, more: Sequence[str] = ()) -> int:
    """Write a WordPiece tokenizer of made-up words, and return the size of its vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate([*specials, *words(), *more])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    raw.add_special_tokens(specials)
    names = {f"{name.strip('[]').lower()}_token": name for name in specials}
    PreTrainedTokenizerFast(
        tokenizer_object=raw, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **names
    ).save_pretrained(folder)
    return len(vocabulary)


def words() -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return [first + second for first in syllables for second in syllables]


def random_pairs(count: int) -> list[tuple[str, str]]:
    """Pairs with the lengths of BM25 candidates: lognormal, with a median of 130 tokens."""
    random, known = np.random.default_rng(0), np.array(words())
    sizes = np.clip(random.lognormal(np.log(115), 0.45, count).astype(int), 20, 400)
    queries = [" ".join(random.choice(known, 12)) for _ in range(max(1, count // 50))]
    return [(queries[i // 50 % len(queries)], " ".join(random.choice(known, n))) for i, n in enumerate(sizes)]
