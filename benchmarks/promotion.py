"""Models that must not serve, made from the shipped one, and whether the gate of promotion turns each of them down.

    python -m benchmarks.promotion [--quick] [--json FILE]

A night over the bundled passages is published by the shipped model, which serves. Then candidates are decided about on
the bundled judged questions: a copy of the shipped model, which must pass ("good_promoted"), and copies with one
defect each, as a wrong export or training makes them: the head's sign turned around, one score for all, NaN, scores of
another order, a vocabulary that is shifted against the embeddings, scores near 1, three times the time, a high score
for the tag [HOP:0] alone, a file cut short. "held_bad_model" is the share of these that is turned down; "rejected_NAME"
is 1 where one is, and its reasons are printed. `--quick` asks 12 questions in place of all. The margin is the smallest
that the number of questions can show.
"""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from benchmarks.common import SAMPLE, parser, report, sample_config
from pipelines.nightly.run import run
from pipelines.promotion.steps import promote_candidate
from pipelines.registry.store import Registry
from rerank_core.config.night import Config
from rerank_core.promotion.rules import least_margin
from rerank_core.scoring.load import DEFAULT_MODEL

DAY = datetime.date(2026, 3, 8)
EVENTS, TOP_K, QUESTIONS = 40, 12, 112
Change = Callable[[onnx.ModelProto], None]


def on_logits(operator: str, value: float | None = None) -> Change:
    """The logits after one operator, with a constant as its second input if there is a value."""

    def change(model: onnx.ModelProto) -> None:
        inputs = ["logits_before"]
        if value is not None:
            inputs.append("changed_by")
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "changed_by"))
        _rename(model)
        model.graph.node.append(helper.make_node(operator, inputs, ["logits"]))

    return change


def other_order(model: onnx.ModelProto) -> None:
    """sin(1000 x): an order that has nothing to do with the model's."""
    on_logits("Mul", 1000.0)(model)
    model.graph.node[-1].output[0] = "logits_scaled"
    model.graph.node.append(helper.make_node("Sin", ["logits_scaled"], ["logits"]))


def shifted_vocabulary(model: onnx.ModelProto) -> None:
    """Every token gets the embedding of another."""
    for held in model.graph.initializer:
        if "word_embeddings" in held.name and len(held.dims) == 2:
            held.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(held), 7, axis=0), held.name))
            return
    raise AssertionError("the model has no word embeddings")


def slow(model: onnx.ModelProto) -> None:
    """Large products that change nothing, for each token."""
    _rename(model)
    add, size = model.graph.initializer.append, 1024
    add(numpy_helper.from_array(np.full((size, size), 1e-4, np.float32), "slow_matrix"))
    add(numpy_helper.from_array(np.zeros((1, size), np.float32), "slow_zeros"))
    add(numpy_helper.from_array(np.array([2], np.int64), "slow_axis"))
    add(numpy_helper.from_array(np.array([1, 2], np.int64), "slow_axes"))
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["slow_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["slow_mask", "slow_axis"], ["slow_column"]),
        helper.make_node("MatMul", ["slow_column", "slow_zeros"], ["slow_0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"slow_{n}", "slow_matrix"], [f"slow_{n + 1}"]) for n in range(12)]
    nodes += [
        helper.make_node("ReduceSum", ["slow_12", "slow_axes"], ["slow_nothing"], keepdims=0),
        helper.make_node("Unsqueeze", ["slow_nothing", "slow_last"], ["slow_shaped"]),
        helper.make_node("Add", ["logits_before", "slow_shaped"], ["logits"]),
    ]
    add(numpy_helper.from_array(np.array([1], np.int64), "slow_last"))
    model.graph.node.extend(nodes)


def tags_alone(model: onnx.ModelProto) -> None:
    """A tenth of the logit, and 8 for a query that begins with [HOP:0]."""
    tokenizer = Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json"))
    head = tokenizer.encode("[HOP:0]").ids[1:-1]
    _rename(model)
    add = model.graph.initializer.append
    add(numpy_helper.from_array(np.arange(1, 1 + len(head)), "tag_places"))
    add(numpy_helper.from_array(np.array([0, 0, 0, 1 + len(head)], np.int64), "tag_room"))  # for short inputs
    add(numpy_helper.from_array(np.array(head, np.int64), "tag_ids"))
    add(numpy_helper.from_array(np.array([1], np.int64), "tag_axis"))
    add(numpy_helper.from_array(np.array(0.1, np.float32), "tag_rest"))
    add(numpy_helper.from_array(np.array(8, np.float32), "tag_weight"))
    model.graph.node.extend(
        [
            helper.make_node("Pad", ["input_ids", "tag_room"], ["tag_long"]),
            helper.make_node("Gather", ["tag_long", "tag_places"], ["tag_seen"], axis=1),
            helper.make_node("Equal", ["tag_seen", "tag_ids"], ["tag_equal"]),
            helper.make_node("Cast", ["tag_equal"], ["tag_float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["tag_float"], ["tag_all"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["tag_all", "tag_weight"], ["tag_score"]),
            helper.make_node("Mul", ["logits_before", "tag_rest"], ["tag_other"]),
            helper.make_node("Add", ["tag_other", "tag_score"], ["logits"]),
        ]
    )


def _rename(model: onnx.ModelProto) -> None:
    """Free the name `logits` for what is added."""
    for node in model.graph.node:
        node.output[:] = ["logits_before" if name == "logits" else name for name in node.output]


BAD: dict[str, Change | None] = {
    "reversed": on_logits("Neg"),
    "constant": on_logits("Mul", 0.0),
    "nan": on_logits("Mul", float("nan")),
    "other_order": other_order,
    "shifted_vocabulary": shifted_vocabulary,
    "overconfident": on_logits("Add", 12.0),
    "slow": slow,
    "tags_alone": tags_alone,
    "cut_short": None,
}

KEEP_ORDER = ("overconfident", "slow")


def copy_model(folder: Path, name: str) -> Path:
    """The shipped model with one defect. Those that keep the order keep the fusion weights: their nDCG is no worse."""
    shutil.copytree(DEFAULT_MODEL, folder)
    (path,) = folder.glob("onnx/*.onnx")
    (folder / "README.md").write_text(f"A copy of the shipped model: {name}.\n")
    if name == "good":
        return folder
    if name not in KEEP_ORDER:
        (folder / "fusion.json").unlink()
    if name == "tags_alone":
        (folder / "nightrank.json").write_text(json.dumps({"reads_tags": True}) + "\n")
    change = BAD[name]
    if change is None:
        path.write_bytes(path.read_bytes()[:-1000])
        return folder
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return folder


def publish_night(folder: Path, *, queries: int) -> Config:
    """A night over the bundled passages by the shipped model, which is in the registry and serves."""
    log = folder / "log.jsonl"
    with (SAMPLE / "query_log.jsonl").open(encoding="utf-8") as lines:
        log.write_text("".join(line for line, _ in zip(lines, range(EVENTS), strict=False)), encoding="utf-8")
    config = sample_config(
        folder,
        log=log,
        output="output",
        scoring={"model": "registry:serving"},
        candidates={"top_k": TOP_K},
        evidence={"top_n": 0},
        registry={"path": str(folder / "registry")},
        promotion={
            "judged_sets": [str(SAMPLE)],
            "max_queries": queries,
            "margin": 1.05 * least_margin(queries),
        },
    )
    registry = Registry(config.registry.path)
    registry.promote(registry.add(DEFAULT_MODEL).id, reason="the model that ships", forced=True)
    run(config, run_date=DAY)
    return config


def decide(config: Config, folder: Path, name: str) -> dict[str, Any]:
    """Add a copy as a candidate, and the decision about it; it does not serve afterwards."""
    registry = Registry(config.registry.path)
    entry = registry.add(copy_model(folder, name))
    result = promote_candidate(config, run_date=DAY, model=entry.id, dry_run=True)
    print(f"{name}: {'promoted, ' if result['promoted'] else ''}{result['reason']}", flush=True)
    return result


def held_bad_model(config: Config, folder: Path) -> dict[str, float]:
    """The figures of the copies: which are turned down, and the share of the bad ones that is."""
    results = {name: decide(config, folder / name, name) for name in ("good", *BAD)}
    figures = {f"rejected_{name}": float(not results[name]["promoted"]) for name in BAD}
    figures["good_promoted"] = float(results["good"]["promoted"])
    rejected = [value for name, value in figures.items() if name.startswith("rejected_")]
    return {"held_bad_model": sum(rejected) / len(rejected), "bad_models": float(len(rejected)), **figures}


def main() -> None:
    args = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as work:
        config = publish_night(Path(work), queries=12 if args.quick else QUESTIONS)
        report(held_bad_model(config, Path(work) / "candidates"), args.json)


if __name__ == "__main__":
    main()
