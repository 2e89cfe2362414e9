"""The backends that run a model: one line each. The configuration's choices, hints and help texts follow from it.

Factories are names, so that nothing is imported before it is used, and this table can stand below the backends.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple


class Backend(NamedTuple):
    """A way to run a model."""

    factory: str | Callable[..., Any]
    """Makes a `rerank_core.scoring.protocol.Scorer` of a model's folder or name, and of `options` as keywords. As text:
    "module:name"."""
    extra: str = ""
    """What installs its engine: pip install 'nightrank[extra]'."""
    options: tuple[str, ...] = ()
    """Fields of `rerank_core.scoring.load.Options` that it has; one that it does not have is refused if it is set."""
    cosine: bool = False
    """Its scores are cosines, not logits: 0 does not mean an even chance."""
    bi_encoders: bool = False
    """Whether it also runs bi-encoders whose cosine is scaled to a logit."""
    first_stage: bool = True
    """Whether it can be a cascade's first stage."""
    prefix: str = ""
    """Before a model's name in `nightrank evaluate --system`; "" is the backend's own name."""
    engines: tuple[str, ...] = ()
    """Modules that it needs, for `nightrank autotune`, which tries what is installed."""
    weights: Literal["onnx", "safetensors", ""] = ""
    """Files of the model's folder that it reads; "" says nothing of them."""
    autotune: tuple[tuple[str, str], ...] = ()
    """(precision, device) that `nightrank autotune` tries; the precision "" is the file's own."""


_TORCH = ("precision", "device", "max_length", "max_tokens", "allow_fallback", "trust_remote_code")

BACKENDS = {
    "onnx": Backend(
        "rerank_core.scoring.backends.onnx:OnnxScorer",
        "cpu",
        ("onnx_file", "device", "max_length", "max_tokens", "threads", "allow_fallback"),
        bi_encoders=True,
        engines=("onnxruntime",),
        weights="onnx",
        autotune=(("", "cpu"), ("", "cuda")),
    ),
    "openvino": Backend(
        "rerank_core.scoring.backends.openvino:OpenVinoScorer",
        "openvino",
        ("onnx_file", "precision", "max_length", "max_tokens", "threads"),
        engines=("openvino",),
        weights="onnx",
        autotune=(("fp32", "cpu"), ("bf16", "cpu"), ("int8", "cpu")),
    ),
    "torch": Backend(
        "rerank_core.scoring.backends.torch:TorchScorer",
        "torch",
        (*_TORCH, "threads", "compile"),
        bi_encoders=True,
        engines=("torch", "transformers"),
        weights="safetensors",
        autotune=(("fp32", "cpu"), ("bf16", "cpu"), ("bf16", "cuda"), ("fp16", "cuda")),
    ),
    "causal_lm": Backend(
        "rerank_core.scoring.backends.causal_lm:CausalLMScorer",
        "torch",
        (*_TORCH, "instruction"),
        first_stage=False,
    ),
    "bi_encoder": Backend(
        "rerank_core.scoring.backends.bi_encoder:BiEncoderScorer",
        "torch",
        ("onnx_file", "precision", "device", "max_length", "max_tokens", "threads", "allow_fallback"),
        cosine=True,
        prefix="bi",
    ),
}


def cross_encoders() -> list[str]:
    """Names of the backends whose scores are logits."""
    return [name for name, backend in BACKENDS.items() if not backend.cosine]


def first_stages() -> list[str]:
    """Names of the backends that can be a cascade's first stage."""
    return [name for name, backend in BACKENDS.items() if backend.first_stage]


def gives_cosines(name: str) -> bool:
    """Whether the backend's scores are cosines; not those of a backend that is not known here."""
    return name in BACKENDS and BACKENDS[name].cosine


def check_backend(name: str, known: Collection[str]) -> str:
    """The name, if it is one of `known`.

    Raises:
        ValueError: it is not; the message gives the nearest one and all.
    """
    if name in known:
        return name
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
    raise ValueError(f"no such backend; the nearest known one is {nearest!r}, all are: {', '.join(known)}")
