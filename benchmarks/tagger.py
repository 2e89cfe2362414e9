"""The tagger: quality of the entities, value of HOP, and the share of tagging in a night.

    python -m benchmarks.tagger --data DIR [--quick] [--json FILE]

- Entities: F1 over exact span and type (and over the span alone) on two kinds of text, of the shipped recogniser and of
  the rules; passages per second of each in one process, over the passages of HotpotQA.
- HOP: its distribution over gold passages and the others, for HotpotQA's dev questions over BM25's top 50; and the MAP
  of BM25 and of BM25's score times WEIGHT per hop (unreachable counts as the longest), with WEIGHT fitted on the train
  questions. `hop_map_gain` is the difference in points.
- A night: HotpotQA's dev questions through a night with the default model, then again; the share of the night's seconds
  in TagFeatures, and the texts that the second night had to read.

A published upper bound for entities: dslim/bert-base-NER (108M parameters) reports F1 91.3 on CoNLL-2003's test set,
another set with other guidelines.
"""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import parser, report
from pipelines.nightly.run import run
from pipelines.recipes.default_model.questions import read_set
from pipelines.sources.local.bm25_index import LocalIndex, build_index
from rerank_core.config.night import Tagging, parse_config
from rerank_core.evaluation.measures import by_score, measure
from rerank_core.features.ner import Recogniser, load_recogniser
from rerank_core.features.tagger import tag
from schemas.records import Document
from schemas.tags import HOP_UNREACHABLE, Tags

DAY = datetime.date(2026, 3, 8)
DEPTH = 50
WEIGHTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)

Span = tuple[int, int, str]


class TaggedQuestion(NamedTuple):
    """A question with BM25's candidates, their tags, and its gold passages."""

    query_id: str
    candidates: list[Document]
    tags: list[Tags]
    gold: frozenset[str]


def sentences(path: Path) -> Iterator[tuple[str, list[Span]]]:
    """The sentences of a CoNLL file as text, with the gold spans in characters."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        text, spans = "", list[Span]()
        for line in block.splitlines():
            word, label = line.split("\t") if "\t" in line else line.rsplit(" ", 1)
            start = len(text) + bool(text)
            text = f"{text} {word}" if text else word
            kind = label[2:]
            if label.startswith("I-") and spans and spans[-1][2] == kind and spans[-1][1] == start - 1:
                spans[-1] = (spans[-1][0], len(text), kind)
            elif label != "O":
                spans.append((start, len(text), kind))
        yield text, spans


def f1(recogniser: Recogniser, path: Path, *, typed: bool = True) -> float:
    """F1 in percent over exact spans, with their types or without."""
    correct = total = 0
    texts, gold = zip(*sentences(path), strict=True)
    for spans, mentions in zip(gold, recogniser.recognise([("", text) for text in texts]), strict=True):
        predicted = {(m.start, m.end, m.label if typed else "") for m in mentions}
        annotated = {(start, end, label if typed else "") for start, end, label in spans}
        correct, total = correct + len(predicted & annotated), total + len(predicted) + len(annotated)
    return 200 * correct / max(1, total)


def passages_per_second(recogniser: Recogniser, passages: Sequence[tuple[str, str]]) -> float:
    """In one process, after the model is loaded."""
    recogniser.recognise(passages[:20])
    start = time.perf_counter()
    recogniser.recognise(passages)
    return len(passages) / (time.perf_counter() - start)


def tagged_questions(
    folder: Path, index: LocalIndex, *, split: str, most: int, recogniser: Recogniser
) -> list[TaggedQuestion]:
    """Questions of one split with BM25's candidates, tagged."""
    result = []
    for question in read_set(folder, split=split).questions[:most]:
        (candidates,) = index.search([question.text], top_k=DEPTH)
        tags = tag(question.text, [(c.title, c.text) for c in candidates], recogniser=recogniser)
        result.append(TaggedQuestion(question.query_id, candidates, tags, question.positives))
    return result


def map_of(questions: Sequence[TaggedQuestion], *, weight: float) -> float:
    """MAP in percent of BM25's score times `weight` per hop."""
    rankings = {
        question.query_id: by_score(
            {
                d.doc_id: d.bm25_score * weight ** (t.hop if t.hop != HOP_UNREACHABLE else Tagging().max_hop)
                for d, t in zip(question.candidates, question.tags, strict=True)
            }
        )
        for question in questions
    }
    qrels = {question.query_id: dict.fromkeys(question.gold, 1) for question in questions}
    return 100 * measure(rankings, qrels)["MAP"]


def distribution(questions: Sequence[TaggedQuestion]) -> dict[str, float]:
    """Share of HOP 0 among gold passages and among the others; the shares of all HOPs are printed."""
    figures = {}
    for side, is_gold in (("gold", True), ("other", False)):
        count = Counter(
            t.hop
            for question in questions
            for d, t in zip(question.candidates, question.tags, strict=True)
            if (d.doc_id in question.gold) is is_gold
        )
        shares = {hop: number / count.total() for hop, number in sorted(count.items())}
        print(f"HOP of {side} passages: " + ", ".join(f"{hop}: {share:.1%}" for hop, share in shares.items()))
        figures[f"hop0_{side}"] = shares.get(0, 0.0)
    return figures


def hop_figures(folder: Path, index: LocalIndex, *, most: int, recogniser: Recogniser) -> dict[str, float]:
    """MAP of BM25 with and without HOP, and HOP's distribution."""
    train = tagged_questions(folder, index, split="train", most=most, recogniser=recogniser)
    best = max(WEIGHTS, key=lambda weight: map_of(train, weight=weight))
    dev = tagged_questions(folder, index, split="dev", most=most, recogniser=recogniser)
    bm25, with_hop = map_of(dev, weight=1.0), map_of(dev, weight=best)
    return {
        "hop_weight": best,
        "hop_map_bm25": bm25,
        "hop_map_with_hop": with_hop,
        "hop_map_gain": with_hop - bm25,
        **distribution(dev),
    }


def night_figures(folder: Path, work: Path, *, most: int) -> dict[str, float]:
    """Figures of a night and of a second one over the same questions."""
    questions = read_set(folder, split="dev").questions[:most]
    events = [{"timestamp": f"{DAY}T09:00:00Z", "query": question.text} for question in questions]
    log = work / "log.jsonl"
    log.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    config = parse_config(
        {
            "source": {"log": str(log), "index": str(work / "index")},
            "candidates": {"top_k": DEPTH},
            "output": {"path": str(work / "output")},
        }
    )
    figures = {}
    for name in ("", "second_night_"):
        manifest = run(config, run_date=DAY)
        stage = manifest.stages["TagFeatures"]
        figures[f"{name}tagging_share"] = stage["seconds"] / manifest.seconds
        figures[f"{name}texts_read"] = stage["passages_read"]
        figures[f"{name}seconds"] = manifest.seconds
    return figures


def main() -> None:
    args = parser(__doc__ or "", data=True).parse_args()
    shipped, rules = load_recogniser(Tagging()), load_recogniser(Tagging(recogniser="rules"))
    most, texts = (40, 500) if args.quick else (10_000, 10_000)
    figures: dict[str, float] = {}
    for kind in ("wikipedia", "web"):
        path = args.data / "ner" / f"dev_{kind}.conll"
        figures[f"f1_{kind}"] = f1(shipped, path)
        figures[f"f1_{kind}_spans"] = f1(shipped, path, typed=False)
        figures[f"rules_f1_{kind}"] = f1(rules, path)
        figures[f"rules_f1_{kind}_spans"] = f1(rules, path, typed=False)
    folder = args.data / "hotpotqa"
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")][:texts]
    passages = [(row["title"], row["text"]) for row in corpus]
    figures["passages_per_second"] = passages_per_second(shipped, passages)
    figures["rules_passages_per_second"] = passages_per_second(rules, passages)
    with tempfile.TemporaryDirectory() as work:
        build_index(folder, Path(work, "index"))
        index = LocalIndex(Path(work, "index"))
        figures |= hop_figures(folder, index, most=most, recogniser=shipped)
        figures |= night_figures(folder, Path(work), most=most)
    report(figures, args.json)


if __name__ == "__main__":
    main()
