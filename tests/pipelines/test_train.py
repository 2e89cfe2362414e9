"""`nightrank train` from a published night to a model that the next night scores with."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from typer.testing import CliRunner

from pipelines import store, train_data
from pipelines.cli import app
from pipelines.nightly import run
from pipelines.sinks import write_table
from pipelines.train import BOARD, FIGURES, LAST, WORK, train
from rerank_core.features.render import special_tokens, split_tags
from rerank_core.judgements import JudgementError
from rerank_core.scoring import load_scorer
from rerank_core.scoring.scorer import MissingEngine
from rerank_core.text import query_id
from rerank_core.training.curriculum import Curriculum, Stage, TagPolicy, parse_curriculum
from rerank_core.training.parquet import GroupFile
from schemas.manifest import Manifest, ManifestError
from schemas.tables import HARD_NEGATIVES
from tests.conftest import Night
from tests.fakes import fake
from tests.tiny import CORPUS, DAY, Tiny, make_config, rows, write_lines
from tests.tiny_models import write_cross_encoder

ROOT = Path(__file__).parents[2]
KEEP = {"policy": "keep", "tag_dropout": 0.2, "tag_shuffle": 0.2}
Make = Callable[..., Curriculum]


def stage(output: Path | str, **fields: Any) -> Stage:
    return Stage(name="s", runs=(str(output),), **fields)


def groups(path: Path) -> list[Any]:
    file = GroupFile(path)
    return [file[n] for n in range(len(file.facts().keys))]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("base") / "bert", initializer_range=0.05)


@pytest.fixture
def make(night: Night, base: Path, tmp_path: Path) -> Make:
    """`make(stage={...}, ...)`: one stage over the night, from a tiny BERT."""

    def made(**fields: Any) -> Curriculum:
        one = {
            "name": "one",
            "runs": [str(night.output)],
            "tags": KEEP,
            "epochs": 2,
            **fields.pop("stage", {}),
        }
        raw = {
            "model": str(base),
            "output": str(tmp_path / "model"),
            "max_length": 48,
            "log_steps": 1,
            **fields,
        }
        return parse_curriculum({"stages": [one]} | raw)

    return made


def run_training(curriculum: Curriculum, **options: Any) -> Any:
    return train(curriculum, command="nightrank train --config t.toml", toml="seed = 7", **options)


def write_beir(folder: Path, queries: dict[str, str], qrels: str = "query-id\tcorpus-id\tscore\n") -> Path:
    write_lines(folder / "corpus.jsonl", CORPUS)
    write_lines(folder / "queries.jsonl", [{"_id": name, "text": text} for name, text in queries.items()])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "dev.tsv").write_text(qrels)
    return folder


def test_a_published_run_becomes_groups(night: Night, tmp_path: Path) -> None:
    told = train_data.prepare(stage(night.output), tmp_path / "a.arrow")

    published = rows(night.output, night.manifest, "hard_negatives")
    found = groups(tmp_path / "a.arrow")
    assert sum(len(one.passages) - 1 for one in found) == told["counts"]["negatives"] == len(published)
    assert (
        told["counts"]["groups"] == len(found) == len({(r["query_id"], r["positive_id"]) for r in published})
    )
    assert told["runs"][0]["run_id"] == night.manifest.run_id


def test_both_tables_give_the_same_groups(night: Night, tmp_path: Path) -> None:
    held = []
    for source in ("hard_negatives", "training_pairs"):
        train_data.prepare(stage(night.output, source=source), tmp_path / f"{source}.arrow")
        held.append(sorted((one.query, one.passages) for one in groups(tmp_path / f"{source}.arrow")))
    assert held[0] == held[1]


def test_prepared_data_stay_as_they_were(night: Night, tmp_path: Path) -> None:
    """A training that is resumed learns from the run that it began with, not from a newer one."""
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    told = train_data.prepare(stage(output), tmp_path / "a.arrow")
    shutil.rmtree(output)
    assert train_data.prepare(stage(output), tmp_path / "a.arrow") == told


@pytest.fixture(scope="module")
def two(night: Night, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """An output folder with the night and a newer, judged one, and the newer one's manifest. Read only."""
    output = tmp_path_factory.mktemp("two") / "output"
    shutil.copytree(night.output, output)
    folder = write_beir(output.parent / "set", {"q1": "who wrote dune"}, "q1\tdune\t1\n")
    judged = {"queries": str(folder / "queries.jsonl"), "qrels": str(folder / "qrels" / "dev.tsv")}
    return output, run(make_config(tiny, output, evaluation=judged), run_date=DAY, load=fake("other"))


def test_of_two_runs_the_newer_one_counts(night: Night, two: tuple[Path, Manifest], tmp_path: Path) -> None:
    output, newer = two
    both = (f"{output}@{night.manifest.run_id}", str(output), f"{output}@{newer.run_id}")

    told = train_data.prepare(Stage(name="s", runs=both), tmp_path / "a.arrow")

    assert [one["run_id"] for one in told["runs"]] == [newer.run_id, night.manifest.run_id]
    by_run = [
        len({(r["query_id"], r["positive_id"]) for r in rows(output, manifest, "hard_negatives")})
        for manifest in (newer, night.manifest)
    ]
    assert told["counts"]["groups"] + told["counts"]["groups_known"] == sum(by_run)
    assert told["counts"]["groups_known"] > 0


def test_queries_that_are_measured_are_not_trained_on(night: Night, tmp_path: Path) -> None:
    held_out = frozenset({query_id("who wrote dune")})
    told = train_data.prepare(stage(night.output), tmp_path / "a.arrow", held_out=held_out)
    assert told["counts"]["groups_held_out"] > 0
    assert all(query_id(one.query) not in held_out for one in groups(tmp_path / "a.arrow"))


def test_a_run_that_cannot_be_used_is_named(night: Night, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no published run in .*nowhere"):
        train_data.find_runs(stage(tmp_path / "nowhere"))
    with pytest.raises(ManifestError, match="no run '20260308-none'"):
        train_data.find_runs(stage(f"{night.output}@20260308-none"))
    every = frozenset(row["query_id"] for row in rows(night.output, night.manifest, "hard_negatives"))
    with pytest.raises(ManifestError, match="no positive with a negative in .*dev set: [1-9]"):
        train_data.prepare(stage(night.output), tmp_path / "b.arrow", held_out=every)


def test_tags_that_were_not_published_cannot_be_kept(night: Night, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    for table, columns, message in (
        ("training_pairs", ["query"], "training_pairs of a model that reads none; set source"),
        ("hard_negatives", ["positive_tags", "negative_tags"], "was published without; turn tags.enabled on"),
    ):
        for path in (output / night.manifest.tables[table].path).glob("*.parquet"):
            held = pq.read_table(path, partitioning=None)
            bare = [
                {**row, **{name: split_tags(row[name])[1] for name in columns}} for row in held.to_pylist()
            ]
            write_table(str(path), pa.Table.from_pylist(bare, schema=held.schema))
        kept = stage(output, source=table, tags=TagPolicy(policy="keep"))
        with pytest.raises(ManifestError, match=message):
            train_data.prepare(kept, tmp_path / f"{table}.arrow")


def test_a_file_of_another_version_is_named(night: Night, tmp_path: Path) -> None:
    output = tmp_path / "output"
    shutil.copytree(night.output, output)
    path = sorted((output / night.manifest.tables["hard_negatives"].path).glob("*.parquet"))[0]
    newer = HARD_NEGATIVES.with_metadata({**HARD_NEGATIVES.metadata, b"schema_version": b"9"})
    write_table(str(path), pq.read_table(path, partitioning=None).cast(newer))
    with pytest.raises(
        ManifestError, match=f"{path.name} has version 9 of hard_negatives.*install a newer one"
    ):
        train_data.prepare(stage(output), tmp_path / "a.arrow")


def test_a_beir_folder_is_searched_and_tagged(tmp_path: Path) -> None:
    folder = write_beir(
        tmp_path / "set",
        {"q1": "Who wrote Dune?", "q2": "rain"},
        "query-id\tcorpus-id\tscore\nq1\tdune\t2\nq9\tx\t1\n",
    )

    dev, said = train_data.read_dev(str(folder), queries=5, top_k=3, tagged=True)

    (query,) = dev.queries
    assert (query.query_id, dev.qrels) == ("q1", {"q1": {"dune": 2}})
    assert "dune" in query.doc_ids
    assert len(query.doc_ids) <= 3
    assert all(tags.startswith("[HOP:") for tags in query.tags)
    assert said.startswith("set (dev), 1 judged queries, 1 measured on")


def test_a_judged_night_is_measured_on_what_it_ranked(two: tuple[Path, Manifest]) -> None:
    output, manifest = two
    dev, _ = train_data.read_dev(str(output), queries=5, top_k=4, tagged=True)

    (query,) = dev.queries
    ranked = [r for r in rows(output, manifest) if r["query_id"] == query.query_id]
    ranked.sort(key=lambda row: row["rank_before"])
    assert list(query.doc_ids) == [row["doc_id"] for row in ranked[:4]]
    assert dev.qrels == {query_id("who wrote dune"): {"dune": 1}}
    assert query.tags[0].startswith("[HOP:")


def test_a_dev_set_that_judges_nothing_is_named(night: Night, tmp_path: Path) -> None:
    with pytest.raises(JudgementError, match="has no judgements of documents; set evaluation.queries"):
        train_data.read_dev(str(night.output), queries=5, top_k=5, tagged=False)
    folder = write_beir(tmp_path / "set", {"q1": "who wrote dune"}, "q7\tdune\t1\n")
    with pytest.raises(JudgementError, match="dev.tsv judges no query of"):
        train_data.read_dev(str(folder), queries=5, top_k=5, tagged=False)
    (folder / "qrels" / "dev.tsv").unlink()
    with pytest.raises(JudgementError, match="no judgements in .*dev.tsv, validation.tsv, test.tsv"):
        train_data.read_dev(str(folder), queries=5, top_k=5, tagged=False)


def test_a_training_gives_a_folder_for_every_engine(
    make: Make, night: Night, tiny: Tiny, tmp_path: Path
) -> None:
    folder = write_beir(
        tmp_path / "set", {"q1": "solaris novel"}, "query-id\tcorpus-id\tscore\nq1\tsolaris\t1\n"
    )
    done = run_training(make(dev=str(folder), licence="apache-2.0"))

    model = Path(done.path)
    assert {path.suffix for path in model.rglob("*.*")} == {".json", ".jsonl", ".md", ".safetensors", ".onnx"}
    assert not (model / WORK).exists()
    encoder = CrossEncoder(str(model), device="cpu")
    assert set(special_tokens()) <= set(encoder.tokenizer.get_vocab())
    pairs = [("[HOP:0] [ROLE:Definition] who wrote dune", "dune is a novel"), ("who", "rain falls")]
    wanted = encoder.predict(pairs, activation_fn=torch.nn.Identity())
    for backend in ("onnx", "torch"):
        scorer = load_scorer(model, backend=backend, max_length=48)
        assert scorer.reads_tags
        np.testing.assert_allclose(scorer.score(pairs), wanted, atol=1e-4)
    small = load_scorer(model, onnx_file="onnx/model_int8.onnx", max_length=48).score(pairs)
    assert np.abs(small - wanted).max() < 0.5

    card = (model / "README.md").read_text()
    for said in (
        night.manifest.run_id, night.manifest.created_at, "license: apache-2.0", "nightrank train --config t.toml",
        "seed = 7", "set (dev), 1 judged queries", "labels by clicks", "positives of queries that a dev set measures",
    ):  # fmt: skip
        assert said in card
    assert str(tmp_path) not in card
    lines = [json.loads(line) for line in (model / FIGURES).read_text().splitlines()]
    assert lines == done.lines
    assert {line["kind"] for line in lines} == {"loss", "dev", "stage"}

    reranked = run(
        make_config(tiny, tmp_path / "next", scoring={"model": str(model), "max_length": 48}), run_date=DAY
    )
    assert reranked.balance.pairs["published"] > 0


def test_a_training_that_was_killed_goes_on_and_no_other_does(make: Make, tmp_path: Path) -> None:
    def die(line: dict[str, Any]) -> None:
        if line["kind"] == "loss" and line["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make(checkpoint_steps=1), tell=die)
    runner, config = CliRunner(), tmp_path / "train.toml"
    raw = make(checkpoint_steps=1)
    config.write_text(_toml(raw))

    refused = runner.invoke(app, ["train", "--config", str(config)])
    assert (refused.exit_code, "go on with --resume" in refused.output) == (2, True)
    config.write_text(_toml(raw).replace("seed = 7", "seed = 8"))
    refused = runner.invoke(app, ["train", "--config", str(config), "--resume"])
    assert (refused.exit_code, "another configuration (seed)" in refused.output) == (2, True)
    config.write_text(_toml(raw))
    with store.lock(str(tmp_path / "model" / WORK), "training"):
        refused = runner.invoke(app, ["train", "--config", str(config), "--resume"])
    assert refused.exit_code == 4
    done = runner.invoke(app, ["train", "--config", str(config), "--resume", "--quiet"])
    assert done.exit_code == 0, done.output
    again = runner.invoke(app, ["train", "--config", str(config), "--resume"])
    assert (again.exit_code, "holds a model already" in again.output) == (2, True)
    steps = [json.loads(line)["step"] for line in (tmp_path / "model" / FIGURES).read_text().splitlines()]
    assert steps[:-1] == list(range(1, steps[-1] + 1))


def _toml(curriculum: Curriculum) -> str:
    """The fields of `make`, as a file."""
    (one,) = curriculum.stages
    return (
        f'model = "{curriculum.model}"\noutput = "{curriculum.output}"\nmax_length = 48\nlog_steps = 1\n'
        f'checkpoint_steps = {curriculum.checkpoint_steps}\nseed = 7\n[[stages]]\nname = "one"\n'
        f'runs = ["{one.runs[0]}"]\nepochs = 2\n'
        '[stages.tags]\npolicy = "keep"\ntag_dropout = 0.2\ntag_shuffle = 0.2\n'
    )


def test_two_processes_write_one_folder(night: Night, tmp_path: Path) -> None:
    """With adapters and event files, as torchrun starts them; the weights are those of one process."""
    pytest.importorskip("peft", reason="needs peft: pip install 'nightrank[train]'")
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'nightrank[tensorboard]'")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    base, config = (
        write_cross_encoder(tmp_path / "base", initializer_range=0.05, **still),
        tmp_path / "t.toml",
    )
    text = (
        f'model = "{base}"\noutput = "one"\nmax_length = 48\nlog_steps = 1\ntensorboard = true\n'
        f'[lora]\nr = 2\n[[stages]]\nname = "one"\nruns = ["{night.output}"]\nlr = 1e-3\nepochs = 3\naccumulation = 2\n'
    )
    config.write_text(text)
    alone = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["train", "--config", str(config)])
    assert alone.exit_code == 0, alone.output
    config.write_text(text.replace('output = "one"', 'output = "two"'))
    together = subprocess.run(
        [
            sys.executable,
            *"-m torch.distributed.run --standalone --nproc-per-node 2 -m pipelines.cli train --config".split(),
            str(config),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert together.returncode == 0, together.stderr

    for said in (alone.output, together.stdout):
        assert said.count("scoring.model = ") == 1
        assert "parameters, as adapters that are merged into the model" in said
    assert (
        "Low-rank adapters (r = 2, alpha = 16, dropout = 0) and"
        in (tmp_path / "two" / "README.md").read_text()
    )
    one, two = (
        {
            path.relative_to(tmp_path / name).parts[0]
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two
    assert {BOARD, "onnx", LAST} <= two
    wanted, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=0, msg=name)
    losses = [
        [line["loss"] for line in map(json.loads, (tmp_path / name / FIGURES).read_text().splitlines()[:-1])]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    events = list((tmp_path / "two" / BOARD / "one").iterdir())
    assert len(events) == 1


def test_tensorboard_that_is_not_there_is_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else found(name, *rest)
    )
    with pytest.raises(MissingEngine, match=r"pip install 'nightrank\[cpu,train,tensorboard\]'"):
        run_training(make(tensorboard=True))
    assert not (tmp_path / "model").exists()


def test_the_summary_shows_figures_and_what_was_left_out(make: Make, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(
        _toml(make()).replace("[stages.tags]", "[stages.negatives]\nhard = 1\n[stages.tags]")
    )
    done = CliRunner(env={"COLUMNS": "120"}).invoke(
        app, ["train", "--config", str(tmp_path / "train.toml"), "--quick"]
    )
    assert done.exit_code == 0, done.output
    for said in (
        "stage",
        "nDCG@10",
        "  left out ",
        "negatives beyond the number asked for",
        "scoring.model = ",
    ):
        assert said in done.output
    assert "A trial" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('model = "m"\n', 2, "Missing required|required"),
        ('model = "m"\noutput = "o"\n[[stages]]\nname = "a"\nruns = ["none"]\n', 3, "no published run in"),
    ],
)
def test_mistakes_have_exit_codes(tmp_path: Path, text: str, code: int, message: str) -> None:
    (tmp_path / "train.toml").write_text(text)
    done = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "train.toml")])
    assert done.exit_code == code
    assert any(part in done.output for part in message.split("|"))
    assert "Traceback" not in done.output


def test_a_missing_extra_is_named(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.toml").write_text(_toml(make()))
    monkeypatch.setitem(sys.modules, "datasets", None)
    done = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "train.toml")])
    assert done.exit_code == 3
    assert "pip install 'nightrank[cpu,train]'" in done.output
    assert not os.path.exists(tmp_path / "model")
