"""From a model's folder to a scorer. A backend is one module here, one line in BACKENDS and one test.

Importing this package imports no backend: a machine that only tags or ranks installs no inference engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_core.scoring.scorer import Scorer

DEFAULT_MODEL = Path(__file__).parent.parent / "models" / "default"
"""The cross-encoder that ships with Nightrank."""


def _onnx(folder: Path, **options: Any) -> Scorer:
    from rerank_core.scoring.onnx import OnnxScorer

    return OnnxScorer(folder, **options)


BACKENDS: dict[str, Callable[..., Scorer]] = {
    "onnx": _onnx,
}


def load_scorer(
    model: str | Path | None = None,
    *,
    backend: str = "onnx",
    onnx_file: str = "",
    max_length: int = 256,
    max_tokens: int = 512,
    threads: int = 0,
) -> Scorer:
    """Load a cross-encoder.

    Args:
        model: folder of a Hugging Face or sentence-transformers cross-encoder; None or "" is the one that
            ships with Nightrank. A folder, not a name on the Hugging Face Hub: a night downloads nothing.
        backend: a key of `BACKENDS`.
        onnx_file: the ONNX file inside the folder; "" finds it (see `rerank_core.scoring.onnx`).
        max_length: longest input in tokens, special tokens included; the rest is cut off.
        max_tokens: most tokens that one batch holds, padding counted. On a CPU larger batches are slower, and
            need more memory.
        threads: batches that run at once; 0 is one a core.

    Raises:
        ModelError: the folder cannot be used; the message names the file and the remedy.
        ValueError: an unknown backend.
        MissingEngine: the backend's engine is not installed; the message names the extra.
    """
    try:
        factory = BACKENDS[backend]
    except KeyError:
        known = ", ".join(sorted(BACKENDS))
        raise ValueError(f"unknown scoring.backend {backend!r}; known: {known}") from None
    folder = Path(model) if model else DEFAULT_MODEL
    return factory(folder, onnx_file=onnx_file, max_length=max_length, max_tokens=max_tokens, threads=threads)
