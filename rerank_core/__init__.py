"""The work of Nightrank as pure functions and small classes, free of Beam and Elasticsearch.

The package `nightrank` has the public names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_core.rank_passages import RankedPassage, rank
    from rerank_core.scoring.load import load_scorer

__all__ = ["RankedPassage", "load_scorer", "rank"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import rerank_core.text` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "rerank_core.scoring.load" if name == "load_scorer" else "rerank_core.rank_passages"
    return getattr(importlib.import_module(module), name)
