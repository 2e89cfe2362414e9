"""Every sequence classifier of transformers at toy size: its configuration shrunk by the names of its fields.

No list of architectures is kept here, but one of those that cannot be made: `MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING`
names them, and a new one is in the sweep as soon as the installed transformers has it.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as NAMES

from rerank_core.inference.model_folder import OFFSET_POSITIONS
from tests.rerank_core.inference.test_encoding import bytelevel, wordpiece
from tests.support.tiny_models import fast_tokenizer

MOST_PARAMETERS = 3_000_000
POSITIONS = 130

# Fields of configurations by name, as many architectures call one thing by many names. Values fit each other: 4 heads
# of 8 columns are a width of 32.
_SIZES: dict[str, int] = {
    **dict.fromkeys(
        (
            "hidden_size",
            "d_model",
            "n_embd",
            "dim",
            "emb_dim",
            "word_embed_proj_dim",
            "d_latents",
            "cross_attention_hidden_size",
        ),
        32,
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2
    ),
    **dict.fromkeys(("num_decoder_layers", "num_blocks", "num_self_attends_per_block"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "num_self_attention_heads", "num_cross_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads"), 2),
    **dict.fromkeys(
        ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"), 48
    ),
    **dict.fromkeys(("hidden_dim", "d_inner", "ffn_hidden_size", "moe_intermediate_size", "dff"), 48),
    **dict.fromkeys(("shared_expert_intermediate_size", "intermediate_size_mlp", "feed_forward_size"), 48),
    **dict.fromkeys(
        ("head_dim", "d_head", "d_kv", "v_head_dim", "qk_nope_head_dim", "attention_head_size"), 8
    ),
    **dict.fromkeys(
        ("qk_rope_head_dim", "index_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 8
    ),
    **dict.fromkeys(
        ("kv_lora_rank", "q_lora_rank", "embedding_size", "emb_size", "hidden_size_per_layer_input"), 16
    ),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts"), 2),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_seq_length"), POSITIONS
    ),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "mamba_n_heads", "n_mamba_heads"), 2),
    **dict.fromkeys(
        ("mamba_d_state", "mamba_expand", "mamba_ngroups", "n_group", "topk_group", "n_shared_experts"), 1
    ),
    **dict.fromkeys(("bottleneck_size", "intra_bottleneck_size", "true_hidden_size"), 32),
    **dict.fromkeys(("first_k_dense_replace", "num_hidden_groups", "num_mem_blocks"), 1),
    **dict.fromkeys(
        ("sliding_window", "attention_window", "local_attention", "block_size", "window_size"), 16
    ),
    **dict.fromkeys(("image_size", "patch_size", "num_channels", "max_2d_position_embeddings"), 16),
    **dict.fromkeys(("type_vocab_size", "type_vocab_sizes"), 2),
}
# What no rule over names gives: fields that must fit each other.
_LATENT = {"num_key_value_heads": 4}  # attention by a latent vector has a key for every head
_HYBRID = {
    "num_hidden_layers": 3,
    "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    "num_key_value_heads": 4,
}
_HEADS, _POOLED, _ROPE = (
    {"head_dim": 8},
    {"pooler_hidden_size": 32},
    {"rope_type": "default", "rope_theta": 1e4},
)
_OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v3", "esmc", "minicpm3"), _LATENT),
    **dict.fromkeys(("deberta", "deberta-v2"), _POOLED),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), _HEADS),
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
    },
    "deepseek_v2": {**_LATENT, "num_experts_per_tok": 2},
    "gptj": {"rotary_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "visual_embed": False},
    "lilt": {"hidden_size": 48},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "mistral4": {**_LATENT, "qk_head_dim": 16, "head_dim": 16},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "reformer": {"axial_pos_embds": False},
    "roc_bert": {"pronunciation_vocab_size": 10, "shape_vocab_size": 10},
    "squeezebert": {"embedding_size": 32},
    "xmod": {"default_language": "en_XX"},
    "zamba": {**_HYBRID, "attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": {
        **_HYBRID,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "hybrid_layer_ids": [1, 2],
        "n_mamba_heads": 2,
        "mamba_headdim": 16,
        "chunk_size": 16,
    },
}


CANNOT_BE_MADE = {"layoutlmv2": "its model needs the package detectron2"}
"""Architectures that are left out, with the reason: a test holds them to be all."""


def kinds() -> list[str]:
    """The model_type of every architecture that classifies sequences."""
    return sorted(NAMES)


def small_config(kind: str, tokenizer: Any, **settings: Any) -> Any:
    """The architecture's default configuration with every size that the table names replaced."""
    config = transformers.CONFIG_MAPPING[kind]()
    names = ("pad", "bos", "eos", "cls", "sep")
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    _shrink(
        config, {"vocab_size": len(tokenizer), "decoder_start_token_id": tokenizer.pad_token_id, **special}
    )
    for name, value in {"num_labels": 1, **_OWN.get(kind, {}), **settings}.items():
        setattr(config, name, value)
    return config


def _shrink(config: Any, given: dict[str, Any]) -> None:
    layers = getattr(config, "num_hidden_layers", 0)
    for name, value in list(vars(config).items()):
        if isinstance(value, transformers.PretrainedConfig):
            _shrink(value, given)
        elif name in ("n_vocab", "n_tokens"):
            setattr(config, name, given["vocab_size"])
        elif name in _SIZES and isinstance(value, int) and not isinstance(value, bool):
            setattr(config, name, _SIZES[name])
        elif isinstance(value, list) and len(value) == layers > 1:  # something of each layer
            setattr(config, name, [value[0], value[-1]])
    for name, value in given.items():
        setattr(config, name, value)


def make_toy(kind: str, **settings: Any) -> tuple[Any, Any]:
    """A classifier of this architecture with random weights, and its tokenizer.

    Raises:
        Exception: of any class, where the table above lacks something that the architecture needs.
    """
    model_class = getattr(transformers, NAMES[kind])
    tokenizer = _tokenizer(kind, model_class)
    return model_class(small_config(kind, tokenizer, **settings)).eval(), tokenizer


def write_toy(folder: Path, kind: str, **settings: Any) -> Path:
    """Write a classifier of this architecture, and its tokenizer, as a folder."""
    torch.manual_seed(0)
    model, tokenizer = make_toy(kind, **settings)
    with torch.no_grad():
        for parameter in model.parameters():  # from so small numbers as they come, all logits would be alike
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if model.config.num_labels == 2:  # not written where it is the default of all, but not of some
        path = folder / "config.json"
        names = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
        path.write_text(json.dumps(json.loads(path.read_text()) | names))
    return folder


def _tokenizer(kind: str, model_class: Any) -> Any:
    """BERT's kind of tokenizer where the model takes types, RoBERTa's elsewhere."""
    config = transformers.CONFIG_MAPPING[kind]()
    types = getattr(config, "type_vocab_size", 0)
    typed = "token_type_ids" in inspect.signature(model_class.forward).parameters and types and types > 1
    typed = typed and kind not in OFFSET_POSITIONS
    return fast_tokenizer(wordpiece() if typed else bytelevel(), typed=typed)
