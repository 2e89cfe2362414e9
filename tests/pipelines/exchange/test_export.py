"""A published night in every format, read by the tools of each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate.judged_sets import Selection, read_sets
from pipelines.evaluate.published import JudgedRun, evaluate_run
from pipelines.exchange.export import FORMATS, export
from pipelines.exchange.rows import examples, lists
from pipelines.exchange.targets import writing
from rerank_core.errors import ConfigError, OutputError
from schemas.errors import ManifestError
from tests.conftest import MakeConfig, Night
from tests.support.fakes import fake
from tests.support.object_store import MemoryFileSystem
from tests.support.published_run import publish_run, rewrite
from tests.support.tiny import DAY


def path_of(format: str, folder: str | Path) -> str:
    _, suffixes = FORMATS[format]
    return f"{folder}/exported{suffixes[-1] if suffixes else ''}"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_trec_files_give_the_measures_of_the_night(night: Night, tmp_path: Path) -> None:
    done = export(str(night.output), format="trec", to=str(tmp_path / "trec"))
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "trec" / "qrels.txt")))
    assert done.counts["judgements"] == len(qrels) > 0
    queries = [line.split("\t") for line in (tmp_path / "trec" / "queries.tsv").read_text().splitlines()]
    assert {one.query_id for one in qrels} <= {name for name, _ in queries}
    beir = tmp_path / "queries.jsonl"
    beir.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in queries))
    ours = evaluate_run(JudgedRun(str(night.output), str(beir), str(tmp_path / "trec" / "qrels.txt")))
    for system, file in (("bm25", "bm25.run"), ("reranked", "reranked.run")):
        run = list(ir_measures.read_trec_run(str(tmp_path / "trec" / file)))
        theirs = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
        assert theirs == pytest.approx(ours.systems[system].means["nDCG@10"], abs=1e-6)


def test_a_beir_folder_is_a_judged_set(night: Night, tmp_path: Path) -> None:
    done = export(str(night.output), format="beir", to=str(tmp_path / "beir"))
    with read_sets([tmp_path / "beir"], selection=Selection("dev", top_k=50, own=True)) as (judged,):
        assert len(judged.queries) == len(
            {one.query_id for one in examples(str(night.output), night.manifest)}
        )
        own = {name: [document.doc_id for document in found] for name, found in judged.own.items()}
    for found in lists(str(night.output), night.manifest):
        if found.query_id in own:
            assert set(own[found.query_id]) == {row["passage_id"] for row in found.rows}
    assert not done.notes


def test_datasets_and_the_losses_of_sentence_transformers_take_the_rows(night: Night, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import losses

    from tests.support.tiny_models import write_cross_encoder

    model = CrossEncoder(str(write_cross_encoder(tmp_path / "bert")), device="cpu")
    takes = {
        "st-triplet": losses.MultipleNegativesRankingLoss(model, num_negatives=1),
        "st-labeled-pair": losses.BinaryCrossEntropyLoss(model),
        "st-labeled-list": losses.LambdaLoss(model),
    }
    for format, loss in takes.items():
        for suffix in ("jsonl", "parquet"):
            to = str(tmp_path / f"{format}.{suffix}")
            done = export(str(night.output), format=format, to=to)
            kind = "json" if suffix == "jsonl" else "parquet"
            rows = datasets.load_dataset(
                kind, data_files=to, split="train", cache_dir=str(tmp_path / "cache")
            )
            assert len(rows) == done.counts["rows"] > 0
            batch = rows[:4]
            labels = batch.pop("label", batch.pop("labels", None))
            if format == "st-labeled-list":
                labels = [torch.tensor(one) for one in labels]
            elif labels is not None:
                labels = torch.tensor(labels)
            assert torch.isfinite(loss(list(batch.values()), labels))


def test_flagembedding_and_rankllm_hold_every_positive_and_list(night: Night, tmp_path: Path) -> None:
    output = str(night.output)
    export(output, format="flagembedding", to=str(tmp_path / "a.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    wanted = list(examples(output, night.manifest))
    assert [(one["query"], *one["pos"], *one["neg"]) for one in lines] == [
        (one.query, one.positive, *one.negatives) for one in wanted
    ]
    assert [tuple(one["pos_scores"] + one["neg_scores"]) for one in lines] == [one.logits for one in wanted]
    for side, rank in (("reranked", "rank"), ("bm25", "rank_before")):
        to = str(tmp_path / f"{side}.jsonl")
        export(output, format="rankllm", to=to, side=side)  # type: ignore[arg-type]
        requests = [json.loads(line) for line in Path(to).read_text().splitlines()]
        assert [[one["docid"] for one in request["candidates"]] for request in requests] == [
            [row["passage_id"] for row in sorted(found.rows, key=lambda row: row[rank])]
            for found in lists(output, night.manifest)
        ]


@pytest.mark.parametrize("format", FORMATS)
def test_an_object_store_gets_the_same_bytes(
    night: Night, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "objects", {})
    export(str(night.output), format=format, to=path_of(format, tmp_path))
    export(str(night.output), format=format, to=path_of(format, "mem://bucket"))
    stored = {path.removeprefix("mem://bucket/"): data for path, data in MemoryFileSystem.objects.items()}
    assert stored == everything(tmp_path)
    with pytest.raises(OutputError, match="exists already, and is not replaced"):
        export(str(night.output), format=format, to=path_of(format, "mem://bucket"))


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_there_is_never_replaced_and_a_failure_leaves_nothing(
    night: Night, tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = path_of(format, tmp_path)
    rows = "lists" if format in ("trec", "beir", "rankllm") else "examples"

    def broken(*_: Any) -> Any:
        yield from list({"lists": lists, "examples": examples}[rows](str(night.output), night.manifest))[:1]
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"pipelines.exchange.export.{rows}", broken)
        with pytest.raises(OSError, match="No space"):
            export(str(night.output), format=format, to=to)
    assert not list(tmp_path.iterdir())
    export(str(night.output), format=format, to=to)
    before = everything(tmp_path)
    with pytest.raises(OutputError, match="exists already, and is not replaced; remove it, or name another"):
        export(str(night.output), format=format, to=to)
    assert everything(tmp_path) == before


def test_units_are_judged_as_units_in_beir_and_as_documents_in_trec(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    from pipelines.nightly.run import run

    config = make_config(candidates={"unit": "sentence"})
    run(config, run_date=DAY, load=fake())
    export(config.output.path, format="trec", to=str(tmp_path / "trec"))
    export(config.output.path, format="beir", to=str(tmp_path / "beir"))
    documents = {line.split()[2] for line in (tmp_path / "trec" / "qrels.txt").read_text().splitlines()}
    units = {line.split("\t")[1] for line in (tmp_path / "beir/qrels/dev.tsv").read_text().splitlines()[1:]}
    assert documents
    assert {unit.rpartition("#")[0] for unit in units} == documents
    ranked = [line.split()[:3:2] for line in (tmp_path / "trec" / "reranked.run").read_text().splitlines()]
    assert max(Counter(map(tuple, ranked)).values()) == 1


def test_a_run_that_was_cut_has_no_order_of_bm25(make_config: MakeConfig, tmp_path: Path) -> None:
    from pipelines.nightly.run import run

    config = make_config(ranking={"top_n": 1})
    run(config, run_date=DAY, load=fake())
    done = export(config.output.path, format="trec", to=str(tmp_path / "trec"))
    assert done.notes[0].startswith("BM25's order is left out: the run published only the best documents")
    assert not (tmp_path / "trec" / "bm25.run").exists()
    with pytest.raises(ConfigError, match="choose the order reranked"):
        export(config.output.path, format="rankllm", to=str(tmp_path / "a.jsonl"), side="bm25")


def test_what_cannot_be_written_is_said_in_one_line(night: Night, tmp_path: Path) -> None:
    output = str(night.output)
    with pytest.raises(
        ConfigError, match=r"a\.csv: a file of format st-triplet must end in \.jsonl or \.parquet"
    ):
        export(output, format="st-triplet", to=str(tmp_path / "a.csv"))
    with pytest.raises(ConfigError, match="there is no format 'csv'; choose one of trec, beir"):
        export(output, format="csv", to=str(tmp_path / "a.csv"))
    with pytest.raises(OutputError, match="empty, or the root"), writing("/"):
        pass
    spaced = publish_run(tmp_path / "spaced", run_id="20260308-0", queries=2, shards=1)

    def with_space(table: pa.Table) -> pa.Table:
        ids = pa.array([f"a {one}" for one in table["doc_id"].to_pylist()])
        return table.set_column(table.schema.get_field_index("doc_id"), table.schema.field("doc_id"), ids)

    rewrite(tmp_path / "spaced", spaced, "reranked", with_space)
    with pytest.raises(ManifestError, match=r"document 'a d1': TREC's format has no place for an id"):
        export(str(tmp_path / "spaced"), format="trec", to=str(tmp_path / "trec"))
    assert [path.name for path in tmp_path.iterdir()] == ["spaced"]


def test_a_run_without_mining_has_no_judgements(tmp_path: Path, make_config: MakeConfig) -> None:
    from pipelines.nightly.run import run

    config = make_config(mining={"enabled": False})
    run(config, run_date=DAY, load=fake())
    to = str(tmp_path / "trec")
    done = export(config.output.path, format="trec", to=to)
    assert done.counts["queries"] > 0
    assert done.counts["judgements"] == 0
    assert (tmp_path / "trec" / "qrels.txt").read_bytes() == b""


def test_rows_of_many_row_groups_are_all_written(
    night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.exchange.export._ROWS", 2)
    done = export(str(night.output), format="st-labeled-pair", to=str(tmp_path / "a.parquet"))
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert file.metadata.num_row_groups > 1
    assert file.metadata.num_rows == done.counts["rows"]
