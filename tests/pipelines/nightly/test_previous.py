"""Which run is reused, and its scores by query."""

from __future__ import annotations

import dataclasses
import shutil
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.nightly.facts import read_facts
from pipelines.nightly.previous import COLUMNS, EVIDENCE, Previous, find_previous, read_scores
from pipelines.storage import filesystem, runs
from rerank_core.config.night import EvidenceOptions, Reuse
from rerank_core.scoring.reuse import unpack
from schemas.manifest import to_json
from schemas.tables import RERANKED
from tests.conftest import MakeConfig, Night
from tests.support.tiny import rows

FACTS = "another recogniser's"


def scores(path: Path) -> tuple[list[str], dict[str, dict[str, tuple[float, int]]]]:
    """Query ids in the order read, and by query the known logits and overflows."""
    order, known = [], defaultdict(dict)
    for query_id, blob in read_scores(str(path), COLUMNS):
        order.append(query_id)
        known[query_id] |= {key: tuple(score[:2]) for key, score in unpack(blob).items()}
    return order, dict(known)


def test_every_score_of_a_published_run_is_read(night: Night) -> None:
    files = runs.table_files(str(night.output), night.manifest, "reranked")
    found = {key for path in files for known in scores(Path(path))[1].values() for key in known}
    assert found == {row["input_fingerprint"] for row in rows(night.output, night.manifest)}


def test_a_query_may_span_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(query: int, n: int) -> dict[str, object]:
        blank = {field.name: {"string": "", "bool": False}.get(str(field.type), 0) for field in RERANKED}
        made = {"query_id": f"{query:016x}", "input_fingerprint": f"{query:016x}{n:016x}"}
        return (
            blank
            | {"entities": [], "hop_chain": [], "evidence_sentences": []}
            | made
            | {"logit": query + n / 8, "overflow_tokens": n}
        )

    expected = [row(query, n) for query, count in enumerate([3, 1, 90, 2]) for n in range(count)]
    pq.write_table(pa.Table.from_pylist(expected, schema=RERANKED), tmp_path / "part.parquet")
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *args, **how: real(*args, **how | {"batch_size": 7})
    )
    order, known = scores(tmp_path / "part.parquet")
    assert len(order) > 4 == len(set(order))  # the third query comes in pieces
    assert sum(map(len, known.values())) == len(expected)
    for one in expected:
        assert known[str(one["query_id"])][str(one["input_fingerprint"])] == (
            one["logit"],
            one["overflow_tokens"],
        )


def test_a_file_without_rows_has_no_scores(tmp_path: Path) -> None:
    pq.write_table(RERANKED.empty_table(), tmp_path / "part.parquet")
    assert scores(tmp_path / "part.parquet") == ([], {})


def test_the_newest_whole_run_of_the_same_model_is_used(night: Night, make_config: MakeConfig) -> None:
    model = night.manifest.model_fingerprint
    found = find_previous(night.config, model, facts_fingerprint=FACTS)
    assert (found.run_id, found.problem, len(found.files)) == (night.manifest.run_id, None, 3)
    # nothing published there
    assert find_previous(make_config(), model, facts_fingerprint=FACTS) == Previous(None)
    off = dataclasses.replace(night.config, reuse=Reuse(enabled=False))
    assert find_previous(off, model, facts_fingerprint=FACTS) == Previous(None)
    other = find_previous(night.config, "0123", facts_fingerprint=night.manifest.facts_fingerprint)
    assert (other.run_id, other.files) == (None, ())
    assert len(other.facts.files) == 1  # another scorer reads the same passages
    assert "another model" in str(other.problem)


@pytest.mark.parametrize(
    "damage", ["cut file", "lost file", "lost table", "pointer", "manifest", "no such table"]
)
def test_a_damaged_run_is_not_used_and_says_why(
    night: Night, make_config: MakeConfig, tmp_path: Path, damage: str
) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    table = output / night.manifest.tables["reranked"].path
    first = min(table.iterdir())
    manifest = output / runs.manifest_path(night.manifest.run_date, night.manifest.run_id)
    if damage == "cut file":
        first.write_bytes(first.read_bytes()[:100])
    elif damage == "lost file":
        first.unlink()
    elif damage == "lost table":
        shutil.rmtree(table)
    elif damage == "pointer":
        (output / "latest.json").write_bytes(b"\x00\xff")
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        lean = dataclasses.replace(night.manifest, tables={})
        manifest.write_text(to_json(lean))
    for facts in (FACTS, night.manifest.facts_fingerprint):
        found = find_previous(make_config(), night.manifest.model_fingerprint, facts_fingerprint=facts)
        assert (found.run_id, found.files) == (None, ())
        assert found.problem


def test_evidence_is_reused_where_it_was_chosen_alike(night: Night) -> None:
    model = night.manifest.model_fingerprint
    found = find_previous(night.config, model, facts_fingerprint=FACTS)
    assert found.evidence
    compact = dataclasses.replace(night.config, evidence=EvidenceOptions(keep_share=0.95))
    assert not find_previous(compact, model, facts_fingerprint=FACTS).evidence
    known = [
        score.evidence
        for path in found.files
        for _, blob in read_scores(path, COLUMNS + EVIDENCE)
        for score in unpack(blob).values()
    ]
    published = rows(night.output, night.manifest)
    assert sum(one is not None for one in known) >= 1
    assert {one.sentences for one in known if one} == {
        tuple(row["evidence_sentences"]) for row in published if row["evidence_sentences"]
    }


def test_facts_come_back_as_far_as_they_were_kept(night: Night) -> None:
    found = find_previous(night.config, "another", facts_fingerprint=night.manifest.facts_fingerprint)
    kept = {
        row["passage_key"]: row
        for path in found.facts.files
        for row in filesystem.read_table(path).to_pylist()
    }
    wanted = {*list(kept)[:3], "0" * 32}
    known = read_facts(found.facts, wanted)
    assert set(known) == wanted - {"0" * 32}
    for key, facts in known.items():
        row = kept[key]
        assert [mention._asdict() for mention in facts.mentions] == row["mentions"]
        assert (facts.words, facts.role, facts.causal) == (row["words"], row["role"], row["causal"])


@pytest.mark.parametrize(("version", "by_key"), [(2, False), (3, True)])
def test_the_version_of_the_table_says_where_facts_are(
    night: Night, monkeypatch: pytest.MonkeyPatch, version: int, by_key: bool
) -> None:
    """Until version 2 a shard's file held the facts of the shard, whatever their keys."""
    info = dataclasses.replace(night.manifest.tables["passage_tags"], schema_version=version)
    manifest = dataclasses.replace(night.manifest, tables=night.manifest.tables | {"passage_tags": info})
    monkeypatch.setattr(runs, "latest", lambda output: manifest)
    found = find_previous(night.config, "another", facts_fingerprint=manifest.facts_fingerprint)
    assert found.facts.by_key is by_key
    assert found.facts.files
