"""Losses against their formulas, by the logits of a real tiny model, with and without tags."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from rerank_core.config.training import TrainingStage
from rerank_core.training.losses import PairCrossEncoder, list_labels, make_loss
from tests.support.tiny_models import write_cross_encoder

LISTS = [
    [
        ("[HOP:0] who wrote dune", "frank herbert"),
        ("who wrote dune", "sand moves"),
        ("who", "the novel was by"),
    ],
    [("the novel", "dune was written"), ("[HOP:1] the novel", "who")],
]
TEACHER = [[2.0, -1.0, 0.5], [0.3, 1.1]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PairCrossEncoder:
    folder: Path = write_cross_encoder(tmp_path_factory.mktemp("model") / "bert")
    return PairCrossEncoder(str(folder), num_labels=1, max_length=32, device="cpu").eval()


def value(model: PairCrossEncoder, name: str, **fields: float) -> torch.Tensor:
    loss = make_loss(model, TrainingStage(name="s", runs=("r",), loss=name, **fields))  # type: ignore[arg-type]
    labels = [
        torch.tensor(list_labels(name, logits=teacher, size=len(held)))
        for held, teacher in zip(LISTS, TEACHER, strict=True)
    ]
    return loss([["", ""], LISTS], labels)


@pytest.fixture(scope="module")
def logits(model: PairCrossEncoder) -> list[torch.Tensor]:
    """One forward pass a pair, by transformers alone."""
    with torch.no_grad():
        return [
            torch.cat(
                [model.model(**model.tokenizer(*pair, return_tensors="pt")).logits.view(-1) for pair in held]
            )
            for held in LISTS
        ]


def mean(of: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(of).mean()


def test_listwise_is_the_cross_entropy_of_the_positive_among_its_negatives(model, logits) -> None:
    wanted = mean([functional.cross_entropy(own, torch.tensor(0)) for own in logits])
    torch.testing.assert_close(value(model, "listwise"), wanted)


def test_margin_mse_is_the_squared_error_of_the_margins(model, logits) -> None:
    wanted = mean(
        [
            torch.stack([(own[0] - own[n] - (t[0] - t[n])) ** 2 for n in range(1, len(t))]).mean()
            for own, t in zip(logits, TEACHER, strict=True)
        ]
    )
    torch.testing.assert_close(value(model, "margin_mse"), wanted)


def test_distil_is_least_where_the_student_says_what_the_teacher_says(model, logits) -> None:
    found = value(model, "distil")
    wanted = []
    for own, t in zip(logits, TEACHER, strict=True):
        p, q = torch.tensor(t).sigmoid(), own.sigmoid()
        bce = -(p * q.log() + (1 - p) * (1 - q).log()).mean()
        wanted.append(bce - (torch.tensor(t).softmax(0) * own.log_softmax(0)).sum())
    torch.testing.assert_close(found, mean(wanted))


@pytest.mark.parametrize("name", ["lambda", "ranknet"])
def test_ranking_losses_fall_where_the_positive_rises(model, name) -> None:
    before = value(model, name)
    before.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad
    after = value(model, name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter += 1e-4 * parameter.grad
                parameter.grad = None
    assert after < before


def test_bce_weighs_the_positives(model, logits) -> None:
    pairs = [pair for held in LISTS for pair in held]
    labels = torch.tensor([1.0, 0, 0, 1, 0])
    loss = make_loss(model, TrainingStage(name="s", runs=("r",), pos_weight=1.2))
    found = loss([[q for q, _ in pairs], [p for _, p in pairs]], labels)
    wanted = functional.binary_cross_entropy_with_logits(
        torch.cat(logits), labels, pos_weight=torch.tensor(1.2)
    )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dropout", [False, True])
def test_a_model_in_training_drops_activations_only_if_it_is_to(tmp_path: Path, dropout: bool) -> None:
    folder = write_cross_encoder(tmp_path / "bert")
    trained = PairCrossEncoder(str(folder), num_labels=1, max_length=32, device="cpu")
    trained.dropout = dropout
    trained.train()

    features = trained.preprocess(LISTS[0])
    first, second = (trained(dict(features))["scores"] for _ in range(2))
    assert torch.equal(first, second) is not dropout
    assert first.requires_grad
    assert not trained.eval().training
