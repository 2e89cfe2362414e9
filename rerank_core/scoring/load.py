"""From a model to a scorer. A backend is one module here, one line in BACKENDS and one test.

Importing this package imports no backend: a machine that only tags or ranks installs no inference engine, and one that
scores with ONNX Runtime no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rerank_core.scoring.protocol import Scorer

DEFAULT_MODEL = Path(__file__).parent.parent / "models" / "default"
"""The cross-encoder that ships with Nightrank."""


class Options(NamedTuple):
    """How a model is run; each field means what examples/nightly.toml says of it. A field at its default is unset."""

    onnx_file: str = ""
    precision: str = ""
    device: str = "cpu"
    max_length: int = 256
    max_tokens: int = 0
    threads: int = 0
    instruction: str = ""
    compile: bool = False
    allow_fallback: bool = False
    trust_remote_code: bool = False


def _onnx(model: str, options: Options) -> Scorer:
    from rerank_core.scoring.backends.onnx import OnnxScorer

    taken = _taken(
        "onnx", options, "onnx_file", "device", "max_length", "max_tokens", "threads", "allow_fallback"
    )
    return OnnxScorer(_folder(model), **taken)


def _openvino(model: str, options: Options) -> Scorer:
    from rerank_core.scoring.backends.openvino import OpenVinoScorer

    taken = _taken("openvino", options, "onnx_file", "precision", "max_length", "max_tokens", "threads")
    return OpenVinoScorer(_folder(model), **taken)


def _torch(model: str, options: Options) -> Scorer:
    from rerank_core.scoring.backends.torch import TorchScorer

    taken = _taken(
        "torch", options, "precision", "device", "max_length", "max_tokens", "threads", "compile",
        "allow_fallback", "trust_remote_code",
    )  # fmt: skip
    return TorchScorer(model, **taken)


def _causal_lm(model: str, options: Options) -> Scorer:
    from rerank_core.scoring.backends.causal_lm import CausalLMScorer

    taken = _taken(
        "causal_lm", options, "precision", "device", "max_length", "max_tokens", "instruction", "allow_fallback",
        "trust_remote_code",
    )  # fmt: skip
    return CausalLMScorer(model, **taken)


def _bi_encoder(model: str, options: Options) -> Scorer:
    from rerank_core.scoring.backends.bi_encoder import BiEncoderScorer

    taken = _taken(
        "bi_encoder",
        options,
        "onnx_file",
        "precision",
        "device",
        "max_length",
        "max_tokens",
        "allow_fallback",
    )
    return BiEncoderScorer(model, **taken)


BACKENDS: dict[str, Callable[[str, Options], Scorer]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "torch": _torch,
    "causal_lm": _causal_lm,
    "bi_encoder": _bi_encoder,
}
EXTRAS = {
    "onnx": "cpu",
    "openvino": "openvino",
    "torch": "torch",
    "causal_lm": "torch",
    "bi_encoder": "torch",
}


def load_scorer(model: str | Path | None = None, *, backend: str = "onnx", **options: Any) -> Scorer:
    """Load a cross-encoder.

    Args:
        model: folder of a Hugging Face or sentence-transformers cross-encoder, or its name on the Hugging Face Hub;
            None or "" is the one that ships with Nightrank.
        backend: a key of `BACKENDS`.
        options: fields of `Options`, as far as the backend knows them.

    Raises:
        ModelError: the model cannot be used; the message names the file and the remedy.
        ValueError: an unknown backend, or an option that the backend does not have.
        MissingEngine: the backend's engine is not installed; the message names the extra.
    """
    try:
        factory = BACKENDS[backend]
    except KeyError:
        known = ", ".join(sorted(BACKENDS))
        raise ValueError(f"unknown scoring.backend {backend!r}; known: {known}") from None
    try:
        return factory(str(model or DEFAULT_MODEL), Options(**options))
    except ImportError as error:
        from rerank_core.errors import MissingEngine

        if isinstance(error, MissingEngine):
            raise
        raise MissingEngine(
            f"the {backend} backend needs {error.name or error}: pip install 'nightrank[{EXTRAS[backend]}]'"
        ) from error


def _folder(model: str) -> Path:
    from rerank_core.inference.model_folder import local_folder

    return local_folder(model)


def _taken(backend: str, options: Options, *names: str) -> dict[str, Any]:
    """The options that a backend has.

    Raises:
        ValueError: another one is set: what would be ignored is better refused.
    """
    given = options._asdict()
    for name, default in Options._field_defaults.items():
        # How many processors an engine may use says nothing of its answers: one that has no use for it may ignore it.
        if name not in (*names, "threads") and given[name] != default:
            raise ValueError(
                f"scoring.{name} = {given[name]!r} has no meaning for the {backend} backend; remove it"
            )
    # An unset precision or instruction is the backend's own.
    return {name: given[name] for name in names if given[name] != ""}
