"""Rows of the published tables: the builders fill exactly the columns, in a fixed order, and facts survive."""

from __future__ import annotations

import types
from typing import Any

import pyarrow as pa
import pytest

from rerank_core import rows
from schemas.records import (
    Candidate,
    Evidence,
    HardNegative,
    Mention,
    PassageFacts,
    Query,
    RankedCandidate,
    RankedGroup,
    Rejected,
    ScoredCandidate,
)
from schemas.tables import TABLES
from schemas.tags import Tags

TAGS = Tags(1, "Background", ("Dune",), True, False)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """Rows as the builders hand them to Arrow, which would drop what it does not know and fill what it misses."""
    seen: dict[str, list[dict[str, Any]]] = {}

    def from_pylist(made: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
        seen[schema.metadata[b"table"].decode()] = made
        return pa.Table.from_pylist(made, schema=schema)

    class Spy(types.SimpleNamespace):
        Table = types.SimpleNamespace(from_pylist=from_pylist)

    monkeypatch.setattr(rows, "pa", Spy())
    return seen


@pytest.mark.parametrize("tags", [TAGS, None])
def test_builders_fill_exactly_the_columns(built: dict[str, list[dict[str, Any]]], tags: Tags | None) -> None:
    query = Query("0" * 16, "q", 1, 1, ())

    def ranked(rank: int) -> RankedCandidate:
        candidate = Candidate(f"d{rank}", f"d{rank}#0", "T", "text", 2.5, 3 - rank)
        evidence = Evidence((0,), 0.5) if rank == 1 else None
        scored = ScoredCandidate(candidate, tags, "f" * 32, 1.0 - rank, False, 7, evidence)
        return RankedCandidate(scored, rank, rank, 3 - rank)

    pair = (ranked(1), ranked(2))
    negatives = [HardNegative(query, *pair, "clicks", "top", 0.25)]
    made = {
        "reranked": rows.reranked([RankedGroup(query, pair)], model_fingerprint="m", store_text=True),
        "hard_negatives": rows.hard_negatives(negatives, model_fingerprint="m"),
        "training_pairs": rows.training_table(negatives, tagged=True),
        "dead_letters": rows.dead_letters([Rejected("S", "pair", "id", "reason", "detail")]),
    }
    assert set(made) == set(TABLES) - {"passage_tags", "queries"} == set(built)
    for name in made:
        schema = TABLES[name]
        assert made[name].schema.equals(schema, check_metadata=True)
        for row in built[name]:
            assert set(row) == set(schema.names), name
            for field in schema:
                assert field.nullable or row[field.name] is not None, (name, field.name)
    first, second = made["reranked"].to_pylist()
    assert (first["doc_rank_before"], second["doc_rank_before"]) == (2, 1)
    assert (first["role"], first["entities"]) == (("Background", ["Dune"]) if tags else (None, None))
    assert (first["evidence"], first["evidence_sentences"], second["evidence"]) == ("text", [0], None)
    assert [row["label"] for row in made["training_pairs"].to_pylist()] == [1, 0]


def test_facts_survive_their_table() -> None:
    mentions = (Mention("Ann Lee", "PER", 0, 7), Mention("Tulsa", "LOC", 20, 25))
    facts = {
        "b": PassageFacts(mentions, 12, "Background", True),
        "a": PassageFacts((), 0, "Main_Claim", False),
        "c": PassageFacts(mentions[:1], 3, "Definition", False),
    }
    table = rows.passage_tags(facts)
    assert table.schema.equals(TABLES["passage_tags"], check_metadata=True)
    assert table["passage_key"].to_pylist() == ["a", "b", "c"]
    assert rows.read_passage_tags(table) == facts
    assert rows.read_passage_tags(table.slice(1)) == {key: facts[key] for key in "bc"}
    assert rows.read_passage_tags(table.to_batches()[0].slice(2, 1)) == {"c": facts["c"]}
    assert rows.read_passage_tags(rows.passage_tags({})) == {}


def test_a_row_without_a_logit_is_never_published() -> None:
    candidate = Candidate("d", "d", "", "text", 1.0, 1)
    unscored = RankedCandidate(ScoredCandidate(candidate, None, "f" * 32, None, False, 0), 1, 1, 1)
    group = RankedGroup(Query("0" * 16, "q", 1, 1, ()), (unscored,))
    with pytest.raises(ValueError, match="0000000000000000/d reached publishing without a logit"):
        rows.reranked([group], model_fingerprint="m", store_text=True)


def test_dead_letters_are_sorted() -> None:
    records = [Rejected(stage, "pair", "b", "r", "d") for stage in ("Z", "A")] + [
        Rejected("A", "pair", "a", "r", "d")
    ]
    table = rows.dead_letters(records)
    assert [(row["stage"], row["record"]) for row in table.to_pylist()] == [
        ("A", "a"),
        ("A", "b"),
        ("Z", "b"),
    ]
