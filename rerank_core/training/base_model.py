"""The model that a training starts from: an encoder as a cross-encoder of one logit, with the tags as tokens."""

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
from rerank_core.inference.model_folder import check_max_length
from rerank_core.text import shorten
from rerank_core.training.losses import PairCrossEncoder
from rerank_core.training.vocabulary import extend_vocabulary

transformers.logging.disable_progress_bar()  # one for each loading and each writing of a model


def write_base_model(config: TrainingConfig, place: Path) -> Path:
    """Write the model before any training, unless it is there."""
    if not place.is_dir():
        transformers.set_seed(config.seed)  # of a head that the base lacks
        model = load_cross_encoder(config.model, max_length=config.max_length)
        if config.keeps_tags:
            extend_vocabulary(model, special_tokens())
        save_model(model, place)
    return place


def load_cross_encoder(folder: Path | str, *, max_length: int) -> PairCrossEncoder:
    """A CrossEncoder of one logit; safetensors only.

    Raises:
        ModelError: no such model, or no safetensors of an encoder, or it takes no input of max_length.
    """
    try:
        model = PairCrossEncoder(
            str(folder),
            num_labels=1,
            max_length=max_length,
            activation_fn=torch.nn.Sigmoid(),
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"cannot start from model = {str(folder)!r} ({shorten(str(error))}); name a folder or a model of the "
            "Hugging Face Hub that has config.json, a tokenizer and model.safetensors of an encoder"
        ) from error
    pad = model.tokenizer.pad_token_id
    check_max_length(
        max_length, model.config.to_dict(), pad_id=pad or 0, folder=Path(folder), field="max_length"
    )
    return model


def save_model(model: PairCrossEncoder, place: Path) -> None:
    """Write a model's folder, which appears under its name once it is whole."""
    write_complete(place, lambda folder: model.save_pretrained(str(folder), create_model_card=False))


def write_complete(place: Path, write: Callable[[Path], None]) -> None:
    """Have a folder written, which appears under its name once it is whole."""
    building = place.with_name(f"_{place.name}")
    for old in (building, place):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(old)
    write(building)
    os.replace(building, place)
