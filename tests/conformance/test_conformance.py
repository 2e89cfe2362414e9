"""Architectures and settings of a folder against their own library: a few of them here, all of them by
`python -m benchmarks.conformance`, which takes minutes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'nightrank[train]'")
transformers = pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")
pytest.importorskip("openvino")

from benchmarks import conformance
from benchmarks.conformance import PAIRS, QUICK, SETTINGS, Cell, figures, sweep, tried
from benchmarks.toy_models import CANNOT_BE_MADE, MOST_PARAMETERS, kinds, make_toy
from rerank_core.errors import ModelError


@pytest.mark.parametrize("kind", QUICK)
def test_an_architecture_with_every_setting(kind: str) -> None:
    cells = list(sweep([kind]))
    assert {cell.setting for cell in cells} >= set(SETTINGS) - {"casing"}
    # Without a padding id RoBERTa's own code fails.
    held = ("equal", "refused")
    assert [c for c in cells if c.outcome not in held and c.setting != "no padding id"] == []
    assert [c for c in cells if c.outcome == "failed"] == []
    written = [cell.outcome for cell in cells if cell.setting == "as written"]
    assert written == ["equal"] * len(written)
    found = figures(cells)
    assert (found["conformance_models"], found["conformance_failures"]) == (1, 0)


@pytest.mark.parametrize("kind", tried(quick=False)[::12])
def test_some_of_all_architectures(kind: str) -> None:
    cells = list(sweep([kind], everything=()))
    assert [cell for cell in cells if cell.outcome not in ("equal", "refused")] == []


def test_every_architecture_can_be_made_but_the_listed_ones() -> None:
    failing = {}
    for kind in kinds():
        try:
            with torch.device("meta"):
                model, _ = make_toy(kind)
        except Exception as error:
            failing[kind] = str(error)
        else:
            assert sum(parameter.numel() for parameter in model.parameters()) < MOST_PARAMETERS
    assert set(failing) == set(CANNOT_BE_MADE), failing
    assert len(CANNOT_BE_MADE) <= 1 < len(kinds()) / 100  # a longer list would hide what is not tried


# The sweep itself


@pytest.mark.parametrize(
    ("kind", "unchanged"),
    [
        ("bert", {"more inputs", "another padding id", "no padding id", "padding on the left", "activation"}),
        (
            "qwen3",
            {"fewer inputs", "more inputs", "no padding id", "padding on the left", "activation"},
        ),
    ],
)
def test_a_setting_changes_the_own_librarys_logits(tmp_path: Path, kind: str, unchanged: set[str]) -> None:
    """Else its cells would hold whatever Nightrank did."""
    base = conformance.write_toy(tmp_path / "base", kind)
    expected = conformance._reference(base, relevant=None)
    for setting in set(SETTINGS) - set(conformance.TWO_LABELS) - {"as written", "another padding id"}:
        folder = shutil.copytree(base, tmp_path / setting)
        SETTINGS[setting](folder)
        apart = np.abs(conformance._reference(folder, relevant=None) - expected).max()
        assert (setting, apart < 1e-5) == (setting, setting in unchanged)


class Fake:
    """A scorer of given logits, and of others in a batch."""

    row_by_row = ""

    def __init__(self, alone: Sequence[float], together: Sequence[float] = ()) -> None:
        self.alone, self.together = alone, together or alone

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        logits = [self.alone[PAIRS.index(pairs[0])]] if len(pairs) == 1 else self.together
        return np.array(logits, np.float32)


def raising(error: Exception) -> Callable[[], Any]:
    def open_scorer() -> Any:
        raise error

    return open_scorer


@pytest.mark.parametrize(
    ("open_scorer", "outcome"),
    [
        (lambda: Fake([1, 2, 3, 4]), "equal"),
        (lambda: Fake([1, 2, 3, 4.1]), "failed"),
        (lambda: Fake([1, 2, 3, 4], [1, 2, 3, 4.1]), "failed"),
        (lambda: Fake([1, 2, 3, float("nan")]), "failed"),
        (raising(ModelError("pad_token_id in config.json is missing")), "refused"),
        (raising(ModelError("scoring.max_length is 9; set it to 8")), "refused"),
        (raising(ModelError("it does not work")), "failed"),
        (raising(KeyError("config.json")), "failed"),
    ],
)
def test_a_cell_fails_unless_it_is_equal_or_refused(open_scorer: Callable[[], Any], outcome: str) -> None:
    cell = conformance._compare(Cell("bert", "prompt", "onnx", ""), open_scorer, np.array([1, 2, 3, 4.0]))
    assert cell is not None
    assert cell.outcome == outcome
    assert figures([cell])["conformance_failures"] == (outcome == "failed")
