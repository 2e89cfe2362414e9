"""What `nightrank autotune` measured, and the file that stores it by machine, model and max_length."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rerank_core.errors import ModelError
from rerank_core.inference.batching import Pair
from rerank_core.inference.model_folder import file_digest
from rerank_core.inference.onnx_file import external_files
from rerank_core.text import fingerprint
from schemas.parsing import parse_json

VERSION = 1


class Choice(NamedTuple):
    """A way to run a model: fields of `rerank_core.scoring.load.Options`, and the backend."""

    backend: str
    precision: str = ""
    onnx_file: str = ""
    device: str = "cpu"

    @property
    def label(self) -> str:
        return " ".join(part for part in self if part and part != "cpu")


def renewed(pairs: Sequence[Pair], turn: int) -> list[Pair]:
    """The pairs with a number before each text, to measure a speed: a scorer that keeps vectors of texts has none of
    these yet."""
    return [(f"{turn} {query}", f"{turn} {passage}") for query, passage in pairs]


class Measurement(NamedTuple):
    """The figures of a choice; 0 if it could not be run."""

    choice: Choice
    pairs_per_second: float
    agreement: float  # nDCG@10 by the reference's order, mean over the queries
    correlation: float  # Spearman's, mean over the queries
    dropped: str  # why it cannot be chosen, or ""


class Tuning(NamedTuple):
    """A machine's measurements of a model."""

    machine: str
    model: str  # model_key
    max_length: int
    reference: str  # label of the choice that the others' orders were compared with
    pairs: int
    measured: tuple[Measurement, ...]

    @property
    def best(self) -> Choice:
        """The fastest that was not dropped.

        Raises:
            ModelError: none is left.
        """
        usable = [m for m in self.measured if not m.dropped]
        if not usable:
            reasons = "; ".join(f"{m.choice.label}: {m.dropped}" for m in self.measured)
            raise ModelError(f"no engine on this machine can run the model ({reasons})")
        return max(usable, key=lambda m: m.pairs_per_second).choice


def model_key(folder: Path) -> str:
    """32 hex digits over the folder's weights and tokenizer, without what autotune writes to the folder."""
    patterns = ("*.onnx", "onnx/*.onnx", "*.safetensors", "tokenizer.json", "config.json")
    files = {path for pattern in patterns for path in folder.glob(pattern)}
    files |= {part for path in files if path.suffix == ".onnx" for part in external_files(path)}
    return fingerprint(*(part for path in sorted(files) for part in (path.name, file_digest(path))))[:32]


def default_path() -> Path:
    """The file of results, unless `scoring.tuning` names another."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "nightrank" / "tuning.json"


def read_tuning(path: Path, *, machine: str, model: str, max_length: int) -> Tuning | None:
    """The file's result for this machine, model and length, if it has one.

    Raises:
        ModelError: the file is damaged.
    """
    same = (machine, model, max_length)
    return next((t for t in _read(path) if (t.machine, t.model, t.max_length) == same), None)


def write_tuning(path: Path, tuning: Tuning) -> None:
    """Add a result to the file, in place of an older one for the same machine, model and length.

    Raises:
        ModelError: the file is damaged, or cannot be written.
    """
    same = (tuning.machine, tuning.model, tuning.max_length)
    others = [t for t in _read(path) if (t.machine, t.model, t.max_length) != same]
    contents = {"version": VERSION, "tunings": [as_json(t) for t in (*others, tuning)]}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ModelError(
            f"cannot write {path} ({error}); set scoring.tuning to a file that can be written"
        ) from None


def as_json(tuning: Tuning) -> dict[str, Any]:
    """A result as plain data."""
    measured = [{**m._asdict(), "choice": m.choice._asdict()} for m in tuning.measured]
    return {**tuning._asdict(), "measured": measured}


def _from_json(row: dict[str, Any]) -> Tuning:
    measured = tuple(Measurement(**{**m, "choice": Choice(**m["choice"])}) for m in row["measured"])
    return Tuning(**{**row, "measured": measured})


def _read(path: Path) -> list[Tuning]:
    try:
        contents = parse_json(path.read_text(encoding="utf-8"))
        return [_from_json(row) for row in contents["tunings"]] if contents["version"] == VERSION else []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not a file of nightrank autotune, or is damaged ({error}); remove it and measure again"
        ) from None
