"""Which tags the examples of a training show in each epoch: true, none, shuffled among the candidates, or forged.

A model that always sees true tags learns to rank by them alone, and fails where they are missing or wrong. Nothing here
sees a label: the treatment of an example is drawn by its key and the tags of a candidate by its text, so that it makes
no difference which candidate is the positive or in what order they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from rerank_core.config.training import TagPolicy
from rerank_core.features.tags import input_tags
from rerank_core.text import fingerprint

Treatment = Literal["true", "none", "shuffled", "forged"]


def treatment(key: str, *, epoch: int, policy: TagPolicy, seed: int) -> Treatment:
    """How the example `key` is treated in an epoch; each share of `policy` is a probability."""
    if policy.policy == "drop":
        return "none"
    drawn = _uniform(seed, "treatment", epoch, key)
    shares: tuple[tuple[float, Treatment], ...] = (
        (policy.tag_dropout, "none"),
        (policy.tag_shuffle, "shuffled"),
        (policy.tag_forge, "forged"),
    )
    for share, chosen in shares:
        if drawn < share:
            return chosen
        drawn -= share
    return "true"


def shown_tags(
    tags: Sequence[str], texts: Sequence[str], *, key: str, epoch: int, policy: TagPolicy, seed: int
) -> list[str]:
    """The rendered tags to show with each candidate of an example, in the order of `tags`.

    Args:
        tags: each candidate's own, rendered.
        texts: the candidates' texts; draws depend on them instead of on the order.
        key: of the example.
        epoch: from 0.
        policy: the shares.
        seed: of all draws.
    """
    chosen = treatment(key, epoch=epoch, policy=policy, seed=seed)
    if chosen == "none":
        return [""] * len(tags)
    if chosen == "shuffled":
        return _shuffled(tags, texts, name=f"{seed}/{epoch}/{key}")
    if chosen == "forged":
        return [_forged(own, f"{seed}/{epoch}/{key}/{text}") for own, text in zip(tags, texts, strict=True)]
    return list(tags)


def _shuffled(tags: Sequence[str], texts: Sequence[str], *, name: str) -> list[str]:
    """The tags in a random order; all orders are equally likely, the original one included."""
    by_text = sorted(range(len(tags)), key=lambda n: (texts[n], tags[n]))
    shuffled = sorted(by_text, key=lambda n: fingerprint("shuffle", name, texts[n], tags[n]))
    giver = dict(zip(by_text, shuffled, strict=True))
    return [tags[giver[n]] for n in range(len(tags))]


def _forged(own: str, name: str) -> str:
    """Random tags; names stay, since a model could tell made-up ones by the passage."""
    parts = []
    for field, tag in input_tags().items():
        if tag.values:
            parts.append(tag.forms[int(_uniform(field, name) * len(tag.values))])
        elif match := re.search(rf"\[{tag.label}:[^\[\]]*\]", own):
            parts.append(match.group())
    return " ".join(filter(None, parts))


def _uniform(*parts: object) -> float:
    """A uniform number in [0, 1), the hash of the parts."""
    return int(fingerprint(*map(str, parts))[:13], 16) / 16**13
