"""Google's clients, which the extra `dev` installs: tests that need them are skipped only where it is not installed."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def client(name: str) -> Any:
    """A module of Google's clients; skips the test, or all tests of a file, where there is none."""
    if os.environ.get("NIGHTRANK_REQUIRE_SERVERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason="pip install '.[dev]'")
