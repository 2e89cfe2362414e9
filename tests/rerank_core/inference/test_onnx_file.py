"""Facts about ONNX files, on files that onnx writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from rerank_core.errors import ModelError
from rerank_core.inference.onnx_file import (
    DYNAMIC_QUANTISATION,
    LOGITS,
    choose_output,
    external_files,
    model_holds,
    precision_of,
)

onnx = pytest.importorskip("onnx")

from tests.support.tiny_onnx import write_model


def test_weights_beside_the_file_are_found(tmp_path: Path) -> None:
    inside = write_model(tmp_path / "inside") / "onnx" / "model.onnx"
    assert external_files(inside) == []
    beside = write_model(tmp_path / "beside", external="weights.bin") / "onnx" / "model.onnx"
    assert external_files(beside) == [beside.parent / "weights.bin"]
    (beside.parent / "weights.bin").unlink()
    assert external_files(beside) == []


def test_an_output_is_chosen_by_name(tmp_path: Path) -> None:
    assert choose_output(["last_hidden_state", "logits"], LOGITS, tmp_path) == "logits"
    assert choose_output(["scores"], LOGITS, tmp_path) == "scores"
    for names in (["last_hidden_state", "pooler_output"], []):
        with pytest.raises(ModelError, match=r"has the outputs .*none of which is called logits; export it"):
            choose_output(names, LOGITS, tmp_path)


@pytest.mark.parametrize(("kind", "expected"), [("FLOAT", "fp32"), ("FLOAT16", "fp16"), ("BFLOAT16", "bf16")])
def test_the_precision_is_that_of_the_tensors(tmp_path: Path, kind: str, expected: str) -> None:
    """Not what a weight's bytes happen to spell."""
    weights = b"\x10\x0aB\x20chance\0\0\x10\x10B\x09chance\0\0"
    tensor = onnx.TensorProto(
        name="classifier.weight", data_type=getattr(onnx.TensorProto, kind), dims=[1, 6]
    )
    tensor.raw_data = weights
    other = onnx.TensorProto(
        name="other.weight", data_type=onnx.TensorProto.FLOAT, dims=[1], raw_data=b"1234"
    )
    graph = onnx.helper.make_graph([], "g", [], [], [other, tensor])
    (tmp_path / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert precision_of(tmp_path / "model.onnx") == expected


def test_dynamic_quantisation_is_recognised(tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    full = write_model(tmp_path) / "onnx" / "model.onnx"
    quantize_dynamic(full, tmp_path / "int8.onnx")
    assert not model_holds(full, DYNAMIC_QUANTISATION)
    assert model_holds(tmp_path / "int8.onnx", DYNAMIC_QUANTISATION)


def test_an_empty_file_contains_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert not model_holds(tmp_path / "empty.onnx", DYNAMIC_QUANTISATION)
    assert external_files(tmp_path / "empty.onnx") == []
