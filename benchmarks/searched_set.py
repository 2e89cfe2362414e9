"""A judged set whose questions are searched for: a log as the bundled one's model draws it, and its truth."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rerank_core.evaluation.qrels import Qrels, by_query_id, read_qrels, read_queries
from rerank_core.text import fingerprint
from sample_data.generate_log import generate

FIRST = datetime.date(2026, 3, 2)


class Questions(NamedTuple):
    """Judged questions, and what is relevant to each."""

    texts: dict[str, str]  # by id
    qrels: Qrels

    def part(self, names: Sequence[str]) -> Questions:
        return Questions({n: self.texts[n] for n in names}, {n: self.qrels[n] for n in names})


def read_questions(folder: Path, split: str) -> Questions:
    """The questions of a split that have something relevant, in an order that is drawn by hash."""
    queries, qrels = read_queries(folder / "queries.jsonl"), read_qrels(folder / "qrels" / f"{split}.tsv")
    names = [name for name in queries if any(grade > 0 for grade in qrels.get(name, {}).values())]
    names.sort(key=lambda name: fingerprint("loop", name))
    return Questions({name: queries[name].text for name in names}, {name: qrels[name] for name in names})


def write_set(folder: Path, corpus: Path, questions: Questions) -> None:
    """A judged set in BEIR's layout, all of whose questions are in the split dev."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").symlink_to(corpus.absolute())
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for name, text in questions.texts.items():
            file.write(json.dumps({"_id": name, "text": text, "split": "dev"}, ensure_ascii=False) + "\n")
    with (folder / "qrels" / "dev.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for name, grades in questions.qrels.items():
            file.writelines(f"{name}\t{doc_id}\t{grade}\n" for doc_id, grade in grades.items())


def write_log(folder: Path, log: Path, *, events: int, days: int) -> None:
    """The log of a set that `write_set` wrote: searches for its questions, and clicks by its judgements."""
    with log.open("w", encoding="utf-8") as file:
        for event in generate(7, events, days, FIRST, folder):
            file.write(json.dumps(event, ensure_ascii=False) + "\n")


def share_relevant(folder: Path, pairs: set[tuple[str, str]]) -> float:
    """Share of (query_id, doc_id) that are relevant, of the pairs whose query is a question of the set as it is."""
    qrels = by_query_id(read_queries(folder / "queries.jsonl"), read_qrels(folder / "qrels" / "dev.tsv"))
    relevant = [qrels[query].get(doc, 0) > 0 for query, doc in pairs if query in qrels]
    return sum(relevant) / max(1, len(relevant))
