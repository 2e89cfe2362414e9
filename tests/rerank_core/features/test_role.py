"""ROLE: each rule's example is its test."""

from __future__ import annotations

import time

import pytest

from rerank_core.features.role import DEFAULT_ROLE, ROLES, RULES, Rule, role


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.role)
def test_each_rule_catches_its_own_example(rule: Rule) -> None:
    assert role(rule.example) == rule.role


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.role)
def test_no_other_rule_would_have_caught_the_example(rule: Rule) -> None:
    assert [other.role for other in RULES if other.pattern.search(rule.example)] == [rule.role]


def test_what_no_rule_matches_is_a_claim() -> None:
    assert role("Dogs bark.") == role("") == DEFAULT_ROLE == "Main_Claim"


def test_roles_are_distinct_and_safe_inside_a_tag() -> None:
    assert len(ROLES) == len(RULES) + 1
    assert all(name.replace("_", "").isalpha() for name in ROLES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A quokka is a marsupial that weighs 4%.", "Definition"),  # the order of rules is the priority
        ("Thus it is larger than a cat.", "Conclusion"),
        ("A thus placed comma.", "Main_Claim"),
        ("It is bigger, more than that.", "Comparison"),
        ("Sales rose 5 % last year.", "Supporting_Evidence"),
        ("The studious boy was tired.", "Main_Claim"),
        ("It opened in 1987.", "Background"),
        ("Room 2187 is empty.", "Main_Claim"),
        ("Drinks such as tea.", "Example"),
    ],
)
def test_by_example(text: str, expected: str) -> None:
    assert role(text) == expected


def test_long_texts_take_linear_time() -> None:
    started = time.perf_counter()

    role("word " * 200_000)
    role("a" * 1_000_000)

    assert time.perf_counter() - started < 10  # seconds
