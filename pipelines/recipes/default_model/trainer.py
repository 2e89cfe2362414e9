"""The training loop: groups of a positive and its negatives, three losses, a schedule by the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipelines.recipes.default_model.network import PairModel
from rerank_core.features.render import Rendered
from rerank_core.training.vocabulary import add_tags


class TrainSpec(NamedTuple):
    """How the model is trained."""

    minutes: float = 45.0  # of training steps, without the saving and measuring in between
    learning_rate: float = 5e-5
    head_rate: float = 2e-4  # learning rate of the small network and the token weights, which start at zero
    gate_rate: float = 1e-2  # learning rate of the gates and the three mixing weights, which must change most
    weight_decay: float = 0.01
    warm_up: float = 0.06  # share of the time
    groups: int = 4  # per step
    max_length: int = 128
    gold_weight: float = 1.0  # listwise cross-entropy on the positive
    pseudo_gold_weight: float = 0.3  # the same, for pseudo-queries
    teacher_weight: float = 0.3  # KL to the teacher's distribution over the group
    pseudo_teacher_weight: float = 1.0  # the same, for pseudo-queries
    level_weight: float = 0.1  # BCE, so that the sigmoid of a logit approximates a probability
    seed: int = 7


class Batch(NamedTuple):
    """Groups of a step, with their pairs in one list."""

    pairs: list[Rendered]
    sizes: list[int]  # pairs per group, the positive first
    teacher: list[np.ndarray]  # per group float32 [size]: the teacher's logits
    gold: list[float]  # weight of the gold label, per group
    taught: list[float]  # weight of the teacher's distribution, per group


def extend_tokenizer(
    base: str | Path, tags: Sequence[str]
) -> tuple[PreTrainedTokenizerFast, list[list[int]]]:
    """The base's tokenizer with each tag as one token, and for each the ids from which its embedding starts.

    Tags are matched literally (not lower-cased) and are no special tokens, so decoding keeps them.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    return tokenizer, add_tags(tokenizer, tags)


def encode(tokenizer: Any, pairs: Sequence[Rendered], *, max_length: int) -> dict[str, torch.Tensor]:
    """The model's three inputs, padded to the longest pair; the longer side is truncated first."""
    encoded = tokenizer(
        [p.query for p in pairs],
        [p.passage for p in pairs],
        truncation="longest_first",
        max_length=max_length,
        padding=True,
        return_tensors="pt",
        return_token_type_ids=True,
    )
    return {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def loss(logits: torch.Tensor, batch: Batch, spec: TrainSpec) -> dict[str, torch.Tensor]:
    """The three losses of a batch, each averaged over its groups, and "total", their weighted sum."""
    gold, teacher, level = [], [], []
    for group, taught, weight, share in zip(
        logits.split(batch.sizes), batch.teacher, batch.gold, batch.taught, strict=True
    ):
        log_share = group.log_softmax(0)
        gold.append(-weight * log_share[0])
        target = torch.from_numpy(taught).softmax(0)
        teacher.append(share * functional.kl_div(log_share, target, reduction="sum"))
        label = torch.zeros_like(group)
        label[0] = 1.0
        level.append(weight * functional.binary_cross_entropy_with_logits(group, label))
    parts = {
        name: torch.stack(v).mean() for name, v in (("gold", gold), ("teacher", teacher), ("level", level))
    }
    weights = {"gold": 1.0, "teacher": 1.0, "level": spec.level_weight}
    return parts | {"total": sum(weights[name] * value for name, value in parts.items())}


def schedule(progress: float, *, warm_up: float) -> float:
    """Factor of the learning rate at a share of the time: linear warm-up, then cosine decay to 0."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm_up) / (1 - warm_up))))


def train(
    model: PairModel,
    batches: Iterator[Batch],
    *,
    tokenizer: Any,
    spec: TrainSpec,
    on_step: Callable[[dict[str, float]], None],
    checkpoint_minutes: float = 15.0,
    on_checkpoint: Callable[[PairModel, float], None] = lambda model, minutes: None,
) -> dict[str, float]:
    """Train in place for `spec.minutes` of steps.

    The schedule runs by the clock, so that it ends in time on any machine; the number of steps, and with it the
    weights, differ slightly between runs for the same reason.

    Returns:
        steps, pairs, seconds (of steps and of building their batches) and pairs_per_second.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    torch.manual_seed(spec.seed)
    optimizer = _optimizer(model, spec)
    rates = [group["lr"] for group in optimizer.param_groups]
    spent, steps, pairs, saved = 0.0, 0, 0, 0.0
    model.train()
    start = time.monotonic()
    for batch in batches:  # the time that building a batch takes counts too
        if spent >= 60 * spec.minutes:
            break
        factor = schedule(spent / (60 * spec.minutes), warm_up=spec.warm_up)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        parts = _step(model, batch, optimizer, tokenizer=tokenizer, spec=spec)
        now = time.monotonic()
        spent, start, steps, pairs = spent + now - start, now, steps + 1, pairs + len(batch.pairs)
        on_step(parts | {"step": steps, "seconds": spent, "pairs": pairs, "lr": rates[0] * factor})
        if spent - saved >= 60 * checkpoint_minutes:
            saved = spent
            on_checkpoint(model, spent / 60)
            start = time.monotonic()
    return {"steps": steps, "pairs": pairs, "seconds": spent, "pairs_per_second": pairs / max(spent, 1e-9)}


def _step(
    model: PairModel, batch: Batch, optimizer: torch.optim.Optimizer, *, tokenizer: Any, spec: TrainSpec
) -> dict[str, float]:
    inputs = encode(tokenizer, batch.pairs, max_length=spec.max_length)
    with torch.autocast("cpu", torch.bfloat16):  # weights stay fp32; 2.4 times faster on processors with bf16
        logits = model(**inputs)
    parts = loss(logits.float().squeeze(-1), batch, spec)
    if not torch.isfinite(parts["total"]):
        raise FloatingPointError(f"loss is {parts['total'].item()}: lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    parts["total"].backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    return {name: value.item() for name, value in parts.items()}


def _optimizer(model: PairModel, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW with four groups: matrices, vectors (no decay), the new heads, and the scalars of gates and mixing."""
    scalars = {"gates", "scale", "bias"}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    heads = [p for n, p in trained if n.split(".")[0] in ("weigh", "mix", "out")]
    layers = [p for n, p in trained if n.startswith("layers.")]
    groups = [
        {"params": [p for p in layers if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in layers if p.ndim <= 1], "weight_decay": 0.0},
        {"params": heads, "weight_decay": spec.weight_decay, "lr": spec.head_rate},
        {"params": [p for n, p in trained if n in scalars], "weight_decay": 0.0, "lr": spec.gate_rate},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate)


@torch.no_grad()
def embed(
    model: PairModel, texts: Sequence[str], *, tokenizer: Any, max_length: int, size: int = 64
) -> np.ndarray:
    """The teacher's unit vectors, float32 [texts, hidden]; `model` must be untrained."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = np.zeros((len(texts), model.embeddings.word_embeddings.embedding_dim), dtype=np.float32)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        encoded = tokenizer(
            [texts[i] for i in chosen],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        with torch.autocast("cpu", torch.bfloat16):
            vectors[chosen] = model.encode(encoded["input_ids"], encoded["attention_mask"]).float().numpy()
    return vectors


def save_weights(model: PairModel, path: Path) -> None:
    """Write the weights as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}, str(path)
    )


def load_weights(model: PairModel, path: Path) -> None:
    """Load weights that `save_weights` wrote into a model of the same spec."""
    model.load_state_dict(load_file(str(path)))


def blend(
    start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Interpolated weights: share 0 is `start`, 1 is `end`.

    The start ranks well, so points between keep some of its breadth (Wortsman et al. 2022, WiSE-FT).
    """
    return {
        name: torch.lerp(value, end[name], share) if value.is_floating_point() else end[name]
        for name, value in start.items()
    }
