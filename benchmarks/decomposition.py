"""Second searches: recall of BM25 with the parts of questions and the names of passages, then of the cross-encoder.

    python -m benchmarks.decomposition --data DIR [--quick] [--json FILE] [--scored N] [--split dev]

The figures are percent. "both_at_20" is the share of queries all of whose gold passages are in the top 20 (a question
of MuSiQue has up to four), also by kind of question. Queries that cannot be decomposed keep their ranking and count.
Figures without a suffix are of the query alone; the others are of

- decomposed: the lists of the query and of its parts, merged by reciprocal rank, the query's with weight 2, k = 10;
  decomposed_1to1_k60 and so on have other weights and k.
- followed: the query's list and that of `follow_up`, a second search with the names of the query's best passage.
- decomposed_followed: both of these lists twice, and a follow-up with the names of the best passage for the first
  part (with the parts' own lists it was worse).

Then the cross-encoder, for the first `--scored` queries of each set by hash ("scored_"; "before" is BM25 on these),
over the top 50 of those lists: "reranked" scores each candidate for the query alone; "_max" also for each part, and
takes the highest logit; "_rrf" merges the rankings for the query (with weight 2) and for each part.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import parser, report
from pipelines.recipes.default_model.questions import LabelledSet, Question, read_set
from pipelines.sources.local.bm25_index import LocalIndex, build_index
from rerank_core.candidates.decomposition import decompose
from rerank_core.candidates.expansion import follow_up, merge_ranked
from rerank_core.evaluation.measures import measure
from rerank_core.features.ner.rules import RulesRecogniser
from rerank_core.features.render import passage_text, render
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.load import load_scorer
from rerank_core.scoring.protocol import Scorer
from rerank_core.text import fingerprint

SETS = ("hotpotqa", "musique")
DEPTH, POOL = 100, 50
K = 10
SETTINGS = {  # suffix: (weight of the query's own list, k)
    "decomposed": (2, K),
    "decomposed_1to1": (1, K),
    "decomposed_1to1_k60": (1, 60),
    "decomposed_2to1_k60": (2, 60),
}

POOLS = ("", "decomposed", "followed", "decomposed_followed")  # lists that the cross-encoder reranks

Lists = dict[str, list[str]]  # doc ids, best first, by query


class Search:
    """BM25 over one set, with a cache of results."""

    def __init__(self, labelled: LabelledSet, index: LocalIndex) -> None:
        self.labelled, self._index = labelled, index
        self._results: Lists = {}
        self._recogniser = RulesRecogniser()

    def __call__(self, text: str) -> list[str]:
        if text not in self._results:
            self._results[text] = [d.doc_id for d in self._index.search([text], top_k=DEPTH)[0]]
        return self._results[text]

    def follow(self, query: str, text_of_first: str) -> list[str]:
        """Results of the query with the names of `text_of_first`'s best passage; [] without new names."""
        first = self(text_of_first)
        if not first:
            return []
        passage = self.labelled.corpus[first[0]]
        mentions = self._recogniser.recognise([(passage.title, passage.text)])[0]
        text = follow_up(query, [mention.text for mention in mentions])
        return self(text) if text else []


def candidates(search: Search, questions: Sequence[Question]) -> dict[str, Lists]:
    """The doc ids of each query by each way of searching; "" is the query alone."""
    lists: dict[str, Lists] = {name: {} for name in ("", *SETTINGS, "followed", "decomposed_followed")}
    for question in questions:
        query, parts = question.text, decompose(question.text)
        own, of_parts = search(query), [search(part) for part in parts]
        lists[""][question.query_id] = own
        for name, (times, k) in SETTINGS.items():
            merged = merge_ranked([own] * times + of_parts, k=k) if parts else own
            lists[name][question.query_id] = merged[:DEPTH]
        followed = search.follow(query, query)
        lists["followed"][question.query_id] = merge_ranked([own, followed], k=K)[:DEPTH]
        inner = search.follow(query, parts[0]) if parts else []
        everything = [own, own, followed, followed, inner or followed]
        lists["decomposed_followed"][question.query_id] = merge_ranked(everything, k=K)[:DEPTH]
    return lists


def recall(
    ranked: Mapping[str, Sequence[str]], questions: Sequence[Question], *, at: int
) -> tuple[float, float]:
    """Percent of queries all of whose gold passages are in the top `at`, and mean recall at `at`."""
    recalls = [len(q.positives & set(ranked[q.query_id][:at])) / len(q.positives) for q in questions]
    return 100 * sum(r == 1 for r in recalls) / len(recalls), 100 * math.fsum(recalls) / len(recalls)


def candidate_figures(
    name: str, lists: Mapping[str, Lists], questions: Sequence[Question], kinds: Mapping[str, str]
) -> dict[str, float]:
    """Share of decomposed queries, and recalls, of one set, over all its questions and by kind."""
    split = [100.0 * bool(decompose(q.text)) for q in questions]
    figures = {f"{name}_queries": float(len(questions)), f"{name}_split": math.fsum(split) / len(split)}
    for suffix, ranked in lists.items():
        end = f"_{suffix}" if suffix else ""
        figures[f"{name}_both_at_20{end}"], figures[f"{name}_recall_at_20{end}"] = recall(
            ranked, questions, at=20
        )
        figures[f"{name}_both_at_100{end}"] = recall(ranked, questions, at=DEPTH)[0]
    for kind in sorted({kinds[q.query_id] for q in questions if q.query_id in kinds}):
        some = [q for q in questions if kinds.get(q.query_id) == kind]
        for suffix in POOLS:
            end = f"_{suffix}" if suffix else ""
            figures[f"{name}_{kind}_both_at_20{end}"] = recall(lists[suffix], some, at=20)[0]
    return figures


def logits_of(
    scorer: Scorer, labelled: LabelledSet, texts: Sequence[str], docs: Sequence[str]
) -> list[dict[str, float]]:
    """The cross-encoder's logit of each document for each text."""
    passages = [passage_text(labelled.corpus[doc].title, labelled.corpus[doc].text) for doc in docs]
    inputs = (render(text, passage) for text in texts for passage in passages)
    outcome = score_checked(scorer, [(side.query, side.passage) for side in inputs])
    logits = [-math.inf if logit is None else logit for logit in outcome.logits]
    rows = (logits[at : at + len(docs)] for at in range(0, len(logits), len(docs)))
    return [dict(zip(docs, row, strict=True)) for row in rows]


def merged_ways(by_text: Sequence[Mapping[str, float]]) -> dict[str, list[str]]:
    """The candidates' order by each way of merging; `by_text` starts with the query's own logits."""
    rankings = [_order(logits) for logits in by_text]
    highest = {doc: max(logits.get(doc, -math.inf) for logits in by_text) for doc in set().union(*by_text)}
    return {
        "": rankings[0],
        "max": _order(highest),
        "rrf": merge_ranked([rankings[0], *rankings], k=K) if len(rankings) > 1 else rankings[0],
    }


def _order(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda doc: (-scores[doc], doc))


def rerank_all(
    lists: Mapping[str, Lists], labelled: LabelledSet, questions: Sequence[Question]
) -> dict[str, Lists]:
    """The cross-encoder's order of the best candidates of each list, by each way of merging."""
    scorer = load_scorer()
    runs: dict[str, Lists] = {}
    for question in questions:
        pools = {name: lists[name][question.query_id][:POOL] for name in POOLS}
        texts = [question.text, *decompose(question.text)]
        by_text = logits_of(scorer, labelled, texts, sorted(set().union(*pools.values())))
        for name, pool in pools.items():
            of_pool = [{doc: logits[doc] for doc in pool} for logits in by_text]
            for way, ranked in merged_ways(of_pool).items():
                key = "_".join(filter(None, ("reranked", name, way)))
                runs.setdefault(key, {})[question.query_id] = ranked
    return runs


def reranked_figures(
    name: str, lists: Mapping[str, Lists], labelled: LabelledSet, questions: Sequence[Question]
) -> dict[str, float]:
    """Recall at 20 and nDCG@10 of BM25 and of the cross-encoder over the same questions."""
    runs = {"before": {q.query_id: lists[""][q.query_id] for q in questions}}
    runs |= rerank_all(lists, labelled, questions)
    judged = {q.query_id: dict.fromkeys(q.positives, 1) for q in questions}
    figures = {f"{name}_scored_queries": float(len(questions))}
    for key, ranked in runs.items():
        figures[f"{name}_scored_both_at_20_{key}"] = recall(ranked, questions, at=20)[0]
        figures[f"{name}_scored_ndcg_at_10_{key}"] = 100 * measure(ranked, judged)["nDCG@10"]
    return figures


def kinds_of(folder: Path) -> dict[str, str]:
    """The kind of each question, if the set has it; MuSiQue's "3hop1" and "3hop2" are one kind."""
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {
        row["_id"]: row["type"][:4] if "hop" in row["type"] else row["type"]
        for row in rows
        if row.get("type")
    }


def main() -> None:
    flags = parser(__doc__ or "", data=True)
    flags.add_argument(
        "--scored", type=int, default=100, metavar="N", help="queries per set for the cross-encoder"
    )
    flags.add_argument("--split", default="dev", help="dev to measure, train to develop")
    args = flags.parse_args()
    figures: dict[str, float] = {}
    for name in SETS:
        if not (args.data / name).is_dir():
            raise SystemExit(f"no set {name} in {args.data}; see docs/benchmarks/data.md")
        labelled = read_set(args.data / name, split=args.split)
        questions = sorted(labelled.questions, key=lambda q: fingerprint(q.query_id))
        questions = questions[:40] if args.quick else questions
        kinds = kinds_of(args.data / name)
        with tempfile.TemporaryDirectory() as folder:
            build_index(args.data / name, Path(folder) / "index")
            lists = candidates(Search(labelled, LocalIndex(Path(folder) / "index")), questions)
        figures |= candidate_figures(name, lists, questions, kinds)
        scored = questions[: min(args.scored, 8) if args.quick else args.scored]
        if scored:
            figures |= reranked_figures(name, lists, labelled, scored)
    report(figures, args.json)


if __name__ == "__main__":
    main()
