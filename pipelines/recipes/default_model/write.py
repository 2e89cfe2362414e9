"""Writes the folder of the model that ships: ONNX in int8, the tokenizer, and what tells other tools what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import BertConfig

from pipelines.recipes.default_model.network import PairModel
from rerank_core.training.export import INPUTS, export_onnx, quantise_dynamic


def write_model(model: PairModel, folder: Path, *, tokenizer: Any, config: BertConfig) -> Path:
    """Write `folder`, the model as it ships but for its card, and return its twin in fp32, `folder`_fp32."""
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
    kept = (
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
    _json(
        folder / "config.json",
        {name: plain[name] for name in kept if name in plain}
        | {
            "architectures": [
                "PairModel"
            ],  # of pipelines.recipes.default_model.network; transformers knows no such class
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
