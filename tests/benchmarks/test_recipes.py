"""The recipes of `examples/`, as the benchmark has them trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.recipes import RECIPES, recipe_file
from rerank_core.config.training import load_training_config


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_recipes_start_alike_and_stay_what_they_are(recipe: str, tmp_path: Path) -> None:
    data, base = tmp_path / "data", tmp_path / "base"
    base.mkdir()
    made = load_training_config(recipe_file(recipe, base=base, data=data, to=tmp_path))
    shipped = load_training_config(Path("examples") / f"train_{recipe}.toml")
    assert (made.model, made.output) == (str(base), str(tmp_path / f"model_{recipe}"))
    assert (made.max_length, made.precision, made.dev_queries) == (128, "bf16", 50)
    nights = {str(tmp_path / "multi_hop_output"), str(tmp_path / "natural_output")}
    assert {run for stage in made.stages for run in stage.runs} == nights
    for stage, shipped_stage in zip(made.stages, shipped.stages, strict=True):
        assert dataclasses.replace(stage, runs=shipped_stage.runs, dev=shipped_stage.dev) == shipped_stage
        assert made.dev_of(stage) in ("", str(data / "hotpotqa"), str(data / "nq"))
