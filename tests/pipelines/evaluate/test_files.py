"""What an evaluation writes: flat names, and a row per set, system and query."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.evaluate.files import as_json, check_targets, per_query, write_json, write_per_query
from rerank_core.errors import ConfigError
from rerank_core.evaluation.comparison import Result, SetResult, SystemResult, compare_systems
from rerank_core.evaluation.measures import MEASURES


@pytest.fixture
def result() -> Result:
    def system(value: float, **fields: object) -> SystemResult:
        by_query = {measure: {"q1": value, "q2": 1.0} for measure in MEASURES}
        return SystemResult(by_query, None, 0.5, {"q1": 7}, 1, {})._replace(**fields)  # type: ignore[arg-type]

    systems = {
        "bm25": system(0.0),
        "ours": system(0.5, f1=0.25, failed=2, by_tags={"true": 0.75, "none": 0.5}),
    }
    one = SetResult("set", "document", "", "index", 2, {"q1": "bridge"}, 0.9, {"not_asked": 5}, systems)
    return compare_systems([one], baseline="", fingerprints={"ours": "model"}, settings={"split": "dev"})


def test_flat_names(result: Result) -> None:
    plain = json.loads(json.dumps(as_json(result)))
    figures = plain["figures"]
    assert (figures["set/queries"], figures["set/not_asked"]) == (2, 5)
    assert figures["set/relevant_among_candidates"] == 0.9
    assert figures["set/ours/nDCG@10"] == figures["set/ours/MAP"] == 0.75
    assert (figures["set/ours/F1"], figures["set/bm25/F1"], figures["set/bm25/AUC"]) == (0.25, None, 0.5)
    assert (figures["set/ours/pairs"], figures["set/ours/failed"], figures["set/ours/missing"]) == (7, 2, 1)
    assert figures["set/ours/type=bridge/MRR@10"] == 0.5
    assert figures["set/ours/type=bridge/queries"] == 1
    assert figures["set/ours/tags=none/MAP"] == 0.5
    assert (figures["set/ours/MAP/change"], figures["set/ours/MAP/p"], figures["set/ours/MAP/p_holm"]) == (
        0.25,
        1,
        1,
    )
    assert "set/bm25/MAP/p" not in figures
    assert plain["fingerprints"] == {"set set": "index", "ours": "model"}
    assert (plain["baselines"], plain["tags"]) == ({"set": "bm25"}, {"ours": "true"})
    assert plain["settings"] == {"split": "dev"}


def test_a_row_per_set_system_and_query(result: Result, tmp_path: Path) -> None:
    rows = per_query(result)
    assert [(row["system"], row["query_id"], row["AP"], row["pairs"]) for row in rows] == [
        ("bm25", "q1", 0.0, 7),
        ("bm25", "q2", 1.0, 0),
        ("ours", "q1", 0.5, 7),
        ("ours", "q2", 1.0, 0),
    ]
    write_json(result, tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text()) == json.loads(json.dumps(as_json(result)))
    write_per_query(result, tmp_path / "rows.parquet")
    write_per_query(result, tmp_path / "rows.jsonl")
    assert pq.ParquetFile(tmp_path / "rows.parquet").read().to_pylist() == rows
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_targets(None, tmp_path / "rows.jsonl")
    with pytest.raises(
        ConfigError, match=r"cannot write .*rows.jsonl: there is no folder .*nosuch; create it"
    ):
        check_targets(tmp_path / "nosuch" / "rows.jsonl")
