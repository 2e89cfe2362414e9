"""Writes a model folder: ONNX in int8, the tokenizer, and the files that tell other tools what it is."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import BertConfig

from rerank_core.training.model import PairModel

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_onnx(model: torch.nn.Module, path: Path, *, sample: dict[str, torch.Tensor]) -> None:
    """Write the model in fp32: the sample's inputs, int64 [batch, sequence], and float32 "logits" [batch, 1].

    The model takes the inputs in the sample's order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {name: {0: "batch", 1: "sequence"} for name in sample} | {"logits": {0: "batch"}}
    model.eval()
    torch.onnx.export(
        model,
        tuple(sample.values()),
        str(path),
        input_names=list(sample),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    model.train()


def quantise(fp32: Path, int8: Path, *, reduce_range: bool = True) -> None:
    """Weights of matrix products and embedding tables to int8, one scale a column; activations at run time.

    `reduce_range` keeps weights to 7 bits. Processors without VNNI add pairs of 8-bit products in 16 bits and
    saturate: with 8-bit weights the same file would rank worse on them.
    """
    int8.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimised)
        ort.InferenceSession(str(fp32), options, providers=["CPUExecutionProvider"])
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


def write_model(model: PairModel, folder: Path, *, tokenizer: Any, config: BertConfig) -> Path:
    """Write `folder`, the model as it ships but for its card, and return its twin in fp32, `folder`_fp32."""
    full = folder.with_name(f"{folder.name}_fp32")
    encoded = tokenizer(
        ["who was it"] * 2, ["It was she."] * 2, return_tensors="pt", return_token_type_ids=True
    )
    export_onnx(model, full / "onnx" / "model.onnx", sample={name: encoded[name] for name in INPUTS})
    quantise(full / "onnx" / "model.onnx", folder / "onnx" / "model_int8.onnx")
    for where in (folder, full):
        write_folder(where, tokenizer=tokenizer, config=config, max_length=config.max_position_embeddings)
    return full


def write_folder(folder: Path, *, tokenizer: Any, config: BertConfig, max_length: int) -> None:
    """Write config.json, the tokenizer and config_sentence_transformers.json beside onnx/."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    _json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizerFast",
            "do_lower_case": True,
            "model_max_length": max_length,
            **{
                f"{name}_token": getattr(tokenizer, f"{name}_token")
                for name in ("cls", "sep", "pad", "unk", "mask")
            },
        },
    )
    plain = config.to_dict()
    kept = ("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size", "initializer_range",
            "intermediate_size", "layer_norm_eps", "max_position_embeddings", "model_type", "num_attention_heads",
            "num_hidden_layers", "pad_token_id", "position_embedding_type", "type_vocab_size")  # fmt: skip
    _json(
        folder / "config.json",
        {name: plain[name] for name in kept if name in plain}
        | {
            "architectures": ["PairModel"],  # of rerank_core.training.model; transformers knows no such class
            "vocab_size": len(tokenizer),
            "id2label": {"0": "relevant"},
            "label2id": {"relevant": 0},
            "num_labels": 1,
        },
    )
    # It was shown tags in training, and still ranks better without: see the model card.
    _json(folder / "nightrank.json", {"reads_tags": False})
    _json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid"},
    )


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
