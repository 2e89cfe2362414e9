"""The training loop: every query of a step is compared with every passage of the step.

Two losses. A labelled query's positives should stand above its own negatives. And the shares of all passages of the
step should stay those of the untrained base, the teacher: that keeps what it knows of text that no set is about.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from pipelines.recipes.default_model.items import Draw, Drawn, Item, by_kind, drawn
from pipelines.recipes.default_model.network import Tower
from pipelines.recipes.default_model.texts import States, Text, passage_side, query_text


class TrainSpec(NamedTuple):
    """How the network is trained."""

    steps: int = 1500
    learning_rate: float = 2e-5
    scale_rate: float = 2e-3
    weight_decay: float = 0.01
    warm_up: int = 60  # steps
    decay: float = 0.3  # last share of the steps, in which the rate falls to 0
    tokens: int = 160  # of a passage, at most
    teacher_weight: float = 0.5  # of a labelled query
    made_teacher_weight: float = 1.0  # of a made one, which has no other loss
    draw: Draw = Draw()


class Batch(NamedTuple):
    """The texts of a step."""

    queries: list[Text]
    passages: list[Text]  # each once, shorter ones first
    positives: list[list[int]]  # per query
    negatives: list[list[int]]  # per query
    made: list[bool]  # per query


def batch_of(chosen: Sequence[Drawn], states: States) -> Batch:
    of = [
        ([passage_side(p) for p in one.positives], [passage_side(p) for p in one.negatives], one.item.unsure)
        for one in chosen
    ]
    every = {text for own, others, unsure in of for text in (*own, *others, *map(passage_side, unsure))}
    passages = sorted(every, key=lambda text: (states.length(text), text.text))
    place = {text: n for n, text in enumerate(passages)}
    positives = [list(dict.fromkeys(place[text] for text in own)) for own, _, _ in of]
    return Batch(
        [query_text(one.item.query) for one in chosen],
        passages,
        positives,
        [
            [n for n in dict.fromkeys(place[text] for text in others) if n not in own]
            for own, (_, others, _) in zip(positives, of, strict=True)
        ],
        [one.item.made for one in chosen],
    )


def texts_of(items: Sequence[Item]) -> list[Text]:
    """All texts of the items, each once."""
    found = dict.fromkeys(query_text(item.query) for item in items)
    found |= dict.fromkeys(passage_side(passage) for item in items for passage in item.passages)
    return list(found)


def encode(
    tower: Tower, states: States, texts: Sequence[Text], *, parts: int = 1, limit: int = 10_000
) -> torch.Tensor:
    """Vectors of texts, in `parts` of about equal size: sorted by length, they need less padding."""
    size = max(1, math.ceil(len(texts) / parts))
    vectors = []
    for start in range(0, len(texts), size):
        hidden, mask = states.get(texts[start : start + size], limit=limit)
        with torch.autocast("cpu", torch.bfloat16):  # weights stay fp32; 2 to 6 times faster with bf16 units
            vectors.append(tower.upper(hidden, mask))
    return torch.cat(vectors)


def loss(
    logits: torch.Tensor, teacher: torch.Tensor, batch: Batch, spec: TrainSpec
) -> dict[str, torch.Tensor]:
    """The two losses of a batch, each averaged over its queries, and "total", their sum.

    Args:
        logits: of every query with every passage of the step, float32 [queries, passages].
        teacher: likewise.
        batch: which passages are a query's own.
        spec: the weights.
    """
    shares, wanted = logits.log_softmax(1), teacher.log_softmax(1)
    apart = functional.kl_div(shares, wanted, log_target=True, reduction="none").sum(1)
    made = torch.tensor(batch.made)
    taught = (apart * torch.where(made, spec.made_teacher_weight, spec.teacher_weight)).mean()
    gold = logits.new_zeros(len(batch.queries))
    for n, (positives, negatives) in enumerate(zip(batch.positives, batch.negatives, strict=True)):
        if not batch.made[n] and negatives:
            own, others = logits[n, positives], logits[n, negatives].logsumexp(0)
            gold[n] = (torch.logaddexp(own, others) - own).mean()
    return {"gold": gold.mean(), "teacher": taught, "total": gold.mean() + taught}


def schedule(step: int, spec: TrainSpec) -> float:
    """Factor of the learning rate: linear warm-up, constant, and linear decay to 0 at the end.

    The constant part makes a run that is stopped early worth keeping, and one that went well can go on.
    """
    decay = (spec.steps - step) / max(1.0, spec.decay * spec.steps)
    return max(0.0, min(1.0, (step + 1) / spec.warm_up, decay))


def train(
    tower: Tower,
    items: Sequence[Item],
    states: States,
    *,
    spec: TrainSpec,
    checkpoint: Path,
    every: int = 50,
    on_step: Callable[[dict[str, float]], None] = lambda facts: None,
    on_checkpoint: Callable[[int], None] = lambda step: None,
) -> dict[str, float]:
    """Train in place, from `checkpoint` on if it exists; it is written whole every `every` steps.

    Returns:
        steps, texts, seconds and texts_per_second of this call.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    optimizer = _optimizer(tower, spec)
    rates = [group["lr"] for group in optimizer.param_groups]
    first = _resume(tower, optimizer, checkpoint)
    kinds = by_kind(items)
    start, texts = time.monotonic(), 0
    for step in range(first, spec.steps):
        batch = batch_of(drawn(kinds, step, spec.draw), states)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(step, spec)
        parts = _step(tower, batch, states, optimizer, spec=spec)
        texts += len(batch.queries) + len(batch.passages)
        on_step(parts | {"step": step + 1, "texts": texts, "seconds": time.monotonic() - start})
        if (step + 1) % every == 0 or step + 1 == spec.steps:
            _save(tower, optimizer, checkpoint, step=step + 1)
            on_checkpoint(step + 1)
    seconds = time.monotonic() - start
    return {
        "steps": spec.steps - first,
        "texts": texts,
        "seconds": seconds,
        "texts_per_second": texts / max(seconds, 1e-9),
    }


def _step(
    tower: Tower, batch: Batch, states: States, optimizer: torch.optim.Optimizer, *, spec: TrainSpec
) -> dict[str, float]:
    logits = tower.logits(
        encode(tower, states, batch.queries),
        encode(tower, states, batch.passages, parts=3, limit=spec.tokens),
    )
    cosines = states.vectors(batch.queries) @ states.vectors(batch.passages).T
    parts = loss(logits, torch.from_numpy(tower.start * cosines), batch, spec)
    if not torch.isfinite(parts["total"]):
        raise FloatingPointError(f"loss is {parts['total'].item()}: lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    parts["total"].backward()
    torch.nn.utils.clip_grad_norm_(trained(tower).values(), 1.0)
    optimizer.step()
    return {name: value.item() for name, value in parts.items()}


def trained(tower: Tower) -> dict[str, torch.nn.Parameter]:
    """The parameters that are not frozen, by name."""
    return {name: p for name, p in tower.named_parameters() if p.requires_grad}


def _optimizer(tower: Tower, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW with three groups: matrices, vectors (no decay), and the scale."""
    parameters = trained(tower)
    layers = [p for name, p in parameters.items() if name != "scale"]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in layers if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in layers if p.ndim <= 1], "weight_decay": 0.0},
        {"params": [parameters["scale"]], "weight_decay": 0.0, "lr": spec.scale_rate},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(0.9, 0.98))


def _save(tower: Tower, optimizer: torch.optim.Optimizer, path: Path, *, step: int) -> None:
    """Write everything that training goes on from, by one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {name: p.detach() for name, p in trained(tower).items()}
    torch.save({"trained": values, "optimizer": optimizer.state_dict(), "step": step}, f"{path}.part")
    os.replace(f"{path}.part", path)


def _resume(tower: Tower, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Load what `_save` wrote, and return its step; 0 if there is nothing."""
    if not path.exists():
        return 0
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    tower.load_state_dict(saved["trained"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["step"])


def save_weights(tower: Tower, path: Path) -> None:
    """Write the trained weights as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: p.detach().clone().contiguous() for name, p in trained(tower).items()}, str(path))


def load_weights(tower: Tower, path: Path) -> None:
    """Load weights that `save_weights` wrote."""
    tower.load_state_dict(load_file(str(path)), strict=False)


def blend(
    start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Interpolated weights: share 0 is `start`, 1 is `end`.

    The start ranks well, so points between keep some of its breadth (Wortsman et al. 2022, WiSE-FT).
    """
    return {name: torch.lerp(value, end[name], share) for name, value in start.items()}
