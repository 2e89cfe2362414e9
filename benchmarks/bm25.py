"""The embedded index beside bm25s, and what each of its settings is worth.

    python -m benchmarks.bm25 SET... [--split dev] [--quick] [--json FILE]

A SET is a folder in BEIR's layout. Every system searches its whole corpus for the same questions, in this process:

- nightrank: the index as `nightrank index` builds it and a night searches it;
- title_1, title_2: with candidates.title_boost 1 and 2 instead of 1.5; all_words: with ignore_stop_words = false;
  unstemmed: built with --language none;
- bm25s: title and text as one, Lucene's formula, English stop words and stems, k1 1.5 and b 0.75 (its defaults);
  bm25s_0.9_0.4 and so on are other k1 and b.

Figures: nDCG@10 and recall at 100 in percent; "over_bm25s" is the ratio of the first. bm25s uses English stop
words and stems: name English sets.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import bm25s
import Stemmer

from benchmarks.common import parser, report
from pipelines.evaluate.judged_sets import JudgedSet, Selection, read_sets
from pipelines.sources.local.bm25_index import LocalIndex, build_index
from pipelines.sources.local.corpus_files import corpus_lines
from rerank_core.evaluation.measures import measure
from schemas.parsing import parse_json

DEPTH = 100
CONSTANTS = ((1.5, 0.75), (0.9, 0.4), (1.2, 0.75))  # k1 and b of bm25s; the first are its defaults
SETTINGS: dict[str, dict[str, Any]] = {
    "nightrank": {},
    "title_1": {"title_boost": 1.0},
    "title_2": {"title_boost": 2.0},
    "all_words": {"ignore_stop_words": False},
}

Lists = list[list[str]]  # doc ids, best first, of each question


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("sets", nargs="+", type=Path, metavar="SET")
    flags.add_argument("--split", default="dev")
    options = flags.parse_args()
    figures: dict[str, float] = {}
    selection = Selection(split=options.split, max_queries=50 if options.quick else 300)
    with read_sets(options.sets, selection=selection) as sets:
        for folder, judged in zip(options.sets, sets, strict=True):
            figures |= figures_of(folder, judged)
    for name in [key.removeprefix(f"{sets[0].name}_") for key in figures if key.startswith(sets[0].name)]:
        values = [figures[f"{judged.name}_{name}"] for judged in sets]
        figures[f"mean_{name}"] = math.fsum(values) / len(values)
    report(figures, options.json)


def figures_of(folder: Path, judged: JudgedSet) -> dict[str, float]:
    """Figures of one set, by "set_system_measure"."""
    texts = [query.text for query in judged.queries]
    systems = {name: functools.partial(_search, judged.bm25, options=o) for name, o in SETTINGS.items()}
    figures = {f"{judged.name}_questions": float(len(texts))}
    with tempfile.TemporaryDirectory() as work:
        build_index(folder, Path(work) / "index", language="none")
        systems["unstemmed"] = functools.partial(_search, LocalIndex(Path(work) / "index"), options={})
        for name, system in systems.items():
            figures |= _measured(judged, name, system(texts))
    for (k1, b), lists in zip(CONSTANTS, bm25s_lists(folder, texts), strict=True):
        name = "bm25s" if (k1, b) == CONSTANTS[0] else f"bm25s_{k1}_{b}"
        figures |= _measured(judged, name, lists)
    own, other = (figures[f"{judged.name}_{system}_ndcg_at_10"] for system in ("nightrank", "bm25s"))
    return figures | {f"{judged.name}_over_bm25s": own / other}


def bm25s_lists(corpus: Path, texts: Sequence[str]) -> Iterable[Lists]:
    """What bm25s finds, for each of CONSTANTS."""
    documents = [parse_json(line) for line in corpus_lines(corpus)]
    ids = [document["_id"] for document in documents]
    words = functools.partial(
        bm25s.tokenize, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
    )
    passages = words([f"{d.get('title') or ''} {d['text']}" for d in documents])
    for k1, b in CONSTANTS:
        index = bm25s.BM25(k1=k1, b=b)
        index.index(passages, show_progress=False)
        found, scores = index.retrieve(words(list(texts)), k=min(DEPTH, len(ids)), show_progress=False)
        yield [
            [ids[at] for at, score in zip(*of_text, strict=True) if score > 0]
            for of_text in zip(found, scores, strict=True)
        ]


def _search(index: LocalIndex, texts: Sequence[str], *, options: dict[str, Any]) -> Lists:
    return [[d.doc_id for d in documents] for documents in index.search(texts, top_k=DEPTH, **options)]


def _measured(judged: JudgedSet, system: str, lists: Lists) -> dict[str, float]:
    lowest = judged.selection.min_relevance
    rankings = {query.query_id: found for query, found in zip(judged.queries, lists, strict=True)}
    recalls = []
    for query_id, found in rankings.items():
        relevant = {doc_id for doc_id, grade in judged.qrels[query_id].items() if grade >= lowest}
        recalls.append(len(relevant & set(found)) / len(relevant))
    ndcg = measure(rankings, judged.qrels, min_relevance=lowest)["nDCG@10"]
    return {
        f"{judged.name}_{system}_ndcg_at_10": 100 * ndcg,
        f"{judged.name}_{system}_recall_at_100": 100 * math.fsum(recalls) / len(recalls),
    }


if __name__ == "__main__":
    main()
