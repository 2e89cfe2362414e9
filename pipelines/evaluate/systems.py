"""The systems that `nightrank evaluate` compares: BM25, rerankers, bi-encoders, TREC run files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rerank_core.config.backends import BACKENDS, gives_cosines
from rerank_core.config.night import Tagging
from rerank_core.errors import ConfigError, MissingEngine, ModelError
from rerank_core.evaluation.qrels import read_run
from rerank_core.evaluation.tag_ablation import MODES
from rerank_core.files import is_address, not_here
from rerank_core.ranking.fusion import Fusion, check_bi_encoder
from rerank_core.ranking.stored import read_fusion
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer, reads_tags
from rerank_core.scoring.score_cache import CachedScorer

ALONE = "alone"
"""Prefix of a model whose fusion weights are to be ignored."""

Kind = Literal["bm25", "model", "run"]
_LABELLED = re.compile(r"([^=/:\\]+)=(.+)", re.DOTALL)


class System(NamedTuple):
    """What is measured under a name."""

    name: str
    kind: Kind
    path: str = ""  # a model's folder or name on the Hub, "" for the default model; a run's file
    backend: str = ""  # of a model
    alone: bool = False  # without the fusion weights in its folder


class LoadedSystem(NamedTuple):
    """A system that is ready to be measured."""

    system: System
    scorer: Scorer | None = None
    fusion: Fusion | None = None
    bi_encoder: Scorer | None = None  # the one whose cosine the fusion weights need
    run: dict[str, dict[str, float]] | None = None  # of a run file: score by query_id and item, best first
    tag_modes: tuple[str, ...] = ("none",)  # the measured one first; see rerank_core.evaluation.tag_ablation

    @property
    def gives_logits(self) -> bool:
        """Whether scores are logits; a cosine, BM25's score and the scores of a run file are not."""
        return self.system.kind == "model" and not gives_cosines(self.system.backend)

    @property
    def reads_tags(self) -> bool:
        """Whether the model itself reads tags; its fusion weights may, even if it does not."""
        return self.scorer is not None and reads_tags(self.scorer, Tagging())


def prefixes() -> dict[str, str]:
    """The backend of each KIND in "KIND:NAME"."""
    return {backend.prefix or name: name for name, backend in BACKENDS.items()}


def parse(specs: Sequence[str]) -> list[System]:
    """Systems from "[LABEL=][KIND:]NAME".

    Raises:
        ConfigError: an empty name, or two systems of one name.
    """
    systems = [_parse(spec) for spec in specs]
    names = [system.name for system in systems]
    for spec, name in zip(specs, names, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"two systems are called {name!r}; give them labels, as in mine={spec}")
    return systems


def _parse(spec: str) -> System:
    label, rest = match.groups() if (match := _LABELLED.fullmatch(spec)) else ("", spec)
    if rest.startswith(f"{ALONE}:"):
        inner = _parse(rest.removeprefix(f"{ALONE}:"))
        if inner.kind != "model":
            raise ConfigError(f"--system {spec!r}: only a model has fusion weights to leave out")
        return inner._replace(name=label or f"{ALONE}:{inner.name}", alone=True)
    if rest == "bm25":
        return System(label or rest, "bm25")
    if rest == "default":
        return System(label or rest, "model", "", "onnx")
    backends = prefixes()
    kind, colon, path = rest.partition(":")
    if not colon or kind not in (*backends, "run"):
        kind, path = "", rest
    if not path:
        raise ConfigError(f"--system {spec!r} has no name; give bm25, default, a model's folder or run:FILE")
    name = label or f"{kind}{':' if kind else ''}{Path(path).name}"
    if kind == "run":
        return System(name, "run", path)
    if is_address(path):
        raise ConfigError(f"--system {spec!r}: {not_here(path)}")
    if kind:
        return System(name, "model", "" if path == "default" else path, backends[kind])
    return System(name, "model", path, _backend_for(Path(path)))


def _backend_for(folder: Path) -> str:
    return "onnx" if [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")] else "torch"


def load_system(
    system: System,
    *,
    tags: Sequence[str],
    max_length: int,
    bi_encoder: Scorer | None = None,
    work: Path | None = None,
) -> LoadedSystem:
    """Load a system.

    Args:
        system: any.
        tags: modes of the tag ablation, or "auto": every mode if the model or its fusion weights read tags, else none.
        max_length: longest input of a model in tokens.
        bi_encoder: for fusion weights that were fitted with it.
        work: folder of the score cache; None: scores are not cached.

    Raises:
        ConfigError: no such mode, or a setting that the model's backend does not have.
        ModelError, MissingEngine, JudgementError: it cannot be loaded.
    """
    for mode in tags:
        if mode not in ("auto", *MODES):
            raise ConfigError(f"no --tags {mode!r}; choose from auto, {', '.join(MODES)}")
    if system.kind == "bm25":
        return LoadedSystem(system)
    if system.kind == "run":
        return LoadedSystem(system, run=read_run(system.path))
    try:
        scorer = load_scorer(system.path or None, backend=system.backend, max_length=max_length)
    except ModelError as error:
        raise ModelError(f"{system.name}: {error}") from error
    except MissingEngine as error:
        raise MissingEngine(f"{system.name}: {_no_folder(system.path)}{error}") from error
    except ValueError as error:  # a value that the backend refuses
        raise ConfigError(f"{system.name}: {error}") from error
    weights = _fusion_weights(system)
    auto = MODES if reads_tags(scorer, Tagging()) or (weights and weights.reads_tags) else ("none",)
    modes = [m for mode in tags for m in (auto if mode == "auto" else (mode,))]
    return LoadedSystem(
        system,
        scorer=_cached(scorer, work),
        fusion=weights,
        bi_encoder=check_bi_encoder(weights, bi_encoder, model=system.name) if weights else None,
        tag_modes=tuple(dict.fromkeys(modes)),
    )


def load_cross_encoder(
    model: str, *, backend: str = "", max_length: int, work: Path | None = None
) -> LoadedSystem:
    """Load a cross-encoder without its fusion weights, to fit on its logits.

    Args:
        model: its folder, its name on the Hub, or "default".
        backend: "" is the one for the folder.
        max_length, work: as in `load_system`.

    Raises:
        ConfigError: it gives no logits.
        ModelError, MissingEngine: it cannot be loaded.
    """
    (system,) = parse([f"{backend}:{model}" if backend else model])
    loaded = LoadedSystem(system._replace(alone=True))
    if not loaded.gives_logits:
        raise ConfigError(f"{system.name} gives no logits to fit on; name a cross-encoder")
    return load_system(loaded.system, tags=["auto"], max_length=max_length, work=work)


def load_bi_encoder(path: str, *, max_length: int, work: Path | None = None) -> Scorer | None:
    """The bi-encoder of fusion weights; None if none is named.

    Args:
        path: its folder or its name on the Hub, or "".
        max_length: longest text in tokens.
        work: folder of the score cache; None: cosines are not cached.

    Raises:
        ModelError, MissingEngine: it cannot be loaded.
    """
    if not path:
        return None
    try:
        return _cached(load_scorer(path, backend="bi_encoder", max_length=max_length), work)
    except MissingEngine as error:
        raise MissingEngine(f"{path}: {_no_folder(path)}{error}") from error


def _cached(scorer: Scorer, work: Path | None) -> Scorer:
    return CachedScorer(scorer, work) if work else scorer


def _no_folder(path: str) -> str:
    """Begins the message of a missing engine, which a mistyped folder would seem to need."""
    return "" if not path or Path(path).is_dir() else "no such folder, so it is taken for a name on the Hub; "


def _fusion_weights(system: System) -> Fusion | None:
    if system.alone or gives_cosines(system.backend):
        return None
    try:
        return read_fusion(system.path)[0]
    except ModelError as error:
        raise ModelError(f"{system.name}: {error}") from None
