"""Trains and exports the model that ships with Nightrank; `nightrank evaluate` and `fuse` do the rest.

    python -m pipelines.recipes.default_model --data DIR --base E5 --out DIR
        [--steps 1500] [--seed 7] [--quick] [--json FILE]

Run it in a clone of the repository: recipes are not in the installed package. DATA holds the sets in BEIR's layout
(hotpotqa, musique, nq, squad, policyqa; docs/benchmarks/data.md says where they come from). Only their train splits are
used; some of the questions are held out to choose the weights. E5 holds e5-small-v2 as sentence-transformers' folder.
OUT gets model/ (the folder to ship), checkpoints/, an index per set, and what never changes of the texts, which is
computed once. A run that was stopped goes on where it was. `--quick` runs everything on a few queries.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from pipelines.recipes.default_model import measure, trainer
from pipelines.recipes.default_model import write as model_writer
from pipelines.recipes.default_model.items import Draw, Item
from pipelines.recipes.default_model.measure import EvaluationSet
from pipelines.recipes.default_model.network import Tower
from pipelines.recipes.default_model.questions import SetPassage
from pipelines.recipes.default_model.sets import training_data
from pipelines.recipes.default_model.texts import States, Text, passage_side, query_text
from rerank_core.features.render import passage_text, render
from rerank_core.inference.encoding import unlimited
from rerank_core.scoring.backends.bi_encoder import BiEncoderScorer
from rerank_core.scoring.backends.bi_encoder_folder import Logit, SingleEncoder, read_sentence_folder

MAX_LENGTH = 256  # tokens of a text
FROZEN = 6  # lowest layers
SCALE = 75.0  # of a cosine at the start: the temperature of e5-small-v2 that fits questions of the train splits best
BLENDS = (0.5, 0.75, 1.0)


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def progress(done: int, texts: int) -> None:
    """Says how far it is, about every four thousand texts."""
    if done // 4096 != (done - 64) // 4096 or done == texts:
        log(f"{done} of {texts} texts")


def held_out_texts(held_out: Sequence[EvaluationSet]) -> list[Text]:
    """All texts of the held-out questions, each once."""
    judged = [query for one in held_out for query in one.queries]
    found = dict.fromkeys(query_text(query.text) for query in judged)
    return list(found | dict.fromkeys(passage_side(p) for query in judged for p in query.candidates))


def quality_of(scores: measure.Scores, held_out: Sequence[EvaluationSet]) -> dict[str, float]:
    """nDCG@10 of each held-out set, and their mean under "mean"."""
    row = {one.name: measure.ndcg_10(scores, one) for one in held_out}
    return row | {"mean": round(sum(row.values()) / len(row), 4)}


def tower_scores(tower: Tower, states: States) -> measure.Scores:
    """Cosines of the network as it is, from the states on disk."""

    def scores(query: str, passages: Sequence[SetPassage]) -> np.ndarray:
        with torch.no_grad():
            asked, found = (
                trainer.encode(tower, states, texts)
                for texts in ([query_text(query)], [passage_side(passage) for passage in passages])
            )
        return np.asarray((found @ asked[0]).float().numpy())

    return scores


def file_scores(folder: Path) -> measure.Scores:
    """Cosines of a written model, the same as in a night."""
    loaded = BiEncoderScorer(folder, max_length=MAX_LENGTH)

    def scores(query: str, passages: Sequence[SetPassage]) -> np.ndarray:
        pairs = [render(query, passage_text(p.title, p.text)) for p in passages]
        return loaded.score([(pair.query, pair.passage) for pair in pairs])

    return scores


def choose_blend(
    tower: Tower,
    write: Callable[[str, Logit], Path],
    *,
    start: dict[str, torch.Tensor],
    held_out: Sequence[EvaluationSet],
) -> dict[str, Any]:
    """Set `tower` to the best of BLENDS between its initial and its trained weights, by the held-out mean.

    Each is measured in the form that ships: `write` writes the model under a name and returns the folder.
    """
    end = {name: value.detach().clone() for name, value in trainer.trained(tower).items()}
    quality = {}
    for share in BLENDS:
        tower.load_state_dict(trainer.blend(start, end, share), strict=False)
        quality[share] = quality_of(file_scores(write(f"blend_{share}", Logit(1.0, 0.0))), held_out)
        log(f"blend {share}: {quality[share]}")
    best = max(quality, key=lambda share: (quality[share]["mean"], share))
    tower.load_state_dict(trainer.blend(start, end, best), strict=False)
    return {"chosen_share": best, "ndcg_10": {str(share): row for share, row in quality.items()}}


def train(
    args: argparse.Namespace,
    tower: Tower,
    states: States,
    items: Sequence[Item],
    held_out: Sequence[EvaluationSet],
) -> dict[str, Any]:
    """Train `tower` in place."""
    spec = trainer.TrainSpec(steps=args.steps, draw=Draw(seed=args.seed))
    checkpoint = args.out / "checkpoints" / "last.pt"
    if not checkpoint.exists():
        log(f"untrained: {quality_of(tower_scores(tower, states), held_out)}")

    def on_step(facts: dict[str, float]) -> None:
        if facts["step"] % 10 == 0:
            log(json.dumps({name: round(value, 4) for name, value in facts.items()}))

    def on_checkpoint(step: int) -> None:
        if step % 250 == 0 or step == spec.steps:
            trainer.save_weights(tower, args.out / "checkpoints" / f"{step}.safetensors")
            log(
                f"step {step}, scale {tower.scale.item():.4f}: {quality_of(tower_scores(tower, states), held_out)}"
            )

    facts = trainer.train(
        tower,
        items,
        states,
        spec=spec,
        checkpoint=checkpoint,
        on_step=on_step,
        on_checkpoint=on_checkpoint,
    )
    log(f"trained: {facts}")
    return {"train": facts, "spec": spec._asdict() | {"draw": spec.draw._asdict()}, "items": len(items)}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipes.default_model", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--base", type=Path, required=True, help="folder of e5-small-v2")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
    parser.add_argument("--steps", type=int, default=trainer.TrainSpec().steps)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frozen", type=int, default=FROZEN, help="lowest layers kept as they are")
    parser.add_argument("--quick", action="store_true", help="a few queries of each set, a few steps")
    parser.add_argument(
        "--without", action="append", default=[], help="a set to leave out of training, for choosing only"
    )
    parser.add_argument("--weights", type=Path, help="safetensors to export, instead of training")
    parser.add_argument("--json", type=Path, help="file for the report")
    args = parser.parse_args(argv)
    args.steps = min(args.steps, 6) if args.quick else args.steps
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = read_sentence_folder(args.base)
    tower = Tower(args.base, pooling=settings.pooling, frozen=args.frozen, scale=SCALE).eval()  # no dropout
    start = {name: value.detach().clone() for name, value in trainer.trained(tower).items()}
    items, held_out = training_data(
        args.data, args.out, without=args.without, quick=args.quick, seed=args.seed
    )
    log(f"{len(items)} items, {sum(item.made for item in items)} of them made")
    encoder = SingleEncoder(
        unlimited(Tokenizer.from_file(str(args.base / "tokenizer.json"))),
        max_length=MAX_LENGTH,
        vocabulary=tower.embeddings.word_embeddings.num_embeddings,
        lower=settings.lower,
    )
    texts = [*trainer.texts_of(items), *held_out_texts(held_out)]
    states = States(args.out / "states", texts, tower=tower, encoder=encoder, settings=settings)
    states.compute(on_progress=progress)

    def write(name: str, logit: Logit) -> Path:
        folder: Path = args.out / name
        model_writer.write_model(tower, folder, base=args.base, logit=logit)
        return folder

    report: dict[str, Any] = {}
    if args.weights:
        trainer.load_weights(tower, args.weights)
    else:
        report |= train(args, tower, states, items, held_out)
    report["held_out"] = choose_blend(tower, write, start=start, held_out=held_out)
    trainer.save_weights(tower, args.out / "checkpoints" / "chosen.safetensors")
    folder = write("model", Logit(1.0, 0.0))
    logit = measure.fit_logit(file_scores(folder), held_out)
    for where in (folder, folder.with_name(f"{folder.name}_fp32")):
        model_writer.write_logit(where, logit)
    report["logit"] = logit._asdict()
    log(f"exported {folder}, {logit}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
