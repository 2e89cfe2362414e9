"""Models that must not serve, made from the shipped one, and whether the gate of promotion turns each of them down.

    python -m benchmarks.promotion [--quick] [--json FILE]

A night over the bundled passages is published by the shipped model, which serves. Then candidates are decided about on
the bundled judged questions: a copy of the shipped model, which must pass ("good_promoted"), and copies with one
defect each, as a wrong export or training makes them: the sign turned around, one score for all, NaN, scores of
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
from rerank_core.inference.model_folder import OWN_SETTINGS
from rerank_core.promotion.rules import least_margin
from rerank_core.ranking.fusion import FILE
from rerank_core.scoring.load import DEFAULT_MODEL

DAY = datetime.date(2026, 3, 8)
EVENTS, TOP_K, QUESTIONS = 40, 12, 112
STATES = "last_hidden_state"
PRODUCTS = 32  # of `slow`
Change = Callable[[onnx.ModelProto], None]


def on_states(operator: str, value: float | None = None) -> Change:
    """The hidden states after one operator, with a constant as its second input if there is a value."""

    def change(model: onnx.ModelProto) -> None:
        inputs = ["states_before"]
        if value is not None:
            inputs.append(_constant(model, "changed_by", np.float32(value)))
        _append(model, helper.make_node(operator, inputs, [STATES]))

    return change


def reversed_(model: onnx.ModelProto) -> None:
    """The states of a query with the other sign, so that every cosine has it."""
    _append(
        model,
        *_has_tokens(model, _prompt("query"), at=1),
        helper.make_node("Neg", ["states_before"], ["states_negated"]),
        helper.make_node("Where", ["found", "states_negated", "states_before"], [STATES]),
    )


def other_order(model: onnx.ModelProto) -> None:
    """sin(1000 x): vectors that have nothing to do with the model's."""
    _append(
        model,
        helper.make_node(
            "Mul", ["states_before", _constant(model, "factor", np.float32(1000))], ["states_scaled"]
        ),
        helper.make_node("Sin", ["states_scaled"], [STATES]),
    )


def shifted_vocabulary(model: onnx.ModelProto) -> None:
    """Every token gets the embedding of another."""
    found = [
        held for held in model.graph.initializer if "word_embeddings" in held.name and len(held.dims) == 2
    ]
    assert found, "the model has no word embeddings"
    for held in found:
        held.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(held), 7, axis=0), held.name))


def slow(model: onnx.ModelProto) -> None:
    """Large products that change nothing, for each token."""
    size = 1024
    matrix = _constant(model, "slow_matrix", np.full((size, size), 1e-4, np.float32))
    zeros = _constant(model, "slow_zeros", np.zeros((1, size), np.float32))
    last = _constant(model, "slow_axis", np.array([2], np.int64))
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["slow_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["slow_mask", last], ["slow_column"]),
        helper.make_node("MatMul", ["slow_column", zeros], ["slow_0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"slow_{n}", matrix], [f"slow_{n + 1}"]) for n in range(PRODUCTS)]
    nodes += [
        helper.make_node("ReduceSum", [f"slow_{PRODUCTS}", last], ["slow_nothing"], keepdims=1),
        helper.make_node("Add", ["states_before", "slow_nothing"], [STATES]),
    ]
    _append(model, *nodes)


def tags_alone(model: onnx.ModelProto) -> None:
    """States that say little but whether a query begins with [HOP:0]: a passage's vector is near that one's."""
    query, tagged = _prompt("query"), _prompt("query", "[HOP:0]")
    large = _constant(model, "large", np.float32(10))
    _append(
        model,
        *_has_tokens(model, query, at=1, name="asks"),
        *_has_tokens(model, tagged, at=1, name="tagged"),
        helper.make_node("Not", ["tagged"], ["untagged"]),
        helper.make_node("And", ["asks", "untagged"], ["far"]),
        helper.make_node("Neg", [large], ["small"]),
        helper.make_node("Where", ["far", "small", large], ["shift"]),
        helper.make_node("Add", ["states_before", "shift"], [STATES]),
    )


def _prompt(side: str, text: str = "") -> list[int]:
    """The token ids that a text of one side begins with."""
    settings = json.loads((DEFAULT_MODEL / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(DEFAULT_MODEL / "tokenizer.json"))
    return list(tokenizer.encode(settings["prompts"][side] + text).ids[1:-1])


def _has_tokens(
    model: onnx.ModelProto, ids: list[int], *, at: int, name: str = "found"
) -> list[onnx.NodeProto]:
    """Whether a row has these ids from one place on: bool [batch, 1, 1], as the output `name`."""
    places = _constant(model, f"{name}_places", np.arange(at, at + len(ids)))
    room = _constant(model, f"{name}_room", np.array([0, 0, 0, at + len(ids)], np.int64))  # for short rows
    wanted, axis = (
        _constant(model, f"{name}_ids", np.array(ids, np.int64)),
        _constant(model, f"{name}_axis", [2]),
    )
    return [
        helper.make_node("Pad", ["input_ids", room], [f"{name}_long"]),
        helper.make_node("Gather", [f"{name}_long", places], [f"{name}_seen"], axis=1),
        helper.make_node("Equal", [f"{name}_seen", wanted], [f"{name}_equal"]),
        helper.make_node("Cast", [f"{name}_equal"], [f"{name}_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", [f"{name}_float"], [f"{name}_all"], axes=[1], keepdims=1),
        helper.make_node("Cast", [f"{name}_all"], [f"{name}_row"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", [f"{name}_row", axis], [name]),
    ]


def _constant(model: onnx.ModelProto, name: str, value: Any) -> str:
    """Add a constant, and give its name back."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _append(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Add nodes that make STATES of what is then called `states_before`."""
    for node in model.graph.node:
        node.output[:] = ["states_before" if name == STATES else name for name in node.output]
    model.graph.node.extend(nodes)


def overconfident(folder: Path) -> None:
    """Every fused logit 12 higher. Of higher logits of the model alone fusion takes a part off again."""
    weights = json.loads((folder / FILE).read_text(encoding="utf-8"))
    weights["bias"] += 12
    (folder / FILE).write_text(json.dumps(weights) + "\n", encoding="utf-8")


def cut_short(folder: Path) -> None:
    """An ONNX file without its end."""
    (path,) = folder.glob("onnx/*.onnx")
    path.write_bytes(path.read_bytes()[:-1000])


def in_graph(change: Change) -> Callable[[Path], None]:
    """A defect of the ONNX graph as one of the folder."""

    def defect(folder: Path) -> None:
        (path,) = folder.glob("onnx/*.onnx")
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)

    return defect


BAD: dict[str, Callable[[Path], None]] = {
    "reversed": in_graph(reversed_),
    "constant": in_graph(on_states("Mul", 0.0)),
    "nan": in_graph(on_states("Mul", float("nan"))),
    "other_order": in_graph(other_order),
    "shifted_vocabulary": in_graph(shifted_vocabulary),
    "overconfident": overconfident,
    "slow": in_graph(slow),
    "tags_alone": in_graph(tags_alone),
    "cut_short": cut_short,
}

KEEP_ORDER = ("overconfident", "slow")


def copy_model(folder: Path, name: str) -> Path:
    """The shipped model with one defect. Those that keep the order keep the fusion weights: their nDCG is no worse."""
    shutil.copytree(DEFAULT_MODEL, folder)
    (folder / "README.md").write_text(f"A copy of the shipped model: {name}.\n")
    if name == "good":
        return folder
    if name not in KEEP_ORDER:
        (folder / FILE).unlink()
    if name == "tags_alone":
        settings = json.loads((folder / OWN_SETTINGS).read_text(encoding="utf-8")) | {"reads_tags": True}
        (folder / OWN_SETTINGS).write_text(json.dumps(settings) + "\n", encoding="utf-8")
    BAD[name](folder)
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
