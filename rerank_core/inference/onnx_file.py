"""Facts about an ONNX file, read without an inference engine."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

from rerank_core.errors import ModelError

LOGITS = ("logits",)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DYNAMIC_QUANTISATION = re.compile(rb"DynamicQuantize")
# A tensor's data_type and its name's length: TensorProto's fields 2 and 8 as protobuf writes them.
_HALF = {"fp16": re.compile(rb"\x10\x0aB(.)", re.DOTALL), "bf16": re.compile(rb"\x10\x10B(.)", re.DOTALL)}
_NAME = re.compile(rb"[\x21-\x7e]{6,}")  # shorter ones occur by chance in the weights
_QUANTISATION = re.compile(rb"QuantizeLinear")
# TensorProto.external_data's entry {key: "location", value: NAME} as protobuf writes it, lengths first.
_EXTERNAL = re.compile(rb"\x0a\x08location\x12(.)", re.DOTALL)


def choose_output(names: Sequence[str], known: Sequence[str], path: Path) -> str:
    """The output to read: the first of `known` that the file has, or its only one.

    Raises:
        ModelError: several outputs, none of them known.
    """
    for name in known:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise ModelError(
        f"{path} has the outputs {', '.join(names) or '(none)'}, none of which is called {' or '.join(known)}; export "
        "it with an output of that name"
    )


def external_files(path: Path) -> list[Path]:
    """Files beside the ONNX file with its weights, as its protobuf names them."""
    with _mapped(path) as view:
        raw = {view[match.end() : match.end() + match[1][0]] for match in _EXTERNAL.finditer(view)}
    names = {name.decode("utf-8", "replace").replace("\0", "") for name in raw}
    # Bytes in the weights can look like an entry by chance; they name no file.
    return [path.parent / name for name in sorted(names) if name and (path.parent / name).is_file()]


def model_holds(path: Path, pattern: re.Pattern[bytes]) -> bool:
    """Whether the file contains bytes that match the pattern."""
    with _mapped(path) as view:
        return pattern.search(view) is not None


def precision_of(path: Path) -> str:
    """The lowest precision that the file computes in: "int8", "bf16", "fp16" or "fp32"."""
    if model_holds(path, _QUANTISATION):
        return "int8"
    with _mapped(path) as view:
        for precision in ("bf16", "fp16"):
            names = [view[m.end() : m.end() + m[1][0]] for m in _HALF[precision].finditer(view)]
            if any(_NAME.fullmatch(name) for name in names):
                return precision
    return "fp32"


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return mmap.mmap(-1, 1)  # an empty file cannot be mapped: one zero byte instead
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
