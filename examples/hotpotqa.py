"""HotpotQA's published JSON as a folder in BEIR's layout: `python -m examples.hotpotqa FILE --to FOLDER`.

FILE is the dev set in the distractor setting, hotpot_dev_distractor_v1.json from https://hotpotqa.github.io. Each of
its questions brings ten paragraphs, two of which hold the answer; the paragraphs of all questions are the corpus.
Writes corpus.jsonl, queries.jsonl, qrels/dev.tsv and sentence_qrels/dev.tsv.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="hotpot_dev_distractor_v1.json")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--questions", type=int, default=0, help="number of questions, drawn by hash; default: all"
    )
    arguments = parser.parse_args()
    found = json.loads(arguments.file.read_text(encoding="utf-8"))
    drawn = sorted(found, key=lambda question: _hash(question["_id"]))[: arguments.questions or None]
    passages = convert(drawn, arguments.to)
    print(f"{len(drawn):,} questions and {passages:,} passages in {arguments.to}")


def convert(questions: list[dict[str, Any]], folder: Path) -> int:
    """Write questions, their paragraphs and their judgements; the number of different paragraphs."""
    corpus: dict[str, dict[str, Any]] = {}
    queries, judged, judged_sentences = [], [], []
    for question in questions:
        ids, lengths = {}, {}
        for title, raw in question["context"]:
            sentences = [*map(str.strip, raw)]
            text = " ".join(filter(None, sentences))
            ids[title], lengths[title] = _hash(title, text), len(sentences)
            corpus[ids[title]] = {"_id": ids[title], "title": title, "text": text, "sentences": sentences}
        # Some of the set's supporting facts name a sentence that its paragraph does not have.
        facts = [
            (ids[title], number) for title, number in question["supporting_facts"] if number < lengths[title]
        ]
        judged += [(question["_id"], passage_id, 1) for passage_id in dict.fromkeys(one for one, _ in facts)]
        judged_sentences += [(question["_id"], passage_id, number, 1) for passage_id, number in facts]
        kept = {"answers": [question["answer"]], "type": question["type"], "split": "dev"}
        queries.append(
            {"_id": question["_id"], "text": question["question"], **kept, "candidates": [*ids.values()]}
        )
    _write_lines(folder / "corpus.jsonl", map(json.dumps, corpus.values()))
    _write_lines(folder / "queries.jsonl", map(json.dumps, queries))
    _write_table(folder / "qrels" / "dev.tsv", [("query-id", "corpus-id", "score"), *judged])
    header = ("query-id", "corpus-id", "sentence", "score")
    _write_table(folder / "sentence_qrels" / "dev.tsv", [header, *judged_sentences])
    return len(corpus)


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _write_table(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    _write_lines(path, ("\t".join(map(str, row)) for row in rows))


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
