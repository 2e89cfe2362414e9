"""The part of `benchmarks.scoring` that needs a CUDA device."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import MAX_LENGTH, forget

SIZES = {  # hidden, layers, heads, feed-forward, pairs
    "minilm": (384, 6, 12, 1536, 60_000),
    "base": (768, 12, 12, 3072, 16_000),
    "large": (1024, 24, 16, 4096, 6_000),
}
GEMM = 8192
ROUNDS = 3


def figures(*, quick: bool) -> dict[str, float]:
    """gpu_ratio_vs_st_MODEL, gpu_peak_share_MODEL and gpu_tokenise_share_MODEL; {} without a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device: no gpu_ figures", flush=True)
        return {}
    result: dict[str, float] = {"gpu_bf16_peak_tflops": peak(torch) / 1e12}
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            model = random_model(torch, Path(folder), size)
            pairs = size[4] // (20 if quick else 1)
            result |= compare_with_st(
                torch, name, model, size, pairs=pairs, peak=result["gpu_bf16_peak_tflops"]
            )
    return result


def peak(torch: Any) -> float:
    """bf16 operations per second of the fastest of many large products."""
    a = torch.randn(GEMM, GEMM, dtype=torch.bfloat16, device="cuda")
    best = float("inf")
    for _ in range(50):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * GEMM**3 / best


def random_model(torch: Any, folder: Path, size: tuple[int, ...]) -> Path:
    """A BERT cross-encoder of random weights with a WordPiece tokenizer of made-up words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {token: i for i, token in enumerate([*specials, *words()])}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
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
    hidden, layers, heads, wide, _ = size
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=wide,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def words() -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    return [first + second for first in syllables for second in syllables]


def random_pairs(count: int) -> list[tuple[str, str]]:
    """Pairs with the lengths of BM25 candidates: lognormal, with a median of 130 tokens."""
    random, known = np.random.default_rng(0), np.array(words())
    lengths = np.clip(random.lognormal(np.log(115), 0.45, count).astype(int), 20, 400)
    queries = [" ".join(random.choice(known, 12)) for _ in range(max(1, count // 50))]
    return [
        (queries[i // 50 % len(queries)], " ".join(random.choice(known, n))) for i, n in enumerate(lengths)
    ]


def compare_with_st(
    torch: Any, name: str, folder: Path, size: tuple[int, ...], *, pairs: int, peak: float
) -> dict[str, float]:
    """Figures of one model size, beside sentence-transformers."""
    from sentence_transformers import CrossEncoder

    from benchmarks.processor import operations
    from rerank_core.scoring.backends.torch import TorchScorer

    inputs = random_pairs(pairs)
    ours = TorchScorer(folder, device="cuda", precision="bf16", max_length=MAX_LENGTH)
    theirs = CrossEncoder(
        str(folder),
        device="cuda",
        max_length=MAX_LENGTH,
        model_kwargs={"dtype": torch.bfloat16},
        activation_fn=torch.nn.Identity(),
    )
    ours.score(inputs[:2000])
    theirs.predict(inputs[:2000], show_progress_bar=False)
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        forget(ours)
        start = time.perf_counter()
        ours.score(inputs)
        spent["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs.predict(inputs, show_progress_bar=False)
        spent["theirs"].append(time.perf_counter() - start)
    forget(ours)
    start = time.perf_counter()
    lengths = [len(row.ids) for row in ours._encoder.encode(inputs)]
    tokenise = time.perf_counter() - start
    mine, other = statistics.median(spent["ours"]), statistics.median(spent["theirs"])
    config = {"hidden_size": size[0], "num_hidden_layers": size[1], "intermediate_size": size[3]}
    return {
        f"gpu_pairs_per_second_{name}": pairs / mine,
        f"gpu_ratio_vs_st_{name}": other / mine,
        f"gpu_peak_share_{name}": operations(lengths, config, spared=False) / mine / (peak * 1e12),
        f"gpu_tokenise_share_{name}": tokenise / mine,
    }
