"""Scores that are kept in a file: the same ones, asked for once, and never another model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rerank_core.errors import ConfigError
from rerank_core.scoring.fault_tolerant import score_checked
from rerank_core.scoring.score_cache import FILE, CachedScorer

PAIRS = [("who", "Anna."), ("who", "Bob."), ("where", "Anna."), ("whoA", "nna.")]


class Counting:
    """A scorer that tells what it was asked."""

    def __init__(self, fingerprint: str = "f", *, shift: float = 0.0) -> None:
        self.fingerprint, self._shift = fingerprint, shift
        self.asked: list[tuple[str, str]] = []

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.asked += pairs
        if ("bad", "pair") in pairs:
            raise ValueError("bad pair")
        return np.array([len(q) / 3 + self._shift for q, _ in pairs], np.float32)


def test_a_score_is_asked_for_once_and_comes_back_exactly(tmp_path: Path) -> None:
    first, second = Counting(), Counting(shift=9.0)
    wanted = first.score(PAIRS)
    assert CachedScorer(first, tmp_path / "new").score(PAIRS[:3]).tolist() == wanted[:3].tolist()
    found = CachedScorer(second, tmp_path / "new").score(PAIRS)
    assert second.asked == PAIRS[3:]  # a character on the other side is another input
    assert found.tolist() == [*wanted[:3].tolist(), float(np.float32(wanted[3] + 9))]
    assert found.dtype == np.float32
    assert (tmp_path / "new" / FILE).exists()


def test_another_model_has_scores_of_its_own(tmp_path: Path) -> None:
    CachedScorer(Counting(), tmp_path).score(PAIRS)
    other = Counting("g", shift=1.0)
    assert CachedScorer(other, tmp_path).score(PAIRS).tolist() == Counting(shift=1.0).score(PAIRS).tolist()
    assert other.asked == PAIRS


def test_what_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    lost = Counting(shift=float("nan"))
    for _ in range(2):
        assert np.isnan(CachedScorer(lost, tmp_path).score(PAIRS)).all()
    assert lost.asked == PAIRS * 2


def test_a_pair_that_fails_costs_only_itself(tmp_path: Path) -> None:
    kept = CachedScorer(Counting(), tmp_path)
    outcome = score_checked(kept, [*PAIRS, ("bad", "pair")])
    assert list(outcome.errors) == [4]
    assert outcome.logits[:4] == pytest.approx(Counting().score(PAIRS).tolist())


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no database, and longer than a header of one: " * 9)
    with pytest.raises(ConfigError, match=r"cannot use the score cache .*scores\.sqlite"):
        CachedScorer(Counting(), tmp_path)
    with pytest.raises(ConfigError, match="cannot use the score cache"):
        CachedScorer(Counting(), tmp_path / FILE)


def test_many_and_repeated_inputs(tmp_path: Path) -> None:
    pairs = [(f"q{n % 700}", "p") for n in range(1500)]
    kept = CachedScorer(Counting(), tmp_path)
    assert kept.score(pairs).tolist() == kept.score(pairs).tolist() == Counting().score(pairs).tolist()
    assert kept.overflow(pairs).tolist() == [0] * 1500
    assert kept.score([]).shape == (0,)
