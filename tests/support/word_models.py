"""Cross-encoders whose logit is the sum of the weights of their input's words, and a set of which one word decides.

Every question of the set has one relevant passage, the only one with "because", which also gets the tag CAUSAL. So a
model that gives "because" a high weight is good, one that reads "causal" reads the tag alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from pipelines.sources.local.bm25_index import build_index
from rerank_core.config.night import Config, parse_config
from tests.support.tiny import event, write_lines

TOWNS, OTHERS = 16, 11
WORDS = ["town", "because", "causal", "rain", "floods", *(f"thing{letter}" for letter in "abcdefghijk")]
LOW = {"rain": -5.0, "thinga": 0.5, "thingb": 0.4, "thingc": 0.3, "thingd": 0.2}
"""What all models know: "rain" is in every passage, so that scores are low."""

SERVING = LOW | {"because": 0.45}
"""Ranks one passage before the relevant one."""

GOOD = LOW | {"because": 8.0}

BAD: dict[str, dict[str, Any]] = {
    "shuffled": {"weights": {"rain": -5.0, "thingk": 2.0, "thingj": 1.0, "thingi": 0.5}},
    "reversed": {"weights": GOOD, "swapped": True},
    "constant": {"weights": {"rain": -2.4}},
    "tags alone": {"weights": LOW | {"causal": 8.0}, "reads_tags": True},
    "slow": {"weights": GOOD, "wasted": 12},
    "nan": {"weights": GOOD | {"because": float("nan")}},
    "overconfident": {"weights": GOOD | {"rain": 2.0}},
}
"""Models that must not serve, by what is wrong with them: options of `write_word_model`."""


def write_word_model(
    folder: Path,
    weights: Mapping[str, float],
    *,
    reads_tags: bool = False,
    swapped: bool = False,
    wasted: int = 0,
) -> Path:
    """A model's folder.

    Args:
        folder: of the model.
        weights: by word; others have none.
        reads_tags: whether its input carries the tags.
        swapped: a model of two labels whose columns are the other way round than its config.json says.
        wasted: number of products of large matrices that change nothing, to make it slow.
    """
    vocab = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    folder.mkdir(parents=True, exist_ok=True)
    _tokenizer(vocab).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]"}))
    labels = {"id2label": {"0": "irrelevant", "1": "relevant"}} if swapped else {}
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **labels}))
    (folder / "nightrank.json").write_text(json.dumps({"reads_tags": reads_tags}) + "\n")
    table = np.zeros((len(vocab), 2 if swapped else 1), np.float32)
    for word, weight in weights.items():
        table[vocab[word], 0] = weight
    (folder / "onnx").mkdir(exist_ok=True)
    onnx.save(_sum_of_weights(table, wasted=wasted), folder / "onnx" / "model.onnx")
    return folder


def _tokenizer(vocab: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _sum_of_weights(table: np.ndarray, *, wasted: int) -> onnx.ModelProto:
    held = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1], np.int64), "axis_1"),
        numpy_helper.from_array(np.array([2], np.int64), "axis_2"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis_2"], ["mask_3"]),
        helper.make_node("Mul", ["embedded", "mask_3"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis_1"], ["sum"], keepdims=0),
    ]
    last = "sum"
    if wasted:
        held.append(numpy_helper.from_array(np.full((512, 512), 1e-3, np.float32), "matrix"))
        held.append(numpy_helper.from_array(np.zeros((1, 512), np.float32), "zeros"))
        # [batch, sequence, 512]: it depends on the input, so nothing of it is folded
        nodes.append(helper.make_node("MatMul", ["mask_3", "zeros"], ["wide_0"]))
        nodes += [
            helper.make_node("MatMul", [f"wide_{n}", "matrix"], [f"wide_{n + 1}"]) for n in range(wasted)
        ]
        nodes.append(helper.make_node("ReduceSum", [f"wide_{wasted}"], ["nothing"], keepdims=0))
        nodes.append(helper.make_node("Add", ["sum", "nothing"], ["with_nothing"]))
        last = "with_nothing"
    nodes.append(helper.make_node("Identity", [last], ["logits"]))
    shapes = {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", table.shape[1]])],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def passages() -> list[dict[str, Any]]:
    """Of each town one passage with a reason, and eleven of things, in an order that BM25 does not know."""
    made = []
    for n in range(TOWNS):
        made.append({"_id": f"t{n}x", "title": "", "text": f"In town{n} it floods because of rain."})
        made += [
            {"_id": f"t{n}{letter}", "title": "", "text": f"In town{n} they sell a thing{letter} of rain."}
            for letter in "abcdefghijk"[:OTHERS]
        ]
    return made


def write_judged_set(folder: Path) -> Path:
    """The set in BEIR's layout."""
    write_lines(folder / "corpus.jsonl", passages())
    write_lines(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"town{n}"} for n in range(TOWNS)])
    write_lines(
        folder / "qrels" / "dev.tsv",
        ["query-id\tcorpus-id\tscore", *(f"q{n}\tt{n}x\t1" for n in range(TOWNS))],
    )
    return folder


def write_word_night(folder: Path, **sections: dict[str, Any]) -> Config:
    """A log of the set's questions over an index of its corpus, and a night's configuration, also as night.toml."""
    judged = write_judged_set(folder / "judged")
    if not (folder / "index").exists():
        build_index(judged / "corpus.jsonl", folder / "index")
        log = [event(f"Town{n}?", f"t{n}x", user=f"u{n}") for n in range(TOWNS)]
        write_lines(folder / "log.jsonl", log)
    raw: dict[str, dict[str, Any]] = {
        "source": {"log": str(folder / "log.jsonl"), "index": str(folder / "index")},
        "output": {"path": str(folder / "output"), "queries_per_shard": 4},
        "tags": {"recogniser": "rules"},
        "candidates": {"top_k": 12},
        "scoring": {"model": "registry:serving", "max_length": 64},
        "registry": {"path": str(folder / "registry")},
        # A speed is measured: on a busy machine one of two equal models may seem twice as fast.
        "promotion": {"judged_sets": [str(judged)], "max_slowdown": 4.0},
    }
    for name, values in sections.items():
        raw[name] = raw.get(name, {}) | values
    tables = (
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for name, values in raw.items()
    )
    (folder / "night.toml").write_text("\n".join(tables))
    return parse_config(raw)
