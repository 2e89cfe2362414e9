"""Bi-encoders: the cosine of a query's and a passage's embedding, or a logit that is scaled from it.

A cosine is the first stage of a cascade, or a feature of fusion. Where the folder has a scale and an offset for it, the
model scores pairs as a cross-encoder does.

Reads sentence-transformers' folders: how tokens are pooled, and the prompts of queries and passages. Runs on ONNX
Runtime if the folder has an ONNX file (no torch needed), else on PyTorch. Every text is embedded once and its vector
cached, up to a number of bytes: queries share candidates, so most of a night's pairs cost only a dot product. A
module that normalises does not change a cosine; any other module after pooling is refused, since scores without it
would be wrong.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from rerank_core.errors import ModelError, OutOfMemory
from rerank_core.inference.batching import plan_batches
from rerank_core.inference.encoding import Row
from rerank_core.inference.model_folder import OWN_SETTINGS, local_folder, read_json
from rerank_core.scoring.backends.bi_encoder_folder import Logit, SentenceFolder, SingleEncoder, read_logit
from rerank_core.scoring.protocol import Embedded, VectorStore
from rerank_core.text import fingerprint
from rerank_core.trace import span

WINDOW = 2048
"""Pairs whose texts are tokenised and embedded together."""

CACHE_BYTES = 512_000_000
"""Most bytes of cached vectors: 330,000 of 384 numbers; the least recently used are dropped."""


class Embedder(Protocol):
    """Runs the model on an engine."""

    folder: Path  # of the model
    settings: SentenceFolder
    encoder: SingleEncoder
    device: str
    identity: list[str]  # of the engine, and of every file that can change a vector
    max_tokens: int  # most tokens of a batch, padding included; 1: each row alone
    streams: int  # batches that run at once
    precision: str  # a key of `rerank_core.scoring.batch_check.TOLERANCES`

    def embed(self, rows: Sequence[Row]) -> np.ndarray:
        """A vector per row, not normalised: float32, shape [rows, size].

        Raises:
            OutOfMemory: fewer rows may fit.
        """
        ...


class BiEncoderScorer:
    """Cosines of embeddings, or their logits. Safe to share between threads.

    Args:
        model: a folder, or a name on the Hugging Face Hub.
        engine: "onnx", "torch", or "": ONNX Runtime if there is an ONNX file, else PyTorch.
        onnx_file: ONNX file inside the folder; "" finds it.
        pooling: "mean" or "cls"; "" is the folder's, or the mean if it has none.
        max_length: longest text in tokens, special tokens and prompt included.
        max_tokens: most tokens of a batch, padding included; 0 is the engine's own.
        threads: on ONNX Runtime the batches that run at once, 0 is one per core; else torch's threads, for the whole
            process, 0 leaves them as they are.
        device: "cpu" or "cuda"; for ONNX Runtime "tensorrt" too.
        precision: "fp32", "bf16" or "fp16", for the torch engine; an ONNX file has its own.
        allow_fallback: run on the CPU if the device is unavailable.
        cache_bytes: most bytes of cached vectors.
        logits: the scores are logits, by the folder's nightrank.json; else cosines.

    Raises:
        ModelError: the folder cannot be used, it has no scale and offset of a logit, or the device is unavailable.
        MissingEngine: the engine is not installed.
        ValueError: an invalid setting.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        engine: str = "",
        onnx_file: str = "",
        pooling: str = "",
        max_length: int = 256,
        max_tokens: int = 0,
        threads: int = 0,
        device: str = "cpu",
        precision: str = "fp32",
        allow_fallback: bool = False,
        cache_bytes: int = CACHE_BYTES,
        logits: bool = False,
    ) -> None:
        for name, value in (("max_tokens", max_tokens), ("threads", threads), ("cache_bytes", cache_bytes)):
            if value < 0:
                raise ValueError(f"{name} is {value}; at least 0 is needed")
        self.engine = engine or _engine_for(Path(model))
        self._embedder = _open(
            model,
            self.engine,
            onnx_file=onnx_file,
            precision=precision,
            pooling=pooling,
            max_length=max_length,
            threads=threads,
            device=device,
            allow_fallback=allow_fallback,
        )
        logit = read_logit(self._embedder.folder) if logits else Logit(1.0, 0.0)
        if logit is None:
            raise ModelError(
                f"{model} has no logit (scale and offset) in its {OWN_SETTINGS}; it gives cosines only"
            )
        self._logit = logit
        self._settings, own = self._embedder.settings, self._embedder.max_tokens
        self._max_tokens = own if own == 1 else max_tokens or own
        self.device, self.precision, self.row_by_row = self._embedder.device, self._embedder.precision, ""
        self.chunk = 512 if self.device == "cpu" else 16_384
        self.reads_tags = read_json(self._embedder.folder / OWN_SETTINGS).get("reads_tags") is True
        settings = (str(max_length), *map(str, self._settings), *(map(str, logit) if logits else ()))
        self._fingerprint = fingerprint("bi-encoder", *settings, *self._embedder.identity)[:32]
        self.vectors: VectorStore | None = None
        self._cache: OrderedDict[bytes, Embedded] = OrderedDict()
        self._cache_bytes, self._cached_bytes, self._lock = cache_bytes, 0, threading.Lock()
        self._pool = ThreadPoolExecutor(self._embedder.streams)

    @property
    def fingerprint(self) -> str:
        """32 hex digits over the model's files, the engine, pooling, prompts, max_length, scale and offset."""
        return self._fingerprint

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """The cosine of each pair, -1 to 1, or its logit: float32, shape [len(pairs)]."""
        windows = [pairs[at : at + WINDOW] for at in range(0, len(pairs), WINDOW)]
        parts = [self._cosines(window) for window in windows]
        scale, offset = self._logit
        return (
            np.concatenate(parts) * np.float32(scale) + np.float32(offset)
            if parts
            else np.empty(0, np.float32)
        )

    @property
    def max_tokens(self) -> int:
        """Most tokens of a batch; 1: each text alone."""
        return self._max_tokens

    def sample(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """The rows of the pairs' passages, as `run` takes them."""
        return [row for row, _ in self._embedder.encoder.encode([self._prompted(pair)[1] for pair in pairs])]

    def run(self, rows: Sequence[Row]) -> np.ndarray:
        """One batch's vectors of length 1: float32, shape [rows, size]."""
        vectors = self._embedder.embed(rows)
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))

    def run_row_by_row(self, why: str) -> None:
        """Embed every text alone from now on; another fingerprint, since scores of batches are not to be reused."""
        self._max_tokens, self.row_by_row = 1, why
        self._fingerprint = fingerprint(self._fingerprint, "row by row")[:32]

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair's two texts beyond max_length: int32, shape [len(pairs)]."""
        texts = self._texts(pairs)
        overflow = {text: cached.overflow for text, cached in self._look_up(texts).items()}
        missing = [text for text in texts if text not in overflow]
        rows = self._embedder.encoder.encode(missing)
        overflow.update((text, more) for text, (_, more) in zip(missing, rows, strict=True))
        return np.array([sum(overflow[text] for text in self._prompted(pair)) for pair in pairs], np.int32)

    def embed(self, texts: Sequence[str], *, side: Literal["query", "passage"]) -> np.ndarray:
        """The vectors of queries or passages, for a search: float32, shape [len(texts), size], each of length 1.

        They are not cached.
        """
        prompt = self._settings.query if side == "query" else self._settings.passage
        rows = self._embedder.encoder.encode([prompt + text for text in texts])
        vectors = self._embed([row for row, _ in rows])
        return np.stack(vectors).astype(np.float32) if vectors else np.empty((0, 0), np.float32)

    def _prompted(self, pair: tuple[str, str]) -> tuple[str, str]:
        return self._settings.query + pair[0], self._settings.passage + pair[1]

    def _texts(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """The texts of the pairs with their prompts, each once."""
        return list(dict.fromkeys(text for pair in pairs for text in self._prompted(pair)))

    def _cosines(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        texts = self._texts(pairs)
        embedded = self._embedded(texts, passages={self._prompted(pair)[1] for pair in pairs})
        vectors = np.stack([embedded[text].vector for text in texts])
        index = {text: i for i, text in enumerate(texts)}
        ends = np.array([[index[text] for text in self._prompted(pair)] for pair in pairs])
        cosines = np.einsum("ij,ij->i", vectors[ends[:, 0]], vectors[ends[:, 1]])
        return np.asarray(cosines, np.float32)

    def _embedded(self, texts: Sequence[str], *, passages: Set[str]) -> dict[str, Embedded]:
        """Every text's vector, from the cache, of `passages` from an earlier night, or computed now."""
        cached = self._look_up(texts)
        if self.vectors:
            keys = {_key(text): text for text in texts if text in passages and text not in cached}
            kept = self.vectors.look_up(list(keys)) if keys else {}
            known = {keys[key]: embedded for key, embedded in kept.items()}
            self._remember(known)
            cached |= known
        missing = [text for text in texts if text not in cached]
        with span("tokenise", texts=len(missing)):
            rows = self._embedder.encoder.encode(missing)
        vectors = self._embed([row for row, _ in rows])
        # Copies: a view would keep its whole batch in memory.
        new = {
            text: Embedded(vector.copy(), overflow)
            for text, vector, (_, overflow) in zip(missing, vectors, rows, strict=True)
        }
        self._remember(new)
        if self.vectors:
            self.vectors.add({_key(text): made for text, made in new.items() if text in passages})
        return cached | new

    def _remember(self, embedded: Mapping[str, Embedded]) -> None:
        with self._lock:
            for text, made in embedded.items():
                old = self._cache.pop(_key(text), None)  # another thread's, of the same text
                self._cached_bytes += made.vector.nbytes - (old.vector.nbytes if old else 0)
                self._cache[_key(text)] = made
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= self._cache.popitem(last=False)[1].vector.nbytes

    def _look_up(self, texts: Iterable[str]) -> dict[str, Embedded]:
        """The cached ones of the texts, which become the most recently used."""
        cached = {}
        keys = {text: _key(text) for text in texts}
        with self._lock:
            for text, key in keys.items():
                if key in self._cache:
                    self._cache.move_to_end(key)
                    cached[text] = self._cache[key]
        return cached

    def _embed(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """A vector of length 1 for each row."""
        vectors: list[np.ndarray] = [np.empty(0)] * len(rows)
        batches = plan_batches([len(row.ids) for row in rows], self._max_tokens)
        answers = self._pool.map(self._run, ([rows[i] for i in batch] for batch in batches))
        for batch, answer in zip(batches, answers, strict=True):
            for i, vector in zip(batch, answer, strict=True):
                vectors[i] = vector
        return vectors

    def _run(self, rows: Sequence[Row]) -> np.ndarray:
        """One batch's vectors; a batch that does not fit into memory is halved, and with it the budget."""
        try:
            with span("run batch", rows=len(rows), tokens=len(rows) * len(rows[0].ids)):
                return self.run(rows)
        except OutOfMemory:
            if len(rows) == 1:
                raise
            self._max_tokens = max(1, min(self._max_tokens, len(rows) * len(rows[0].ids) // 2))
        middle = len(rows) // 2
        return np.concatenate([self._run(rows[:middle]), self._run(rows[middle:])])


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _engine_for(folder: Path) -> str:
    return "onnx" if [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")] else "torch"


def _open(model: str | Path, engine: str, *, onnx_file: str, precision: str, **options: Any) -> Embedder:
    """The model on an engine, whose packages are imported here and not before."""
    if engine == "onnx":
        from rerank_core.scoring.backends.bi_encoder_onnx import OnnxEmbedder

        if precision != "fp32":
            raise ValueError(f"scoring.precision is {precision!r}, but an ONNX file has its own; remove it")
        return OnnxEmbedder(local_folder(model), onnx_file=onnx_file, **options)
    if engine == "torch":
        from rerank_core.scoring.backends.bi_encoder_torch import TorchEmbedder

        return TorchEmbedder(model, precision=precision, **options)
    raise ValueError(f"unknown engine {engine!r}; known: onnx, torch")
