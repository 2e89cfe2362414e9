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
from rerank_core.features.render import special_tokens
from rerank_core.text import fingerprint

Treatment = Literal["true", "none", "shuffled", "forged"]

_ENTITIES = re.compile(r"\[ENT:[^\[\]]*\]")
_HOPS = tuple(token for token in special_tokens() if token.startswith("[HOP:"))
_ROLES = tuple(token for token in special_tokens() if token.startswith("[ROLE:"))


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
    """Made-up tags, drawn at random; entities stay, since made-up names would be seen through."""
    kept = _ENTITIES.search(own)
    parts = [
        _HOPS[int(_uniform("hop", name) * len(_HOPS))],
        _ROLES[int(_uniform("role", name) * len(_ROLES))],
        kept.group() if kept else "",
        "[CAUSAL]" if _uniform("causal", name) < 0.5 else "",
        "[REASONING]" if _uniform("reasoning", name) < 0.5 else "",
    ]
    return " ".join(part for part in parts if part)


def _uniform(*parts: object) -> float:
    """A number in [0, 1) that the parts decide."""
    return int(fingerprint(*map(str, parts))[:13], 16) / 16**13
