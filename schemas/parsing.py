"""JSON and TOML of files that anyone may have written: whatever is wrong with them is a ValueError."""

from __future__ import annotations

import json
import tomllib
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """A JSON document.

    Raises:
        ValueError: not JSON, not UTF-8, a number of more than 4,300 digits, or nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """A TOML document.

    Raises:
        ValueError: not TOML, a number of more than 4,300 digits, or nested deeper than Python reads.
    """
    try:
        document = tomllib.loads(text)
        json.dumps(document, default=str)  # 0xFFF... of 5,000 digits is read, but cannot be written
        return document
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
