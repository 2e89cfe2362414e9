"""ROLE: a passage's rhetorical function, by the first rule that matches.

Each rule carries an example, which is its test. The order is the priority: a definition that also holds a number
is a definition. A passage that no rule matches states something: Main_Claim.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Rule(NamedTuple):
    role: str
    pattern: re.Pattern[str]
    example: str


def _rule(role: str, pattern: str, example: str) -> Rule:
    return Rule(role, re.compile(pattern, re.IGNORECASE), example)


DEFAULT_ROLE = "Main_Claim"
RULES = (
    _rule("Conclusion", r"^(?:therefore|thus|hence|in conclusion|overall|in summary|in short)\b",
          "In conclusion, the bridge changed the town."),
    _rule("Comparison", r"\b(?:in contrast|by contrast|whereas|unlike|compared (?:to|with)|on the other hand|"
          r"similarly to|(?:more|less|larger|smaller|longer|shorter|older|younger|higher|lower|faster|fewer) than)\b",
          "Unlike the Rhine, the Danube flows east."),
    _rule("Example", r"\b(?:for example|for instance|e\.g\.|an example of|to illustrate|such as)(?:\W|$)",
          "Noble gases, for example neon, rarely react."),
    _rule("Definition", r"^[^.!?]{1,120}?\b(?:refers to|is defined as|is the (?:term|name) for|means that|"
          r"(?:is|are|was|were) (?:an?|the|one of)\b)",
          "A fugue is a composition in which voices enter in turn."),
    _rule("Supporting_Evidence", r"\b(?:according to|stud(?:y|ies)|research(?:ers)?|survey|experiments?|data|evidence|"
          r"found that|show(?:s|ed|n) that|reported|measured|percent|per cent)\b|\d\s?%",
          "Measured again, the peak proved higher."),
    _rule("Background", r"\b(?:was born|originally|historically|in the (?:early|mid|late)|during the|at the time|"
          r"founded in|established in|dates? (?:back )?to|(?:1[0-9]|20)\d\d)\b",
          "She was born near the harbour."),
)  # fmt: skip
ROLES = tuple(dict.fromkeys([rule.role for rule in RULES] + [DEFAULT_ROLE]))


def role(text: str) -> str:
    """The rhetorical role of a passage or sentence."""
    return next((rule.role for rule in RULES if rule.pattern.search(text)), DEFAULT_ROLE)
