"""A judged set in BEIR's layout over the tiny night's corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.tiny import CORPUS, write_lines

QUERIES: list[dict[str, Any]] = [
    {"_id": "q1", "text": "Who wrote Dune?", "type": "single", "split": "dev"},
    {
        "_id": "q2",
        "text": "Where was Frank Herbert born?",
        "type": "bridge",
        "split": "dev",
        "candidates": ["rain", "tacoma", "herbert", "tacoma"],
    },
    {"_id": "q3", "text": "solaris novel", "type": "single"},
    {"_id": "q4", "text": "Why does rain fall?", "type": "bridge", "split": "dev"},
    {"_id": "q5", "text": "Seattle or Tacoma", "type": "single", "split": "train"},
]
QRELS = [
    "q1 dune 1",
    "q1 messiah 2",
    "q2 herbert 1",
    "q2 tacoma 1",
    "q3 solaris 1",
    "q4 rain 1",
    "q5 seattle 1",
]
SENTENCES = ["q1 dune 0 1", "q2 herbert 0 1", "q3 solaris 0 1", "q3 solaris 1 1"]


def write_set(
    folder: Path,
    *,
    queries: Sequence[Any] = QUERIES,
    qrels: Sequence[str] = QRELS,
    corpus: Sequence[Any] = CORPUS,
) -> Path:
    """The set's folder: `qrels` are lines of query, document and grade."""
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", queries)
    write_lines(folder / "qrels" / "dev.tsv", ["query-id corpus-id score", *qrels])
    write_lines(folder / "sentence_qrels" / "dev.tsv", ["query-id corpus-id sentence score", *SENTENCES])
    return folder


TOWNS = [f"Town{n}" for n in range(24)]


def write_towns(folder: Path) -> Path:
    """A set in which a question names a film, the film's text names its town, and the town is the answer."""
    corpus, queries, qrels = [], [], []
    for n, town in enumerate(TOWNS):
        corpus.append({"_id": f"film{n}", "title": f"Film{n}", "text": f"Film{n} was made in {town}."})
        corpus.append({"_id": f"town{n}", "title": town, "text": f"A mayor runs this place, number {n}."})
        others = [f"town{(n + k) % len(TOWNS)}" for k in (3, 7, 11, 13)]
        queries.append(
            {
                "_id": f"q{n}",
                "text": f"Who is mayor where Film{n} was made?",
                "split": "dev",
                "candidates": [f"film{n}", f"town{n}", *others],
            }
        )
        qrels += [f"q{n} town{n} 1", f"q{n} film{n} 1"]
    return write_set(folder, corpus=corpus, queries=queries, qrels=qrels)
