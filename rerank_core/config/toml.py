"""From a TOML file to frozen dataclasses, with messages that say what to change.

An unknown key is an error that names the nearest known one; a wrong type or value is an error that names the field, the
value and what was expected. Relative paths start from the file's own folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from rerank_core.errors import ConfigError
from rerank_core.files import is_address, not_here, read_text
from rerank_core.inference.model_folder import DEFAULT_MODEL
from schemas.parsing import parse_toml

T = TypeVar("T")
STRICT = ConfigDict(extra="forbid", strict=True)
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def read_toml(path: Path, *, example: str) -> dict[str, Any]:
    """A parsed TOML file; `example` is the file that the message for a missing one names.

    Raises:
        ConfigError: no such file, not UTF-8, or not TOML.
    """
    try:
        return parse_toml(read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"no configuration at {path}; start from {example}") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def validate(kind: type[T], raw: dict[str, Any], *, name: str) -> T:
    """Turn parsed TOML into the dataclass `kind`, whose configuration is STRICT.

    Raises:
        ConfigError: naming every unknown key with the nearest known one, and every field of a wrong type or value.
    """
    try:
        # JSON mode, since in Python mode a strict dataclass accepts instances only, no dictionaries.
        return TypeAdapter(kind).validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problems = "; ".join(_explain(kind, dict(e)) for e in error.errors())
        raise ConfigError(f"{name}: {problems}") from None


def absolute(value: Any, base: Path) -> Any:
    """A path resolved against `base`; a URL such as "gs://...", "", or a value that is no string stays as it is."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    return str((base / Path(value).expanduser()).resolve())


def refuse_addresses(values: Mapping[str, Any], *, name: str, written: Container[str] = ()) -> None:
    """Refuse addresses of object stores where only this machine's files can be read or written.

    Args:
        values: path, or several, by key.
        name: of the file in which they are.
        written: keys of what is written; all others are read.

    Raises:
        ConfigError: naming the key, the address and the remedy.
    """
    for key, value in values.items():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and is_address(path):
                raise ConfigError(f"{name}: {key}: {not_here(path, written=key in written)}")


def model_path(value: str, base: Path) -> str:
    """A model's folder resolved against `base`; if there is no such folder, the value unchanged: a model hub's name.

    "default" is the model that ships; a folder of that name is "./default".
    """
    if value == "default":
        return str(DEFAULT_MODEL)
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
        # A number is an index into a list of tables; the name before it gave their type.
        if isinstance(part, str):
            kind = _table(get_type_hints(kind)[part])
    return [field.name for field in dataclasses.fields(kind)]


def _table(hint: Any) -> Any:
    """The dataclass in a field's type: the type itself, or the items of a tuple."""
    if dataclasses.is_dataclass(hint):
        return hint
    return next((table for inner in get_args(hint) if (table := _table(inner))), None)
