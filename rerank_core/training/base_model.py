"""The base model of a training, with the tags in its vocabulary: an encoder with a head of one logit, or a bi-encoder
whose cosine is scaled to a logit."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from rerank_core.config.training import TrainingConfig
from rerank_core.errors import ModelError
from rerank_core.features.render import special_tokens
from rerank_core.inference.label_names import relevant_label
from rerank_core.inference.model_folder import check_max_length
from rerank_core.inference.torch_device import fill_id
from rerank_core.scoring.load import gives_logits
from rerank_core.text import shorten
from rerank_core.training.bi_encoder import load as load_bi_encoder
from rerank_core.training.losses import PairCrossEncoder
from rerank_core.training.vocabulary import extend_vocabulary

transformers.logging.disable_progress_bar()  # it would show one for each model that is loaded or written


def write_base_model(config: TrainingConfig, folder: Path) -> Path:
    """Write the untrained model to `folder`, unless it exists, and return `folder`."""
    if not folder.is_dir():
        transformers.set_seed(config.seed)  # for the weights of a head that the base lacks
        model = load_cross_encoder(config.model, max_length=config.max_length)
        if config.keeps_tags:
            extend_vocabulary(model, special_tokens())
        save_model(model, folder)
    return folder


def load_cross_encoder(folder: Path | str, *, max_length: int) -> PairCrossEncoder:
    """Load a model with one logit per pair: from safetensors, or a bi-encoder also from its int8 ONNX file.

    A reranker of two logits gets one head of their difference, so that it scores as it did.

    Raises:
        ModelError: no such model, no safetensors of an encoder, a classifier of three labels or more, or its inputs
            cannot have max_length tokens.
    """
    try:
        apart = gives_logits(str(folder))
        labels = 1 if apart else _labels(folder)
        model = (
            load_bi_encoder(folder, max_length=max_length)
            if apart
            else PairCrossEncoder(
                str(folder),
                num_labels=1,
                max_length=max_length,
                activation_fn=torch.nn.Sigmoid(),
                model_kwargs={"use_safetensors": True, "ignore_mismatched_sizes": labels == 2},
            )
        )
        check_max_length(max_length, model.config.to_dict(), folder=Path(folder), field="max_length")
        if not apart:
            fill_id(model.model, model.tokenizer, spare=model.encoder().spare_ids(), folder=Path(folder))
        if labels == 2:
            _take_difference(model, folder)
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"cannot load model = {str(folder)!r} ({shorten(str(error))}); name a folder or a model on the "
            "Hugging Face Hub with config.json, a tokenizer and the model.safetensors of an encoder"
        ) from error
    return model


def _labels(folder: Path | str) -> int:
    """Logits of a trained classifier; 1 for a model without a head, which gets a new one.

    Raises:
        ModelError: three or more.
    """
    config = transformers.AutoConfig.from_pretrained(str(folder))
    if not any(str(name).endswith("ForSequenceClassification") for name in config.architectures or ()):
        return 1
    if config.num_labels > 2:
        raise ModelError(
            f"model = {str(folder)!r} has {config.num_labels} logits (id2label of its config.json); a training starts "
            'from a reranker of one or two, or from an encoder: a copy whose config.json has no "architectures" is one'
        )
    return int(config.num_labels)


def _take_difference(model: PairCrossEncoder, folder: Path | str) -> None:
    """Make the head of one logit the relevant label's of the folder's two minus the other's.

    Raises:
        ModelError: the logits are no linear function of a head with two rows.
    """
    pair = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(folder), use_safetensors=True
    ).eval()
    relevant = relevant_label(pair.config.to_dict(), Path(folder))
    wide = dict(pair.named_parameters())
    with torch.no_grad():
        for name, one in model.model.named_parameters():
            two = wide[name]
            if one.shape != two.shape and two.shape[0] == 2:
                one.copy_(two[relevant, None] - two[1 - relevant, None])
        features = model.preprocess([("a", "b c d")])
        features.pop("modality")
        logits = pair(**features).logits[0].float()
        one_logit = model.model.eval()(**features).logits[0].float()
    expected = logits[relevant] - logits[1 - relevant]
    if not torch.allclose(one_logit, expected, atol=1e-4 if pair.dtype == torch.float32 else 0.05, rtol=0.01):
        raise ModelError(
            f"model = {str(folder)!r} has two logits, which cannot be made one: its head is not linear; use a "
            "reranker of one logit"
        )


def save_model(model: PairCrossEncoder, folder: Path) -> None:
    """Write a model's folder atomically: it appears under its name when it is complete."""
    write_atomically(folder, lambda building: model.save_pretrained(str(building), create_model_card=False))


def write_atomically(folder: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary folder, and rename that to `folder` when it is complete."""
    building = folder.with_name(f"_{folder.name}")
    for old in (building, folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(old)
    write(building)
    os.replace(building, folder)
