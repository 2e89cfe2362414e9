"""Exports a torch model to ONNX and quantises it to dynamic int8."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_onnx(
    model: torch.nn.Module, path: Path, *, sample: dict[str, torch.Tensor], output: str = "logits"
) -> None:
    """Write the model as fp32 ONNX: inputs int64 [batch, sequence], output float32.

    Args:
        model: takes the inputs by position, in the sample's order.
        path: of the ONNX file.
        sample: example inputs by name.
        output: name of what it returns: "logits" [batch, 1], or states [batch, sequence, size] by another name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "batch", 1: "sequence"} for name in sample}
    axes[output] = {0: "batch"} if output == "logits" else {0: "batch", 1: "sequence"}
    model.eval()
    torch.onnx.export(
        model,
        tuple(sample.values()),
        str(path),
        input_names=list(sample),
        output_names=[output],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    model.train()


def quantise_dynamic(fp32: Path, int8: Path, *, reduce_range: bool = True) -> None:
    """Quantise the weights of matrix products and embeddings to int8, one scale per column; activations at run time.

    `reduce_range` limits weights to 7 bits. Processors without VNNI add pairs of 8-bit products in 16 bits and
    saturate: with 8-bit weights the same file would rank worse on them.
    """
    int8.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        ort.InferenceSession(str(fp32), options, providers=["CPUExecutionProvider"])
        with _without_advice():
            quantize_dynamic(
                optimised,
                int8,
                op_types_to_quantize=["MatMul", "Gather"],
                per_channel=True,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
    onnx.checker.check_model(str(int8))


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Drop ONNX Runtime's warning that a model should be pre-processed: the optimised one has been."""

    def wanted(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
