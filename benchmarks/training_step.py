"""A training step of the default model in bf16, with dropout and without.

    python -m benchmarks.training_step [--quick] [--json FILE]

Eight queries with six passages of 256 tokens each, forward and backward, in turns, two threads: seconds_dropout,
seconds_no_dropout (medians), and ratio, the first divided by the second. `--quick` takes two queries.
"""

from __future__ import annotations

import time

import torch
from torch.nn import functional

from benchmarks.common import median, parser, report
from rerank_core.scoring.load import DEFAULT_MODEL
from rerank_core.training.base_model import load_cross_encoder
from rerank_core.training.losses import PairCrossEncoder

PASSAGES, TOKENS, TURNS = 6, 256, 3


def seconds(model: PairCrossEncoder, pairs: list[tuple[str, str]]) -> float:
    """One step but for the optimizer's."""
    model.train()
    features = model.preprocess(pairs)
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(features)["scores"].float().view(-1, PASSAGES)
    model.zero_grad()
    functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)).backward()
    return time.perf_counter() - started


def main() -> None:
    args = parser(__doc__).parse_args()
    torch.set_num_threads(2)
    model = load_cross_encoder(DEFAULT_MODEL, max_length=TOKENS)
    pairs = [
        (f"query {query}", f"passage {query} {passage} " + "word " * TOKENS)
        for query in range(2 if args.quick else 8)
        for passage in range(PASSAGES)
    ]
    found: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TURNS):
        for dropout, times in found.items():
            model.dropout = dropout
            times.append(seconds(model, pairs))
    figures = {"seconds_dropout": median(found[True]), "seconds_no_dropout": median(found[False])}
    report(figures | {"ratio": figures["seconds_dropout"] / figures["seconds_no_dropout"]}, args.json)


if __name__ == "__main__":
    main()
