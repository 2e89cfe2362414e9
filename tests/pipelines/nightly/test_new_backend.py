"""A new backend is one file and one line in the table: a night runs with it, and the choices and hints follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.autotune import measure
from pipelines.evaluate.systems import parse
from pipelines.nightly.run import run
from rerank_core.config.backends import BACKENDS, Backend
from rerank_core.config.night import Scoring, load_config
from rerank_core.errors import ConfigError, MissingEngine
from rerank_core.scoring.load import load_scorer
from tests.support.tiny import DAY, Tiny, rows


class ToyScorer:
    """Counts the words that both sides share."""

    def __init__(self, model: str, *, precision: str = "words") -> None:
        self.fingerprint = f"toy {Path(model).name} {precision}"

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array([len(words(q) & words(p)) for q, p in pairs], np.float32)


def words(text: str) -> set[str]:
    return {word.strip(".,?").lower() for word in text.split()}


TOY = Backend(f"{__name__}:ToyScorer", "toy", ("precision",), autotune=(("", "cpu"),))


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "toy", TOY)


def write_toml(tiny: Tiny, folder: Path, **scoring: Any) -> Path:
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in {"backend": "toy", "model": "toys", **scoring}.items()
    ]
    (folder / "toys").mkdir()
    path = folder / "night.toml"
    path.write_text(
        f'[source]\nlog = "{tiny.good_log}"\nindex = "{tiny.index}"\n[output]\npath = "output"\n'
        '[tags]\nrecogniser = "rules"\n[fusion]\nuse = "off"\n[scoring]\n' + "\n".join(lines) + "\n"
    )
    return path


def test_a_night_runs_with_it(tiny: Tiny, tmp_path: Path) -> None:
    manifest = run(load_config(write_toml(tiny, tmp_path)), run_date=DAY)
    assert manifest.model_fingerprint == "toy toys words"
    published = rows(tmp_path / "output", manifest)
    assert len(published) == manifest.balance.pairs["published"] > 20
    for row in published:
        assert row["logit"] == len(words(row["query"]) & words(f"{row['title']} {row['text']}"))


def test_its_options_are_checked(tiny: Tiny, tmp_path: Path) -> None:
    assert load_scorer("x", backend="toy", precision="bf16").fingerprint == "toy x bf16"
    with pytest.raises(
        ConfigError, match=r"scoring.compile = True has no meaning for the toy backend; remove it"
    ):
        run(load_config(write_toml(tiny, tmp_path, compile=True)), run_date=DAY)


def test_an_unknown_one_is_refused_with_the_nearest(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"'scoring.backend' = 'tyo': no such backend; the nearest known one is 'toy', all are: auto",
    ):
        load_config(write_toml(tiny, tmp_path, backend="tyo"))


def test_a_missing_engine_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "toy", TOY._replace(factory="no_such_engine:Scorer"))
    with pytest.raises(MissingEngine, match=r"needs no_such_engine: pip install 'nightrank\[toy\]'"):
        load_scorer("toy_model", backend="toy")


def test_evaluate_and_autotune_know_it(tmp_path: Path) -> None:
    (system,) = parse(["toy:some/folder"])
    assert (system.name, system.backend, system.path) == ("toy:folder", "toy", "some/folder")
    tuning = measure(Scoring(model=str(tmp_path)), [[("a b", "b"), ("a b", "a b")]])
    assert tuning.best.backend == "toy"
