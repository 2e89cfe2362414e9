"""Static int8 for OpenVINO: a copy of a cross-encoder whose activations' scales are fixed by sample pairs.

NNCF calibrates with SmoothQuant and a bias correction, in its mode for transformers. A few hundred pairs like those of
the night are enough; each is read alone, so that padding is no part of the statistics. Half a minute for MiniLM-L6.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rerank_core.errors import MissingEngine, ModelError
from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import read_folder
from rerank_core.inference.model_folder import OPENVINO_INT8, find_onnx
from rerank_core.inference.onnx_file import precision_of
from rerank_core.scoring.backends.openvino import input_types, read_model

try:
    import nncf
    import openvino

    from rerank_core.scoring.backends.openvino_cls import keep_first_token
except ImportError as error:
    raise MissingEngine(
        f"static quantisation needs openvino and nncf ({error}): pip install 'nightrank[openvino]'"
    ) from error

CALIBRATION_PAIRS = 300


def quantise(
    folder: Path,
    pairs: Sequence[tuple[str, str]],
    *,
    onnx_file: str = "",
    max_length: int = 256,
    to: Path | None = None,
) -> Path:
    """Write the folder's model in int8, and return the file.

    Args:
        folder: the model's folder, with an ONNX file in full precision.
        pairs: as the model will see them; CALIBRATION_PAIRS of them are read, evenly spread.
        onnx_file: as for OpenVinoScorer.
        max_length: longest input in tokens.
        to: file to write, *.xml with a *.bin beside it; None is where OpenVinoScorer looks.

    Raises:
        ModelError: the folder has no ONNX file that can be quantised.
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("no pairs to calibrate with; give some like those of a night")
    path = find_onnx(folder, onnx_file)
    if precision_of(path) == "int8":
        raise ModelError(f"{path} is already quantised; static quantisation needs an ONNX file in fp32")
    read = read_folder(folder, max_length=max_length)
    model = read_model(path)
    types = input_types(model, path)
    keep_first_token(model)  # first, so that the scales are those of the graph that runs
    chosen = np.linspace(0, len(pairs) - 1, min(CALIBRATION_PAIRS, len(pairs))).astype(int)
    rows = read.encoder.encode([pairs[i] for i in chosen])
    sample = nncf.Dataset([padded([row], pad_id=read.pad_id, dtypes=types, typed=read.typed) for row in rows])
    target = to or folder / OPENVINO_INT8
    target.parent.mkdir(parents=True, exist_ok=True)
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        small = nncf.quantize(model, sample, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    openvino.save_model(small, str(target), compress_to_fp16=False)
    return target
