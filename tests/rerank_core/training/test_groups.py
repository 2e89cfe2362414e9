"""Published rows as groups: nothing lost, nothing twice, nothing of another version."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.training import Negatives
from rerank_core.training.groups import (
    Group,
    GroupFile,
    check_version,
    hard_negative_groups,
    training_pair_groups,
    without_duplicates,
    write_groups,
)
from schemas.errors import ManifestError
from schemas.tables import HARD_NEGATIVES, TRAINING_PAIRS, schema_version


def negative(query: str, positive: str, rank: int, kept_by: str = "top", **fields: Any) -> dict[str, Any]:
    return {
        "query_id": f"id of {query}",
        "query": query,
        "positive_id": f"id of {positive}",
        "positive": positive,
        "positive_logit": 2.0,
        "positive_tags": "[HOP:0] [ROLE:Question]",
        "negative_id": f"n{rank}",
        "negative": f"negative {rank}",
        "negative_logit": -float(rank),
        "negative_tags": "[HOP:1] [ROLE:Question]",
        "negative_rank": rank,
        "negative_rank_before": 10 + rank,
        "margin": 0.1 * rank,
        "kept_by": kept_by,
        "label_source": "clicks",
        "model_fingerprint": "m",
        **fields,
    }


def batches(
    rows: list[dict[str, Any]], schema: pa.Schema = HARD_NEGATIVES, *, size: int = 2
) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(rows, schema=schema).to_batches(max_chunksize=size)


def groups(rows: list[dict[str, Any]], counts: Counter[str], **options: Any) -> list[Group]:
    return list(hard_negative_groups(batches(rows), negatives=Negatives(**options), counts=counts))


def test_rows_of_a_positive_become_a_group() -> None:
    counts: Counter[str] = Counter()
    rows = [
        negative("q", "a", 3, "easy"),
        negative("q", "a", 1),
        negative("q", "a", 2),
        negative("q", "b", 4),
    ]

    first, second = groups(rows, counts, hard=1, easy=1)

    assert first.passages == ("a", "negative 1", "negative 3")
    assert first.tags == ("[HOP:0] [ROLE:Question]", "[HOP:1] [ROLE:Question]", "[HOP:1] [ROLE:Question]")
    assert first.logits == (2.0, -1.0, -3.0)
    assert (first.margin, first.rank_before) == (pytest.approx(0.1), 11)
    assert second.passages == ("b", "negative 4")
    assert first.key != second.key
    assert counts == Counter({"negatives_left_out": 1})


def test_a_positive_whose_negatives_are_all_left_out_is_counted() -> None:
    counts: Counter[str] = Counter()
    assert groups([negative("q", "a", 1)], counts, hard=0, easy=1) == []
    assert counts == Counter({"negatives_left_out": 1, "groups_without_negatives": 1})


def test_copies_of_any_positive_of_the_query_are_left_out_and_counted() -> None:
    counts: Counter[str] = Counter()
    long = " ".join(f"word{n}" for n in range(100))
    rows = [
        negative("q", "a", 1, negative=" B."),  # a run of an older version
        negative("q", "a", 2, negative=f"{long} end"),
        negative("q", "a", 3),
        negative("q", "b", 4, negative="other"),
        negative("q", long, 5, negative="A"),
        negative("r", "c", 6, negative="a"),
    ]

    found = groups(rows, counts, hard=5)

    assert [group.passages for group in found] == [("a", "negative 3"), ("b", "other"), ("c", "a")]
    assert counts == Counter({"negatives_copies": 3, "negatives_left_out": 0, "groups_without_negatives": 1})
    kept = groups(rows, Counter(), hard=5, near_copies=0.0)
    assert kept[0].passages == ("a", f"{long} end", "negative 3")


def test_copies_in_training_pairs_are_left_out_and_counted() -> None:
    counts: Counter[str] = Counter()
    rows = pairs(
        ("[HOP:0] q", "a", 1.0),
        ("[HOP:2] q", "b", 0.0),
        ("[HOP:1] q", "c", 0.0),
        ("q", "B.", 1.0),
        ("q", "d", 0.0),
    )

    found = list(training_pair_groups(rows, negatives=Negatives(), counts=counts, name="part-0.parquet"))

    assert [group.passages for group in found] == [("a", "c"), ("B.", "d")]
    assert counts["negatives_copies"] == 1


def test_the_newer_run_wins() -> None:
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    for text in ("new", "old"):
        found = groups([negative("q", "a", 1, negative=text)], Counter())
        kept = list(without_duplicates(found, seen, counts))
        assert [group.passages[1] for group in kept] == (["new"] if text == "new" else [])
    assert counts == {"groups": 1, "negatives": 1, "groups_known": 1}


def pairs(*rows: tuple[str, str, float]) -> list[pa.RecordBatch]:
    return batches(
        [dict(zip(("query", "passage", "label"), row, strict=True)) for row in rows], TRAINING_PAIRS
    )


def test_training_pairs_are_put_together_again_with_their_tags() -> None:
    counts: Counter[str] = Counter()
    rows = pairs(
        ("[HOP:0] [ROLE:Question] q", "a", 1.0),
        ("[HOP:2] [ROLE:Question] [ENT:x y] q", "b", 0.0),
        ("[HOP:1] [ROLE:Question] q", "c", 0.0),
        ("lonely", "d", 1.0),
        ("r", "e", 1.0),
        ("r", "f", 0.0),
    )

    found = list(
        training_pair_groups(rows, negatives=Negatives(hard=1, easy=0), counts=counts, name="part-0.parquet")
    )

    assert [(group.query, group.passages) for group in found] == [("q", ("a", "b")), ("r", ("e", "f"))]
    assert found[0].tags == ("[HOP:0] [ROLE:Question]", "[HOP:2] [ROLE:Question] [ENT:x y]")
    assert found[1].tags == ("", "")
    assert counts == Counter({"negatives_left_out": 1, "groups_without_negatives": 1})


def test_pairs_that_begin_with_a_negative_are_refused() -> None:
    with pytest.raises(ManifestError, match="part-0.parquet begins with a negative of 'q'"):
        list(
            training_pair_groups(
                pairs(("q", "a", 0.0)), negatives=Negatives(), counts=Counter(), name="part-0.parquet"
            )
        )


def test_another_version_is_refused_with_the_remedy() -> None:
    check_version(HARD_NEGATIVES, "hard_negatives", name="f")
    known = schema_version(HARD_NEGATIVES)
    for version, remedy in ((known + 1, "install a newer Nightrank"), (known - 1, "run the night again")):
        other = HARD_NEGATIVES.with_metadata({b"schema_version": str(version).encode()})
        with pytest.raises(ManifestError, match=f"f has version {version} of hard_negatives.*{remedy}"):
            check_version(other, "hard_negatives", name="f")
    with pytest.raises(ManifestError, match="not a table published by Nightrank"):
        check_version(pa.schema([]), "hard_negatives", name="f")


ANY = st.builds(
    lambda n, query, size: Group(f"{n:016x}", query, ("p",) * size, ("",) * size, (0.5,) * size, 0.25, n),
    st.integers(0, 1000),
    st.text(),
    st.integers(2, 4),
)


@given(st.lists(ANY, max_size=600))
def test_a_file_gives_back_its_groups(tmp_path_factory, held) -> None:
    path = tmp_path_factory.mktemp("groups") / "groups.arrow"

    facts = write_groups(held, path)

    file = GroupFile(path)
    assert [file[n] for n in range(len(held))] == held
    assert facts.sizes.tolist() == [len(group.passages) for group in held]
    assert [f"{int(key):016x}" for key in facts.keys] == [group.key for group in held]
    assert facts.ranks.tolist() == [group.rank_before for group in held]


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    def written(count: int) -> int:
        made = (Group(f"{n:016x}", "q", ("x" * 1000,) * 4, ("",) * 4, (), 0.0, 0) for n in range(count))
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        facts = write_groups(made, tmp_path / f"{count}.arrow")
        held = pa.total_allocated_bytes() - before
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(facts.keys) == count
        return peak + held

    assert written(6_000) < 1.5 * written(2_000)  # 24 MB of text in the one, 8 in the other
