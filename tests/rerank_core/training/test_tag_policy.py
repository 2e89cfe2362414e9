"""Tags that are dropped, swapped and forged: at the right rate, and without a look at the label."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rerank_core.config.training import TagPolicy
from rerank_core.features.render import render, special_tokens, split_tags, with_tags
from rerank_core.training.tag_policy import shown_tags, treatment
from schemas.tags import Tags

MIXED = TagPolicy(policy="keep", tag_dropout=0.2, tag_shuffle=0.3, tag_forge=0.1)
KEYS = [f"example {n}" for n in range(4000)]
HEADS = st.sampled_from(
    [
        "",
        "[HOP:0] [ROLE:Definition] [ENT:Dune]",
        "[HOP:-1] [ROLE:Question]",
        "[HOP:1] [ROLE:Question] [CAUSAL]",
    ]
)
CANDIDATES = st.lists(st.tuples(HEADS, st.text(max_size=4)), min_size=1, max_size=7)
ALL = [
    TagPolicy(),
    MIXED,
    TagPolicy(policy="keep", tag_dropout=1.0),
    TagPolicy(policy="keep", tag_shuffle=1.0),
    TagPolicy(policy="keep", tag_forge=1.0),
]


def test_the_shares_are_met() -> None:
    found = Counter(treatment(key, epoch=0, policy=MIXED, seed=7) for key in KEYS)
    for name, share in (("none", 0.2), ("shuffled", 0.3), ("forged", 0.1), ("true", 0.4)):
        spread = math.sqrt(len(KEYS) * share * (1 - share))
        assert abs(found[name] - len(KEYS) * share) < 4 * spread, name


def test_an_example_is_treated_anew_in_every_epoch_and_the_same_each_time() -> None:
    drawn = [[treatment(key, epoch=epoch, policy=MIXED, seed=7) for key in KEYS] for epoch in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    both = sum(a == b == "none" for a, b in zip(drawn[0], drawn[2], strict=True))
    assert abs(both - len(KEYS) * 0.04) < 4 * math.sqrt(len(KEYS) * 0.04 * 0.96)  # the epochs are independent


@given(CANDIDATES, st.sampled_from(ALL), st.integers(0, 3), st.randoms(use_true_random=False))
def test_it_makes_no_difference_where_a_candidate_stands(candidates, policy, epoch, random) -> None:
    """The positive stands first: a draw that saw the place would see the label."""
    order = list(range(len(candidates)))
    random.shuffle(order)

    def shown(of):
        tags, texts = [one[0] for one in of], [one[1] for one in of]
        found = shown_tags(tags, texts, key="k", epoch=epoch, policy=policy, seed=7)
        return Counter(zip(of, found, strict=True))

    assert shown(candidates) == shown([candidates[n] for n in order])


@given(CANDIDATES, st.integers(0, 5))
def test_swapped_tags_are_those_of_the_example(candidates, epoch) -> None:
    tags, texts = [one[0] for one in candidates], [one[1] for one in candidates]
    found = shown_tags(tags, texts, key="k", epoch=epoch, policy=ALL[3], seed=7)
    assert Counter(found) == Counter(tags)


def test_swapping_gives_every_order_its_turn() -> None:
    """A positive keeps its own tags no more often than chance would have it."""
    tags = ["[HOP:0]", "[HOP:1]", "[HOP:2]"]
    found = Counter(
        tuple(shown_tags(tags, ["a", "b", "c"], key=key, epoch=0, policy=ALL[3], seed=7)) for key in KEYS
    )
    assert len(found) == 6
    assert all(abs(n - len(KEYS) / 6) < 4 * math.sqrt(len(KEYS) * 5 / 36) for n in found.values())


def test_forged_tags_are_closed_ones_of_every_kind() -> None:
    seen: Counter[str] = Counter()
    for key in KEYS[:1000]:
        (head,) = shown_tags(
            ["[HOP:2] [ROLE:Question] [ENT:Dune, Arrakis]"], ["t"], key=key, epoch=0, policy=ALL[4], seed=7
        )
        assert "[ENT:Dune, Arrakis]" in head
        seen.update(head.replace("[ENT:Dune, Arrakis] ", "").replace(" [ENT:Dune, Arrakis]", "").split())
    assert set(seen) == set(special_tokens())
    hops = [n for token, n in seen.items() if token.startswith("[HOP:")]
    assert all(abs(n - 200) < 4 * math.sqrt(1000 * 0.2 * 0.8) for n in hops)


@given(st.text(), st.text(), st.booleans())
def test_a_rendered_pair_comes_apart_into_what_it_was_made_of(query: str, passage: str, tagged: bool) -> None:
    tags = Tags(-1, "Definition", ("Frank Herbert", "[HOP:0], x"), True, False) if tagged else None
    made = render(query, passage, tags)
    head, rest = split_tags(made.query)
    assert with_tags(head, rest, made.passage) == made
    assert bool(head) == tagged
