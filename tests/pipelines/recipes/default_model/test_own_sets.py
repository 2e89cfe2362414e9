"""Sets in which every question has candidates of its own."""

from __future__ import annotations

from pathlib import Path

from pipelines.recipes.default_model.own_sets import musique_own, policyqa, write
from pipelines.recipes.default_model.questions import read_set
from tests.support.tiny import write_lines


def test_both_sets_are_whole_folders(tmp_path: Path) -> None:
    pages = [
        {"_id": f"{site}{n}", "title": site, "text": f"text {site}{n}"} for site in "ab" for n in range(2)
    ]
    for name, split in (("policyqa", "dev"), ("musique", "train")):
        folder = tmp_path / name
        write_lines(folder / "corpus.jsonl", pages)
        asked = [
            {"_id": "q1", "text": "Do you sell data?", "split": split, "candidates": ["a0", "a1"]},
            {"_id": "q2", "text": "Who is asked?", "split": split},
        ]
        write_lines(folder / "queries.jsonl", asked)
        (folder / "qrels").mkdir()
        (folder / "qrels" / f"{split}.tsv").write_text(
            "query-id\tcorpus-id\tscore\nq1\ta1\t1\nq2\tb0\t1\n", encoding="utf-8"
        )
    for made, wanted in (
        (policyqa, {"q1": ("a0", "a1"), "q2": ("b0", "b1")}),
        (musique_own, {"q1": ("a0", "a1")}),
    ):
        write(made(tmp_path), tmp_path / "to" / made.__name__)
        again = read_set(tmp_path / "to" / made.__name__, split="dev")
        assert {question.query_id: question.candidates for question in again.questions} == wanted
        assert set(again.corpus) == {page["_id"] for page in pages}
