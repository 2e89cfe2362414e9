"""HotpotQA's published JSON as a judged set, and the configuration that reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from examples import hotpotqa
from rerank_core.config.night import load_config

ROOT = Path(__file__).parents[2]
CONTEXT: list[Any] = [
    ["Dune", ["Dune is a novel by Frank Herbert.", " It was published in 1965."]],
    ["Frank Herbert", ["Frank Herbert was born in Tacoma."]],
    ["Snow", ["Snow falls.", ""]],
]
QUESTIONS = [
    {
        "_id": "q1",
        "question": "Where was the author of Dune born?",
        "answer": "Tacoma",
        "type": "bridge",
        "supporting_facts": [["Dune", 0], ["Frank Herbert", 0], ["Frank Herbert", 7]],
        "context": CONTEXT,
    },
    {
        "_id": "q2",
        "question": "Why does snow fall?",
        "answer": "cold",
        "type": "comparison",
        "supporting_facts": [["Snow", 0]],
        "context": CONTEXT[2:],
    },
]


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_questions_become_a_judged_set(tmp_path: Path) -> None:
    assert hotpotqa.convert(QUESTIONS, tmp_path) == 3
    corpus = {row["title"]: row for row in read(tmp_path / "corpus.jsonl")}
    assert corpus["Dune"]["text"] == "Dune is a novel by Frank Herbert. It was published in 1965."
    assert corpus["Snow"]["sentences"] == ["Snow falls.", ""]
    first, second = read(tmp_path / "queries.jsonl")
    assert first["candidates"] == [corpus[title]["_id"] for title in ("Dune", "Frank Herbert", "Snow")]
    assert (second["text"], second["type"], second["split"]) == ("Why does snow fall?", "comparison", "dev")
    dune, herbert, snow = (corpus[title]["_id"] for title in ("Dune", "Frank Herbert", "Snow"))
    assert (tmp_path / "qrels" / "dev.tsv").read_text() == (
        f"query-id\tcorpus-id\tscore\nq1\t{dune}\t1\nq1\t{herbert}\t1\nq2\t{snow}\t1\n"
    )
    assert (
        tmp_path / "sentence_qrels" / "dev.tsv"
    ).read_text() == (  # without the sentence that is not there
        f"query-id\tcorpus-id\tsentence\tscore\nq1\t{dune}\t0\t1\nq1\t{herbert}\t0\t1\nq2\t{snow}\t0\t1\n"
    )


def test_the_command_draws_questions_by_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(QUESTIONS), encoding="utf-8")
    drawn = []
    for name in ("a", "b"):
        call = ["hotpotqa", str(file), "--to", str(tmp_path / name), "--questions", "1"]
        monkeypatch.setattr(sys, "argv", call)
        hotpotqa.main()
        drawn.append(read(tmp_path / name / "queries.jsonl"))
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 1


def test_the_configuration_reads_what_the_command_of_its_comment_writes() -> None:
    path = ROOT / "examples" / "hotpotqa.toml"
    config, text = load_config(path), path.read_text(encoding="utf-8")
    folder = next(
        line.split("--to ")[1].split()[0] for line in text.splitlines() if "examples.hotpotqa" in line
    )
    index = next(line.split("--to ")[1].split()[0] for line in text.splitlines() if "nightrank index" in line)
    assert Path(config.source.log).resolve() == ROOT / folder / "queries.jsonl"
    assert Path(config.source.index).resolve() == ROOT / index
    assert Path(config.evaluation.sentence_qrels).resolve() == ROOT / folder / "sentence_qrels" / "dev.tsv"
