"""Tiny random transformers models, saved as real folders. Needs torch and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer

from tests.rerank_core.inference.test_encoding import bytelevel, metaspace, wordpiece

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
# kind -> tokenizer, transformers' name of it, what its config needs beyond SIZES
KINDS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "bert": (wordpiece, "Bert", {"max_position_embeddings": 64}),
    "electra": (wordpiece, "Electra", {"max_position_embeddings": 64, "embedding_size": 16}),
    "roberta": (bytelevel, "Roberta", {"max_position_embeddings": 66, "type_vocab_size": 1}),
    "xlm-roberta": (metaspace, "XLMRoberta", {"max_position_embeddings": 66, "type_vocab_size": 1}),
    "deberta-v2": (
        metaspace,
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    ),
    "distilbert": (wordpiece, "DistilBert", {"max_position_embeddings": 64}),
    "modernbert": (wordpiece, "ModernBert", {"local_attention": 8, "global_attn_every_n_layers": 2}),
}
UNTYPED = ("roberta", "xlm-roberta", "distilbert", "modernbert")


def fast_tokenizer(tokenizer: Tokenizer, *, typed: bool) -> Any:
    """transformers' wrapping of a tokenizer."""
    bert = tokenizer.token_to_id("[PAD]") is not None
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    if not bert:
        names = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "bos": "<s>", "eos": "</s>"}
    inputs = ["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=inputs,
        **{f"{name}_token": token for name, token in names.items()},
    )


def write_cross_encoder(
    folder: Path,
    kind: str = "bert",
    *,
    task: str = "ForSequenceClassification",
    labels: int = 1,
    seed: int = 0,
    **config: Any,
) -> Path:
    """A model of a kind with weights of its seed, and its tokenizer."""
    make, name, extra = KINDS[kind]
    tokenizer = fast_tokenizer(make(), typed=kind not in UNTYPED)
    torch.manual_seed(seed)
    settings = {**SIZES, **extra, **config}
    if kind == "modernbert":
        settings |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    if kind == "distilbert":
        settings |= {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}
        settings = {k: v for k, v in settings.items() if k not in SIZES or k == "initializer_range"}
    made = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=labels, **settings
    )
    model = getattr(transformers, f"{name}{task}")(made).eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_sentence_folder(
    folder: Path,
    kind: str = "bert",
    *,
    pooling: str = "mean",
    normalised: bool = False,
    prompts: dict[str, str] | None = None,
    **config: Any,
) -> Path:
    """A folder of sentence-transformers: an encoder of `write_cross_encoder`'s, pooled."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    plain = write_cross_encoder(folder.with_name(f"{folder.name}-plain"), kind, task="Model", **config)
    modules = [Transformer(str(plain)), Pooling(32, pooling), *([Normalize()] if normalised else [])]
    SentenceTransformer(modules=modules, prompts=prompts or {}, device="cpu").save(str(folder))
    return folder


def write_bi_encoder(
    folder: Path, kind: str = "bert", *, pooling: str = "mean", lower: bool = False, **config: Any
) -> Path:
    """A folder of sentence-transformers with prompts, whose cosine is scaled to a logit."""
    prompts = {"query": "who: ", "document": "sand: "}
    write_sentence_folder(folder, kind, pooling=pooling, prompts=prompts, labels=2, **config)
    (folder / "nightrank.json").write_text('{"logit": {"scale": 20.0, "offset": -8.0}}')
    if lower:
        path = folder / "sentence_bert_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": True}))
    return folder
