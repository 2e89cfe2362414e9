"""What all backends on PyTorch share: device, model files, tokenizer, and running out of memory.

A model is a local folder or a name on the Hugging Face Hub, which is first resolved to its folder in the Hub's cache
(downloaded once; with HF_HUB_OFFLINE=1 never), so that everything after that reads files. Weights are read from
safetensors only, and the code is transformers' own: no pickle is opened, and code of a model runs only if it is
trusted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rerank_core.errors import MissingEngine, ModelError, OutOfMemory
from rerank_core.inference.model_folder import (
    ADAPTER,
    OWN_SETTINGS,
    TORCH_FILES,
    WEIGHTS,
    file_digests,
    local_folder,
    read_json,
)
from rerank_core.inference.onnx_file import INPUTS
from rerank_core.text import shorten

try:
    import torch
    import transformers
    from transformers import AutoTokenizer
except ImportError as error:
    raise MissingEngine(
        f"models on PyTorch need torch and transformers ({error}): pip install 'nightrank[torch]'"
    ) from error

T = TypeVar("T")

transformers.logging.disable_progress_bar()  # of loading a model, in the middle of a night's own

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
DEVICES = ("cpu", "cuda")
MAX_TOKENS = {"cpu": 2048, "cuda": 65_536}
CHUNK = {"cpu": 512, "cuda": 16_384}

_NO_MEMORY = re.compile(r"DefaultCPUAllocator|CUBLAS_STATUS_ALLOC_FAILED|CUDA error: out of memory")
# Settings that backends read from a snapshot.
_DESCRIBING = (
    OWN_SETTINGS,
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "chat_template.jinja",
    "*_Pooling/config.json",
    "*_LogitScore/config.json",
)


class Loaded(NamedTuple):
    """A loaded model, on the CPU."""

    folder: Path
    config: dict[str, Any]  # config.json
    tokenizer: Any  # of transformers, a fast one
    model: Any
    digests: list[str]  # of every file that can change a logit
    reads_tags: bool


def open_model(
    auto: Any,
    model: str | Path,
    *,
    precision: str,
    trust_remote_code: bool = False,
    optional: tuple[str, ...] = (),
) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        auto: transformers' Auto class of the task.
        model: a folder, or a name on the Hugging Face Hub.
        precision: a key of PRECISIONS, for the weights.
        trust_remote_code: run code that comes with the model.
        optional: prefixes of names of weights that may be missing.

    Raises:
        ModelError: it cannot be downloaded or loaded, needs its own code, or has no weights for the task's head.
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown scoring.precision {precision!r}; known: {', '.join(PRECISIONS)}")
    folder = model_folder(model, trust_remote_code=trust_remote_code)
    _check_adapter(folder)
    base = base_folder(folder, trust_remote_code=trust_remote_code)
    tokenizer = _load_tokenizer(folder, trust_remote_code)
    loaded = _load_model(auto, folder, precision, trust_remote_code, optional)
    patterns = (*TORCH_FILES, *(["*.py"] if trust_remote_code else []))
    return Loaded(
        folder,
        read_json((base or folder) / "config.json"),
        tokenizer,
        loaded,
        [*file_digests(folder, patterns), *(file_digests(base, patterns) if base else [])],
        read_json(folder / OWN_SETTINGS).get("reads_tags") is True,
    )


def choose_device(device: str, *, allow_fallback: bool) -> str:
    """The device to run on: the requested one, or the CPU if that is allowed.

    Raises:
        ValueError: an unknown device.
        ModelError: no GPU, and `allow_fallback` is false.
    """
    if device not in DEVICES:
        raise ValueError(f"unknown scoring.device {device!r}; known: {', '.join(DEVICES)}")
    if device == "cpu" or torch.cuda.is_available():
        return device
    if allow_fallback:
        return "cpu"
    why = (
        "torch finds no GPU (a missing driver, or one of another version?)"
        if torch.version.cuda
        else "this torch was built without CUDA: install it from https://pytorch.org"
    )
    raise ModelError(
        f"scoring.device is {device!r}, but {why}; give the machine a GPU that torch.cuda.is_available() sees, set "
        'scoring.device = "cpu", or set scoring.allow_fallback = true to run on the CPU then'
    )


def model_folder(model: str | Path, *, trust_remote_code: bool = False) -> Path:
    """The folder with a model's files; missing files of a name on the Hub are downloaded.

    Raises:
        ModelError: no such folder or name, or no safetensors there.
    """
    folder = local_folder(model, _patterns(trust_remote_code))
    if not any(folder.glob(WEIGHTS)):
        raise ModelError(
            f"no {WEIGHTS} in {folder}; weights in other formats are pickles, which can run any code, and are not "
            "opened. Load the model once where you trust it, and save it with model.save_pretrained(folder)"
        )
    return folder


def _patterns(trust_remote_code: bool) -> list[str]:
    """The files of a model to download."""
    return [*TORCH_FILES, *_DESCRIBING, *(["*.py"] if trust_remote_code else [])]


def base_folder(folder: Path, *, trust_remote_code: bool = False) -> Path | None:
    """The folder of the weights that an adapter belongs to, in the Hub's cache if it names a model there.

    None for a folder without an adapter, or with the weights in it.

    Raises:
        ModelError: no such folder or name, or no safetensors there.
    """
    if not (folder / ADAPTER).is_file() or (folder / "config.json").is_file():
        return None
    base = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"base_model_name_or_path in {folder / ADAPTER} is {base!r}; name the base model")
    found = local_folder(base, _patterns(trust_remote_code))
    if not (found / "config.json").is_file():
        raise ModelError(
            f"no model at {base}, which {folder / ADAPTER} names as its base; correct base_model_name_or_path, or "
            "merge the adapter into its base once with peft: model.merge_and_unload().save_pretrained(folder)"
        )
    return model_folder(found)


def _check_adapter(folder: Path) -> None:
    """Refuse an adapter without peft: transformers would run its base alone."""
    if (folder / ADAPTER).is_file() and importlib.util.find_spec("peft") is None:
        raise MissingEngine(f"{folder} has an adapter, which needs peft: pip install 'nightrank[train]'")


def _remedy(folder: Path, *, trusted: bool) -> str:
    """What to do with a folder that transformers cannot load."""
    if not trusted and "auto_map" in read_json(folder / "config.json"):
        return (
            "it needs its own code, which is not run: use a model whose architecture is in transformers, or read the "
            "code and set scoring.trust_remote_code = true"
        )
    return "copy the folder again, or use a model whose architecture is in transformers"


def _load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """A fast tokenizer of transformers."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ImportError and others
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {_remedy(folder, trusted=trust_remote_code)} "
            f"({shorten(str(error))})"
        ) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(
            f"the tokenizer in {folder} is a slow one; use a model with a tokenizer.json, or convert it with "
            "transformers.convert_slow_tokenizer"
        )
    return tokenizer


def _load_model(
    auto: Any, folder: Path, precision: str, trust_remote_code: bool, optional: tuple[str, ...]
) -> Any:
    """The model for inference; transformers chooses the attention, SDPA if the architecture supports it."""
    try:
        with without_load_report():
            model, info = auto.from_pretrained(
                str(folder),
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                dtype=PRECISIONS[precision],
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, ImportError and others
        raise ModelError(
            f"the model in {folder} cannot be loaded: {_remedy(folder, trusted=trust_remote_code)} "
            f"({shorten(str(error), limit=400)})"
        ) from error
    missing = ", ".join(sorted(name for name in info["missing_keys"] if not name.startswith(optional)))
    if missing:  # transformers fills them with random numbers
        raise ModelError(
            f"the weights in {folder} lack {shorten(missing)}, so that it is not a model for {auto.__name__}; use "
            "one that was trained for this task"
        )
    return model.eval()


@contextlib.contextmanager
def without_load_report() -> Iterator[None]:
    """Keep transformers from printing a table of weights that a folder lacks: what matters of them is an error here."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def vocabulary_size(model: Any) -> int:
    """Ids that a model has: rows of its table of embeddings, or as its configuration says where it has none.

    CANINE hashes ids and takes all of them.
    """
    try:
        table = getattr(model.get_input_embeddings(), "weight", None)
    except NotImplementedError:  # what transformers raises for a model without such a table (CANINE)
        table = None
    if table is not None:
        return int(table.shape[0])
    return getattr(model.config.get_text_config(), "vocab_size", None) or np.iinfo(np.int32).max


def input_types(model: Any, tokenizer: Any) -> dict[str, type]:
    """NumPy type of each of the model's inputs, as its tokenizer names them."""
    taken = inspect.signature(model.forward).parameters
    typed = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in taken
    return dict.fromkeys(INPUTS if typed else INPUTS[:2], np.int64)


def fill_id(model: Any, tokenizer: Any, *, spare: Sequence[int], folder: Path) -> int:
    """Id that fills a batch's rows; the model finds a row's last token by the same one.

    Args:
        model: whose config gets a padding token if it has none: without one, a row's last token is its last.
        tokenizer: its padding token is taken if it is spare.
        spare: ids that no row contains; those that the model lacks are passed over.
        folder: of the model, for the message.

    Raises:
        ModelError: config.json has no padding token, and no id is spare.
    """
    config = model.config.get_text_config()
    own, known = config.pad_token_id, vocabulary_size(model)
    if isinstance(own, int) and 0 <= own < known:
        return own
    spare = [number for number in spare if number < known]
    pad_id: int | None = tokenizer.pad_token_id
    if pad_id not in spare:
        pad_id = next(iter(spare), None)
    if pad_id is None:
        raise ModelError(f"{folder} names no padding token; add pad_token_id to its config.json")
    config.pad_token_id = pad_id
    return pad_id


def to_device(array: np.ndarray, device: str) -> Any:
    """The array as a tensor on the device; copied to a GPU from pinned memory, without waiting."""
    tensor = torch.from_numpy(array)
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def within_memory(call: Callable[[], T]) -> T:
    """The result of the call, with gradients off.

    Raises:
        OutOfMemory: the device is out of memory; torch's cache of it is freed.
    """
    try:
        with torch.inference_mode():
            return call()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        message = shorten(str(error))
    # After the handler, since the error's traceback refers to the batch's tensors.
    torch.cuda.empty_cache()
    raise OutOfMemory(message)
