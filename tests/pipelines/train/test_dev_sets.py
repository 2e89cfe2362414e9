"""The judged sets that a training is measured on: BEIR folders and judged nights."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.train import dev_sets
from rerank_core.errors import ConfigError, JudgementError
from rerank_core.text import query_id
from schemas.manifest import Manifest
from tests.conftest import Night
from tests.support.object_store import MemoryFileSystem
from tests.support.tiny import rows, write_beir

QRELS = "query-id\tcorpus-id\tscore\nq1\tdune\t2\nq9\tx\t1\n"


def test_a_beir_folder_is_searched_and_tagged(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "set", {"q1": "Who wrote Dune?", "q2": "rain"}, QRELS)

    dev, said = dev_sets.read_dev(str(folder), queries=5, top_k=3, tagged=True)

    (query,) = dev.queries
    assert (query.query_id, dev.qrels) == ("q1", {"q1": {"dune": 2}})
    assert "dune" in query.doc_ids
    assert len(query.doc_ids) <= 3
    assert all(tags.startswith("[HOP:") for tags in query.tags)
    assert said.startswith("set (dev), 1 judged queries, 1 measured on")


def test_its_queries_are_normalised_as_a_night_s_queries_are(tmp_path: Path) -> None:
    """The search finds nothing by the raw text: soft hyphens cut its words in two."""
    folder = write_beir(tmp_path / "set", {"q1": " who  wro\u00adte\tDu\u00adne ?! "}, QRELS)
    dev, _ = dev_sets.read_dev(str(folder), queries=5, top_k=3, tagged=False)
    (query,) = dev.queries
    assert query.query == "who wrote Dune"
    assert "dune" in query.doc_ids


def test_its_documents_are_cleaned_and_split_as_a_night_s_documents_are(tmp_path: Path) -> None:
    """A document without a text is ranked by its title; control characters and soft hyphens are gone."""
    folder = write_beir(tmp_path / "set", {"q1": "spice melange"}, "q1\tspice\t1\n")
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "spice", "title": "Spice melange", "text": ""}\n')
        corpus.write('{"_id": "odd", "title": "", "text": "A spice of\\u0000 the  des\\u00adert."}\n')
    dev, _ = dev_sets.read_dev(str(folder), queries=5, top_k=3, tagged=False)
    (query,) = dev.queries
    assert dict(zip(query.doc_ids, query.passages, strict=True)) == {
        "spice": "Spice melange",
        "odd": "A spice of the desert.",
    }


def test_a_query_without_candidates_counts_as_zero(tmp_path: Path) -> None:
    folder = write_beir(
        tmp_path / "set", {"q1": "who wrote dune", "q2": "qqqq zzzz"}, QRELS + "q2\train\t1\n"
    )
    dev, said = dev_sets.read_dev(str(folder), queries=5, top_k=3, tagged=False)
    assert {query.query_id: bool(query.doc_ids) for query in dev.queries} == {"q1": True, "q2": False}
    assert dev.qrels.keys() == {"q1", "q2"}
    assert "2 judged queries, 2 measured on" in said
    (folder / "queries.jsonl").write_text('{"_id": "q2", "text": "qqqq zzzz"}\n')
    with pytest.raises(JudgementError, match="none of its judged queries has a candidate"):
        dev_sets.read_dev(str(folder), queries=5, top_k=3, tagged=False)


def test_queries_are_drawn(tmp_path: Path) -> None:
    queries = {f"q{n}": f"dune number {n}" for n in range(9)}
    folder = write_beir(tmp_path / "set", queries, "".join(f"{name}\tdune\t1\n" for name in queries))
    dev, said = dev_sets.read_dev(str(folder), queries=4, top_k=3, tagged=False)
    assert (len(dev.queries), len(dev.qrels)) == (4, 4)
    assert said.startswith("set (dev), 9 judged queries, 4 measured on")
    assert dev_sets.query_ids(dev) == {query_id(query.query) for query in dev.queries}


def test_a_judged_night_is_measured_on_what_it_ranked(two: tuple[Path, Manifest]) -> None:
    output, manifest = two
    dev, _ = dev_sets.read_dev(str(output), queries=5, top_k=4, tagged=True)

    (query,) = dev.queries
    ranked = [r for r in rows(output, manifest) if r["query_id"] == query.query_id]
    ranked.sort(key=lambda row: row["rank_before"])
    assert list(query.doc_ids) == [row["doc_id"] for row in ranked[:4]]
    assert dev.qrels == {query_id("who wrote dune"): {"dune": 1}}
    assert query.tags[0].startswith("[HOP:")


def test_a_dev_set_that_judges_nothing_is_named(night: Night, tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match="has no judgements of documents; set evaluation.queries"):
        dev_sets.read_dev(str(night.output), queries=5, top_k=5, tagged=False)
    folder = write_beir(tmp_path / "set", {"q1": "who wrote dune"}, "q7\tdune\t1\n")
    with pytest.raises(JudgementError, match="no query of split 'dev' has a judgement of 1 or more"):
        dev_sets.read_dev(str(folder), queries=5, top_k=5, tagged=False)
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(JudgementError, match="no judgements in .*dev.tsv, validation.tsv, test.tsv"):
        dev_sets.read_dev(str(folder), queries=5, top_k=5, tagged=False)


def test_a_beir_folder_in_an_object_store_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MemoryFileSystem.objects, "mem://bucket/set/corpus.jsonl", b"{}\n")
    with pytest.raises(ConfigError, match=r"dev: mem://bucket/set is an address.*copy it to this machine"):
        dev_sets.read_dev("mem://bucket/set", queries=5, top_k=5, tagged=False)
