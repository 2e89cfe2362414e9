"""The manifest of a run. It is written last: a run without a manifest was never published."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import types
import zlib
from typing import Any, get_args, get_origin, get_type_hints

from schemas.errors import ManifestError
from schemas.parsing import parse_json

FORMAT = 2


@dataclasses.dataclass(frozen=True)
class FileInfo:
    """One published file, as it was written."""

    bytes: int
    sha256: str  # in hexadecimal
    # CRC-32 of the Parquet footer and its length, which the format itself does not protect; None: an earlier version's
    footer_crc32: int | None = dataclasses.field(default=None, compare=False)


def file_info(data: bytes) -> FileInfo:
    """What the manifest says of a Parquet file of these bytes."""
    return FileInfo(len(data), hashlib.sha256(data).hexdigest(), zlib.crc32(footer(data)))


def footer(data: bytes) -> bytes:
    """The footer of a Parquet file with its length and mark, from the file's last bytes; all, if they are too few."""
    return data[-8 - int.from_bytes(data[-8:-4], "little") :]


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """One published table."""

    path: str  # folder of its Parquet files, relative to the output folder
    schema_version: int
    rows: int
    files: dict[str, FileInfo]  # by name

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files.values())


@dataclasses.dataclass(frozen=True)
class Balance:
    """What became of every record. Nothing is published unless `read` is the sum of the others."""

    # read = kept + outside_window + rejected + below_min_count + below_min_users + capped (too many of one user)
    events: dict[str, int]
    # read = published + stale + rejected
    queries: dict[str, int]
    # read = published + reused + pruned + rejected + below_top_n + not_reached (by the deadline)
    pairs: dict[str, int]

    @property
    def lists(self) -> int:
        """Queries that have a list: tonight's, or an earlier one that was kept."""
        return self.queries.get("published", 0) + self.queries.get("stale", 0)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One run. `stages` holds records in, out and rejected and the seconds spent, summed over workers."""

    run_id: str
    run_date: str
    created_at: str  # UTC, the moment of publishing
    nightrank_version: str
    config: dict[str, dict[str, Any]]  # by section
    source: dict[str, Any]
    window: tuple[str, str] | None  # [start, end), UTC; None for a log without times
    previous_run_id: str | None
    model_fingerprint: str
    tagger_fingerprint: str | None
    stages: dict[str, dict[str, float]]
    balance: Balance
    mining: dict[str, dict[str, int]]  # kept and rejected, by rule
    degraded: dict[str, int | str]  # what was done less well than configured: a count, or an explanation
    rejected: dict[str, int]  # dead letters by stage and reason
    metrics: dict[str, dict[str, float]]  # before and after reranking, on the judgements; empty without
    tables: dict[str, TableInfo]
    seconds: float  # wall time of the run
    facts_fingerprint: str | None = None  # of the tagger's reading of passages, for reuse; None without tags
    cascade: dict[str, Any] | None = (
        None  # the rule, its sample and its loss of nDCG@10; None without a cascade
    )
    # By rank of the logged result lists: propensity ("examined") and impressions; None without labels.debias
    places: list[dict[str, float]] | None = None
    calibration: dict[str, Any] | None = None  # as it was fitted; None: scores are sigmoids of the logits
    fusion: dict[str, Any] | None = None  # weights as they were fitted; None: ranked by the logit alone
    # Measures against earlier nights, and the verdict with its reasons; None: not compared.
    drift: dict[str, Any] | None = None
    stale: dict[str, int] | None = None  # queries that kept an earlier night's list, by that night's date
    model: dict[str, Any] | None = None  # the model's entry in the registry; None: not from a registry
    inputs: str = ""  # fingerprint of what decided the rows, earlier nights apart; "" if the source has none
    format: int = FORMAT

    @property
    def gains(self) -> dict[str, float]:
        """By level, nDCG@10 after reranking minus BM25's, -1 to 1, where both were measured."""
        before, after = "before nDCG@10", "after nDCG@10"
        return {
            level: values[after] - values[before]
            for level, values in self.metrics.items()
            if {before, after} <= values.keys()
        }


def to_json(manifest: Manifest) -> str:
    """The manifest as readable JSON."""
    return json.dumps(dataclasses.asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def from_json(text: str, *, name: str = "manifest") -> Manifest:
    """Read a manifest back.

    Raises:
        ManifestError: not JSON, another format, fields missing or unknown, or a value of another type.
    """
    try:
        raw = parse_json(text)
    except ValueError as error:
        raise _damaged(name, str(error)) from None
    if isinstance(raw, dict) and "format" in raw and raw["format"] != FORMAT:
        raise ManifestError(f"{name} has format {raw['format']!r:.40}; this version reads format {FORMAT}")
    try:
        if isinstance(raw, dict) and "format" not in raw:
            raise _WrongType("it has no format")
        manifest: Manifest = _read(raw, Manifest, "it")
    except _WrongType as error:
        raise _damaged(name, str(error)) from None
    return manifest


def _damaged(name: str, problem: str) -> ManifestError:
    return ManifestError(f"{name} is damaged ({problem}); do not use its run, and publish it again")


class _WrongType(Exception):
    """A value is not of the type that its field has."""


def _read(value: Any, hint: Any, where: str) -> Any:
    """A value of JSON as the type of its field."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _read_object(value, hint, where)
    kind, parts = get_origin(hint), get_args(hint)
    if kind is types.UnionType:
        return _read_either(value, parts, where)
    if kind is dict and isinstance(value, dict):
        return {key: _read(held, parts[1], f"{where}.{key}"[:80]) for key, held in value.items()}
    if kind is list and isinstance(value, list):
        return [_read(held, parts[0], f"{where}[{at}]") for at, held in enumerate(value)]
    if kind is tuple and isinstance(value, list) and len(value) == len(parts):
        return tuple(
            _read(held, part, f"{where}[{at}]")
            for at, (held, part) in enumerate(zip(value, parts, strict=True))
        )
    if kind is None and (type(value) is hint or (hint is float and type(value) is int)):
        return value
    name = hint.__name__ if kind is None else str(hint)
    raise _WrongType(f"{where} is {type(value).__name__}, not {name}")


def _read_object(value: Any, hint: Any, where: str) -> Any:
    """An object as a dataclass: each of its fields, and no other."""
    if not isinstance(value, dict):
        raise _WrongType(f"{where} is {type(value).__name__}, not an object")
    hints = get_type_hints(hint)
    needed = {field.name for field in dataclasses.fields(hint) if field.default is dataclasses.MISSING}
    if problem := sorted(needed - set(value)) or sorted(set(value) - set(hints)):
        raise _WrongType(f"{where} lacks, or has too much, {problem[0][:40]!r}")
    return hint(**{name: _read(held, hints[name], f"{where}.{name}") for name, held in value.items()})


def _read_either(value: Any, hints: tuple[Any, ...], where: str) -> Any:
    """A value that may have several types, as the first that it has."""
    for hint in hints:
        with contextlib.suppress(_WrongType):
            return _read(value, types.NoneType if hint is None else hint, where)
    raise _WrongType(f"{where} is {type(value).__name__}, not {' or '.join(map(str, hints))}")
