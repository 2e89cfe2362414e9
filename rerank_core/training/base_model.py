"""The base model of a training: an encoder as a cross-encoder of one logit, with the tags in its vocabulary."""

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
    """Load a CrossEncoder of one logit; safetensors only.

    Raises:
        ModelError: no such model, no safetensors of an encoder, or its inputs cannot have max_length tokens.
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
            f"cannot load model = {str(folder)!r} ({shorten(str(error))}); name a folder or a model on the "
            "Hugging Face Hub with config.json, a tokenizer and the model.safetensors of an encoder"
        ) from error
    check_max_length(max_length, model.config.to_dict(), folder=Path(folder), field="max_length")
    return model


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
