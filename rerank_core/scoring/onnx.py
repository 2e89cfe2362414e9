"""Cross-encoders on ONNX Runtime, on the CPU.

Takes any Hugging Face or sentence-transformers cross-encoder folder that holds `tokenizer.json` and an ONNX
file: `onnx/model.onnx`, else `model.onnx`, else the only *.onnx file there. Needs neither torch nor
transformers.

An input longer than max_length loses tokens at the end of its longer side until it fits, as transformers and
sentence-transformers cut it ("longest_first"): the passage alone is cut, unless the query side fills more
than half of the input. `OnnxScorer.overflow` counts what was cut.

Threads share out the batches, each batch on one thread, and batches are small: on passages of about 140
tokens (MiniLM-L6, 2 cores) that was 1.5 times as fast as batches of 4,096 tokens with the threads inside,
which pad and leave the processor's cache. A dynamically quantised model gets each row alone: it takes its
activations' scale from the whole batch, so that a row's company and padding would change its logit (by up to
half of the logits' own deviation, as measured), and a score kept from last night would not be tonight's.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rerank_core.scoring.batching import plan_batches
from rerank_core.scoring.model_folder import check_max_length, find_onnx, padding_id, read_json
from rerank_core.scoring.scorer import MissingEngine, ModelError
from rerank_core.text import fingerprint, shorten

try:
    import onnxruntime
    from tokenizers import Encoding, Tokenizer
except ImportError as error:
    raise MissingEngine(
        f"the onnx backend needs onnxruntime and tokenizers ({error}): pip install 'nightrank[cpu]'"
    ) from error

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
INTEGERS: dict[str, type[np.integer[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
# TensorProto.external_data's entry {key: "location", value: NAME} as protobuf writes it, lengths first.
DYNAMIC_QUANTISATION = re.compile(rb"DynamicQuantize")
_EXTERNAL = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)


class OnnxScorer:
    """A cross-encoder in ONNX Runtime. Safe to share between threads.

    Args:
        folder: the model's folder.
        onnx_file: ONNX file inside it; "" finds it.
        max_length: longest input in tokens, special tokens included.
        max_tokens: most tokens of one batch, padding counted; not for a dynamically quantised model.
        threads: batches that run at once; 0 is one a core.

    Raises:
        ModelError: the folder cannot be used, or its model is no cross-encoder.
        ValueError: a max_length, max_tokens or threads that makes no sense.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        onnx_file: str = "",
        max_length: int = 256,
        max_tokens: int = 512,
        threads: int = 0,
    ) -> None:
        if max_tokens < 1 or threads < 0:
            raise ValueError(f"max_tokens is {max_tokens}, threads {threads}; at least 1 and 0 are needed")
        folder = Path(folder)
        path = find_onnx(folder, onnx_file)
        config = read_json(folder / "config.json")
        tokenizer_file = folder / "tokenizer.json"
        self._whole = load_tokenizer(tokenizer_file)
        self._special = self._whole.num_special_tokens_to_add(is_pair=True)
        self._pad_id = padding_id(self._whole, folder, config)
        if max_length < self._special + 2:
            raise ValueError(
                f"max_length is {max_length}; two texts and {self._special} special tokens need more"
            )
        check_max_length(max_length, config, pad_id=self._pad_id, folder=folder)
        # Two tokenizers, because truncation is a state of one and threads share this object.
        self._cutting = Tokenizer.from_str(self._whole.to_str())
        self._cutting.enable_truncation(max_length, strategy="longest_first")
        self._max_length = max_length
        self.reads_tags = read_json(folder / "nightrank.json").get("reads_tags") is True
        self._session = open_session(path)
        self._max_tokens = 1 if model_holds(path, DYNAMIC_QUANTISATION) else max_tokens
        self._pool = ThreadPoolExecutor(threads or cores())
        self._types = _input_types(self._session, path)
        outputs = [output.name for output in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]
        self._probe(path)
        files = [path, *external_files(path), tokenizer_file]
        settings = (str(max_length), str(self._pad_id))
        self._fingerprint = fingerprint("onnxruntime", *settings, *map(_file_digest, files))[:32]

    @property
    def fingerprint(self) -> str:
        """32 hex digits over the ONNX file, its external data, tokenizer.json, max_length and the engine."""
        return self._fingerprint

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """One logit a pair: float32, shape [len(pairs)]; of two labels, label 1's logit minus label 0's."""
        logits = np.empty(len(pairs), dtype=np.float32)
        if not pairs:
            return logits
        encodings = self._cutting.encode_batch_fast(list(pairs))
        batches = plan_batches([len(encoding.ids) for encoding in encodings], self._max_tokens)
        answers = self._pool.map(self._run, ([encodings[i] for i in batch] for batch in batches))
        for batch, answer in zip(batches, answers, strict=True):
            logits[batch] = answer
        return logits

    def overflow(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Tokens of each pair beyond max_length, which `score` does not see: int32, shape [len(pairs)]."""
        tokens = np.zeros(len(pairs), dtype=np.int32)
        spare = self._max_length - self._special
        # An ASCII text has at most a token a character, and one more for a word-start mark that stands alone.
        # Elsewhere one character can be many tokens (bytes, or Unicode's expansions): those are all counted.
        long = [i for i, (q, p) in enumerate(pairs) if len(q) + len(p) + 2 > spare or not (q + p).isascii()]
        for i, encoding in zip(long, self._whole.encode_batch_fast([pairs[i] for i in long]), strict=True):
            tokens[i] = max(0, len(encoding.ids) - self._max_length)
        return tokens

    def _run(self, encodings: Sequence[Encoding]) -> np.ndarray:
        """Logits of one batch, padded to its longest row."""
        width = max(len(encoding.ids) for encoding in encodings)
        inputs = {name: np.zeros((len(encodings), width), dtype) for name, dtype in self._types.items()}
        inputs["input_ids"][:] = self._pad_id
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            inputs["input_ids"][row, :length] = encoding.ids
            inputs["attention_mask"][row, :length] = 1
            if "token_type_ids" in inputs:
                inputs["token_type_ids"][row, :length] = encoding.type_ids
        return _one_logit(self._session.run([self._output], inputs)[0])

    def _probe(self, path: Path) -> None:
        """Run two inputs of unlike length, then the vocabulary's last id, and look at the answer's shape."""
        last = max(self._whole.get_vocab().values())
        try:
            first = self._run(self._whole.encode_batch_fast([("a", "b"), ("a", "b c d")]))
            values = {"input_ids": last, "attention_mask": 1, "token_type_ids": 0}
            inputs = {name: np.full((1, 1), values[name], dtype) for name, dtype in self._types.items()}
            self._session.run([self._output], inputs)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
        except Exception as error:
            raise ModelError(
                f"{path} fails on two short inputs ({shorten(str(error))}); export it with dynamic batch and "
                f"sequence axes, from the model whose tokenizer.json this is (its ids go up to {last})"
            ) from error
        if first.shape != (2,):
            raise ModelError(f"{path} answers 2 inputs with {first.size} logits; export it with a batch axis")


def load_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise ModelError(
            f"no {path}; make it once with transformers: "
            f"AutoTokenizer.from_pretrained('{path.parent}').save_pretrained('{path.parent}')"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path} is not a tokenizer ({shorten(str(error))}); copy it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1  # OnnxScorer's own threads run batches side by side
    options.log_severity_level = 3  # errors come as exceptions; the optimiser's warnings help nobody
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no base but Exception
        with path.open("rb") as file:
            pointer = file.read(20) == b"version https://git-"
        remedy = "a Git LFS pointer, git lfs pull" if pointer else "cut or no model, copy or export it again"
        raise ModelError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be loaded: {remedy}: {shorten(str(error), limit=400)}"
        ) from error


def _input_types(session: onnxruntime.InferenceSession, path: Path) -> dict[str, type[np.integer[Any]]]:
    """NumPy type of each of the model's inputs."""
    held = {node.name: node.type for node in session.get_inputs()}
    missing = set(INPUTS[:2]) - set(held)
    foreign = [name for name, kind in held.items() if name not in INPUTS or kind not in INTEGERS]
    if missing or foreign:
        listed = ", ".join(f"{name}: {kind}" for name, kind in held.items())
        raise ModelError(
            f"{path} is no text cross-encoder: its inputs are {listed}; needed are input_ids and "
            "attention_mask, and perhaps token_type_ids, of int64. Export a sequence classification model"
        )
    return {name: INTEGERS[kind] for name, kind in held.items()}


def _one_logit(output: np.ndarray) -> np.ndarray:
    """float32 of shape [rows] from a model's output of shape [rows], [rows, 1] or [rows, 2]."""
    if output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1):
        return output.reshape(-1).astype(np.float32)
    if output.ndim == 2 and output.shape[1] == 2:
        wide = output.astype(np.float32)
        return wide[:, 1] - wide[:, 0]
    raise ModelError(
        f"the output has shape {list(output.shape)}, not [rows, 1] or [rows, 2]: an embedding model, a "
        "generative one or a classifier of more labels. Export a cross-encoder"
    )


def external_files(path: Path) -> list[Path]:
    """Files beside the ONNX file that hold its weights, as its protobuf names them."""
    with _mapped(path) as view:
        raw = {view[match.end() : match.end() + match[1][0]] for match in _EXTERNAL.finditer(view)}
    names = {name.decode("utf-8", "replace").replace("\0", "") for name in raw}
    # A chance run of bytes in the weights can look like an entry; it names no file.
    return [path.parent / name for name in sorted(names) if name and (path.parent / name).is_file()]


def model_holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    with _mapped(path) as view:
        return pattern.search(view) is not None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
