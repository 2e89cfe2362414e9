"""Writes the folder of the model that ships: int8 ONNX, the tokenizer and the configuration files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import BertConfig

from pipelines.recipes.default_model.network import PairModel
from rerank_core.training.export import INPUTS, export_onnx, quantise_dynamic

SPECIAL = ("cls", "sep", "pad", "unk", "mask")
INHERITED = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "position_embedding_type",
    "type_vocab_size",
)
"""Fields of the base's config.json that the model keeps."""


def write_model(model: PairModel, folder: Path, *, tokenizer: Any, config: BertConfig) -> Path:
    """Write `folder`, the model as it ships but for its card, and return `folder`_fp32, the same in fp32."""
    full = folder.with_name(f"{folder.name}_fp32")
    encoded = tokenizer(
        ["who was it"] * 2, ["It was she."] * 2, return_tensors="pt", return_token_type_ids=True
    )
    export_onnx(model, full / "onnx" / "model.onnx", sample={name: encoded[name] for name in INPUTS})
    quantise_dynamic(full / "onnx" / "model.onnx", folder / "onnx" / "model_int8.onnx")
    for where in (folder, full):
        write_folder(where, tokenizer=tokenizer, config=config, max_length=config.max_position_embeddings)
    return full


def write_folder(folder: Path, *, tokenizer: Any, config: BertConfig, max_length: int) -> None:
    """Write the tokenizer, config.json, nightrank.json and config_sentence_transformers.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in SPECIAL}
    settings = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "model_max_length": max_length}
    _json(folder / "tokenizer_config.json", settings | tokens)
    inherited = config.to_dict()
    own = {
        # The class of pipelines.recipes.default_model.network, which transformers does not have.
        "architectures": ["PairModel"],
        "vocab_size": len(tokenizer),
        "id2label": {"0": "relevant"},
        "label2id": {"relevant": 0},
        "num_labels": 1,
    }
    _json(folder / "config.json", {name: inherited[name] for name in INHERITED if name in inherited} | own)
    # It was trained with tags, and still ranks better without: see the model card.
    _json(folder / "nightrank.json", {"reads_tags": False})
    _json(
        folder / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid"},
    )


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
