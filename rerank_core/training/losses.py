"""A stage's loss: sentence-transformers' where it has one, and the labels that it expects.

bce       BinaryCrossEntropyLoss over pairs
listwise  ListNetLoss with log-probabilities as labels, 0 for the positive, minus infinity for a negative: it
          takes their softmax, so this is exactly the softmax cross-entropy of the positive among its negatives.
          (MultipleNegativesRankingLoss takes the passages of other queries, whose tags belong to those queries.)
lambda    LambdaLoss, NDCGLoss2++
ranknet   RankNetLoss
margin_mse, distil   see `margin_mse` and `distil`. sentence-transformers' MarginMSELoss needs the same number of
          negatives for every positive, which published runs do not have.

sentence-transformers uses one query text for all documents of a list. Tags precede the query and differ by document: so
a document here is the whole pair (query side, passage side), which `PairCrossEncoder` accepts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder, losses
from sentence_transformers.util import batch_to_device
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from rerank_core.config.training import TEACHER_LOSSES, TrainingStage
from rerank_core.inference.batching import padded
from rerank_core.inference.cross_encoder_folder import read_pairs
from rerank_core.inference.encoding import unlimited
from rerank_core.inference.torch_device import input_types, model_folder, vocabulary_size

ListLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class PairCrossEncoder(CrossEncoder):
    """A CrossEncoder that reads a text as a night does, and whose documents may have their own query side.

    sentence-transformers takes a "[SEP]" or "</s>" in a text for the token, so that the text ends its side of the
    input; a night does not. The rows are therefore a night's: of its encoder, with the prompt, the chat template and
    the tokenizer's settings of the folder. On disk it is a CrossEncoder.
    """

    dropout = False
    """Whether training drops activations, as the model's config.json has it. Adapters drop by a share of their own."""

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(model, **options)
        self.folder = model_folder(model)

    def train(self, mode: bool = True) -> PairCrossEncoder:
        """As in torch, but without `dropout` the model computes what it does in a night, with gradients."""
        super().train(mode and self.dropout)
        for name, part in self.named_modules():
            if name.endswith("lora_dropout"):
                part.train(mode)
        return self

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """A batch of pairs as the model's inputs: int64 tensors [pairs, longest row].

        Args:
            inputs: (query side, passage side), or ("", (query side, passage side)).
            prompt: ignored: the folder's default prompt is part of every row.
        """
        if not inputs:
            return {}
        rows = self.encoder().encode(
            [pair if isinstance(pair[1], str) else tuple(pair[1]) for pair in inputs]
        )
        pad_id = self.config.get_text_config().pad_token_id
        arrays = padded(rows, pad_id=pad_id, dtypes=input_types(self.model, self.tokenizer))
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"modality": "text"}

    def encoder(self) -> Any:
        """Makes rows of pairs, by the tokenizer as it is now: tags may have been added."""
        state, known = (len(self.tokenizer), self.max_length), self.__dict__.get("_known_encoder")
        if known is None or known[0] != state:
            tokenizer = unlimited(Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str()))
            known = self.__dict__["_known_encoder"] = (state, self.make_encoder(tokenizer))
        return known[1]

    def make_encoder(self, tokenizer: Tokenizer) -> Any:
        """An encoder of pairs by a tokenizer without truncation and padding."""
        return read_pairs(
            self.folder,
            self.config.to_dict(),
            tokenizer,
            max_length=self.max_length,
            side=self.tokenizer.truncation_side,
            vocabulary=vocabulary_size(self.model),
        ).encoder


class TeacherLoss(nn.Module):
    """A loss of each list's logits and the teacher's, float32 [documents] each, averaged over the lists."""

    def __init__(self, model: CrossEncoder, list_loss: ListLoss) -> None:
        super().__init__()
        self.model, self.list_loss = model, list_loss

    def forward(
        self,
        inputs: list[Any],
        labels: list[torch.Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> torch.Tensor:
        queries, lists = inputs
        pairs = [
            (query, document)
            for query, documents in zip(queries, lists, strict=True)
            for document in documents
        ]
        features = batch_to_device(self.model.preprocess(pairs, prompt=prompt, task=task), self.model.device)
        student = (
            self.model(features)["scores"].view(-1).float().split([len(documents) for documents in lists])
        )
        losses_of_lists = [
            self.list_loss(own, teacher.to(own.device).float())
            for own, teacher in zip(student, labels, strict=True)
        ]
        return torch.stack(losses_of_lists).mean()


def margin_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the margins between the positive, which is first, and each negative."""
    return functional.mse_loss(student[0] - student[1:], teacher[0] - teacher[1:])


def distil(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """BCE with the teacher's probability of each pair, plus InfoNCE with its distribution over the list."""
    pointwise = functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    return pointwise + functional.cross_entropy(student, teacher.softmax(0))


def make_loss(model: CrossEncoder, stage: TrainingStage) -> nn.Module:
    """The stage's configured loss."""
    if stage.loss == "bce":
        return losses.BinaryCrossEntropyLoss(
            model, pos_weight=torch.tensor(stage.pos_weight, device=model.device)
        )
    if stage.loss in TEACHER_LOSSES:
        return TeacherLoss(model, margin_mse if stage.loss == "margin_mse" else distil)
    kinds = {"listwise": losses.ListNetLoss, "lambda": losses.LambdaLoss, "ranknet": losses.RankNetLoss}
    loss: nn.Module = kinds[stage.loss](model, mini_batch_size=-1)  # -1: a batch is one forward pass
    return loss


def list_labels(loss: str, *, logits: Sequence[float], size: int) -> list[float]:
    """Labels of a list of `size` documents, the positive first, as `loss` expects them."""
    if loss in TEACHER_LOSSES:
        return list(logits)
    return [0.0] + [-math.inf] * (size - 1) if loss == "listwise" else [1.0] + [0.0] * (size - 1)
