"""Nightrank's public names. Each is imported when it is first used, so that `import nightrank` costs nothing.

import nightrank

for passage in nightrank.rank("who wrote Dune?", ["Dune is a novel by Frank Herbert.", "Dunes move."]):
    print(passage.score, passage.passage)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nightrank import read
    from pipelines import __version__
    from pipelines.evaluate.calibrate import calibrate
    from pipelines.evaluate.fuse import fuse
    from pipelines.evaluate.run import evaluate
    from pipelines.nightly.run import run as run_night
    from rerank_core.config.night import load_config
    from rerank_core.rank_passages import RankedPassage, rank
    from rerank_core.scoring.load import load_scorer
    from schemas.errors import NightrankError

__all__ = [
    "NightrankError",
    "RankedPassage",
    "__version__",
    "calibrate",
    "evaluate",
    "fuse",
    "load_config",
    "load_scorer",
    "rank",
    "read",
    "run_night",
]

_SOURCES = {
    "__version__": ("pipelines", "__version__"),
    "calibrate": ("pipelines.evaluate.calibrate", "calibrate"),
    "evaluate": ("pipelines.evaluate.run", "evaluate"),
    "fuse": ("pipelines.evaluate.fuse", "fuse"),
    "run_night": ("pipelines.nightly.run", "run"),
    "load_config": ("rerank_core.config.night", "load_config"),
    "RankedPassage": ("rerank_core.rank_passages", "RankedPassage"),
    "rank": ("rerank_core.rank_passages", "rank"),
    "load_scorer": ("rerank_core.scoring.load", "load_scorer"),
    "NightrankError": ("schemas.errors", "NightrankError"),
}


def __getattr__(name: str) -> Any:
    if name == "read":
        return importlib.import_module("nightrank.read")
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
