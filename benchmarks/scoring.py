"""Engines: pairs per second of every engine and of other libraries, on the same cross-encoder and pairs.

    python -m benchmarks.scoring --model MODEL --data DIR [--peers PYTHON] [--quick] [--json FILE] [--plot FILE]

MODEL is a MiniLM-L6 cross-encoder with safetensors and fp32 ONNX, as `python -m benchmarks.base_model` makes it.
PYTHON is the interpreter of an environment with benchmarks/peers.txt; without it only our engines are measured. The
pairs are dev questions of HotpotQA, MuSiQue, NQ and NFCorpus with their candidates, so they have realistic lengths.
Every round runs each engine once over all pairs, tokenising included; the figures are medians of the rounds.

- ratio_vs_st_default, ratio_vs_best_peer: our fastest engine that ranks as fp32, divided by CrossEncoder.predict on
  torch, and by the fastest other library.
- ndcg_loss_max: points of nDCG@10 that it loses to fp32, on the worst of the four sets.
- gemm_share: operations per second on real tokens (no padding, nothing that is skipped), divided by the best rate of a
  product of 2048 x 2048 matrices in the same precision.
- padding_share: share of padding among the model's input tokens. tokenise_share: share of the time. texts_read_share:
  texts tokenised, divided by texts in the input.
- rss_mb_*: peak memory of scoring 20,000 and a million pairs without repetitions, with a tiny model.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import MAX_LENGTH, SETS, forget, parser, report
from benchmarks.processor import gemm_peak, operations
from benchmarks.scoring_memory import memory, tiny_model
from pipelines.evaluate.judged_sets import open_index
from pipelines.recipes.default_model.measure import EvaluationSet, ndcg_10
from pipelines.recipes.default_model.questions import read_set
from pipelines.recipes.default_model.sets import evaluation_set, read_grades
from rerank_core.features.render import passage_text
from rerank_core.inference.batching import plan_batches
from rerank_core.inference.cross_encoder_folder import read_folder
from rerank_core.inference.model_folder import read_json
from rerank_core.scoring.backends import openvino
from rerank_core.scoring.backends.openvino_int8 import quantise
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer
from rerank_core.text import fingerprint

QUERIES = {"nfcorpus": 60}  # dev questions that are measured at most, 100 of the other sets
DEPTH = 20
PEERS = ("st_default", "st_onnx_int8", "st_openvino_int8", "flashrank", "rerankers")
OURS = {
    "onnx fp32": {"backend": "onnx", "onnx_file": "onnx/model.onnx"},
    "onnx int8": {"backend": "onnx", "onnx_file": "onnx/model_int8.onnx"},
    "openvino fp32": {"backend": "openvino", "onnx_file": "onnx/model.onnx"},
    "openvino bf16": {"backend": "openvino", "precision": "bf16", "onnx_file": "onnx/model.onnx"},
    "openvino int8": {"backend": "openvino", "precision": "int8"},
}
REFERENCE = "onnx fp32"
MAX_LOSS = 0.3  # points of nDCG@10

Groups = list[tuple[str, list[str]]]


class Timed(NamedTuple):
    """One engine's rounds."""

    seconds: list[float]
    scores: np.ndarray


def read_sets(data: Path, work: Path, *, queries: int) -> list[EvaluationSet]:
    """The four sets: at most `queries` dev questions with DEPTH candidates each."""
    result = []
    for name in SETS:
        labelled = read_set(data / name, split="dev")
        by_hash = sorted(labelled.questions, key=lambda q: fingerprint(name, q.query_id))
        chosen = by_hash[: min(queries, QUERIES.get(name, queries))]
        grades = read_grades(data / name / "qrels" / "dev.tsv")
        index = open_index(data / name, work / "index")
        result.append(evaluation_set(labelled, chosen, index, depth=DEPTH, qrels=grades))
    return result


def pairs_of(sets: Sequence[EvaluationSet], *, queries: int) -> Groups:
    return [
        (judged.text, [passage_text(p.title, p.text) for p in judged.candidates])
        for evaluated in sets
        for judged in evaluated.queries[:queries]
    ]


class Peer:
    """An engine of benchmarks/peers.py, in another process."""

    def __init__(
        self, python: str, name: str, *, model: Path, work: Path, calibration: Sequence[Any]
    ) -> None:
        script = Path(__file__).with_name("peers.py")
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._ask({"open": name, "model": str(model), "work": str(work), "calibration": list(calibration)})

    def score(self, groups: Groups) -> tuple[float, np.ndarray]:
        reply = self._ask({"score": groups})
        return reply["seconds"], np.array(reply["scores"], np.float32)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the peer failed at {next(iter(order))}: run benchmarks/peers.py by hand to see why"
            )
        reply: dict[str, Any] = json.loads(line)
        return reply


class Ours:
    """One of our engines."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def score(self, groups: Groups) -> tuple[float, np.ndarray]:
        pairs = [(query, passage) for query, passages in groups for passage in passages]
        forget(self.scorer)
        start = time.perf_counter()
        scores = self.scorer.score(pairs)
        return time.perf_counter() - start, scores

    def close(self) -> None:
        pass


def timed(engines: dict[str, Any], groups: Groups, *, rounds: int) -> dict[str, Timed]:
    """Every engine over all pairs, once per round, in turns."""
    results = {}
    for name, engine in engines.items():
        engine.score(groups[: max(1, len(groups) // 8)])  # warm-up
        results[name] = Timed([], np.zeros(0))
    for number in range(rounds):
        for name, engine in engines.items():
            seconds, scores = engine.score(groups)
            results[name].seconds.append(seconds)
            results[name] = results[name]._replace(scores=scores)
        print(f"round {number + 1} of {rounds} done", flush=True)
    return results


def quality(scorer: Scorer, sets: Sequence[EvaluationSet]) -> dict[str, float]:
    """nDCG@10 in percent, by set."""

    def scores(query: str, passages: Sequence[Any]) -> np.ndarray:
        return scorer.score([(query, passage_text(p.title, p.text)) for p in passages])

    return {evaluated.name: 100 * ndcg_10(scores, evaluated) for evaluated in sets}


@contextmanager
def closing(engines: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for engine in engines.values():
            engine.close()


def main() -> None:
    flags = parser(__doc__, data=True)
    flags.add_argument("--model", type=Path, required=True, help="folder that benchmarks.base_model wrote")
    flags.add_argument("--peers", help="Python interpreter of the environment of the other libraries")
    flags.add_argument("--plot", type=Path, help="file for a bar chart")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, rows = cpu(args, Path(folder))
    if args.plot:
        plot(rows, args.plot)
    report(figures, args.json)


def cpu(args: Any, work: Path) -> tuple[dict[str, float], dict[str, float]]:
    """(all figures, pairs per second of each engine)."""
    timing = 2 if args.quick else 12  # queries per set
    sets = read_sets(args.data, work, queries=5 if args.quick else 100)
    groups = pairs_of(sets, queries=timing)
    others = pairs_of(sets, queries=100)[timing:]
    calibration = [(q, p) for q, passages in others for p in passages[:5]][:300]
    write_int8(args.model, calibration)
    ours = {name: Ours(load_scorer(args.model, max_length=MAX_LENGTH, **o)) for name, o in OURS.items()}
    peers = {
        name: Peer(args.peers, name, model=args.model, work=work / "peers", calibration=calibration)
        for name in (PEERS if args.peers else ())
    }
    with closing(peers):
        results = timed({**ours, **peers}, groups, rounds=1 if args.quick else 3)
    count = sum(len(passages) for _, passages in groups)
    rates = {name: count / statistics.median(t.seconds) for name, t in results.items()}
    base = quality(ours[REFERENCE].scorer, sets)
    losses = {REFERENCE: 0.0}
    for name in ("openvino int8", "openvino bf16", "onnx int8"):
        by_set = quality(ours[name].scorer, sets)
        losses[name] = max(base[s] - by_set[s] for s in base)
        print(name, {s: f"{base[s]:.2f} -> {by_set[s]:.2f}" for s in base}, flush=True)
    best = max((n for n in losses if losses[n] <= MAX_LOSS), key=lambda n: rates[n])
    figures = {
        f"pairs_per_second {name}": rate for name, rate in sorted(rates.items(), key=lambda kv: -kv[1])
    }
    if args.peers:
        figures["ratio_vs_st_default"] = rates[best] / rates["st_default"]
        figures["ratio_vs_best_peer"] = rates[best] / max(rates[name] for name in PEERS)
    figures |= {f"ndcg_loss {name}": loss for name, loss in losses.items()}
    figures["ndcg_loss_max"] = losses[best]
    figures |= shares(
        args.model, groups, seconds=statistics.median(results[best].seconds), engine=best, quick=args.quick
    )
    print(f"fastest that ranks as fp32: {best}", flush=True)
    tiny = str(tiny_model(args.model, work / "tiny"))
    figures["rss_mb_small"] = memory(20_000, tiny)
    figures["rss_mb_large"] = memory(60_000 if args.quick else 1_000_000, tiny)
    return figures, rates


def write_int8(model: Path, calibration: Sequence[tuple[str, str]]) -> None:
    """Write the int8 files of the model that are missing."""
    from rerank_core.training.export import quantise_dynamic

    if not (model / "onnx" / "model_int8.onnx").exists():
        quantise_dynamic(model / "onnx" / "model.onnx", model / "onnx" / "model_int8.onnx")
    quantise(model, calibration, onnx_file="onnx/model.onnx", max_length=MAX_LENGTH)


def shares(model: Path, groups: Groups, *, seconds: float, engine: str, quick: bool) -> dict[str, float]:
    """Shares of the engine's time, tokens and peak rate."""
    pairs = [(query, passage) for query, passages in groups for passage in passages]
    encoder = read_folder(model, max_length=MAX_LENGTH).encoder
    start = time.perf_counter()
    lengths = [len(row.ids) for row in encoder.encode(pairs)]
    tokenise = time.perf_counter() - start
    width, budget = (openvino.ROUND, openvino.MAX_TOKENS) if engine.startswith("openvino") else (1, 512)
    fed = sum(len(b) * -(-lengths[b[0]] // width) * width for b in plan_batches(lengths, budget))
    precision = engine.split()[-1]
    done = operations(lengths, read_json(model / "config.json"), spared=engine.startswith("openvino"))
    peak = gemm_peak(precision, seconds=1 if quick else 8)
    return {
        "gemm_peak_gops": peak / 1e9,
        "gemm_share": done / seconds / peak,
        "padding_share": 1 - sum(lengths) / fed,
        "tokenise_share": tokenise / seconds,
        "texts_read_share": len({text for pair in pairs for text in pair}) / (2 * len(pairs)),
        "mean_tokens": float(np.mean(lengths)),
    }


def plot(rates: dict[str, float], to: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = sorted(rates, key=lambda name: rates[name])
    colours = ["#c65d21" if name in PEERS else "#1f6f8b" for name in names]
    _, axes = pyplot.subplots(figsize=(7, 0.45 * len(names) + 1))
    bars = axes.barh(names, [rates[name] for name in names], color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel("pairs per second (MiniLM-L6, realistic lengths, this machine)")
    axes.spines[["top", "right"]].set_visible(False)
    pyplot.tight_layout()
    pyplot.savefig(to, dpi=120)


if __name__ == "__main__":
    main()
