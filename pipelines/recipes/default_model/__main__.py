"""Trains and exports the model that ships with Nightrank; `nightrank evaluate` and `fuse` do the rest.

    python -m pipelines.recipes.default_model --data DIR --base WEIGHTS_DIR --out DIR
        [--minutes 65] [--seed 7] [--quick] [--json FILE]

Run it in a clone of the repository: recipes are not in the installed package. DATA holds the sets in BEIR's layout
(hotpotqa, musique, nq, squad, policyqa; docs/benchmarks/data.md says where they come from). Only their train splits are
used; some of the questions are held out to choose the weights. WEIGHTS_DIR holds all-MiniLM-L6-v2. OUT gets model/ (the
folder to ship), checkpoints/ (safetensors) and an index per set. `--quick` runs everything on a few queries. The
trade-off: one short run on two CPU cores, so breadth comes from the base model (see network.py), not from the data.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from pipelines.recipes.default_model import groups as training_groups
from pipelines.recipes.default_model import measure, trainer
from pipelines.recipes.default_model import write as model_writer
from pipelines.recipes.default_model.groups import TrainingGroup
from pipelines.recipes.default_model.measure import EvaluationSet
from pipelines.recipes.default_model.network import ModelSpec, PairModel, load_model
from pipelines.recipes.default_model.sets import training_data
from rerank_core.features.render import passage_text, special_tokens
from rerank_core.scoring.backends.onnx import OnnxScorer

MAX_LENGTH = 256  # tokens per pair, outside training
BLENDS = (0.7, 1.0)


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


class Vectors(dict[str, np.ndarray]):
    """The bi-encoder's unit vector of each text, computed once by `add`; `model` must be untrained."""

    def __init__(self, model: PairModel, tokenizer: Any, *, max_length: int) -> None:
        super().__init__()
        self._embed = partial(trainer.embed, model, tokenizer=tokenizer, max_length=max_length)

    def add(self, texts: Iterable[str]) -> None:
        missing = [t for t in dict.fromkeys(texts) if t not in self]
        if missing:
            self.update(zip(missing, self._embed(missing), strict=True))


def batch_stream(
    groups: list[TrainingGroup], vectors: Vectors, *, spec: trainer.TrainSpec
) -> Iterator[trainer.Batch]:
    """Batches without end; each epoch draws the modes of the tags again."""
    epoch = 0
    while True:
        for chosen in training_groups.batches(
            groups, size=spec.groups, epoch=epoch, seed=spec.seed, length=_length
        ):
            batch = trainer.Batch([], [], [], [], [])
            vectors.add(texts_in(chosen))
            for group in chosen:
                mode = training_groups.tag_mode(group.group_id, epoch=epoch, seed=spec.seed)
                tags = training_groups.shown_tags(
                    group.query, group.passages, mode=mode, key=f"{epoch}/{group.group_id}"
                )
                batch.pairs.extend(training_groups.rendered(group.query, group.passages, tags))
                batch.sizes.append(len(group.passages))
                cosines = measure.cosine_scores(vectors)(group.query, group.passages)
                batch.teacher.append((20 * cosines).astype(np.float32))
                pseudo = group.kind.startswith("pseudo:")
                batch.gold.append(spec.pseudo_gold_weight if pseudo else spec.gold_weight)
                batch.taught.append(spec.pseudo_teacher_weight if pseudo else spec.teacher_weight)
            yield batch
        epoch += 1


def _length(group: TrainingGroup) -> int:
    return max(len(p.text) for p in group.passages)


def texts_in(groups: Sequence[TrainingGroup]) -> set[str]:
    return {g.query for g in groups} | {passage_text(p.title, p.text) for g in groups for p in g.passages}


def scorer(folder: Path) -> measure.PairScores:
    """The scorer of a written model, the same as in a night."""
    loaded = OnnxScorer(folder, max_length=MAX_LENGTH)
    return lambda pairs: loaded.score([(p.query, p.passage) for p in pairs])


def held_out_quality(scores: measure.PairScores, held_out: Sequence[EvaluationSet]) -> dict[str, float]:
    """nDCG@10 of each held-out set, without tags, and their mean under "mean"."""
    row = {s.name: measure.ndcg_10(measure.model_scores(scores, mode="plain"), s) for s in held_out}
    return row | {"mean": round(sum(row.values()) / len(row), 4)}


def choose_blend(
    model: PairModel,
    write: Callable[[str], Path],
    *,
    start: dict[str, torch.Tensor],
    held_out: Sequence[EvaluationSet],
) -> dict[str, Any]:
    """Set `model` to the best of BLENDS between its initial and its trained weights, by the held-out mean.

    Each is measured in the form that ships: `write` writes the model under a name and returns the folder.
    """
    end = {name: value.clone() for name, value in model.state_dict().items()}
    quality = {}
    for share in BLENDS:
        model.load_state_dict(trainer.blend(start, end, share))
        quality[share] = held_out_quality(scorer(write(f"blend_{share}")), held_out)
        log(f"blend {share}: {quality[share]}")
    best = max(quality, key=lambda share: (quality[share]["mean"], share))
    model.load_state_dict(trainer.blend(start, end, best))
    return {"chosen_share": best, "ndcg_10": {str(share): row for share, row in quality.items()}}


def train(
    args: argparse.Namespace,
    model: PairModel,
    *,
    groups: list[TrainingGroup],
    vectors: Vectors,
    tokenizer: Any,
    write: Callable[[str], Path],
) -> dict[str, Any]:
    """Train `model` in place; every quarter of an hour a checkpoint is written in the form that ships."""
    log(f"{len(groups)} groups, {sum(len(g.passages) for g in groups)} pairs per epoch")
    spec = trainer.TrainSpec(minutes=args.minutes, seed=args.seed)

    def on_step(facts: dict[str, float]) -> None:
        if facts["step"] % 10 == 0:
            log(json.dumps({name: round(value, 6) for name, value in facts.items()}))

    def on_checkpoint(model: PairModel, minutes: float) -> None:
        trainer.save_weights(model, args.out / "checkpoints" / f"{minutes:.0f}min.safetensors")
        write(f"model_{minutes:.0f}min")
        log(f"checkpoint: gates {model.gates.mean(1).tolist()} scale {model.scale.tolist()}")

    stream = batch_stream(groups, vectors, spec=spec)
    facts = trainer.train(
        model, stream, tokenizer=tokenizer, spec=spec, on_step=on_step, on_checkpoint=on_checkpoint
    )
    trainer.save_weights(model, args.out / "checkpoints" / "last.safetensors")
    log(f"trained: {facts}; gates {model.gates.mean(1).tolist()} scale {model.scale.tolist()}")
    return {"train": facts, "spec": spec._asdict(), "groups": len(groups)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipes.default_model", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2's weights")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
    parser.add_argument("--minutes", type=float, default=45.0, help="time for training steps")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--quick", action="store_true", help="a few queries of each set, half a minute of training"
    )
    parser.add_argument(
        "--without", action="append", default=[], help="a set to leave out of training, for choosing only"
    )
    parser.add_argument(
        "--ordinary", action="store_true", help="start as an ordinary BERT classifier, for comparison"
    )
    parser.add_argument("--gate", type=float, default=ModelSpec().gate, help="initial value of the gates")
    parser.add_argument("--weights", type=Path, help="safetensors to export, instead of training")
    parser.add_argument("--json", type=Path, help="file for the report")
    args = parser.parse_args(argv)
    args.minutes = min(args.minutes, 0.5) if args.quick else args.minutes
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer, pieces = trainer.extend_tokenizer(args.base, special_tokens())
    spec = ModelSpec(closed_layers=0, biencoder_start=False) if args.ordinary else ModelSpec(gate=args.gate)
    model = load_model(args.base, spec=spec, new_tokens=pieces)
    teacher = load_model(args.base, spec=ModelSpec(), new_tokens=pieces)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    config = BertConfig.from_pretrained(args.base)

    def write(name: str) -> Path:
        folder: Path = args.out / name
        model_writer.write_model(model, folder, tokenizer=tokenizer, config=config)
        return folder

    report: dict[str, Any] = {"model": spec._asdict()}
    groups, held_out = training_data(
        args.data, args.out, without=set(args.without), quick=args.quick, seed=args.seed
    )
    if args.weights:
        trainer.load_weights(model, args.weights)
    else:
        vectors = Vectors(teacher, tokenizer, max_length=trainer.TrainSpec().max_length)
        report |= train(args, model, groups=groups, vectors=vectors, tokenizer=tokenizer, write=write)
    report["held_out"] = choose_blend(model, write, start=start, held_out=held_out)
    trainer.save_weights(model, args.out / "checkpoints" / "chosen.safetensors")
    log(f"exported {write('model')}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
