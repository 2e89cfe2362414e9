"""What an example shows of its tags in an epoch: its own, none, its candidates' swapped around, or forged ones.

A model that always sees true tags learns to rank by them alone, and is helpless where they are missing or wrong. So
some examples are treated otherwise. Nothing here sees a label: what happens to an example is drawn from its key, and
to a candidate from its text, so that it makes no difference which of them is the positive or where it stands.
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
    """How the tags of the example `key` are shown in an epoch; each share of `policy` is a probability."""
    if policy.policy == "drop":
        return "none"
    drawn = _uniform(seed, "treatment", epoch, key)
    for share, found in (
        (policy.tag_dropout, "none"),
        (policy.tag_shuffle, "shuffled"),
        (policy.tag_forge, "forged"),
    ):
        if drawn < share:
            return found  # type: ignore[return-value]
        drawn -= share
    return "true"


def shown_tags(
    tags: Sequence[str], texts: Sequence[str], *, key: str, epoch: int, policy: TagPolicy, seed: int
) -> list[str]:
    """The rendered tags to show with each candidate of an example, in the order of `tags`.

    Args:
        tags: each candidate's own, rendered.
        texts: of the candidates; they name them, so that their order has no effect.
        key: of the example.
        epoch: from 0.
        policy: the shares.
        seed: of every draw.
    """
    done = treatment(key, epoch=epoch, policy=policy, seed=seed)
    if done == "none":
        return [""] * len(tags)
    if done == "shuffled":
        return _shuffled(tags, texts, name=f"{seed}/{epoch}/{key}")
    if done == "forged":
        return [_forged(own, f"{seed}/{epoch}/{key}/{text}") for own, text in zip(tags, texts, strict=True)]
    return list(tags)


def _shuffled(tags: Sequence[str], texts: Sequence[str], *, name: str) -> list[str]:
    """The tags dealt out anew: any order is as likely as any other, the old one among them."""
    places = sorted(range(len(tags)), key=lambda n: (texts[n], tags[n]))
    givers = sorted(places, key=lambda n: fingerprint("shuffle", name, texts[n], tags[n]))
    dealt = dict(zip(places, givers, strict=True))
    return [tags[dealt[n]] for n in range(len(tags))]


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
    """A number in [0, 1) that the parts decide."""
    return int(fingerprint(*map(str, parts))[:13], 16) / 16**13
