"""The training recipes of `examples/`, compared with the same nights and the same base model.

    python -m benchmarks.recipes --data DIR --base WEIGHTS_DIR --to WORK [--recipes card,guide,ours] [--queries 400]
        [--quick] [--json FILE]

Two nights are published into WORK: multi-hop questions (HotpotQA's train split, judged positives) and natural ones
(Natural Questions' train split, positives by answers). Then each recipe's TOML is written to WORK with these runs and
this base, and trained into WORK/model_RECIPE, at 128 tokens in bf16. Finished steps are skipped, and a killed training
is resumed. Compare the models with

    nightrank evaluate DIR/hotpotqa ... --system bm25 --system card=alone:WORK/model_card ... --system default

`--quick` has 40 questions per night and 20 steps per stage, and takes some minutes.

Figures by recipe: "seconds" of this run's training; "examples" (pairs or lists) of all stages; nDCG@10 in percent on
50 dev questions of HotpotQA: "first_dev_before" and "first_dev_after" the first stage, "first_dev_last" after the last;
"forgotten", the loss by the later stages.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import time
from pathlib import Path

from benchmarks.common import parser, report
from pipelines.nightly.run import run
from pipelines.sources.local.bm25_index import build_index
from pipelines.train import run as training
from rerank_core.config.night import parse_config
from rerank_core.config.training import load_training_config
from rerank_core.evaluation.qrels import read_qrels
from rerank_core.text import fingerprint
from rerank_core.training.dev_set import MEASURE

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NIGHTS = {"multi_hop": ("hotpotqa", "qrels"), "natural": ("nq", "answers")}
RECIPES = ("card", "guide", "ours")
RUN_DATE = datetime.date(2026, 3, 8)


def publish(name: str, *, data: Path, to: Path, queries: int) -> None:
    """Publish a night over train questions of one set, the first `queries` by a hash of their ids."""
    set_name, labels = NIGHTS[name]
    output, log = to / f"{name}_output", to / f"{name}.jsonl"
    if (output / "latest.json").exists():
        return
    judged = read_qrels(data / set_name / "qrels" / "train.tsv")
    lines = (data / set_name / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    asked = {json.loads(line)["_id"]: line for line in lines}
    drawn = sorted((i for i in asked if i in judged), key=lambda i: fingerprint("recipes", i))[:queries]
    log.write_text("\n".join(asked[i] for i in drawn) + "\n", encoding="utf-8")
    if not (to / f"{name}_index").exists():
        build_index(data / set_name / "corpus.jsonl", to / f"{name}_index")
    fields = {"query": "text", "timestamp": "", "user": "", "clicks": "", "impressions": ""}
    given = {"qrels": str(data / set_name / "qrels" / "train.tsv")} if labels == "qrels" else {}
    config = parse_config(
        {
            "source": {"log": str(log), "index": str(to / f"{name}_index")},
            "log": {"fields": fields},
            "candidates": {"top_k": 30},
            "evidence": {"top_n": 0},
            "labels": {"source": labels, "queries": str(data / set_name / "queries.jsonl")} | given,
            "output": {"path": str(output)},
        }
    )
    manifest = run(config, run_date=RUN_DATE)
    print(
        f"{name}: {manifest.balance.pairs['read']:,} pairs, {manifest.tables['hard_negatives'].rows:,} rows mined"
    )


def recipe_file(recipe: str, *, base: Path, data: Path, to: Path) -> Path:
    """Write the recipe's TOML with the nights, base and dev sets of this benchmark; paths in it start from `to`."""
    text = (EXAMPLES / f"train_{recipe}.toml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^max_length = .*\n", "", text)
    dev = 'max_length = 128\ndev_queries = 50\ndev_top_k = 20\nprecision = "bf16"\n'
    text = re.sub(r'(?m)^model = ".*"\n', f"model = {json.dumps(str(base.resolve()))}\n{dev}", text, count=1)
    text = text.replace('"../demo_output"', '"multi_hop_output", "natural_output"').replace('"../', '"')
    for name, (set_name, _) in NIGHTS.items():
        text = text.replace(f'dev = "{name}_output"', f"dev = {json.dumps(str((data / set_name).resolve()))}")
    path = to / f"train_{recipe}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def train(recipe: str, *, args: argparse.Namespace) -> dict[str, float]:
    """Train a recipe, and return its figures."""
    toml = recipe_file(recipe, base=args.base, data=args.data, to=args.to)
    config = load_training_config(toml)
    output = Path(config.output)
    seconds: dict[str, float] = {}
    if not (output / training.LAST).exists():
        start = time.perf_counter()
        training.train(
            config,
            command=f"nightrank train --config {toml.name}",
            toml=toml.read_text(encoding="utf-8"),
            resume=True,
            quick=args.quick,
            on_line=lambda line: line["kind"] != "loss" and print(recipe, line, flush=True),
        )
        seconds["seconds"] = time.perf_counter() - start
    lines = [json.loads(line) for line in (output / training.FIGURES).read_text().splitlines()]
    stages = [line for line in lines if line["kind"] == "stage"]
    first = [line[MEASURE] for line in lines if line["kind"] == "dev" and line["step"] == 0]
    figures = {"examples": sum(line["examples"] for line in stages)} | seconds
    if first:
        figures["first_dev_before"] = 100 * first[0]
        figures["first_dev_after"] = 100 * stages[0][MEASURE]
    if stages[-1].get("forgotten") is not None:
        figures["first_dev_last"] = 100 * stages[-1]["first_dev_now"]
        figures["forgotten"] = 100 * stages[-1]["forgotten"]
    return {f"{recipe}_{name}": value for name, value in figures.items()}


def main() -> None:
    flags = parser(__doc__ or "", data=True)
    flags.add_argument("--base", type=Path, required=True, help="folder of the base model, an encoder")
    flags.add_argument("--to", type=Path, required=True, help="folder for the nights and the models")
    flags.add_argument("--recipes", default=",".join(RECIPES), help="names, separated by commas")
    flags.add_argument("--queries", type=int, default=400, help="train questions per night")
    args = flags.parse_args()
    args.to.mkdir(parents=True, exist_ok=True)
    for name in NIGHTS:
        publish(
            name, data=args.data.resolve(), to=args.to.resolve(), queries=40 if args.quick else args.queries
        )
    figures: dict[str, float] = {}
    for recipe in args.recipes.split(","):
        figures |= train(recipe, args=args)
    report(figures, args.json)


if __name__ == "__main__":
    main()
