"""From measures to verdicts, on values worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.operation import DriftHold, DriftWarn
from rerank_core.drift.rules import BEYOND, RULES, Limits, Measure, Value, judge, reason, rule_of


def judged(
    name: str,
    tonight: tuple[float, int],
    previous: tuple[float, int] | None = None,
    *week: tuple[float, int],
    limits: Limits | None = None,
) -> Measure:
    rule = rule_of(name)
    return judge(
        name,
        Value(*tonight),
        previous=Value(*previous) if previous else None,
        week=[Value(*one) for one in week],
        limits=limits or Limits(getattr(DriftWarn(), rule.key), getattr(DriftHold(), rule.key)),
        min_queries=20,
    )


@pytest.mark.parametrize(
    ("name", "tonight", "previous", "verdict"),
    [
        ("queries", (500, 500), (1000, 1000), "ok"),  # on the limit
        ("queries", (499, 499), (1000, 1000), "warn"),
        ("queries", (99, 99), (1000, 1000), "hold"),
        ("queries", (5000, 5000), (1000, 1000), "ok"),
        ("queries", (9, 9), (20, 20), "ok"),  # chance
        ("queries", (1, 1), (20, 20), "hold"),
        ("queries", (1, 1), (4, 4), "ok"),
        ("events", (60, 10), (130, 20), "ok"),  # events of one query come and go together
        ("events", (60, 60), (130, 130), "warn"),
        ("candidates_per_query", (65.0, 1000), (100.0, 1000), "warn"),
        ("candidates_per_query", (65.0, 20), (100.0, 20), "ok"),
        ("candidates_per_query", (20.0, 1000), (100.0, 1000), "hold"),
        ("candidates_per_query", (0.0, 20), (100.0, 20), "hold"),
        ("candidate_overlap", (0.81, 20), None, "ok"),
        ("candidate_overlap", (0.79, 20), None, "warn"),
        ("candidate_overlap", (0.5, 20), None, "hold"),
        ("candidate_overlap", (0.0, 19), None, "ok"),  # too few queries
        ("score_psi", (0.3, 2000), (0.0, 2000), "warn"),
        ("score_psi", (0.3, 20), (0.0, 2000), "ok"),
        ("score_psi", (2.1, 2000), (0.0, 2000), "hold"),
        ("score_psi", (9.0, 2000), None, "ok"),  # nothing to compare with
        ("score_ks", (0.25, 2000), (0.0, 2000), "warn"),
        ("score_ks", (0.25, 20), (0.0, 20), "ok"),
        ("constant_scores", (1.0, 20), None, "hold"),
        ("constant_scores", (0.2, 20), None, "warn"),
        ("reused_share", (0.0, 1000), (1.0, 1000), "warn"),  # it costs time, and nothing is wrong
        ("reused_share", (1.0, 1000), (0.0, 1000), "ok"),
        ("dead_letters:ReadQueryLog/bad_json", (0.1, 1000), (0.0, 1000), "warn"),
        ("dead_letters:ReadQueryLog/bad_json", (0.1, 20), (0.0, 20), "ok"),
        ("dead_letters:ReadQueryLog/bad_json", (0.5, 100), (0.0, 100), "hold"),
        ("dead_letters:ReadQueryLog/bad_json", (0.0, 100), (0.5, 100), "ok"),
        ("causal_share", (0.05, 1000), (0.2, 1000), "warn"),
        ("causal_share", (0.2, 1000), (0.05, 1000), "warn"),
        ("entities_per_passage", (0.0, 1000), (2.5, 1000), "hold"),
        ("ndcg_gain", (0.0, 1000), (0.05, 1000), "warn"),
        ("ndcg_gain", (0.0, 30), (0.05, 30), "ok"),
        ("ndcg_gain", (-0.2, 300), (0.05, 300), "hold"),
    ],
)
def test_a_measure_is_judged_by_its_limits_and_by_chance(
    name: str, tonight: tuple[float, int], previous: tuple[float, int] | None, verdict: str
) -> None:
    assert judged(name, tonight, previous).verdict == verdict


def test_the_nearer_of_last_night_and_the_week_counts() -> None:
    friday, weekend = (1000, 1000), (300, 300)
    assert judged("queries", weekend, friday, friday, weekend, weekend).verdict == "ok"
    assert judged("queries", friday, weekend, friday, weekend).difference == pytest.approx(
        1000 / 650, rel=1e-5
    )
    assert judged("queries", weekend, friday, friday, friday, friday).verdict == "warn"
    after_a_bad_night = judged("reused_share", (0.9, 500), (0.0, 500), (0.0, 500), (0.9, 500), (0.9, 500))
    assert (after_a_bad_night.verdict, after_a_bad_night.difference) == ("ok", 0.0)


def test_a_first_night_is_held_only_by_what_needs_no_other() -> None:
    alone = {name: judged(name, (0.0, 1000)).verdict for name in RULES}
    assert {name for name, verdict in alone.items() if verdict != "ok"} == {
        "candidate_overlap",  # which a first night does not have
        "overlap_at_10",
        "rank_correlation",
    }


def test_a_reason_names_value_references_and_key() -> None:
    fewer = judged("queries", (50, 50), (1000, 1000), (1000, 1000), (900, 900))
    assert reason("queries", fewer, previous="run R of 2026-03-07") == (
        "queries of the log: 50 tonight (1,000 in run R of 2026-03-07, 950 in the median of the nights before), a "
        "smaller share than drift.hold.queries = 0.1 allows"
    )
    letters = judged("dead_letters:ReadQueryLog/bad_json", (0.2, 1000), (0.01, 1000))
    assert reason("dead_letters:ReadQueryLog/bad_json", letters, previous="run R of D") == (
        "ReadQueryLog/bad_json: share of records that became this dead letter: 0.2 tonight (0.01 in run R of D), a "
        "larger rise than drift.warn.dead_letters = 0.05 allows"
    )
    shifted = judged("score_psi", (3.0, 2000), (0.0, 2000))
    assert reason("score_psi", shifted, previous="run R of D") == (
        "PSI of the scores: 3 tonight (against run R of D), more than drift.hold.score_psi = 2 allows"
    )
    constant = judged("constant_scores", (1.0, 100))
    assert "1 tonight, more than drift.hold.constant_scores = 0.5" in reason(
        "constant_scores", constant, previous="-"
    )


def test_what_was_changed_on_purpose_warns_by_the_limit_that_holds() -> None:
    other = judged("overlap_at_10", (0.1, 100), limits=Limits(0.2, None))
    assert other.verdict == "warn"
    assert "less than drift.hold.overlap_at_10 = 0.2" in reason("overlap_at_10", other, previous="-")


def test_every_rule_has_its_keys_and_every_key_a_rule() -> None:
    keys = {field.name for field in dataclasses.fields(DriftWarn)}
    assert (
        {rule.key for rule in RULES.values()}
        == keys
        == {field.name for field in dataclasses.fields(DriftHold)}
    )
    assert {rule.kind for rule in RULES.values()} == set(BEYOND)


@pytest.mark.parametrize("name", RULES)
def test_by_default_what_holds_lies_beyond_what_warns(name: str) -> None:
    rule = RULES[name]
    warn, hold = getattr(DriftWarn(), rule.key), getattr(DriftHold(), rule.key)
    assert hold < warn if rule.kind in ("count", "mean", "least") else hold > warn


@given(
    st.sampled_from(sorted(RULES)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 100_000),
    st.integers(0, 100_000),
)
def test_a_night_like_the_one_before_is_never_judged_different(
    name: str, value: float, other: float, records: int, others: int
) -> None:
    if rule_of(name).kind not in ("least", "most", "psi", "ks"):
        assert judged(name, (value, records), (value, records), (other, others)).verdict == "ok"
        assert judged(name, (value, records), (other, others), (value, records)).verdict == "ok"
