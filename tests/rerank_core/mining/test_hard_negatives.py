"""Mining against a brute-force oracle: every candidate kept or rejected under one rule, for each positive."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_core.config.labels import Mining
from rerank_core.mining.hard_negatives import NONE_DOUBTFUL, Judge, mine, training_pairs
from rerank_core.ranking.order import rank, sigmoid
from schemas.records import Candidate, Query, QueryGroup, RankedCandidate, RankedGroup, ScoredCandidate
from schemas.tags import Tags

QUERY = Query("q", "a query", 1, 0, ())


def group(*units: tuple[str, float], query: Query = QUERY, tags: Tags | None = None) -> RankedGroup:
    """Units given as (passage_id, logit)."""
    candidates = tuple(
        ScoredCandidate(
            Candidate(unit.split("#")[0], unit, f"T{unit}", f"text {unit}", 1.0, n),
            tags,
            "f",
            logit,
            False,
            0,
        )
        for n, (unit, logit) in enumerate(units, start=1)
    )
    return rank(QueryGroup(query, candidates))


def without(group: RankedGroup, *pruned: str) -> RankedGroup:
    """The group as a cascade leaves it that pruned these."""

    def left(one: RankedCandidate) -> RankedCandidate:
        return (
            one._replace(scored=one.scored._replace(logit=None, pruned=-1.0)) if name(one) in pruned else one
        )

    return group._replace(candidates=tuple(map(left, group.candidates)))


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def name(one: RankedCandidate) -> str:
    return one.scored.candidate.passage_id


def text(one: RankedCandidate) -> str:
    return one.scored.candidate.text


def oracle(
    group: RankedGroup,
    positive_ids: frozenset[str],
    positive: RankedCandidate,
    config: Mining,
    judge: Judge | None = None,
    doubtful: Mapping[str, str] = NONE_DOUBTFUL,
) -> dict[str, str]:
    """Verdict of each candidate before sampling: "" or the first rule, as documented."""
    documents = {c.scored.candidate.doc_id for c in group.candidates if name(c) in positive_ids}
    texts = {text(c) for c in group.candidates if c.scored.candidate.doc_id in documents}
    best = sigmoid(positive.scored.logit or 0.0)
    verdicts = {}
    for one in group.candidates:
        score = sigmoid(one.scored.logit or 0.0)
        if name(one) in positive_ids:
            verdict = "is_positive"
        elif one.scored.candidate.doc_id in documents:
            verdict = "positive_document"
        elif text(one) in texts:
            verdict = "positive_copy"
        elif name(one) in doubtful:
            verdict = doubtful[name(one)]
        elif judge and judge.scores[name(one)] > judge.scores[name(positive)] - judge.margin:
            verdict = "false_negative"
        elif not config.rank_min <= one.rank:
            verdict = "rank_min"
        elif config.rank_max and not one.rank <= config.rank_max:
            verdict = "rank_max"
        elif not score <= config.max_score:
            verdict = "max_score"
        elif not score >= config.min_score:
            verdict = "min_score"
        elif config.absolute_margin != -1 and not best - score >= config.absolute_margin:
            verdict = "absolute_margin"
        elif config.relative_margin != -1 and not score <= best * (1 - config.relative_margin):
            verdict = "relative_margin"
        else:
            verdict = ""
        verdicts[name(one)] = verdict
    return verdicts


LOGITS = st.sampled_from([-6.0, -2.0, -0.5, 0.0, 0.5, 1.0, 3.0, 40.0])
SHARES = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.9, 1.0])
MARGINS = st.sampled_from([-1.0, -0.2, 0.0, 0.1, 0.5, 1.0])
UNITS = st.lists(st.sampled_from([f"{d}#{n}" for d in "abcdef" for n in range(3)]), unique=True, max_size=14)
CONFIGS = st.builds(
    Mining,
    num_negatives=st.integers(1, 6),
    easy_negatives=st.integers(0, 3),
    rank_min=st.integers(1, 4),
    rank_max=st.integers(0, 10),
    max_score=SHARES,
    min_score=SHARES,
    absolute_margin=MARGINS,
    relative_margin=MARGINS,
    sampling=st.sampled_from(["top", "random"]),
    seed=st.integers(0, 3),
)


@given(UNITS, st.data(), CONFIGS)
@settings(deadline=None, max_examples=300)
def test_against_the_oracle(units: list[str], data: st.DataObject, config: Mining) -> None:
    ranked = group(*((unit, data.draw(LOGITS)) for unit in units))
    positive_ids = frozenset(data.draw(st.lists(st.sampled_from(units), max_size=3)) if units else [])

    opinions = {unit: data.draw(SHARES) for unit in units}
    judge = data.draw(st.none() | st.builds(Judge, st.just(opinions), st.sampled_from([-0.1, 0.0, 0.3])))

    doubtful = data.draw(
        st.dictionaries(st.sampled_from(units or [""]), st.sampled_from(["attractive", "rarely_shown"]))
    )

    mined = mine(ranked, positive_ids, config=config, label_source="clicks", judge=judge, doubtful=doubtful)

    positives = [one for one in ranked.candidates if name(one) in positive_ids]
    if not positives:
        assert mined == ([], Counter(), Counter(no_positive=1))
        return
    rejected: Counter[str] = Counter()
    for positive in positives:
        verdicts = oracle(ranked, positive_ids, positive, config, judge, doubtful)
        mine_of = [n for n in mined.negatives if n.positive == positive]
        hard = [name(n.negative) for n in mine_of if n.kept_by != "easy"]
        easy = [name(n.negative) for n in mine_of if n.kept_by == "easy"]
        assert {n.kept_by for n in mine_of} <= {config.sampling, "easy"}
        assert all(n.query == QUERY and n.label_source == "clicks" for n in mine_of)

        eligible = [name(c) for c in ranked.candidates if not verdicts[name(c)]]
        assert len(hard) == min(config.num_negatives, len(eligible))
        assert set(hard) <= set(eligible)
        if config.sampling == "top":
            assert hard == eligible[: config.num_negatives]

        others = [
            name(c)
            for c in ranked.candidates
            if verdicts[name(c)] not in ("is_positive", "positive_document", "positive_copy")
        ]
        lowest = others[len(others) - math.ceil(len(others) / 3) :]
        allowed = [u for u in lowest if u not in hard and verdicts[u] in ("", "rank_max", "min_score")]
        assert len(easy) == min(config.easy_negatives, len(allowed))
        assert set(easy) <= set(allowed)

        rejected.update(v or "not_sampled" for u, v in verdicts.items() if u not in hard and u not in easy)
    assert mined.rejected == rejected
    assert mined.kept == Counter(n.kept_by for n in mined.negatives)
    assert mined.kept.total() + mined.rejected.total() == len(positives) * len(units)


@given(UNITS, st.data(), CONFIGS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_candidates_order_does_not_matter(
    units: list[str], data: st.DataObject, config: Mining, rng: random.Random
) -> None:
    ranked = group(*((unit, data.draw(LOGITS)) for unit in units))
    positive_ids = frozenset(units[:2])
    shuffled = list(ranked.candidates)
    rng.shuffle(shuffled)

    again = mine(RankedGroup(QUERY, tuple(shuffled)), positive_ids, config=config, label_source="qrels")

    assert again == mine(ranked, positive_ids, config=config, label_source="qrels")


def test_the_rules_by_example() -> None:
    scores = {"n1": 0.95, "pos": 0.9, "n2": 0.85, "n3": 0.7, "n4": 0.5, "n5": 0.3, "n6": 0.05}
    ranked = group(*((unit, logit(score)) for unit, score in scores.items()))
    config = Mining(
        num_negatives=1,
        easy_negatives=2,
        rank_max=6,
        max_score=0.92,
        absolute_margin=0.1,
        relative_margin=0.25,
    )

    mined = mine(ranked, frozenset(["pos"]), config=config, label_source="qrels")

    assert [(name(n.negative), n.kept_by, round(n.margin, 6)) for n in mined.negatives] == [
        ("n4", "top", 0.4),
        ("n5", "easy", 0.6),
        ("n6", "easy", 0.85),  # beyond rank_max, where easy ones may lie
    ]
    assert mined.kept == {"top": 1, "easy": 2}
    assert mined.rejected == {
        "is_positive": 1,
        "max_score": 1,  # n1
        "absolute_margin": 1,  # n2
        "relative_margin": 1,  # n3: 0.7 > 0.9 * 0.75
    }


def test_other_units_of_a_positive_document_are_no_negatives() -> None:
    ranked = group(("a#0", 3), ("a#1", 2), ("b#0", 1))

    mined = mine(ranked, frozenset(["a#0"]), config=Mining(), label_source="clicks")

    assert [name(n.negative) for n in mined.negatives] == ["b#0"]
    assert mined.rejected == {"is_positive": 1, "positive_document": 1}


def test_a_negative_above_its_positive_has_a_negative_margin() -> None:
    (one,) = mine(
        group(("n", 2), ("p", -2)), frozenset("p"), config=Mining(), label_source="clicks"
    ).negatives

    assert one.margin == sigmoid(-2) - sigmoid(2)


def test_random_samples_depend_on_the_seed_and_on_nothing_else() -> None:
    ranked = group(("p", 9), *((f"n{n:02}", -n / 10) for n in range(40)))
    samples = {
        seed: tuple(
            name(n.negative)
            for n in mine(
                ranked,
                frozenset("p"),
                config=Mining(sampling="random", num_negatives=5, easy_negatives=0, seed=seed),
                label_source="clicks",
            ).negatives
        )
        for seed in range(20)
    }

    assert len(set(samples.values())) > 15
    assert len(set().union(*samples.values())) > 30  # no part of the list is left out
    assert samples[7] == ("n07", "n08", "n18", "n21", "n32")  # the same on every machine


def test_training_pairs_state_each_positive_once() -> None:
    tags = Tags(0, "Main_Claim", ("Ann",), False, False)
    ranked = group(("p1", 3), ("n1", 2), ("p2", 1), ("n2", 0), tags=tags)
    mined = mine(ranked, frozenset(["p1", "p2"]), config=Mining(easy_negatives=0), label_source="clicks")
    other = group(("x", 1), ("y", 0), query=Query("p", "[HOP:0] first", 1, 0, ()))
    negatives = (
        mined.negatives + mine(other, frozenset("x"), config=Mining(), label_source="clicks").negatives
    )

    pairs = training_pairs(negatives, tagged=True)

    head = "[HOP:0] [ROLE:Main_Claim] [ENT:Ann] a query"
    assert pairs == [
        ("(HOP:0) first", "Tx text x", 1.0),
        ("(HOP:0) first", "Ty text y", 0.0),
        (head, "Tp1 text p1", 1.0),
        (head, "Tn1 text n1", 0.0),
        (head, "Tn2 text n2", 0.0),
        (head, "Tp2 text p2", 1.0),
        (head, "Tn1 text n1", 0.0),
        (head, "Tn2 text n2", 0.0),
    ]
    assert training_pairs(negatives[::-1], tagged=True) == pairs
    assert training_pairs([], tagged=True) == []


# --- what the cascade left out


def test_pruned_ones_are_counted_for_each_positive_and_never_mined() -> None:
    ranked = without(group(("p", 3.0), ("q", 2.0), ("a", 1.0), ("b", 0.5), ("c", 0.0)), "b", "c")
    found = mine(ranked, frozenset("pq"), config=Mining(easy_negatives=5), label_source="clicks")
    assert found.rejected["pruned"] == 4
    assert {name(one.negative) for one in found.negatives} == {"a"}
    assert found.kept.total() + found.rejected.total() == 2 * 5


def test_a_pruned_positive_gives_no_negatives_and_its_document_none_either() -> None:
    ranked = without(group(("p", 3.0), ("d#0", 2.0), ("d#1", 1.0), ("a", 0.0)), "d#1")
    found = mine(ranked, frozenset({"p", "d#1"}), config=Mining(), label_source="qrels")
    assert {name(one.positive) for one in found.negatives} == {"p"}
    assert found.rejected["positive_document"] == 1
    alone = mine(ranked, frozenset({"d#1"}), config=Mining(), label_source="qrels")
    assert (alone.negatives, alone.kept, alone.rejected) == ([], Counter(), Counter(positive_pruned=1))
