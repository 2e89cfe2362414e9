"""The tagger: how right its entities are, what HOP is worth, and what share of a night tagging takes.

    python -m benchmarks.tagger [--quick] [--json FILE] [--data FOLDER]

- Entities: F1 over exact span and type (and over the span alone) on two kinds of text, the recogniser that ships
  beside the rules; passages a second of each on one process, over the passages of HotpotQA.
- HOP: how it is spread over gold passages and the others, for HotpotQA's dev questions over BM25's top 50; and the
  MAP of BM25 and of BM25's score times WEIGHT for each hop (unreachable counts as the longest), WEIGHT fitted on the
  train questions. `hop_map_gain` is the difference in points.
- A night: HotpotQA's dev questions through the real job with the default model, then again; the share of the
  night's seconds that TagFeatures took, and the texts that the second night had to read.

The published upper line for entities: dslim/bert-base-NER (108M parameters) states F1 91.3 on CoNLL-2003's test set,
which is another set with other guidelines: no figure of it on these sets is at hand.
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
from pipelines.sources.local.bm25_index import LocalIndex, build_index
from rerank_core.config.night import Tagging, parse_config
from rerank_core.evaluation.measures import by_score, measure
from rerank_core.features.ner import Recogniser, load_recogniser
from rerank_core.features.tagger import tag
from schemas.records import Document
from schemas.tags import HOP_UNREACHABLE, Tags

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
DAY = datetime.date(2026, 3, 8)
DEPTH = 50
WEIGHTS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)

Span = tuple[int, int, str]


class Judged(NamedTuple):
    """One question with BM25's candidates, their tags, and its gold passages."""

    query_id: str
    found: list[Document]
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
    right = found = wanted = 0
    texts, gold = zip(*sentences(path), strict=True)
    for spans, mentions in zip(gold, recogniser.recognise([("", text) for text in texts]), strict=True):
        told = {(m.start, m.end, m.label if typed else "") for m in mentions}
        true = {(start, end, label if typed else "") for start, end, label in spans}
        right, found, wanted = right + len(told & true), found + len(told), wanted + len(true)
    return 200 * right / max(1, found + wanted)


def passages_per_second(recogniser: Recogniser, passages: Sequence[tuple[str, str]]) -> float:
    """Of one process, the model open already."""
    recogniser.recognise(passages[:20])
    start = time.perf_counter()
    recogniser.recognise(passages)
    return len(passages) / (time.perf_counter() - start)


def judge(folder: Path, index: LocalIndex, *, split: str, most: int, recogniser: Recogniser) -> list[Judged]:
    """BM25's candidates of the questions of one split, tagged."""
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    asked = [row for row in rows if row["split"] == split][:most]
    gold: dict[str, set[str]] = {}
    for line in (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, doc_id, _ = line.split("\t")
        gold.setdefault(query_id, set()).add(doc_id)
    judged = []
    for row in asked:
        (found,) = index.search([row["text"]], top_k=DEPTH)
        tags = tag(row["text"], [(one.title, one.text) for one in found], recogniser=recogniser)
        judged.append(Judged(row["_id"], found, tags, frozenset(gold[row["_id"]])))
    return judged


def map_of(judged: Sequence[Judged], *, weight: float) -> float:
    """MAP in percent of BM25's score times `weight` a hop."""
    rankings = {
        one.query_id: by_score(
            {
                d.doc_id: d.bm25_score * weight ** (t.hop if t.hop != HOP_UNREACHABLE else Tagging().max_hop)
                for d, t in zip(one.found, one.tags, strict=True)
            }
        )
        for one in judged
    }
    qrels = {one.query_id: dict.fromkeys(one.gold, 1) for one in judged}
    return 100 * measure(rankings, qrels)["MAP"]


def spread(judged: Sequence[Judged]) -> dict[str, float]:
    """Share of each HOP among gold passages and among the others; printed too."""
    figures = {}
    for side, wanted in (("gold", True), ("other", False)):
        count = Counter(
            t.hop
            for one in judged
            for d, t in zip(one.found, one.tags, strict=True)
            if (d.doc_id in one.gold) is wanted
        )
        shares = {hop: number / count.total() for hop, number in sorted(count.items())}
        print(f"HOP of {side} passages: " + ", ".join(f"{hop}: {share:.1%}" for hop, share in shares.items()))
        figures[f"hop0_{side}"] = shares.get(0, 0.0)
    return figures


def hop_figures(folder: Path, index: LocalIndex, *, most: int, recogniser: Recogniser) -> dict[str, float]:
    """What HOP is worth."""
    train = judge(folder, index, split="train", most=most, recogniser=recogniser)
    weight = max(WEIGHTS, key=lambda one: map_of(train, weight=one))
    dev = judge(folder, index, split="dev", most=most, recogniser=recogniser)
    plain, hopped = map_of(dev, weight=1.0), map_of(dev, weight=weight)
    return {
        "hop_weight": weight,
        "hop_map_bm25": plain,
        "hop_map_with_hop": hopped,
        "hop_map_gain": hopped - plain,
        **spread(dev),
    }


def night_figures(folder: Path, work: Path, *, most: int) -> dict[str, float]:
    """Shares of two nights."""
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    events = [{"timestamp": f"{DAY}T09:00:00Z", "query": r["text"]} for r in rows if r["split"] == "dev"]
    log = work / "log.jsonl"
    log.write_text("".join(json.dumps(event) + "\n" for event in events[:most]), encoding="utf-8")
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
    made = parser(__doc__ or "")
    made.add_argument("--data", type=Path, default=DATA, help="folder that holds ner/ and hotpotqa/")
    args = made.parse_args()
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
