"""A later round's mining: every (positive, candidate) kept or dropped under one rule, whoever judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.config.remining import Remining
from rerank_core.config.training import Negatives, TrainingConfig, parse_training_config
from rerank_core.ranking.order import sigmoid
from rerank_core.training.groups import Group
from rerank_core.training.remine import Pool, Rater, Tally, best_round, describe, mine_pools, of_round
from schemas.records import Candidate

SCORES = {"p": 1.0, "a": 2.0, "b": 0.5, "c": -1.0, "d": -2.0, "e": -3.0}
MINING = {"num_negatives": 2, "easy_negatives": 0}


class Table:
    """A scorer that knows each passage's number; it raises for one it does not know."""

    fingerprint = "table"

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores, self.seen = scores, list[tuple[str, str]]()

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        self.seen += pairs
        return np.array([self._scores[passage] for _, passage in pairs], np.float32)


def pool(names: Sequence[str], *positives: str, query_id: str = "q") -> Pool:
    made = tuple(Candidate(name, name, "", name, 0.0, place) for place, name in enumerate(names, start=1))
    tags = tuple(f"[HOP:{n}]" for n in range(len(names)))
    return Pool(query_id, "a query", frozenset(positives), made, tags)


def mined(
    pools: Sequence[Pool],
    scores: Mapping[str, float],
    *,
    teacher: Rater | None = None,
    negatives: Negatives | None = None,
    tagged: bool = False,
    **remining: Any,
) -> tuple[list[Group], Counter[str], Tally]:
    counts, tally = Counter[str](), Tally(Counter(), Counter(), Counter())
    groups = mine_pools(
        pools,
        model=Rater(Table(scores), tagged),
        teacher=teacher,
        remining=_remining(remining),
        negatives=negatives or Negatives(),
        counts=counts,
        tally=tally,
    )
    return list(groups), counts, tally


def _remining(fields: dict[str, Any]) -> Remining:
    return _training_config(remining=fields).remining


def _training_config(**fields: Any) -> TrainingConfig:
    stages = fields.pop("stages", [{"name": "one", "runs": ["night"]}, {"name": "two", "runs": ["night"]}])
    return parse_training_config({"model": "owner/base", "output": "out", "stages": stages} | fields)


def test_the_model_scores_and_judges_by_itself() -> None:
    (group,), counts, tally = mined([pool("abcdep", "p")], SCORES, mining=MINING, tagged=True)

    assert group.passages == ("p", "b", "c")  # a is above the positive
    assert group.tags == ("[HOP:5]", "[HOP:1]", "[HOP:2]")
    assert group.logits == (1.0, 0.5, -1.0)
    assert group.margin == pytest.approx(sigmoid(1.0) - sigmoid(0.5))
    assert group.rank_before == 2
    assert tally.as_json() == {
        "candidates": {"pairs": 6, "queries": 1},
        "kept": {"top": 2},
        "dropped": {"false_negative": 1, "is_positive": 1, "not_sampled": 2},
    }
    assert not counts["groups_without_negatives"]


def test_a_margin_drops_more_and_nobody_drops_none() -> None:
    near = sigmoid(1.0) - sigmoid(0.5) + 0.01
    (group,), _, _ = mined([pool("abcdep", "p")], SCORES, mining=MINING, false_negatives={"margin": near})
    assert group.passages == ("p", "c", "d")
    (group,), _, tally = mined([pool("abcdep", "p")], SCORES, mining=MINING, false_negatives={"judge": "off"})
    assert group.passages == ("p", "a", "b")
    assert "false_negative" not in tally.dropped


@pytest.mark.parametrize("cosine", [True, False])
def test_a_teacher_judges_on_its_own_scale(cosine: bool) -> None:
    opinions = {"p": 0.6, "a": 0.1, "b": 0.7, "c": 0.2, "d": 0.59, "e": 0.0}
    table = Table(opinions)
    asked = {"judge": "teacher", "teacher": "t", "margin": 0.05 if cosine else 0.0}

    (group,), _, tally = mined(
        [pool("abcdep", "p")],
        SCORES,
        teacher=Rater(table, tagged=True, cosine=cosine),
        mining=MINING | {"num_negatives": 5},
        false_negatives=asked,
    )

    assert group.passages == (("p", "a", "c", "e") if cosine else ("p", "a", "c", "d", "e"))
    assert tally.dropped["false_negative"] == (2 if cosine else 1)
    assert table.seen[0][0].startswith("[HOP:")
    own = [SCORES[name] if cosine else opinions[name] for name in group.passages]
    assert group.logits == pytest.approx(own)  # a cosine is no logit to learn from


def test_a_stage_takes_as_many_as_it_asks_for() -> None:
    rules = {"num_negatives": 3, "easy_negatives": 1, "seed": 1}
    (group,), counts, tally = mined(
        [pool("bcdep", "p")], SCORES, mining=rules, negatives=Negatives(hard=1, easy=0)
    )
    assert group.passages == ("p", "b")
    assert tally.kept == {"top": 3, "easy": 1}
    assert counts["negatives_left_out"] == 3


def test_a_positive_that_gets_no_negative_is_counted() -> None:
    groups, counts, tally = mined([pool("ap", "p")], SCORES)
    assert (groups, counts["groups_without_negatives"]) == ([], 1)
    assert tally.dropped == {"is_positive": 1, "false_negative": 1}


def test_what_cannot_be_scored_is_dropped_and_counted() -> None:
    both = [pool("xabp", "p"), pool("abx", "x", query_id="other")]
    (group,), counts, tally = mined(both, SCORES, false_negatives={"judge": "off"})
    assert group.passages == ("p", "a", "b")
    assert tally.dropped == {"unscored": 1 + 3, "is_positive": 1}
    assert tally.candidates == {"queries": 2, "pairs": 4 + 3}
    assert counts["groups_without_negatives"] == 1


NAMES = st.lists(st.sampled_from("abcdepx"), unique=True, min_size=1)


@given(
    st.lists(st.tuples(NAMES, st.sets(st.sampled_from("abcdepx"), min_size=1)), max_size=4),
    st.sampled_from(["model", "off"]),
    st.sampled_from([-0.1, 0.0, 0.2]),
    st.integers(1, 3),
    st.integers(0, 2),
)
@settings(deadline=None, max_examples=150)
def test_every_candidate_is_kept_or_counted(
    drawn: list[tuple[list[str], set[str]]], judge: str, margin: float, hard: int, easy: int
) -> None:
    pools = [
        pool(names, *(positives & set(names)), query_id=str(n)) for n, (names, positives) in enumerate(drawn)
    ]
    wanted = Negatives(hard=hard, easy=1)
    groups, counts, tally = mined(
        pools,
        SCORES,
        negatives=wanted,
        mining={"num_negatives": 2, "easy_negatives": easy},
        false_negatives={"judge": judge, "margin": margin},
    )

    pairs = sum(len(one.positives) * len(one.candidates) for one in pools)
    assert sum(tally.kept.values()) + sum(tally.dropped.values()) == tally.candidates["pairs"] == pairs
    taken = sum(len(one.passages) - 1 for one in groups)
    assert taken + counts["negatives_left_out"] == sum(tally.kept.values())
    assert len(groups) + counts["groups_without_negatives"] == sum(len(one.positives) for one in pools)
    assert len({one.key for one in groups}) == len(groups)
    if judge == "model":
        least = [sigmoid(SCORES[one.passages[0]]) - margin for one in groups]
        assert all(
            sigmoid(SCORES[name]) <= best
            for one, best in zip(groups, least, strict=True)
            for name in one.passages[1:]
        )


def test_a_round_is_the_training_under_other_names() -> None:
    whole = _training_config(rounds=3)
    assert of_round(whole, 1, Path("unused")) == whole
    second = of_round(whole, 2, Path("newest"))
    assert [stage.name for stage in second.stages] == ["one-r2", "two-r2"]
    assert (second.model, second.rounds) == ("owner/base", 1)
    assert (
        of_round(_training_config(rounds=2, remining={"restart": False}), 2, Path("newest")).model == "newest"
    )


def test_the_best_round_is_kept_or_the_last() -> None:
    def lines(*measures: float | None) -> list[dict[str, Any]]:
        return [
            {"kind": "round", "round": n, **({} if value is None else {"nDCG@10": value})}
            for n, value in enumerate(measures, start=1)
        ]

    assert best_round([{"kind": "stage"}]) == 1
    assert best_round(lines(0.5, 0.7, 0.6)) == 2
    assert best_round(lines(0.7, 0.7)) == 1
    assert best_round(lines(None, None)) == 2


def test_a_person_reads_where_negatives_come_from() -> None:
    record = {
        "candidates": {"queries": 9, "pairs": 1200, "published": 400, "dense": 30, "dense_labelled": 2},
        "kept": {"easy": 9, "top": 45},
        "dropped": {},
        "judge": "teacher",
        "corpus": {"name": "set", "model": "mini", "top_k": 7, "passages": 281, "lines_rejected": 3},
    }
    assert describe(record) == (
        "9 queries with 400 published candidates, 30 new ones among the best 7 by mini in the 281 passages of set (3 "
        "were skipped), 2 of its results left out as labelled positives; of 1,200 pairs (positive, candidate) kept: 9 "
        "easy, 45 top; dropped: none; judge of false negatives: the teacher"
    )
    bare = {"candidates": {"queries": 1, "pairs": 2, "published": 2}, "kept": {}, "dropped": {"x": 2}}
    assert "with 2 published candidates; of 2" in describe(bare | {"judge": "off"})
