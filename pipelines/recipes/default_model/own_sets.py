"""Judged sets in which every question has candidates of its own, made from the sets of DIR: policyqa and musique_own.

    python -m pipelines.recipes.default_model.own_sets --data DIR --to SETS
    nightrank evaluate SETS/policyqa SETS/musique_own --own --system bm25 --system default

PolicyQA asks the same questions of every policy and labels one policy's passages at a time: among the passages of all
policies the right one can be found by chance only. So dev questions with the same words share their positives, and each
is asked of one policy (the passages with one title). MuSiQue's dev questions have no candidates; the train questions
that do are left out of training (`HELD_BACK` in sets.py) and are a dev set here. Both are complete folders in BEIR's
layout, with the corpus.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipelines.recipes.default_model.questions import LabelledSet, read_set
from pipelines.recipes.default_model.sets import within_titles


def policyqa(data: Path) -> LabelledSet:
    """PolicyQA's dev questions, each asked of one policy."""
    labelled = within_titles(read_set(data / "policyqa", split="dev"))
    return labelled._replace(questions=tuple(q for q in labelled.questions if len(q.candidates) > 1))


def musique_own(data: Path) -> LabelledSet:
    """MuSiQue's train questions that have candidates."""
    labelled = read_set(data / "musique", split="train")
    return labelled._replace(questions=tuple(q for q in labelled.questions if q.candidates))


def write(labelled: LabelledSet, folder: Path) -> None:
    """Write a set's folder, its questions as split dev."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as lines:
        for passage in labelled.corpus.values():
            row = {"_id": passage.doc_id, "title": passage.title, "text": passage.text}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as lines:
        for question in labelled.questions:
            row = {"_id": question.query_id, "text": question.text, "split": "dev"}
            candidates = {"candidates": list(question.candidates)}
            lines.write(json.dumps(row | candidates, ensure_ascii=False) + "\n")
    with (folder / "qrels" / "dev.tsv").open("w", encoding="utf-8") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for question in labelled.questions:
            lines.writelines(f"{question.query_id}\t{doc_id}\t1\n" for doc_id in sorted(question.positives))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipes.default_model.own_sets", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in BEIR's layout")
    parser.add_argument("--to", type=Path, required=True, help="folder for the new sets")
    args = parser.parse_args()
    for make in (policyqa, musique_own):
        labelled = make(args.data)
        write(labelled, args.to / make.__name__)
        print(f"{args.to / make.__name__}: {len(labelled.questions)} questions")


if __name__ == "__main__":
    main()
