"""Quantises an fp32 ONNX file to int8 with a scale for every token, and restores weights from such a file.

ONNX Runtime's dynamic quantisation takes one scale for all activations of a batch: other rows, and padding, change a
row's result, so each row must run alone. Here the activations get a scale for each row of a product's left side, a
token, and the weights one for each column: a text has the same states in every batch. Products are MatMulInteger, which
uses the processor's int8 instructions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ZERO = 128  # of activations, uint8
SMALLEST_TABLE = 100_000  # numbers in a table of embeddings that is quantised
INT8, SCALE = "_int8", "_scale"


def quantise_rows(fp32: Path, int8: Path, *, bits: int = 7) -> None:
    """Write `int8`: the products and embeddings of `fp32` with int8 weights.

    Args:
        fp32: an ONNX file with opset 13 to 17.
        int8: where to write.
        bits: of the weights of products. Processors without VNNI add pairs of 8-bit products in 16 bits and saturate:
            there 8 bits would rank worse than 7.
    """
    model = onnx.load(str(fp32))
    graph = _Graph(model.graph)
    read = {name for node in model.graph.node for name in node.input}
    unread = graph.weights.keys() - read  # kept so that `restored_weights` finds every tensor
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in graph.weights:
            graph.product(node, largest=2 ** (bits - 1) - 1)
        elif node.op_type == "Gather" and graph.is_table(node.input[0]):
            graph.look_up(node)
        else:
            graph.nodes.append(node)
    used = unread | {name for node in graph.nodes for name in node.input}
    kept = [tensor for name, tensor in graph.weights.items() if name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    int8.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(int8))


def restored_weights(int8: Path) -> dict[str, np.ndarray]:
    """The weights of a file that `quantise_rows` wrote, float32 by name; those of products as torch has them.

    {} for a file without int8 weights. A weight comes back as a multiple of a scale: off by up to half of that.
    """
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(int8)).graph.initializer}
    if not any(name.endswith(INT8) for name in stored):
        return {}
    weights = {}
    for name, values in stored.items():
        if values.dtype == np.float32 and values.ndim and not name.endswith(SCALE):
            weights[name] = values
        elif values.dtype == np.int8:
            scale = stored[name.removesuffix(INT8) + SCALE]
            matrix = values.astype(np.float32) * scale
            weights[name.removesuffix(INT8)] = matrix if scale.ndim == 2 else matrix.T
    return weights


class _Graph:
    """The nodes and constants of the quantised graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self._quantised: dict[str, str] = {}  # activations -> prefix of the names that quantising them made

    def is_table(self, name: str) -> bool:
        dims = list(self.weights[name].dims) if name in self.weights else []
        return len(dims) == 2 and dims[0] * dims[1] >= SMALLEST_TABLE

    def product(self, node: onnx.NodeProto, *, largest: int) -> None:
        """Left side by rows, right side by columns; both scales are multiplied in at the end."""
        weights = numpy_helper.to_array(self.weights[node.input[1]])
        scale = np.maximum(np.abs(weights).max(0), 1e-9) / largest
        matrix = self._constant(f"{node.input[1]}{INT8}", np.round(weights / scale).astype(np.int8))
        scales = self._constant(f"{node.input[1]}{SCALE}", scale.astype(np.float32))
        left, out = self._rows(node.input[0], weights.shape[0]), node.output[0]
        zero = self._constant("zero", np.array(ZERO, np.uint8))
        self._add("MatMulInteger", [f"{left}_bytes", matrix, zero], f"{out}_sums")
        self._add("Cast", [f"{out}_sums"], f"{out}_float", to=TensorProto.FLOAT)
        self._add("Mul", [f"{out}_float", f"{left}_step"], f"{out}_by_row")
        self._add("Mul", [f"{out}_by_row", scales], out)

    def look_up(self, node: onnx.NodeProto) -> None:
        """A table of embeddings with one scale for each of them."""
        table = numpy_helper.to_array(self.weights[node.input[0]])
        scale = np.maximum(np.abs(table).max(1, keepdims=True), 1e-9) / 127
        name, out = node.input[0], node.output[0]
        matrix = self._constant(f"{name}{INT8}", np.round(table / scale).astype(np.int8))
        scales = self._constant(f"{name}{SCALE}", scale.astype(np.float32))
        self._add("Gather", [matrix, node.input[1]], f"{out}_bytes")
        self._add("Cast", [f"{out}_bytes"], f"{out}_float", to=TensorProto.FLOAT)
        self._add("Gather", [scales, node.input[1]], f"{out}_step")
        self._add("Mul", [f"{out}_float", f"{out}_step"], out)

    def _rows(self, name: str, width: int) -> str:
        """Quantise activations by rows, once for all products that read them; the prefix of what that made."""
        if name in self._quantised:
            return self._quantised[name]
        own = self._quantised[name] = f"{name}_left"
        self._add("Abs", [name], f"{own}_abs")
        self._add("ReduceMax", [f"{own}_abs"], f"{own}_max", axes=[-1], keepdims=1)
        self._add("Mul", [f"{own}_max", self._constant("step", np.array(1 / 127, np.float32))], f"{own}_raw")
        self._add("Max", [f"{own}_raw", self._constant("tiny", np.array(1e-9, np.float32))], f"{own}_step")
        # QuantizeLinear takes a list of scales, for one axis.
        rows = self._constant(f"rows_{width}", np.array([-1, width], np.int64))
        flat = self._constant("flat", np.array([-1], np.int64))
        self._add("Reshape", [name, rows], f"{own}_rows")
        self._add("Reshape", [f"{own}_step", flat], f"{own}_steps")
        self._add("Shape", [f"{own}_steps"], f"{own}_count")
        zero = self._constant("zero", np.array(ZERO, np.uint8))
        self._add("Expand", [zero, f"{own}_count"], f"{own}_zeros")
        self._add("QuantizeLinear", [f"{own}_rows", f"{own}_steps", f"{own}_zeros"], f"{own}_flat", axis=0)
        self._add("Shape", [name], f"{own}_shape")
        self._add("Reshape", [f"{own}_flat", f"{own}_shape"], f"{own}_bytes")
        return own

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def _constant(self, name: str, value: np.ndarray) -> str:
        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(value, name)
        return name
