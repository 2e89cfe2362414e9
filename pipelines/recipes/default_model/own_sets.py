"""Judged sets in which every question has candidates of its own, made from the sets of DIR: policyqa and musique_own.

    python -m pipelines.recipes.default_model.own_sets --data DIR --to SETS
    nightrank evaluate SETS/policyqa SETS/musique_own --own --system bm25 --system default

PolicyQA asks every policy the same questions and labels one policy's passages at a time: among all policies' passages
the right one can be found by chance only. So dev questions of the same words share their positives, and each is asked
of one policy (the passages with one title). MuSiQue's dev questions have no candidates; those of its train questions
that do are kept apart from training (`KEPT_APART` in sets.py) and are a dev set here. Both are whole
folders in BEIR's layout, their corpus included.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipelines.recipes.default_model.groups import LabelledSet, read_set
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
        for one in labelled.questions:
            asked = {
                "_id": one.query_id,
                "text": one.text,
                "split": "dev",
                "candidates": list(one.candidates),
            }
            lines.write(json.dumps(asked, ensure_ascii=False) + "\n")
    with (folder / "qrels" / "dev.tsv").open("w", encoding="utf-8") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for one in labelled.questions:
            lines.writelines(f"{one.query_id}\t{doc_id}\t1\n" for doc_id in sorted(one.positives))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.recipes.default_model.own_sets", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets, in BEIR's layout")
    parser.add_argument("--to", type=Path, required=True, help="folder that gets the new ones")
    args = parser.parse_args()
    for made in (policyqa, musique_own):
        labelled = made(args.data)
        write(labelled, args.to / made.__name__)
        print(f"{args.to / made.__name__}: {len(labelled.questions)} questions")


if __name__ == "__main__":
    main()
