"""CAUSAL and REASONING: does a text speak of causes, and is it dense in entities."""

from __future__ import annotations

import re

_CAUSAL = re.compile(
    r"\b(?:(?:because|therefore|thus|hence|consequently|accordingly|as a (?:result|consequence)|due to|"
    r"owing to|thanks to|so that|(?:led|leads|leading|gave rise|gives rise) to|"
    r"result(?:s|ed|ing)? (?:in|from)|trigger(?:s|ed|ing)?|attributed to|on account of|that is why)\b|"
    r"caus(?:e|es|ed|ing) (?!of action)|"
    r"since (?!then\b|the\b|its\b|about\b|around\b|early\b|late\b|\d|[A-Z][a-z]+ \d))",
    re.IGNORECASE,
)


def causal(text: str) -> bool:
    """Whether the text holds a causal marker; "since 1990" and its like are none."""
    return _CAUSAL.search(text) is not None


def reasoning(entity_mentions: int, words: int, *, density: float) -> bool:
    """Whether the text names at least two entities and at least `density` of them a word."""
    return entity_mentions >= 2 and entity_mentions >= density * words
