"""Files and settings of a Hugging Face model folder, read without transformers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_core.errors import ModelError
from rerank_core.files import is_address, not_here
from rerank_core.text import shorten
from schemas.parsing import parse_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_MODEL = Path(__file__).parent.parent / "models" / "default"
"""The model that ships with Nightrank."""

OWN_SETTINGS = "nightrank.json"
"""A folder's file of what Nightrank alone reads: `reads_tags`, `onnx_file`, and of a bi-encoder `logit`."""

OPENVINO_INT8 = Path("openvino") / "openvino_model_qint8_quantized.xml"
"""A folder's statically quantised model, named as in sentence-transformers."""

_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
# Architectures whose positions start at the padding token's id + 1, so that a table of 514 takes 512 tokens.
OFFSET_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)


WEIGHTS = "*.safetensors"
ADAPTER = "adapter_config.json"
# Every file of a transformers folder that can change a tokenizer's or a model's output; not its README, training state
# or weights in other formats.
TORCH_FILES = (
    "config.json",
    ADAPTER,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "*.safetensors.index.json",
    WEIGHTS,
)
ONNX_FILES = ("*.json", "*.jinja", "*.txt", "*.onnx", "*.onnx_data", "*.xml", "openvino/*.bin")


def local_folder(model: str | Path, patterns: Sequence[str] = ONNX_FILES, *, revision: str = "") -> Path:
    """A model's folder: a given one, or that of a name on the Hugging Face Hub, in the Hub's cache.

    A name is downloaded once; with HF_HUB_OFFLINE=1 it must be in the cache already.

    Args:
        model: a folder, or owner/name.
        patterns: files to fetch: by default those that an engine without torch reads, no code and no pickles.
        revision: of a name on the Hub; "" is the newest.

    Raises:
        ModelError: neither a folder nor a model of the Hub, or it cannot be downloaded.
    """
    if is_address(model):
        raise ModelError(not_here(model))
    folder = Path(model).expanduser()
    if folder.is_dir() or not _HUB_NAME.fullmatch(str(model)):
        return folder
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(model), revision=revision or None, allow_patterns=list(patterns)))
    except Exception as error:  # no network, no such name, a gated model: as many classes
        raise ModelError(
            f"no folder {model}, and no such model could be downloaded from the Hugging Face Hub "
            f"({shorten(str(error))}); check the name, or download the model once and name its folder"
        ) from error


def file_digests(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Name and SHA-256 of every file of the folder that matches a pattern, ordered by path."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return [part for path in files for part in (path.name, file_digest(path))]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, computed once per process unless the file's size or time changes."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_onnx(folder: Path, onnx_file: str = "") -> Path:
    """The ONNX file of a model's folder: `onnx_file`, that of its nightrank.json, model.onnx, or the only one.

    Raises:
        ModelError: no folder, no such file, or several to choose from.
    """
    if not folder.is_dir():
        raise ModelError(
            f"no model folder at {folder}; name the folder of a model, or a model of a hub as owner/name"
        )
    files = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    names = ", ".join(str(path.relative_to(folder)) for path in files)
    onnx_file = onnx_file or str(read_json(folder / OWN_SETTINGS).get("onnx_file", ""))
    for name in (onnx_file,) if onnx_file else ("onnx/model.onnx", "model.onnx"):
        if (folder / name).is_file():
            return folder / name
    if not files:
        raise ModelError(
            f"no {onnx_file or 'ONNX file'} in {folder} or its onnx folder; export the model to "
            f"{folder / 'onnx' / 'model.onnx'}"
        )
    if onnx_file:
        raise ModelError(f"no {onnx_file} in {folder}; set scoring.onnx_file to one of: {names}")
    if len(files) > 1:
        raise ModelError(f"{folder} has several ONNX files; set scoring.onnx_file to one of: {names}")
    return files[0]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no file."""
    contents = _parsed(path, absent={})
    if not isinstance(contents, dict):
        raise ModelError(f"{path} is a {type(contents).__name__}, not an object; copy the folder again")
    return contents


def has_logit(folder: Path) -> bool:
    """Whether a folder holds a bi-encoder whose cosine is scaled to a logit (`bi_encoder_folder.read_logit`)."""
    return read_json(folder / OWN_SETTINGS).get("logit") is not None


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The modules of sentence-transformers that a folder lists; none if it has no modules.json."""
    path = folder / "modules.json"
    modules = _parsed(path, absent=[])
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path} is not a list of modules; copy the folder again")
    return modules


def _parsed(path: Path, *, absent: Any) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return absent
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}); copy the folder again") from None


def padding_id(tokenizer: Tokenizer, folder: Path, config: dict[str, Any], *, size: int = 0) -> int:
    """Id that fills a batch's rows: the padding token of config.json, else the tokenizer's.

    Most models read the attention mask alone, and any id would do. But a decoder finds a row's last token by the
    padding token of config.json, so only that one gives a row in a batch the logit that it has alone.

    Args:
        tokenizer: of the model.
        folder: of the model.
        config: of its config.json.
        size: number of ids that the model has; 0 is that of config.json, or the tokenizer's.

    Raises:
        ModelError: no file names a padding token that the model has.
    """
    own, given = config.get("pad_token_id"), config.get("vocab_size")
    size = size or (given if isinstance(given, int) else tokenizer.get_vocab_size())
    if isinstance(own, int) and 0 <= own < size:
        return own
    token = read_json(folder / "tokenizer_config.json").get("pad_token")
    if isinstance(token, dict):  # an AddedToken as older transformers wrote it
        token = token.get("content")
    for candidate in (token, "[PAD]", "<pad>"):
        pad_id = tokenizer.token_to_id(candidate) if isinstance(candidate, str) else None
        if pad_id is not None and pad_id < size:
            return int(pad_id)
    raise ModelError(f"{folder} names no padding token; add pad_token_id to its config.json")


def check_max_length(
    max_length: int, config: dict[str, Any], *, folder: Path, field: str = "scoring.max_length"
) -> None:
    """Refuse a max_length beyond the model's positions, if config.json gives their number.

    It is not lowered silently, since max_length changes the scores.

    Raises:
        ModelError: naming the highest max_length that works.
    """
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return
    first = 0
    if str(config.get("model_type")) in OFFSET_POSITIONS:
        pad_id = config.get("pad_token_id", 1)
        first = (pad_id if isinstance(pad_id, int) else 0) + 1
    limit = positions - first
    if max_length > limit:
        raise ModelError(
            f"{field} is {max_length}, but the model in {folder} takes at most {limit} tokens "
            f"(max_position_embeddings of its config.json); set {field} = {limit} or lower"
        )
