"""Token-classification models on ONNX Runtime, on the CPU.

Takes any Hugging Face folder that holds `config.json` (with id2label), `tokenizer.json` and an ONNX file:
`onnx/model.onnx`, else `model.onnx`, else the only *.onnx file there. Needs neither torch nor transformers.

Batches run as in scoring's onnx backend: in parallel, each on one thread. A dynamically quantised model gets each row
alone, since the other rows of a batch would change its mentions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rerank_core.errors import ModelError
from rerank_core.features.ner.tokens import TOKENS_VERSION, Tag, read_tags
from rerank_core.features.ner.windows import Reader, TokenRecogniser, WindowRow, longest_input
from rerank_core.inference.batching import padded
from rerank_core.inference.encoding import load_tokenizer
from rerank_core.inference.machine import cores
from rerank_core.inference.model_folder import file_digest, find_onnx, padding_id, read_json
from rerank_core.inference.onnx_file import (
    DYNAMIC_QUANTISATION,
    LOGITS,
    choose_output,
    external_files,
    model_holds,
)
from rerank_core.inference.onnx_session import open_session, token_inputs
from rerank_core.text import fingerprint, shorten

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class _Settings(NamedTuple):
    """A recogniser's arguments: all that is pickled of it."""

    folder: str
    onnx_file: str
    max_length: int
    max_tokens: int
    threads: int


class _Model(NamedTuple):
    """What is read of the folder before the model itself is loaded."""

    path: Path
    tokenizer: Tokenizer
    tags: tuple[Tag, ...]
    pad_id: int
    max_length: int  # as the model allows
    fingerprint: str


class OnnxRecogniser(TokenRecogniser):
    """A token-classification model in ONNX Runtime. Safe to share between threads.

    Its fingerprint: 32 hex digits over the ONNX file, its external data, tokenizer.json, the labels and max_length.

    Args:
        folder: the model's folder.
        onnx_file: ONNX file inside it; "" finds it.
        max_length: longest input in tokens, special tokens included; lowered to what the model takes. Longer
            texts are read in windows.
        max_tokens: most tokens of one batch, padding counted; not for a dynamically quantised model.
        threads: batches that run in parallel; 0: one per core.

    Raises:
        ModelError: the folder cannot be used; the message names the file and the remedy.
        ValueError: a max_length, max_tokens or threads that makes no sense.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        onnx_file: str = "",
        max_length: int = 512,
        max_tokens: int = 512,
        threads: int = 0,
    ) -> None:
        if max_length < 1 or max_tokens < 1 or threads < 0:
            raise ValueError(
                f"max_length is {max_length}, max_tokens {max_tokens}, threads {threads}; at least 1, 1 and 0 "
                "are needed"
            )
        self._settings = _Settings(str(folder), onnx_file, max_length, max_tokens, threads)
        self._fingerprint = _describe(self._settings).fingerprint

    def _open(self) -> Reader:
        return _load(self._settings, self._fingerprint)


class _Engine:
    """A session and its threads."""

    def __init__(self, model: _Model, *, threads: int) -> None:
        self._session = open_session(model.path)
        self._pool = ThreadPoolExecutor(threads or cores())
        self._pad_id = model.pad_id
        self._types = token_inputs(self._session, model.path, export="a token-classification model")
        self._output = choose_output(self._session.outputs, LOGITS, model.path)
        self._probe(model)

    def classify(self, batches: Sequence[list[WindowRow]]) -> Iterable[list[np.ndarray]]:
        """Logits of each row of each batch, in the batches' order."""
        return self._pool.map(self._run, batches)

    def _run(self, rows: Sequence[WindowRow]) -> list[np.ndarray]:
        """Logits of one batch, padded to its longest row."""
        inputs = padded(rows, pad_id=self._pad_id, dtypes=self._types)
        width = inputs["input_ids"].shape[1]
        logits = self._session.run(self._output, inputs).astype(np.float32)
        if logits.ndim != 3 or logits.shape[:2] != (len(rows), width):
            raise ModelError(
                f"inputs of shape [{len(rows)}, {width}] give an output of shape {list(logits.shape)}, not one "
                "row of logits a token: export a token-classification model, with dynamic axes"
            )
        return [logits[i, : len(row.ids)] for i, row in enumerate(rows)]

    def _probe(self, model: _Model) -> None:
        """Run two inputs of unlike length and the vocabulary's last id, and count the labels."""
        last = max(model.tokenizer.get_vocab().values())
        try:
            first = self._run([WindowRow([0, last], [0, 0]), WindowRow([last] * 3, [0] * 3)])[0]
        except ModelError as error:
            raise ModelError(f"{model.path}: {error}") from None
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            raise ModelError(
                f"{model.path} fails on two short inputs ({shorten(str(error))}); export it with dynamic batch and "
                f"sequence axes, from the model whose tokenizer.json this is (its ids go up to {last})"
            ) from error
        if first.shape[1] != len(model.tags):
            raise ModelError(
                f"{model.path} has {first.shape[1]} labels, id2label of its config.json {len(model.tags)}; copy "
                "both from one model"
            )


@lru_cache(maxsize=4)
def _load(settings: _Settings, expected: str) -> Reader:
    model = _describe(settings)
    if model.fingerprint != expected:
        raise ModelError(
            f"the files of the model in {settings.folder} differ from those that this recogniser was made with; give "
            "every machine the same files, and do not change them while a night runs"
        )
    engine = _Engine(model, threads=settings.threads)
    return Reader(
        model.tokenizer,
        model.tags,
        classify=engine.classify,
        max_length=model.max_length,
        max_tokens=1 if model_holds(model.path, DYNAMIC_QUANTISATION) else settings.max_tokens,
    )


def _describe(settings: _Settings) -> _Model:
    folder = Path(settings.folder)
    if not folder.is_dir():
        raise ModelError(f"no model folder at {folder}; an ONNX model is a local folder, not a name on a hub")
    try:
        path = find_onnx(folder, settings.onnx_file)
    except ModelError as error:  # it speaks of the scorer's settings
        raise ModelError(str(error).replace("scoring.onnx_file", "onnx_file")) from None
    config = read_json(folder / "config.json")
    tags = read_tags(config.get("id2label"), source=str(folder))
    tokenizer_file = folder / "tokenizer.json"
    tokenizer = load_tokenizer(tokenizer_file)
    pad_id = padding_id(tokenizer, folder, config)
    length = longest_input(config, pad_id=pad_id, wanted=settings.max_length)
    digests = [file_digest(file) for file in (path, *external_files(path), tokenizer_file)]
    parts = ("onnxruntime", TOKENS_VERSION, repr(tags), str(length), str(pad_id), *digests)
    return _Model(path, tokenizer, tags, pad_id, length, fingerprint(*parts)[:32])
