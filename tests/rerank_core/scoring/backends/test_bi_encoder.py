"""Bi-encoders: sentence-transformers' cosines, and every text embedded once."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

from rerank_core.errors import (
    ModelError,
    OutOfMemory,
)
from rerank_core.scoring.backends.bi_encoder import BiEncoderScorer
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import MeasuresOverflow
from tests.support.tiny_models import write_sentence_folder

PAIRS = [
    ("who wrote the novel dune", "dune was written by frank herbert"),
    ("who wrote the novel dune", "sand moves"),
    ("who wrote the novel dune", ""),
    ("", ""),
    ("sand", "the sand moves by the dune, " * 9),
    ("the novel " * 20, "Frank Herbert WROTE"),
    ("dune", "dune"),
    ("who", "é ü 砂"),
]
LENGTH = 24
PROMPTS = {"query": "who: ", "document": "text: "}


def of_sentence_transformers(folder: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = LENGTH
    queries = model.encode_query([query for query, _ in pairs], normalize_embeddings=True)
    passages = model.encode_document([passage for _, passage in pairs], normalize_embeddings=True)
    return np.asarray((queries * passages).sum(1))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_folder(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert", "distilbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("prompts", [None, PROMPTS])
def test_parity_with_sentence_transformers(
    tmp_path: Path, kind: str, pooling: str, prompts: dict[str, str] | None
) -> None:
    folder = write_sentence_folder(
        tmp_path / kind, kind, pooling=pooling, normalised=prompts is not None, prompts=prompts
    )
    scorer = BiEncoderScorer(folder, max_length=LENGTH)
    assert scorer.engine == "torch"
    cosines = scorer.score(PAIRS)
    assert cosines.dtype == np.float32
    np.testing.assert_allclose(cosines, of_sentence_transformers(folder, PAIRS), atol=1e-4)
    assert cosines.std() > 0.02
    queries = scorer.embed([query for query, _ in PAIRS], side="query")
    passages = scorer.embed([passage for _, passage in PAIRS], side="passage")
    assert queries.dtype == passages.dtype == np.float32
    np.testing.assert_allclose((queries * passages).sum(1), cosines, atol=1e-5)
    assert scorer.embed([], side="query").shape[0] == 0


def write_onnx(folder: Path, *, pooled: bool) -> None:
    """The folder's model as an ONNX file, pooled by the mean or not at all."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(folder).eval()

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            hidden = self.model(input_ids, attention_mask, token_type_ids).last_hidden_state
            mask = attention_mask[:, :, None].float()
            return (hidden * mask).sum(1) / mask.sum(1) if pooled else hidden

    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = torch.tensor([[2, 9, 8, 3], [2, 9, 3, 0]])
    output = "sentence_embedding" if pooled else "last_hidden_state"
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    axes[output] = {0: "batch"} if pooled else {0: "batch", 1: "sequence"}
    (folder / "onnx").mkdir()
    torch.onnx.export(
        Exported(),
        (example, (example > 0).long(), torch.zeros_like(example)),
        str(folder / "onnx/model.onnx"),
        dynamo=False,
        input_names=names,
        output_names=[output],
        dynamic_axes=axes,
        opset_version=17,
    )


@pytest.mark.parametrize("pooled", [False, True])
def test_on_onnx_runtime(bert: Path, tmp_path: Path, pooled: bool) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript", reason="the export needs onnxscript")
    folder = shutil.copytree(bert, tmp_path / "bert")
    write_onnx(folder, pooled=pooled)
    scorer, by_torch = BiEncoderScorer(folder, max_length=LENGTH), BiEncoderScorer(bert, max_length=LENGTH)
    assert (scorer.engine, by_torch.engine) == ("onnx", "torch")
    np.testing.assert_allclose(scorer.score(PAIRS), by_torch.score(PAIRS), atol=1e-4)
    assert scorer.overflow(PAIRS).tolist() == by_torch.overflow(PAIRS).tolist()
    chosen = BiEncoderScorer(folder, max_length=LENGTH, engine="torch")
    assert len({scorer.fingerprint, by_torch.fingerprint}) == 2
    with pytest.raises(ValueError, match="precision is 'bf16', but an ONNX file has its own"):
        BiEncoderScorer(folder, max_length=LENGTH, precision="bf16")
    assert chosen.fingerprint == by_torch.fingerprint


def test_an_onnx_cross_encoder_is_refused(make_model: Any) -> None:
    with pytest.raises(
        ModelError,
        match=r"is not an embedding model: its outputs are logits; needed is one of sentence_embedding",
    ):
        BiEncoderScorer(make_model())


def test_a_row_alone_scores_as_it_does_in_a_batch(bert: Path) -> None:
    together = BiEncoderScorer(bert, max_length=LENGTH).score(PAIRS)
    alone = [BiEncoderScorer(bert, max_length=LENGTH).score([pair])[0] for pair in PAIRS]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert BiEncoderScorer(bert, max_length=LENGTH).score([]).shape == (0,)


def test_it_is_a_scorer(bert: Path) -> None:
    scorer = BiEncoderScorer(bert, max_length=LENGTH)
    assert isinstance(scorer, MeasuresOverflow)
    outcome = score_checked(scorer, [*PAIRS, ("who", "\ud800")])
    assert set(outcome.errors) == {len(PAIRS)}
    # 2 special tokens leave 22; "砂" and unknown words are a token each.
    overflow = scorer.overflow([("dune", "sand"), ("dune " * 30, "sand " * 24)])
    assert (overflow.dtype, overflow.tolist()) == (np.int32, [0, 10])


# Each text once


class Counting:
    """An embedder that counts the rows that it is given."""

    def __init__(self, embedder: Any) -> None:
        self._embedder, self.rows, self.limit = embedder, 0, 10**9

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed(self, rows: Any) -> Any:
        if sum(len(row.ids) for row in rows) > self.limit:
            raise OutOfMemory("too much")
        self.rows += len(rows)
        return self._embedder.embed(rows)


def counting(folder: Path, **options: Any) -> tuple[BiEncoderScorer, Counting]:
    scorer = BiEncoderScorer(folder, max_length=LENGTH, **options)
    scorer._embedder = counter = Counting(scorer._embedder)
    return scorer, counter


def test_each_text_is_embedded_once(bert: Path) -> None:
    scorer, counter = counting(bert)
    expected = scorer.score(PAIRS)
    texts = {text for pair in PAIRS for text in pair}
    assert counter.rows == len(texts)
    np.testing.assert_array_equal(scorer.score(PAIRS[::-1]), expected[::-1])
    scorer.overflow(PAIRS)
    assert counter.rows == len(texts)
    scorer.score([*PAIRS, ("dune", "herbert")])
    assert counter.rows == len(texts) + 1


def test_a_prompt_makes_two_texts_of_one(tmp_path: Path) -> None:
    scorer, counter = counting(write_sentence_folder(tmp_path / "model", prompts=PROMPTS))
    (cosine,) = scorer.score([("dune", "dune")])
    assert counter.rows == 2
    assert cosine < 0.9999


def test_the_least_recently_used_make_room(bert: Path) -> None:
    scorer, counter = counting(bert, cache_bytes=3 * 32 * 4)
    full = BiEncoderScorer(bert, max_length=LENGTH)
    np.testing.assert_allclose(scorer.score(PAIRS), full.score(PAIRS), atol=1e-6)
    assert scorer._cached_bytes <= 3 * 32 * 4
    scorer.score([("a", "b")])
    scorer.score([("a", "c")])
    scorer.score([("a", "d")])  # "b" is the oldest by now
    before = counter.rows
    scorer.score([("a", "c")])
    assert counter.rows == before
    scorer.score([("a", "b")])
    assert counter.rows == before + 1
    none, _ = counting(bert, cache_bytes=0)
    np.testing.assert_allclose(none.score(PAIRS), full.score(PAIRS), atol=1e-6)
    assert none._cached_bytes == 0


def test_threads_may_share_a_scorer(bert: Path) -> None:
    scorer = BiEncoderScorer(bert, max_length=LENGTH, cache_bytes=6 * 32 * 4)
    expected = scorer.score(PAIRS)
    with ThreadPoolExecutor(4) as pool:
        for cosines in pool.map(lambda _: scorer.score(PAIRS), range(12)):
            np.testing.assert_allclose(cosines, expected, atol=1e-5)
    assert scorer._cached_bytes == sum(cached.vector.nbytes for cached in scorer._cache.values())


def test_a_batch_beyond_memory_is_halved(bert: Path) -> None:
    expected = BiEncoderScorer(bert, max_length=LENGTH).score(PAIRS)
    scorer, counter = counting(bert)
    counter.limit = 40
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-5)
    counter.limit = 3
    with pytest.raises(OutOfMemory):
        scorer.score([("who wrote", "frank")])


# What the folder says


def test_a_folder_that_says_what_logit_a_cosine_is_scores_as_a_cross_encoder(
    bert: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bert, tmp_path / "logits")
    cosines = BiEncoderScorer(bert, max_length=LENGTH)
    with pytest.raises(ModelError, match=r"has no logit .* in its nightrank.json; it gives cosines only"):
        BiEncoderScorer(bert, max_length=LENGTH, logits=True)
    (folder / "nightrank.json").write_text('{"reads_tags": false, "logit": {"scale": 20, "offset": -7.5}}')
    scorer = load_scorer(folder, backend="torch", max_length=LENGTH)
    np.testing.assert_allclose(scorer.score(PAIRS), 20 * cosines.score(PAIRS) - 7.5, atol=1e-5)
    assert scorer.score([]).shape == (0,)
    alone = load_scorer(folder, backend="bi_encoder", max_length=LENGTH)
    np.testing.assert_array_equal(alone.score(PAIRS), cosines.score(PAIRS))
    assert len({scorer.fingerprint, alone.fingerprint}) == 2
    (folder / "nightrank.json").write_text('{"logit": {"scale": 21, "offset": -7.5}}')
    assert load_scorer(folder, backend="torch", max_length=LENGTH).fingerprint != scorer.fingerprint
    with pytest.raises(
        ModelError, match=r"is a bi-encoder, which the causal_lm backend cannot run; .*: onnx, torch"
    ):
        load_scorer(folder, backend="causal_lm")
    with pytest.raises(ValueError, match=r"scoring.compile = True has no meaning for the bi_encoder backend"):
        load_scorer(folder, backend="torch", compile=True)


def test_the_fingerprint_names_weights_and_settings(bert: Path, tmp_path: Path) -> None:
    first = BiEncoderScorer(bert, max_length=LENGTH)
    assert BiEncoderScorer(bert, max_length=LENGTH, max_tokens=30).fingerprint == first.fingerprint
    others = [
        BiEncoderScorer(bert, max_length=LENGTH + 1),
        BiEncoderScorer(bert, max_length=LENGTH, pooling="cls"),
        BiEncoderScorer(bert, max_length=LENGTH, precision="bf16"),
        BiEncoderScorer(write_sentence_folder(tmp_path / "other", seed=1), max_length=LENGTH),
        BiEncoderScorer(write_sentence_folder(tmp_path / "prompted", prompts=PROMPTS), max_length=LENGTH),
    ]
    assert len({first.fingerprint, *(scorer.fingerprint for scorer in others)}) == 6


def test_half_precision_is_close(bert: Path) -> None:
    full = BiEncoderScorer(bert, max_length=LENGTH).score(PAIRS)
    half = BiEncoderScorer(bert, max_length=LENGTH, precision="bf16").score(PAIRS)
    np.testing.assert_allclose(half, full, atol=0.05)


def test_texts_are_cut_on_the_side_of_the_tokenizer(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "model", prompts=PROMPTS)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    right = BiEncoderScorer(folder, max_length=LENGTH)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"truncation_side": "left"}))
    expected = of_sentence_transformers(folder, PAIRS)
    assert np.abs(right.score(PAIRS) - expected).max() > 1e-3
    scorer = BiEncoderScorer(folder, max_length=LENGTH)
    np.testing.assert_allclose(scorer.score(PAIRS), expected, atol=1e-5)
    assert scorer.fingerprint != right.fingerprint
    write_onnx(folder, pooled=False)
    np.testing.assert_allclose(BiEncoderScorer(folder, max_length=LENGTH).score(PAIRS), expected, atol=1e-4)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "model")
    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fast.model = models.WordPiece({**fast.get_vocab(), "more": 500}, unk_token="[UNK]")
    fast.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match="has ids up to 500, its model has"):
        BiEncoderScorer(folder, max_length=LENGTH)


@pytest.mark.parametrize(
    "options",
    [{"max_length": 2}, {"max_tokens": -1}, {"engine": "jax"}, {"pooling": "max"}, {"cache_bytes": -1}],
)
def test_senseless_settings(bert: Path, options: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        BiEncoderScorer(bert, **{"max_length": LENGTH, **options})
