"""Every TOML as frozen dataclasses: a night's `Config` and a training's `TrainingConfig`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rerank_core.config.night import Config, load_config
    from rerank_core.config.training import TrainingConfig, load_training_config

__all__ = ["Config", "TrainingConfig", "load_config", "load_training_config"]

_MODULES = {
    "Config": "night",
    "load_config": "night",
    "TrainingConfig": "training",
    "load_training_config": "training",
}


def __getattr__(name: str) -> Any:
    # On first use (PEP 562): pydantic builds a module's classes on import, and a night needs none of a training's.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
