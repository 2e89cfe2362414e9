"""Tiny cross-encoders made on the spot: real tokenizer.json and ONNX files. Only `write_transformer` needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH = 8
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
KINDS = ("bert", "roberta", "xlm-roberta", "electra", "modernbert")


def write_tokenizer(path: Path) -> int:
    """A word-piece tokenizer of words and single letters; returns the size of its vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?()[]:-"
    words = [
        "who",
        "wrote",
        "the",
        "novel",
        "dune",
        "was",
        "written",
        "by",
        "frank",
        "herbert",
        "sand",
        "moves",
    ]
    tokens = [*SPECIALS, *words, *letters, *(f"##{letter}" for letter in letters)]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    tokenizer.add_special_tokens(SPECIALS)
    # As real folders have it: settings of a training run, which a scorer must not take over.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=4)
    tokenizer.save(str(path))
    return len(vocab)


def cross_encoder(
    vocab: int,
    *,
    labels: int = 1,
    pooled: bool = True,
    masked: bool = True,
    token_types: bool = False,
    integer: int = TensorProto.INT64,
    output: int = TensorProto.FLOAT,
    batch: int | str = "batch",
    extra_input: str = "",
    outputs: tuple[str, ...] = ("logits",),
    seed: int = 0,
) -> onnx.ModelProto:
    """Embeddings of the ids, their mean under the mask, one matrix: enough to tell every mistake of a caller."""
    random = np.random.default_rng(seed)
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]
    weights = {
        "words": random.normal(size=(vocab, WIDTH)),
        "kinds": random.normal(size=(2, WIDTH)),
        "head": random.normal(size=(WIDTH, labels)),
    }
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    held.append(numpy_helper.from_array(np.array([2], np.int64), "axis_2"))
    held.append(numpy_helper.from_array(np.array([1], np.int64), "axis_1"))
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["embedded"])]
    last = "embedded"
    if token_types:
        nodes += [
            helper.make_node("Gather", ["kinds", "token_type_ids"], ["kind"]),
            helper.make_node("Mul", ["embedded", "kind"], ["typed"]),
        ]
        last = "typed"
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["read"], to=TensorProto.FLOAT),
        # e to the power of a mask is positive: an export that lost its mask
        helper.make_node("Exp" if not masked else "Identity", ["read"], ["seen"]),
        helper.make_node("Sign", ["seen"], ["mask"]),
        helper.make_node("Unsqueeze", ["mask", "axis_2"], ["mask_3"]),
        helper.make_node("Mul", [last, "mask_3"], ["masked"]),
    ]
    if pooled:
        nodes += [
            helper.make_node("ReduceSum", ["masked", "axis_1"], ["total"], keepdims=0),
            helper.make_node("ReduceSum", ["mask", "axis_1"], ["count"], keepdims=1),
            helper.make_node("Div", ["total", "count"], ["masked_mean"]),
        ]
    nodes.append(helper.make_node("MatMul", ["masked_mean" if pooled else "masked", "head"], ["wide"]))
    # The last output is the logits; those before it are as wide and no logits.
    nodes.append(helper.make_node("Cast", ["wide"], [outputs[-1]], to=output))
    nodes += [helper.make_node("Neg", [outputs[-1]], [name]) for name in outputs[:-1]]
    if extra_input:
        inputs.append(extra_input)
    shape = [batch, labels] if pooled else [batch, "sequence", labels]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, integer, [batch, "sequence"]) for name in inputs],
        [helper.make_tensor_value_info(name, output, shape) for name in outputs],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_model(
    folder: Path,
    *,
    file: str = "onnx/model.onnx",
    config: dict[str, Any] | None = None,
    external: str = "",
    **options: Any,
) -> Path:
    """A model's folder: tokenizer, configuration and the ONNX file of `cross_encoder(**options)`."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    vocab = write_tokenizer(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
    model = cross_encoder(vocab, **options)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=100)
    else:
        onnx.save(model, path)
    return folder


def write_transformer(
    folder: Path, kind: str = "bert", *, labels: int = 1, seed: int = 0, **settings: Any
) -> Path:
    """A random cross-encoder of a kind, with safetensors and fp32 ONNX. Needs torch and transformers."""
    import torch
    import transformers

    write_model(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 300,
        "num_labels": labels,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "attn_implementation": "eager",
    }
    if kind == "electra":
        sizes["embedding_size"] = 16
    if kind == "modernbert":
        sizes = {k: v for k, v in sizes.items() if k != "type_vocab_size"} | {"local_attention": 8}
        sizes |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **(sizes | settings))
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():  # from so small numbers as they come, all logits would be alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    export(torch, model, folder / "onnx" / "model.onnx", types=kind != "modernbert")
    return folder


def export(torch: Any, model: Any, path: Path, *, types: bool) -> None:
    """Write the model as ONNX with dynamic batch and sequence."""
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    sample = {name: torch.ones(2, 12, dtype=torch.int64) for name in names}
    axes = {name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}}
    torch.onnx.export(
        model,
        (),
        str(path),
        kwargs=sample,
        input_names=names,
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
