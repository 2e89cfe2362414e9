"""Ablation of the fused order: the weights fitted with all features, and without each of them.

    python -m benchmarks.fusion --sets DIR/hotpotqa DIR/nq ... [--model DIR] [--bi-encoder DIR] [--top-k 50]
        [--max-queries N] [--work DIR] [--quick] [--json FILE]

Questions are ranked over their own candidates if they have some, else over BM25's best. Every figure is of questions
that the weights were not fitted on (five folds), in percent: "SET/all/MAP" with all features,
"SET/without_FEATURE/MAP", "SET/cross_encoder/MAP" for the model alone, and the same for nDCG@10. "weight_FEATURE" is
the weight with all features.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.common import parser, report
from pipelines.evaluate.fuse import fit_set
from pipelines.evaluate.judged_sets import Selection, read_sets
from pipelines.evaluate.systems import load_bi_encoder, load_cross_encoder
from rerank_core.ranking.fusion import FEATURES, SINGLE
from rerank_core.ranking.fusion_fit import FUSED, FitSet, FusionFit, fit_fusion

SHOWN = ("nDCG@10", "MAP")


def fit_sets(args: argparse.Namespace) -> tuple[dict[str, FitSet], str]:
    """The sets in the form of `fit_fusion`, and the bi-encoder's fingerprint."""
    work = Path(args.work) if args.work else None
    bi_encoder = load_bi_encoder(args.bi_encoder, max_length=256, work=work)
    model = load_cross_encoder(args.model or "default", backend=args.backend, max_length=256, work=work)
    selection = Selection(own=True, top_k=args.top_k, max_queries=40 if args.quick else args.max_queries)
    with read_sets(args.sets, selection=selection, work=work) as judged:
        sets = {each.name: fit_set(each, model._replace(bi_encoder=bi_encoder)) for each in judged}
    return sets, bi_encoder.fingerprint if bi_encoder else ""


def figures_of(name: str, fit: FusionFit, score: str) -> dict[str, float]:
    """A score's figures on every set, in percent."""
    return {
        f"{set_name}/{name}/{measure}": 100 * rows[score][measure]
        for set_name, rows in fit.figures.items()
        for measure in SHOWN
    }


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--model", default="", help="a cross-encoder's folder; default: the shipped one")
    flags.add_argument("--backend", default="onnx", help="onnx, openvino or torch")
    flags.add_argument("--bi-encoder", default="", help="a bi-encoder's folder; default: none")
    flags.add_argument("--sets", type=Path, nargs="+", required=True, help="folders in BEIR's layout")
    flags.add_argument("--top-k", type=int, default=50, help="candidates from BM25")
    flags.add_argument("--max-queries", type=int, default=0, help="queries per set; 0: all")
    flags.add_argument("--work", default="", help="folder for the sets' indices, to reuse them")
    args = flags.parse_args()
    sets, bi_encoder = fit_sets(args)
    used = [name for name in FEATURES if bi_encoder or name != "bi_encoder"]
    whole = fit_fusion(sets, features=used, bi_encoder=bi_encoder)
    figures: dict[str, float] = {}
    for single in SINGLE:
        if single in used:
            figures |= figures_of(single, whole, single)
    figures |= figures_of("all", whole, FUSED)
    for name in used[1:]:
        others = [feature for feature in used if feature != name]
        rest = fit_fusion(sets, features=others, bi_encoder=bi_encoder)
        figures |= figures_of(f"without_{name}", rest, FUSED)
    figures |= {f"weight_{name}": whole.fusion.weight(name) for name in used} | {"bias": whole.fusion.bias}
    report(figures, args.json)


if __name__ == "__main__":
    main()
