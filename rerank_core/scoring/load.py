"""From a model to a scorer. A backend is one module, one line in `rerank_core.config.backends.BACKENDS` and one test.

A bi-encoder with a scale and an offset that make its cosine a logit (`logit` in its nightrank.json) scores pairs as a
cross-encoder does, on the chosen backend's engine.

Importing this module imports no backend: a machine that only tags or ranks needs no inference engine, and one that
scores with ONNX Runtime no torch.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rerank_core.config.backends import BACKENDS
from rerank_core.errors import MissingEngine, ModelError
from rerank_core.inference.model_folder import DEFAULT_MODEL as DEFAULT_MODEL
from rerank_core.inference.model_folder import OWN_SETTINGS, has_logit, local_folder

if TYPE_CHECKING:
    from rerank_core.scoring.protocol import Scorer


class Options(NamedTuple):
    """How a model is run, as the keys of [scoring] in examples/nightly.toml. A field at its default is unset."""

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


def load_scorer(model: str | Path | None = None, *, backend: str = "onnx", **options: Any) -> Scorer:
    """Load a model that scores pairs, and check that a row alone scores as in a batch (`scoring.batch_check`).

    Args:
        model: folder of a Hugging Face or sentence-transformers cross-encoder, or of a bi-encoder with `logit` in its
            nightrank.json, or its name on the Hugging Face Hub; None or "" is the one that ships with Nightrank.
        backend: a key of `BACKENDS`.
        options: fields of `Options` that the backend has.

    Raises:
        ModelError: the model cannot be used; the message names the file and the remedy.
        ValueError: an unknown backend, or an option that the backend does not have.
        MissingEngine: the backend's engine is not installed; the message names the extra.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown scoring.backend {backend!r}; known: {', '.join(sorted(BACKENDS))}")
    name = str(model or DEFAULT_MODEL)
    known, taken = BACKENDS[backend], _taken(backend, Options(**options))
    try:
        # A name is looked up on the Hub by a backend of its own alone: another's models may be elsewhere.
        if not known.cosine and (known.bi_encoders or Path(name).is_dir()) and gives_logits(name):
            if not known.bi_encoders:
                others = ", ".join(other for other, found in BACKENDS.items() if found.bi_encoders)
                raise ModelError(
                    f"{name} is a bi-encoder, which the {backend} backend cannot run; set scoring.backend to one of: "
                    f"{others}"
                )
            known, taken = BACKENDS["bi_encoder"], _taken("bi_encoder", Options(**options))
            taken |= {"engine": backend, "logits": True}
        factory = pkgutil.resolve_name(known.factory) if isinstance(known.factory, str) else known.factory
        scorer: Scorer = factory(name, **taken)
    except ImportError as error:
        if isinstance(error, MissingEngine):
            raise
        raise MissingEngine(
            f"the {backend} backend needs {error.name or error}: pip install 'nightrank[{known.extra}]'"
        ) from error
    from rerank_core.scoring.batch_check import check_batches

    check_batches(scorer, model=name)
    return scorer


def gives_logits(model: str) -> bool:
    """Whether a model is a bi-encoder whose cosine is scaled to a logit.

    Args:
        model: a folder, or a name on the Hugging Face Hub.
    """
    return has_logit(local_folder(model, [OWN_SETTINGS]))


def _taken(backend: str, options: Options) -> dict[str, Any]:
    """The options that a backend has.

    Raises:
        ValueError: another one is set; it would have no effect.
    """
    given, names = options._asdict(), BACKENDS[backend].options
    for name, default in Options._field_defaults.items():
        # The number of threads changes no score, so a backend that has no use for it may ignore it.
        if name not in (*names, "threads") and given[name] != default:
            raise ValueError(
                f"scoring.{name} = {given[name]!r} has no meaning for the {backend} backend; remove it"
            )
    # An empty precision, file or instruction is the backend's own default.
    return {name: given[name] for name in names if given[name] != ""}
