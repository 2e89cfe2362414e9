"""`nightrank fuse` as a user types it, and what `nightrank evaluate` measures after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.cli.fuse import print_fusion
from pipelines.evaluate.fuse import Fused
from rerank_core.ranking import fusion
from rerank_core.ranking.fusion import FEATURES, FILE, Fusion
from rerank_core.ranking.fusion_fit import FUSED, FusionFit
from rerank_core.scoring.load import load_scorer
from tests.support.tiny_onnx import write_model
from tests.support.tiny_set import write_towns

SHORT = ("--max-length", "64")  # as much as the tiny bi-encoder takes


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with a feature that the model cannot see: which town a film's text names."""
    return write_towns(tmp_path_factory.mktemp("sets") / "towns")


def call(command: str, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def evaluate(towns: Path, *arguments: str | Path) -> dict[str, Any]:
    done = call("evaluate", towns, "--own", "--json", *arguments)
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_weights_are_stored_and_then_measured_as_they_will_be_served(tmp_path: Path, towns: Path) -> None:
    model = write_model(tmp_path / "model")
    done = call("fuse", model, towns, "--own", "--json")
    assert done.exit_code == 0, done.output
    fitted = json.loads(done.stdout)
    assert fitted["path"] == str(model / FILE)
    assert fitted["weights"]["named_above"] > 0
    fused, alone = (fitted["figures"]["towns"][score]["MAP"] for score in ("fused", "cross_encoder"))
    assert fused > alone + 0.1
    assert fusion.read(model / FILE).weight("named_above") == pytest.approx(
        fitted["weights"]["named_above"], abs=1e-6
    )
    figures = evaluate(towns, "--system", f"on={model}", "--system", f"off=alone:{model}")["figures"]
    assert figures["towns/on/MAP"] > figures["towns/off/MAP"] + 0.1
    assert figures["towns/off/MAP"] == pytest.approx(alone, abs=1e-4)


def test_fusion_that_reads_tags_is_measured_in_every_mode_of_them(tmp_path: Path, towns: Path) -> None:
    model = write_model(tmp_path / "model")
    weights = {"cross_encoder": 0.1, "one_hop": -3.0}
    (model / FILE).write_text(json.dumps({"weights": weights, "bias": 0.0}))
    figures = evaluate(towns, "--system", f"on={model}")["figures"]
    assert {name for name in figures if "/tags=" in name} == {
        f"towns/on/tags={mode}/MAP" for mode in ("true", "none", "shuffled", "forged")
    }
    assert figures["towns/on/tags=true/MAP"] == figures["towns/on/MAP"]
    assert figures["towns/on/tags=true/MAP"] != figures["towns/on/tags=none/MAP"]
    plain = evaluate(towns, "--system", f"on={model}", "--tags", "none")["figures"]
    assert plain["towns/on/MAP"] == figures["towns/on/tags=none/MAP"]


def test_a_bi_encoder_takes_part_where_it_is_named(tmp_path: Path, towns: Path) -> None:
    pytest.importorskip("torch", reason="the tiny bi-encoder runs on torch")
    from tests.support.tiny_models import write_cross_encoder

    model = write_model(tmp_path / "model")
    bi_encoder, other = (
        write_cross_encoder(tmp_path / name, task="Model", seed=seed)
        for seed, name in enumerate(("bi", "other"))
    )
    flags = ("--own", "--bi-encoder", bi_encoder, *SHORT, "--dry-run", "--json")
    done = call("fuse", model, towns, *flags)
    assert done.exit_code == 0, done.output
    assert "bi_encoder" in json.loads(done.stdout)["figures"]["towns"]
    kept = [call("fuse", model, towns, *flags, "--work", tmp_path / "kept").stdout for _ in range(2)]
    assert kept == [done.stdout] * 2  # the second time by cosines of the first
    fingerprint = load_scorer(bi_encoder, backend="bi_encoder", max_length=64).fingerprint
    weights = {"weights": {"bi_encoder": 1.0}, "bias": 0.0, "bi_encoder": fingerprint}
    (model / FILE).write_text(json.dumps(weights))
    found = evaluate(
        towns,
        "--system",
        f"on={model}",
        "--system",
        f"bi:{bi_encoder}",
        "--bi-encoder",
        bi_encoder,
        *SHORT,
    )
    assert found["figures"]["towns/on/MAP"] == found["figures"]["towns/bi:bi/MAP"]
    for extra, message in (
        ((), "fitted with a bi-encoder: name it"),
        (("--bi-encoder", other), "another bi-encoder"),
    ):
        failed = call("evaluate", towns, "--own", *SHORT, "--system", model, *extra)
        assert failed.exit_code == 2
        assert message in " ".join(failed.stderr.split())


def test_the_report_shows_scores_weights_and_where_they_are_stored(tmp_path: Path, towns: Path) -> None:
    model = write_model(tmp_path / "model")
    done = call("fuse", model, towns, "--own", "--no-tags", "--dry-run")
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert "cross_encoder bm25 fused" in shown
    assert "fitted on 24 questions not stored (--dry-run)" in shown
    assert "one_hop" not in shown
    assert not (model / FILE).exists()


def test_what_gives_no_logits_and_what_has_no_folder_is_refused(tmp_path: Path, towns: Path) -> None:
    failed = call("fuse", "bm25", towns, "--own")
    assert failed.exit_code == 2
    assert "gives no logits" in " ".join(failed.stderr.split())
    assert call("evaluate", towns, "--system", "alone:bm25").exit_code == 2


@pytest.mark.parametrize("command", ["fuse", "calibrate"])
def test_two_sets_of_one_name_are_refused(tmp_path: Path, towns: Path, command: str) -> None:
    failed = call(command, write_model(tmp_path / "model"), towns, tmp_path / "elsewhere" / towns.name)
    assert failed.exit_code == 2
    assert "two sets are called 'towns'" in " ".join(failed.stderr.split())


def test_damaged_weights_are_named(tmp_path: Path, towns: Path) -> None:
    model = write_model(tmp_path / "model")
    (model / FILE).write_text("{")
    failed = call("evaluate", towns, "--own", "--system", model)
    assert failed.exit_code == 3
    assert "holds no weights" in " ".join(failed.stderr.split())


def test_the_report_says_how_far_weights_of_tags_were_reduced(capsys: pytest.CaptureFixture[str]) -> None:
    means = {"nDCG@10": 0.5, "MAP": 0.25}
    figures = {"towns": {"cross_encoder": means, FUSED: means}}
    weights = Fusion(tuple(0.1 for _ in FEATURES), -1.0)
    fit = FusionFit(weights, 0.01, 0.25, "cross_encoder", figures, {"towns": 0.02}, 24, {})
    print_fusion(Fused(fit, None))
    assert "weights of tags are reduced to 25 % of what was fitted" in " ".join(
        capsys.readouterr().out.split()
    )
    print_fusion(Fused(fit._replace(tag_share=1.0, left_out={"towns": means | {"ece": 0.041}}), None))
    printed = capsys.readouterr().out
    assert "reduced to" not in printed
    assert "fitted on the other sets (MAP): towns 25.0, error 4.1" in printed
