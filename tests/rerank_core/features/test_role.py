"""ROLE: each rule's examples and traps are its tests."""

from __future__ import annotations

import time

import pytest

from rerank_core.features.role import DEFAULT_ROLE, OPENING, ROLES, RULES, RoleRule, role

EXAMPLES = [(rule, text) for rule in RULES for text in rule.examples]
TRAPS = [(rule, text) for rule in RULES for text in rule.traps]


@pytest.mark.parametrize(("rule", "text"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_each_rule_takes_its_examples(rule: RoleRule, text: str) -> None:
    assert rule.pattern.search(text)
    assert role(text) == rule.role


@pytest.mark.parametrize(("rule", "text"), TRAPS, ids=[text for _, text in TRAPS])
def test_no_rule_takes_its_traps(rule: RoleRule, text: str) -> None:
    assert not rule.pattern.search(text)
    assert role(text) != rule.role


def test_every_rule_has_examples_and_traps() -> None:
    assert all(rule.examples and rule.traps for rule in RULES)


def test_what_no_rule_matches_is_a_claim() -> None:
    assert role("Dogs bark.") == role("") == DEFAULT_ROLE == "Main_Claim"


def test_roles_are_distinct_and_safe_inside_a_tag() -> None:
    assert set(ROLES) == {rule.role for rule in RULES} | {DEFAULT_ROLE}
    assert len(set(ROLES)) == len(ROLES)
    assert all(name.replace("_", "").isalpha() for name in ROLES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A quokka is a marsupial that weighs 4%.", "Definition"),  # what it is goes before how much
        ("Thus it is larger than a cat.", "Conclusion"),
        ("However, 5 % drowned.", "Counter_Argument"),
        ("Ann Lee (born 1970) is taller than her brother.", "Biography"),
        ("Unlike tea, coffee was taxed in 1820.", "Comparison"),
        ("Why is it larger than a cat?", "Question"),
    ],
)
def test_the_order_of_the_rules_is_the_priority(text: str, expected: str) -> None:
    assert role(text) == expected


def test_the_first_telling_sentence_decides() -> None:
    assert role("Dogs bark. It opened in 1987. However, it closed.") == "Background"
    assert role("Dogs bark. " * OPENING + "It opened in 1987.") == DEFAULT_ROLE  # past the opening


def test_long_texts_take_linear_time() -> None:
    started = time.perf_counter()

    role("word " * 200_000)
    role("a" * 1_000_000)
    role("Ab, " * 200_000)

    assert time.perf_counter() - started < 10  # seconds
