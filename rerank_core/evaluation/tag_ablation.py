"""Tag ablation: how a model that reads tags ranks without them, with other candidates' tags, and with forged ones.

A reranker can learn to trust its tags instead of the text ("[HOP:0] [ROLE:Supporting_Evidence], so it is relevant"),
and then ranks well only as long as the tags are right. What its ranking loses without tags, or with wrong ones, is the
shortcut gap.
"""

from __future__ import annotations

from collections.abc import Sequence

from rerank_core.features.tags import all_tags
from rerank_core.text import fingerprint
from schemas.records import QueryGroup
from schemas.tags import Tags

MODES = ("true", "none", "shuffled", "forged")


def retag(group: QueryGroup, *, mode: str) -> QueryGroup:
    """The group with its candidates' tags changed by `mode`. Random choices are hashes of the ids.

    "true" leaves them, "none" removes them. "shuffled" gives each candidate the tags of another one (a single candidate
    keeps its own). "forged" gives every second candidate, relevant or not, the tags of a perfect answer, but for names.

    Args:
        group: with tags.
        mode: one of MODES.

    Raises:
        ValueError: no such mode.
    """
    tags = [candidate.tags for candidate in group.candidates]
    if mode == "none":
        tags = [None] * len(tags)
    elif mode == "shuffled":
        order = _random_order(group, mode)
        for n, other in zip(order, [*order[1:], *order[:1]], strict=True):
            tags[n] = group.candidates[other].tags
    elif mode == "forged":
        for n in _random_order(group, mode)[::2]:
            tags[n] = _ideal(tags[n])
    elif mode != "true":
        raise ValueError(f"no tag mode {mode!r}; choose one of {', '.join(MODES)}")
    candidates = (c._replace(tags=changed) for c, changed in zip(group.candidates, tags, strict=True))
    return group._replace(candidates=tuple(candidates))


def _random_order(group: QueryGroup, mode: str) -> Sequence[int]:
    """The candidates' indices in a random order, which does not depend on their order in the group."""
    keys = [fingerprint(mode, group.query.query_id, c.candidate.passage_id) for c in group.candidates]
    return sorted(range(len(keys)), key=lambda n: keys[n])


def _ideal(tags: Tags | None) -> Tags:
    assert tags is not None, "only the tags of a tagged group can be forged"
    return tags._replace(**{name: tag.ideal for name, tag in all_tags().items() if tag.ideal is not None})
