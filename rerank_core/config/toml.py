"""From a TOML file to frozen dataclasses, with errors that a person can act on; for a night and for a training.

An unknown key fails and names the nearest known one; a wrong type or value fails and names the field, the value and
what was expected. Relative paths start from the file's own folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from rerank_core.errors import ConfigError

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True)
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def read_toml(path: Path, *, example: str) -> dict[str, Any]:
    """A TOML file as plain data; `example` is where a user without one should start.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; start from {example}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def validate(kind: type[T], raw: dict[str, Any], *, name: str) -> T:
    """Turn parsed TOML into a dataclass of STRICT fields, `kind`.

    Raises:
        ConfigError: naming every unknown key with the nearest known one, and every field of a wrong type or value.
    """
    try:
        # In JSON mode strict dataclasses take plain tables; in Python mode they take nothing but instances.
        return TypeAdapter(kind).validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problems = "; ".join(_explain(kind, dict(e)) for e in error.errors())
        raise ConfigError(f"{name}: {problems}") from None


def absolute(value: Any, base: Path) -> Any:
    """A path as seen from `base`; what is no path of this machine ("gs://...", "", no string) stays as it is."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    return str((base / Path(value).expanduser()).resolve())


def model_path(value: str, base: Path) -> str:
    """A model's folder as seen from `base`; where there is none, the name of a model of a hub, as it stands."""
    return str(absolute(value, base)) if value and (base / Path(value).expanduser()).is_dir() else value


def _explain(kind: type, error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        *section, key = error["loc"]
        nearest = difflib.get_close_matches(key, _known_keys(kind, section), n=1, cutoff=0)
        known = ".".join(str(part) for part in [*section, *nearest])
        return f"unknown key '{where}'; the nearest known one is '{known}'"
    return f"'{where}' = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"


def _known_keys(kind: type, section: Sequence[str | int]) -> list[str]:
    for part in section:
        # A number is a place in a list of tables, whose type was found with the list's own name.
        if isinstance(part, str):
            kind = _table(get_type_hints(kind)[part])
    return [field.name for field in dataclasses.fields(kind)]


def _table(hint: Any) -> Any:
    """The dataclass in a field's type: itself, or what a tuple of them holds."""
    if dataclasses.is_dataclass(hint):
        return hint
    return next((table for inner in get_args(hint) if (table := _table(inner))), None)
