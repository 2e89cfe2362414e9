"""A stage's loss: sentence-transformers' where it has one, and its examples in the form that the loss wants.

bce       BinaryCrossEntropyLoss over pairs
listwise  ListNetLoss with log-probabilities as labels, 0 for the positive, minus infinity for a negative: it
          takes their softmax, so this is exactly the softmax cross-entropy of the positive among its negatives.
          (MultipleNegativesRankingLoss takes the passages of other queries, whose tags belong to those queries.)
lambda    LambdaLoss, NDCGLoss2++
ranknet   RankNetLoss
margin_mse, distil   see `margin_mse` and `distil`. MarginMSELoss wants as many negatives for every positive, and
          the published ones are not.

sentence-transformers has one query text for all documents of a list. Tags stand before the query, another one for each
document: so a document here is the whole pair (query side, passage side), and `PairCrossEncoder` takes it as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder, losses
from sentence_transformers.util import batch_to_device
from torch import nn
from torch.nn import functional

from rerank_core.config.training import TEACHER_LOSSES, TrainingStage

ListLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class PairCrossEncoder(CrossEncoder):
    """A CrossEncoder whose documents may bring their own query side; in all else, and on disk, a CrossEncoder."""

    def preprocess(self, inputs: Sequence[Any], *args: Any, **options: Any) -> Any:
        whole = [pair if isinstance(pair[1], str) else tuple(pair[1]) for pair in inputs]
        return super().preprocess(whole, *args, **options)


class TeacherLoss(nn.Module):
    """`rule` of each list's logits and its teacher's, float32 [documents] each, averaged over the lists."""

    def __init__(self, model: CrossEncoder, rule: ListLoss) -> None:
        super().__init__()
        self.model, self.rule = model, rule

    def forward(
        self,
        inputs: list[Any],
        labels: list[torch.Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> torch.Tensor:
        queries, lists = inputs
        pairs = [(query, document) for query, held in zip(queries, lists, strict=True) for document in held]
        features = batch_to_device(self.model.preprocess(pairs, prompt=prompt, task=task), self.model.device)
        student = self.model(features)["scores"].view(-1).float().split([len(held) for held in lists])
        taught = [
            self.rule(own, teacher.to(own.device).float())
            for own, teacher in zip(student, labels, strict=True)
        ]
        return torch.stack(taught).mean()


def margin_mse(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared error of how far the positive, which stands first, exceeds each negative."""
    return functional.mse_loss(student[0] - student[1:], teacher[0] - teacher[1:])


def distil(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Each pair's teacher probability by BCE, plus the teacher's distribution over the list by InfoNCE."""
    pointwise = functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    return pointwise + functional.cross_entropy(student, teacher.softmax(0))


def make_loss(model: CrossEncoder, stage: TrainingStage) -> nn.Module:
    """The loss that a stage names."""
    if stage.loss == "bce":
        return losses.BinaryCrossEntropyLoss(
            model, pos_weight=torch.tensor(stage.pos_weight, device=model.device)
        )
    if stage.loss in TEACHER_LOSSES:
        return TeacherLoss(model, margin_mse if stage.loss == "margin_mse" else distil)
    kinds = {"listwise": losses.ListNetLoss, "lambda": losses.LambdaLoss, "ranknet": losses.RankNetLoss}
    made: nn.Module = kinds[stage.loss](model, mini_batch_size=-1)  # -1: a batch is one forward pass
    return made


def list_labels(loss: str, *, logits: Sequence[float], size: int) -> list[float]:
    """Labels of a list of `size` documents whose first is the positive, as `loss` wants them."""
    if loss in TEACHER_LOSSES:
        return list(logits)
    return [0.0] + [-math.inf] * (size - 1) if loss == "listwise" else [1.0] + [0.0] * (size - 1)
