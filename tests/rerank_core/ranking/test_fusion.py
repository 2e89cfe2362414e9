"""The fused logit: what it is summed from, that only the group decides it, and its file."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.errors import FusionError
from rerank_core.ranking.calibration import Calibration, score_of
from rerank_core.ranking.fusion import FEATURES, FILE, Fusion, describe, features, fuse, read, write
from rerank_core.ranking.order import rank, sigmoid
from rerank_core.scoring.load import DEFAULT_MODEL
from schemas.records import Candidate, Query, QueryGroup, ScoredCandidate
from schemas.tags import Tags

QUERY = Query("q", "who wrote The Haunting", 1, 0, ())


def weights(bias: float = 0.0, bi_encoder: str = "", **named: float) -> Fusion:
    return Fusion(tuple(named.get(name, 0.0) for name in FEATURES), bias, bi_encoder)


def scored(
    doc_id: str,
    logit: float | None,
    *,
    bm25: float = 1.0,
    title: str = "",
    text: str = "text",
    hop: int | None = None,
    first_stage: float | None = None,
) -> ScoredCandidate:
    tags = None if hop is None else Tags(hop, "Other", (), False, False)
    pruned = bm25 if logit is None else None
    return ScoredCandidate(
        Candidate(doc_id, doc_id, title, text, bm25, 1), tags, "f", logit, False, 0, None, first_stage, pruned
    )


GROUP = QueryGroup(
    QUERY,
    (
        scored(
            "film",
            2.0,
            bm25=6.0,
            title="The Haunting (film)",
            text="After Shirley Jackson.",
            hop=0,
            first_stage=0.5,
        ),
        scored("woman", -1.0, bm25=2.0, title="Shirley Jackson", hop=1, first_stage=None),
        scored("left_out", None, bm25=4.0, title="Lost", hop=-1, first_stage=0.1),
        scored(
            "town",
            0.5,
            bm25=4.0,
            title="Bennington",
            text="The Haunting in Bennington.",
            hop=-1,
            first_stage=0.25,
        ),
    ),
)


def test_the_features_of_a_group() -> None:
    found = dict(zip(FEATURES, features(GROUP).T.tolist(), strict=True))
    assert found == {
        "cross_encoder": [2.0, -1.0, 0.5],
        "bm25": pytest.approx(
            [2 * math.tanh(0.5**0.5), -2 * math.tanh(0.5**0.5), 0.0]
        ),  # of all four: 4 +- sqrt 2
        "bi_encoder": [0.5, 0.375, 0.25],  # the one that failed has the others' mean
        "named_above": [
            0.0,
            3.0,
            0.0,
        ],  # the best names the woman, three logits below; the town names what is above it
        "shares_above": [0.0, 3.0, 1.5],  # her name, in the film's text; the film's, in the town's
        "apart": [0.0, 0.0, 0.0],
        "one_hop": [0.0, 1.0, 0.0],
    }


def test_an_outlier_of_bm25_counts_less_than_two_deviations() -> None:
    group = QueryGroup(
        QUERY, (*(scored(f"d{n}", 0.0, bm25=1.0) for n in range(20)), scored("far", 0.0, bm25=90.0))
    )
    found = features(group)[:, FEATURES.index("bm25")]
    assert found[-1] == pytest.approx(2 * math.tanh(20**0.5 / 2))
    assert -0.23 < found[0] < 0 < 1.9 < found[-1] < 2


def test_the_fused_logit_is_the_weighted_sum_and_ranks() -> None:
    fusion = weights(bias=-0.5, cross_encoder=1.0, named_above=0.75)
    group = fuse(GROUP, fusion)
    assert [one.fused for one in group.candidates] == [1.5, 0.75, None, 0.0]
    assert [one.logit for one in group.candidates] == [2.0, -1.0, None, 0.5]  # the model's own stays
    ranked = rank(group)
    assert [one.scored.candidate.doc_id for one in ranked.candidates] == ["film", "woman", "town", "left_out"]
    scores = [score_of(one.scored, Calibration(9.0, 9.0)) for one in ranked.candidates]
    assert scores == [sigmoid(1.5), sigmoid(0.75), sigmoid(0.0), None]  # calibrated when it was fitted


def test_what_nothing_links_to_the_query_stands_apart() -> None:
    group = QueryGroup(QUERY, (scored("film", 1.0, title="The Haunting"), scored("town", 2.0, title="Oslo")))
    assert features(group)[:, FEATURES.index("apart")].tolist() == [0.0, 1.0]


def test_without_tags_scores_and_candidates() -> None:
    bare = QueryGroup(QUERY, (scored("a", 1.0), scored("b", 1.0)))
    assert features(bare)[:, 1:].any() == np.False_
    assert features(QueryGroup(QUERY, ())).shape == (0, len(FEATURES))
    assert fuse(QueryGroup(QUERY, (scored("a", None),)), weights(bm25=1.0)).candidates[0].fused is None


@given(st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(draw: random.Random) -> None:
    candidates = [
        scored(
            f"d{n}",
            draw.uniform(-9, 9),
            bm25=draw.uniform(0, 30),
            title=f"Title {n % 5}",
            first_stage=draw.random(),
            text=f"It names Title {draw.randrange(9)}.",
            hop=draw.choice([-1, 0, 1, 2]),
        )
        for n in range(draw.randrange(1, 30))
    ]
    fusion = Fusion(tuple(draw.uniform(-2, 2) for _ in FEATURES), 0.3, top=draw.uniform(-1, 1))
    shuffled = draw.sample(candidates, len(candidates))
    one, other = (fuse(QueryGroup(QUERY, tuple(c)), fusion) for c in (candidates, shuffled))
    assert {c.candidate.doc_id: c.fused for c in one.candidates} == {
        c.candidate.doc_id: c.fused for c in other.candidates
    }


def test_a_share_of_the_highest_sum_is_added_to_all() -> None:
    group = QueryGroup(QUERY, (scored("a", 3.0), scored("b", None), scored("c", 1.0)))
    plain, shifted = (
        fuse(group, Fusion(weights(cross_encoder=2.0).weights, 0.5, top=top)) for top in (0.0, -0.25)
    )
    assert [c.fused for c in plain.candidates] == [6.5, None, 2.5]
    assert [c.fused for c in shifted.candidates] == [5.0, None, 1.0]


def test_weights_come_back_as_they_were_stored(tmp_path: Path) -> None:
    fusion = dataclasses.replace(
        weights(bias=-1.25, bi_encoder="abc", cross_encoder=0.5, one_hop=-2.0), top=-0.5
    )
    path = write(tmp_path / FILE, fusion, figures={"questions": 12})
    assert read(path) == fusion
    assert describe(path)["questions"] == 12
    assert describe(path)["weights"] == {"cross_encoder": 0.5, "one_hop": -2.0}
    assert read(path).reads_tags
    assert not weights(cross_encoder=1.0).reads_tags


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"weights": {"cross_encoder": 1}}',
        '{"weights": {"cross_encoder": "much"}, "bias": 0}',
        '{"weights": {"cross_encoder": NaN}, "bias": 0}',
        '{"weights": {"cross_encoder": 0}, "bias": 0}',
        '{"weights": {"pagerank": 1}, "bias": 0}',
    ],
)
def test_a_file_that_holds_no_weights_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / FILE
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(FusionError, match=r"fusion\.json holds no weights .*nightrank fuse"):
        read(path)


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / FILE, weights(cross_encoder=1 / 3), figures={})
    assert json.loads((tmp_path / FILE).read_text())["weights"]["cross_encoder"] == 0.333333


def test_the_shipped_weights_need_nothing_that_is_not_shipped() -> None:
    shipped = read(DEFAULT_MODEL / FILE)
    assert shipped.bi_encoder == ""
    assert shipped.weight("bi_encoder") == 0
    assert shipped.weight("cross_encoder") > 0
    lifting = shipped.weight("named_above"), shipped.weight("shares_above")
    assert min(lifting) > 0
    assert sum(lifting) <= shipped.weight("cross_encoder")  # none is lifted beyond what it is linked to
    assert shipped.weight("apart") < 0
