"""Labels from clicks on the bundled log, against its truth."""

from __future__ import annotations

import pytest

from benchmarks.clicks import RULES, measure
from benchmarks.common import SAMPLE


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("clicks")
    found = {}
    for name in ("debiased", "passed_over"):
        found |= measure(folder, name, RULES[name], truth=SAMPLE, log=SAMPLE / "query_log.jsonl")
    return found


def test_most_positives_are_relevant_and_few_negatives(figures: dict[str, float]) -> None:
    assert figures["positives_debiased"] > 100
    assert figures["right_debiased"] > 0.8
    assert figures["wrong_debiased"] < 0.02


def test_what_users_passed_over_is_fewer_negatives_and_none_is_likelier_to_be_relevant(
    figures: dict[str, float],
) -> None:
    assert 100 < figures["negatives_passed_over"] < figures["negatives_debiased"]
    assert figures["wrong_passed_over"] <= figures["wrong_debiased"]
