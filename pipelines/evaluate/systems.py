"""The systems that `nightrank evaluate` puts side by side: BM25, rerankers, bi-encoders, TREC run files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rerank_core.config.backends import BACKENDS, gives_cosines
from rerank_core.config.night import Tagging
from rerank_core.errors import ConfigError, FusionError, MissingEngine, ModelError
from rerank_core.evaluation.qrels import read_run
from rerank_core.evaluation.tag_ablation import MODES
from rerank_core.inference.model_folder import local_folder
from rerank_core.ranking import fusion
from rerank_core.ranking.fusion import Fusion, check_bi_encoder
from rerank_core.scoring.load import DEFAULT_MODEL, load_scorer
from rerank_core.scoring.protocol import Scorer, reads_tags
from rerank_core.scoring.score_cache import KeptScorer

ALONE = "alone"
"""Before a model's name: its own order, without the fusion weights that lie beside it."""

Kind = Literal["bm25", "model", "run"]
_LABELLED = re.compile(r"([^=/:\\]+)=(.+)", re.DOTALL)


class System(NamedTuple):
    """What is measured under a name."""

    name: str
    kind: Kind
    path: str = ""  # a model's folder or its name on a hub, "" the model that ships; a run's file
    backend: str = ""  # of a model
    alone: bool = False  # its own order, whatever fusion weights lie beside it


class Opened(NamedTuple):
    """A system that can be measured."""

    system: System
    scorer: Scorer | None = None
    fusion: Fusion | None = None  # weights that make its final order
    cheap: Scorer | None = None  # the bi-encoder that they take part of it from
    orders: dict[str, dict[str, float]] | None = None  # scores by query_id and item, best first
    modes: tuple[str, ...] = (
        "none",
    )  # of tags, the one that is measured first; see rerank_core.evaluation.tag_ablation

    @property
    def gives_logits(self) -> bool:
        """Whether a score of 0 means an even chance: a cosine, BM25's score and whatever a run holds do not."""
        return self.system.kind == "model" and not gives_cosines(self.system.backend)

    @property
    def reads_tags(self) -> bool:
        """Whether the model itself does; its fusion may where it does not."""
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
            raise ConfigError(f"--system {spec!r}: only a model can be taken alone, without its fusion")
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
        raise ConfigError(
            f"--system {spec!r} names nothing; give bm25, default, a model's folder or run:FILE"
        )
    name = label or f"{kind}{':' if kind else ''}{Path(path).name}"
    if kind == "run":
        return System(name, "run", path)
    if kind:
        return System(name, "model", "" if path == "default" else path, backends[kind])
    return System(name, "model", path, _engine_for(Path(path)))


def _engine_for(folder: Path) -> str:
    return "onnx" if [*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")] else "torch"


def open_system(
    system: System,
    *,
    tags: Sequence[str],
    max_length: int,
    bi_encoder: Scorer | None = None,
    work: Path | None = None,
) -> Opened:
    """Load a system.

    Args:
        system: any.
        tags: "auto" (as the model or its fusion says; where one reads tags, every mode), or modes of the shortcut.
        max_length: longest input of a model in tokens.
        bi_encoder: for fusion weights that were fitted with it.
        work: folder that keeps the scores of models for the next time; None: they are not kept.

    Raises:
        ConfigError: no such mode, or a setting that the model's backend does not have.
        ModelError, MissingEngine, JudgementError: it cannot be loaded.
    """
    for mode in tags:
        if mode not in ("auto", *MODES):
            raise ConfigError(f"no --tags {mode!r}; choose of auto, {', '.join(MODES)}")
    if system.kind == "bm25":
        return Opened(system)
    if system.kind == "run":
        return Opened(system, orders=read_run(system.path))
    try:
        scorer = load_scorer(system.path or None, backend=system.backend, max_length=max_length)
    except ModelError as error:
        raise ModelError(f"{system.name}: {error}") from error
    except MissingEngine as error:
        raise MissingEngine(f"{system.name}: {_where(system.path)}{error}") from error
    except ValueError as error:  # a setting that makes no sense to the backend
        raise ConfigError(f"{system.name}: {error}") from error
    if work:
        scorer = KeptScorer(scorer, work)
    weights = _weights(system)
    served = MODES if reads_tags(scorer, Tagging()) or (weights and weights.reads_tags) else ("none",)
    chosen = [one for mode in tags for one in (served if mode == "auto" else (mode,))]
    cheap = check_bi_encoder(weights, bi_encoder, model=system.name) if weights else None
    return Opened(system, scorer=scorer, fusion=weights, cheap=cheap, modes=tuple(dict.fromkeys(chosen)))


def open_bi_encoder(path: str, *, max_length: int, work: Path | None = None) -> Scorer | None:
    """The bi-encoder of fusion weights; None where none is named.

    Args:
        path: its folder or its name on a hub, or "".
        max_length: longest text in tokens.
        work: folder that keeps its cosines for the next time; None: they are not kept.
    """
    if not path:
        return None
    try:
        scorer = load_scorer(path, backend="bi_encoder", max_length=max_length)
    except MissingEngine as error:
        raise MissingEngine(f"{path}: {_where(path)}{error}") from error
    return KeptScorer(scorer, work) if work else scorer


def _where(path: str) -> str:
    """What is said first of a name that is no folder: a slip of the pen asks for engines that nobody meant."""
    return (
        ""
        if not path or Path(path).is_dir()
        else "there is no such folder, so it would be a model of the Hub; "
    )


def _weights(system: System) -> Fusion | None:
    if system.alone or gives_cosines(system.backend):
        return None
    path = local_folder(system.path or DEFAULT_MODEL, [fusion.FILE]) / fusion.FILE
    try:
        return fusion.read(path) if path.is_file() else None
    except FusionError as error:
        raise ModelError(f"{system.name}: {error}") from None
