"""A judged set whose questions are asked of one document each: their candidates are the passages of that document.

    python -m benchmarks.same_title --set DIR/policyqa --to DIR [--split dev]
    nightrank evaluate DIR/policyqa --own --system bm25 --system default

PolicyQA asks every policy the same questions and labels one policy's passages at a time: among all policies' passages
the right one can be found by chance only. So questions of the same words share their positives, and each is asked of
one policy (the passages with one title). Writes a set in BEIR's layout, its corpus included, with `candidates`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipelines.default_sets import within_titles
from rerank_core.training.data import LabelledSet, read_set


def write(labelled: LabelledSet, folder: Path, *, split: str) -> int:
    """Write the set's folder; the number of its questions."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as lines:
        for passage in labelled.corpus.values():
            row = {"_id": passage.doc_id, "title": passage.title, "text": passage.text}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as lines:
        for one in labelled.questions:
            row = {"_id": one.query_id, "text": one.text, "split": split, "candidates": list(one.candidates)}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8") as lines:
        lines.write("query-id\tcorpus-id\tscore\n")
        for one in labelled.questions:
            lines.writelines(f"{one.query_id}\t{doc_id}\t1\n" for doc_id in sorted(one.positives))
    return len(labelled.questions)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_title", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--set", type=Path, required=True, help="a set's folder, in BEIR's layout")
    parser.add_argument("--to", type=Path, required=True, help="folder that gets the new set, under its name")
    parser.add_argument("--split", default="dev")
    args = parser.parse_args()
    labelled = within_titles(read_set(args.set, split=args.split))
    several = labelled._replace(questions=tuple(q for q in labelled.questions if len(q.candidates) > 1))
    print(f"{write(several, args.to / args.set.name, split=args.split)} questions")


if __name__ == "__main__":
    main()
