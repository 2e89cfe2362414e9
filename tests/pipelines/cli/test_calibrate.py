"""`nightrank calibrate` as a user types it, on the bundled set with a real model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipelines.cli.app import app
from rerank_core.ranking import calibration
from rerank_core.ranking.calibration import FILE
from rerank_core.scoring.load import DEFAULT_MODEL
from tests.support.tiny_set import write_set

SAMPLE = Path(__file__).parents[3] / "sample_data"
QUICK = ("--max-queries", "40", "--top-k", "10", "-q")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_the_command_stores_what_a_night_reads(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEFAULT_MODEL, model)
    done = call(model, SAMPLE, "--plot", tmp_path / "plot.png", "--method", "isotonic", *QUICK)
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert calibration.read(model).knots
    stored = calibration.describe(model)
    assert stored is not None
    assert (stored["method"], stored["pairs"]["sample_data"] > 300) == ("isotonic", True)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    (model / FILE).unlink()
    shown = call(model, SAMPLE, "--dry-run", *QUICK[:-1])
    assert "not stored" in shown.stdout
    assert "on held-out questions" in " ".join(shown.stdout.split())
    assert not (model / FILE).exists()


def test_what_has_no_logits_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "tiny")
    failed = call("bm25", folder)
    assert failed.exit_code == 2
    assert "gives no logits" in failed.stderr


@pytest.mark.parametrize(("module", "package"), [("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")])
def test_what_is_not_installed_is_named_before_the_scoring(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    failed = call(tmp_path / "nosuch", tmp_path, "--plot", tmp_path / "plot.png")
    assert failed.exit_code == 2
    assert f"nightrank calibrate needs {package}, which is not installed: pip install" in " ".join(
        failed.stderr.split()
    )
