"""What a GPU does: all figures of GPUs, in under eight minutes.

    benchmarks/gpu.sh                                                       # on a bare machine, see there
    python -m benchmarks.gpu [--device cuda|cpu] [--without PART ...] [--quick] [--json FILE]

Models have random weights, and pairs the lengths of BM25 candidates (median 130 tokens). A part that fails is named,
and the others go on. With `--device cpu` the same code runs on small models and few pairs: a rehearsal, whose figures
mean nothing.

- sizes: MiniLM-L6, a base and a large BERT in bf16. pairs_per_second_MODEL; ratio_vs_st_MODEL and
  ratio_vs_padded_MODEL, to sentence-transformers in bf16 and to our own engine with padded rows; peak_share_MODEL, of
  the best rate of a bf16 product of large matrices; tokenise_share_MODEL, of the time.
- lengths: tokens_per_second_N of the base model in rows of N tokens.
- parity: largest difference of a logit from the CPU's in fp32, in standard deviations of all logits, by precision; and
  rank_agreement_PRECISION, the share of pairs of candidates that are in the same order.
- memory: a budget of tokens that does not fit is halved (halvings), and memory_difference of the logits is rounding.
- causal: pairs_per_second of a generative reranker, a Qwen3 of the base model's size.
- onnx: onnx_ratio, ONNX Runtime on CUDA to torch in fp32; only where it has CUDA.
- night: night_share, of the bare engine's pairs per second by a whole night of MiniLM-L6, without tags.
"""

from __future__ import annotations

import datetime
import functools
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import MAX_LENGTH, forget, parser, report
from benchmarks.processor import operations
from benchmarks.random_models import random_model, random_pairs, write_tokenizer

GEMM = 8192
ROUNDS = 3
SIZES = {  # hidden, layers, heads, feed-forward, pairs
    "minilm": (384, 6, 12, 1536, 60_000),
    "base": (768, 12, 12, 3072, 16_000),
    "large": (1024, 24, 16, 4096, 6_000),
}
TINY = (32, 2, 2, 64)
LENGTHS = (32, 64, 128, 256, 512)
PRECISIONS = ("fp32", "bf16", "fp16")
Figures = dict[str, float]


class Bench(NamedTuple):
    """Where and how much is measured."""

    device: str
    folder: Path  # of the models
    share: float  # of the usual pairs
    peak: float  # bf16 operations per second

    def size(self, name: str) -> tuple[int, ...]:
        return SIZES[name][:4] if self.device == "cuda" else TINY

    def pairs(self, usual: int) -> list[tuple[str, str]]:
        return random_pairs(max(40, int(usual * self.share)))

    def model(self, name: str) -> Path:
        folder = self.folder / name
        return folder if folder.exists() else random_model(folder, self.size(name))

    def scorer(self, name: str, precision: str = "bf16", **options: Any) -> Any:
        from rerank_core.scoring.backends.torch import TorchScorer

        options = {"device": self.device, "precision": precision, "max_length": MAX_LENGTH} | options
        return TorchScorer(self.model(name), **options)


# --- the parts


def sizes(bench: Bench) -> Figures:
    figures: Figures = {}
    for name in SIZES:
        inputs = bench.pairs(SIZES[name][4])
        ours, padded, theirs = (
            bench.scorer(name),
            bench.scorer(name, unpadded=False),
            cross_encoder(bench, name),
        )
        spent = alternating(
            {
                "ours": functools.partial(ours.score, inputs),
                "padded": functools.partial(padded.score, inputs),
                "st": functools.partial(theirs.predict, inputs, show_progress_bar=False),
            },
            empty=(ours, padded),
        )
        forget(ours)
        start = time.perf_counter()
        lengths = [len(row.ids) for row in ours._encoder.encode(inputs)]
        tokenise = time.perf_counter() - start
        hidden, layers, _, wide = bench.size(name)
        config = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": wide}
        figures |= {
            f"pairs_per_second_{name}": len(inputs) / spent["ours"],
            f"ratio_vs_st_{name}": spent["st"] / spent["ours"],
            f"ratio_vs_padded_{name}": spent["padded"] / spent["ours"],
            f"peak_share_{name}": operations(lengths, config, spared=False) / spent["ours"] / bench.peak,
            f"tokenise_share_{name}": tokenise / spent["ours"],
        }
    return figures


def lengths(bench: Bench) -> Figures:
    scorer, figures = bench.scorer("base", max_length=max(LENGTHS)), Figures()
    (row,) = scorer.sample([("ba be", "bi bo " * max(LENGTHS))])
    for length in LENGTHS:
        rows = [type(row)(*(part[:length] for part in row))] * max(
            1, min(16_384, scorer.max_tokens) // length
        )
        scorer.run(rows)
        times = max(2, int(40 * bench.share))
        start = time.perf_counter()
        for _ in range(times):
            scorer.run(rows)
        figures[f"tokens_per_second_{length}"] = times * len(rows) * length / (time.perf_counter() - start)
    return figures


def parity(bench: Bench) -> Figures:
    inputs = bench.pairs(2_000)
    expected = bench.scorer("base", "fp32", device="cpu").score(inputs)
    spread, figures = float(expected.std()) or 1.0, Figures()
    for precision in PRECISIONS:
        found = bench.scorer("base", precision).score(inputs)
        figures[f"parity_{precision}"] = float(np.abs(found - expected).max()) / spread
        figures[f"rank_agreement_{precision}"] = rank_agreement(expected, found)
    return figures


def memory(bench: Bench) -> Figures:
    import torch

    inputs = bench.pairs(4_000)
    expected = bench.scorer("base").score(inputs)
    scorer = bench.scorer("base", max_tokens=10**8)  # all rows in one batch
    if bench.device == "cuda":
        used = torch.cuda.memory_allocated() + 2 * 2**30
        torch.cuda.set_per_process_memory_fraction(used / torch.cuda.get_device_properties(0).total_memory)
    try:
        found = scorer.score(inputs)
    finally:
        if bench.device == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "halvings": scorer.halvings,
        "memory_difference": float(np.abs(found - expected).max()) / (float(expected.std()) or 1.0),
    }


def causal(bench: Bench) -> Figures:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from rerank_core.scoring.backends.causal_lm import CausalLMScorer

    folder = bench.folder / "qwen"
    vocabulary = write_tokenizer(folder, more=("yes", "no"))
    hidden, layers, heads, wide = bench.size("base")
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=wide,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    scorer = CausalLMScorer(folder, device=bench.device, precision="bf16")
    inputs = bench.pairs(4_000)
    scorer.score(inputs[:200])
    return {"causal_pairs_per_second": len(inputs) / seconds(lambda: scorer.score(inputs))}


def onnx(bench: Bench) -> Figures:
    import onnxruntime

    if bench.device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        print("onnx: this ONNX Runtime has no CUDA, so nothing is measured", flush=True)
        return {}
    from transformers import AutoTokenizer

    from rerank_core.scoring.backends.onnx import OnnxScorer
    from rerank_core.training.package import export_fp32

    folder, inputs = bench.model("base"), bench.pairs(8_000)
    export_fp32(folder, AutoTokenizer.from_pretrained(folder))
    theirs = OnnxScorer(folder, device=bench.device, max_length=MAX_LENGTH)
    ours = bench.scorer("base", "fp32")
    spent = alternating({"torch": lambda: ours.score(inputs), "onnx": lambda: theirs.score(inputs)})
    return {"onnx_ratio": spent["torch"] / spent["onnx"]}


def night(bench: Bench) -> Figures:
    from benchmarks.common import sample_config
    from benchmarks.memory import CANDIDATES, DAY, write_log
    from pipelines.nightly.run import run
    from rerank_core.scoring.backends.torch import TorchScorer

    options = {"device": bench.device, "precision": "bf16", "max_length": MAX_LENGTH}
    load = functools.partial(TorchScorer, bench.model("minilm"), **options)
    folder = bench.folder / "night"
    folder.mkdir()
    write_log(folder / "log.jsonl", max(20, int(2_000 * bench.share)))
    sections = {"candidates": {"top_k": CANDIDATES}, "evidence": {"top_n": 0}, "tags": {"enabled": False}}
    config = sample_config(folder, log=folder / "log.jsonl", output="out", **sections)
    start = time.perf_counter()
    pairs = run(config, run_date=DAY, load=load).balance.pairs["published"]
    whole = time.perf_counter() - start
    scorer, inputs = load(), bench.pairs(60_000)
    bare = len(inputs) / seconds(lambda: scorer.score(inputs))
    return {"night_pairs_per_second": pairs / whole, "night_share": pairs / whole / bare}


PARTS: dict[str, Callable[[Bench], Figures]] = {
    part.__name__: part for part in (sizes, lengths, parity, memory, causal, onnx, night)
}


# --- what they share


def peak(device: str) -> float:
    """bf16 operations per second of the fastest of many products of large matrices."""
    import torch

    n = GEMM if device == "cuda" else 256
    a = torch.randn(n, n, dtype=torch.bfloat16, device=device)
    best = float("inf")
    for _ in range(50):
        best = min(best, seconds(lambda: (a @ a)[0, 0].item()))
    return 2 * n**3 / best


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternating(contenders: dict[str, Callable[[], object]], *, empty: Sequence[Any] = ()) -> Figures:
    """Median seconds of each, which take turns, after a first turn that does not count.

    Args:
        contenders: by name.
        empty: scorers whose caches are emptied before each turn.
    """
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(ROUNDS + 1):
        for name, work in contenders.items():
            for scorer in empty:
                forget(scorer)
            took = seconds(work)
            if turn:
                spent[name].append(took)
    return {name: statistics.median(took) for name, took in spent.items()}


def cross_encoder(bench: Bench, name: str) -> Any:
    """sentence-transformers' engine of a model, in bf16."""
    import torch
    from sentence_transformers import CrossEncoder

    return CrossEncoder(
        str(bench.model(name)),
        device=bench.device,
        max_length=MAX_LENGTH,
        model_kwargs={"dtype": torch.bfloat16},
        activation_fn=torch.nn.Identity(),
    )


def rank_agreement(expected: np.ndarray, found: np.ndarray, of: int = 50) -> float:
    """The share of pairs of one query's candidates that both logits put into the same order."""
    same = total = 0
    for start in range(0, len(expected), of):
        one, other = (values[start : start + of] for values in (expected, found))
        orders = [np.sign(values[:, None] - values[None, :]) for values in (one, other)]
        upper = np.triu_indices(len(one), 1)
        same += int((orders[0][upper] == orders[1][upper]).sum())
        total += len(upper[0])
    return same / max(1, total)


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    flags.add_argument("--without", nargs="+", choices=PARTS, default=[], help="parts to leave out")
    args = flags.parse_args()
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device; --device cpu rehearses")
    share = (0.0005 if args.device == "cpu" else 1.0) / (20 if args.quick else 1)
    figures: Figures = {"bf16_peak_tflops": (best := peak(args.device)) / 1e12}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            if name in args.without:
                continue
            began = time.perf_counter()
            try:
                figures |= part(Bench(args.device, Path(folder), share, best))
            except Exception:
                failed.append(name)
                traceback.print_exc()
            figures[f"seconds_{name}"] = time.perf_counter() - began
            print(f"{datetime.datetime.now():%H:%M:%S} {name} done", flush=True)
            if args.json:  # after each part, since minutes of a GPU are few
                args.json.write_text(json.dumps({f"gpu_{key}": value for key, value in figures.items()}))
    report({f"gpu_{key}": value for key, value in figures.items()}, args.json)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
