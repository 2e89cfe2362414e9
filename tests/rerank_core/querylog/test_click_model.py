"""Propensities of the ranks: estimated right where they are known, so that labels are nearer to the truth."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.source import LogFields
from rerank_core.querylog.aggregate import accumulate, empty_tally, finish
from rerank_core.querylog.click_model import Propensities, attraction, estimate, mean_attraction, weight
from rerank_core.querylog.events import parse_event, screen
from rerank_core.text import query_id
from schemas.records import Query, ShownAtRank

SAMPLE = Path(__file__).parents[3] / "sample_data"
TRUE_PLACES = [1 / place for place in range(1, 11)]  # of sample_data/generate_log.py
RELEVANT, OTHER = 0.70, 0.06


def simulated(*, documents: int, views: int, seed: int) -> list[tuple[ShownAtRank, ...]]:
    """Documents shown at three places each, and clicked by the model."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(documents):
        attracts = draw.beta(0.5, 2)
        places = sorted(draw.choice(10, 3, replace=False).tolist())
        made.append(
            tuple(
                ShownAtRank(place + 1, views, int(draw.binomial(views, attracts * TRUE_PLACES[place])))
                for place in places
            )
        )
    return made


def test_known_propensities_are_found() -> None:
    found = estimate(simulated(documents=2000, views=20, seed=3))
    assert found.values == pytest.approx(TRUE_PLACES, abs=0.05)
    assert found.values[0] == 1
    assert found.several == 2000
    assert sum(found.impressions) == 2000 * 3 * 20


@given(seed=st.randoms(use_true_random=False))
def test_the_order_does_not_matter(seed: random.Random) -> None:
    shown = [tuple(places) for places in simulated(documents=20, views=5, seed=1)]
    shuffled = [tuple(seed.sample(places, len(places))) for places in shown]
    seed.shuffle(shuffled)
    assert estimate(shuffled) == estimate(shown)


def test_without_impressions_nothing_is_known() -> None:
    assert estimate([]) == Propensities((), (), 0)
    assert mean_attraction([], Propensities((), (), 0), max_weight=5) == 0


def test_a_place_that_was_never_shown_is_as_the_one_before() -> None:
    found = estimate([(ShownAtRank(1, 10, 5), ShownAtRank(3, 10, 1))] * 30)
    assert found.impressions == (300, 0, 300)
    assert found.values[1] == found.values[0] == 1
    assert found.values[2] < 0.5


@given(
    place=st.integers(1, 20),
    most=st.floats(1, 50),
    examined=st.lists(st.floats(0, 1), min_size=1, max_size=12),
)
def test_weights_are_clipped(place: int, most: float, examined: list[float]) -> None:
    found = weight(place, Propensities(tuple(examined), (1,) * len(examined), 1), max_weight=most)
    truth = examined[min(place, len(examined)) - 1]
    assert found == pytest.approx(min(most, 1 / truth if truth else most))


def test_a_click_at_a_low_place_counts_more() -> None:
    known = Propensities((1.0, 0.5, 0.1), (9, 9, 9), 5)
    first, last = ((ShownAtRank(place, 10, 2),) for place in (1, 3))
    assert attraction(first, known, max_weight=5, mean=0.1) == pytest.approx(2.1 / 11)
    assert attraction(last, known, max_weight=5, mean=0.1) == pytest.approx(2.1 / 3)  # 0.1 is clipped to 0.2
    assert attraction((), known, max_weight=5, mean=0.1) == pytest.approx(0.1)


def sample_queries() -> list[Query]:
    """The bundled log's queries, each with what was shown where; no user counts more than twenty times for one."""
    events = defaultdict(list)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for number, line in enumerate((SAMPLE / "query_log.jsonl").open(encoding="utf-8")):
        event = parse_event(json.loads(line), LogFields(), record=str(number))
        accepted = screen(event, window=None, max_query_chars=1000, keep_shown=True)
        assert accepted is not None
        seen[accepted.query_id, accepted.user] += 1
        if seen[accepted.query_id, accepted.user] <= 20:
            events[accepted.query_id].append(accepted)
    return [finish(accumulate(empty_tally(), own)) for own in events.values()]


def test_corrected_labels_are_nearer_to_the_truth_of_the_sample_log() -> None:
    texts = {
        row["_id"]: query_id(row["text"])
        for row in map(json.loads, (SAMPLE / "queries.jsonl").open(encoding="utf-8"))
    }
    qrels = [line.split("\t") for line in (SAMPLE / "qrels" / "dev.tsv").read_text().splitlines()[1:]]
    relevant = {(texts[name], doc_id) for name, doc_id, _ in qrels}
    queries = [query for query in sample_queries() if query.query_id in texts.values()]
    shown = {(q.query_id, doc_id): places for q in queries for doc_id, places in q.shown}
    found = estimate(shown.values())
    assert found.values == pytest.approx(TRUE_PLACES, abs=0.1)

    mean = mean_attraction(shown.values(), found, max_weight=5)
    enough = {pair: places for pair, places in shown.items() if sum(one.impressions for one in places) >= 5}
    truth = {pair: RELEVANT if pair in relevant else OTHER for pair in enough}
    rates = {
        pair: sum(one.clicks for one in places) / sum(one.impressions for one in places)
        for pair, places in enough.items()
    }
    corrected = {pair: attraction(places, found, max_weight=5, mean=mean) for pair, places in enough.items()}

    def error(estimates: dict[tuple[str, str], float]) -> float:
        return float(np.mean([abs(estimates[pair] - truth[pair]) for pair in enough]))

    def f1(chosen: set[tuple[str, str]]) -> float:
        return 2 * len(chosen & relevant) / (len(chosen) + len(relevant & set(enough)))

    assert error(corrected) < 0.85 * error(rates)
    clicks = {(q.query_id, doc_id): count for q in queries for doc_id, count in q.clicks}
    by_clicks = max(
        f1({pair for pair in enough if clicks.get(pair, 0) >= least}) for least in (1, 2, 3, 5, 8)
    )
    assert f1({pair for pair in enough if corrected[pair] >= 0.4}) > by_clicks
