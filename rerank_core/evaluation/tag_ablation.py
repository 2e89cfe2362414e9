"""What a model that reads tags makes of other tags: none, those of other candidates, forged ones.

A reranker can learn to trust its tags instead of reading ("[HOP:0] [ROLE:Supporting_Evidence], so it is good"). It
then looks excellent as long as the tags are kind to it. What its ranking loses without them, or with tags that
say nothing true, is the shortcut gap.
"""

from __future__ import annotations

from collections.abc import Sequence

from rerank_core.features.tags import all_tags
from rerank_core.text import fingerprint
from schemas.records import QueryGroup
from schemas.tags import Tags

MODES = ("true", "none", "shuffled", "forged")


def retag(group: QueryGroup, *, mode: str) -> QueryGroup:
    """The group with its candidates' tags as `mode` has them; what it draws, it draws by a hash of the ids.

    "true" leaves them, "none" removes them. "shuffled" gives each candidate another one's (a lone one keeps its own).
    "forged" gives every second candidate, relevant or not, the tags of a perfect answer, and leaves it its entities.

    Args:
        group: with tags.
        mode: one of MODES.

    Raises:
        ValueError: no such mode.
    """
    tags = [one.tags for one in group.candidates]
    if mode == "none":
        tags = [None] * len(tags)
    elif mode == "shuffled":
        order = _drawn(group, mode)
        for n, other in zip(order, [*order[1:], *order[:1]], strict=True):
            tags[n] = group.candidates[other].tags
    elif mode == "forged":
        for n in _drawn(group, mode)[::2]:
            tags[n] = _perfect(tags[n])
    elif mode != "true":
        raise ValueError(f"no tag mode {mode!r}; choose one of {', '.join(MODES)}")
    candidates = (one._replace(tags=t) for one, t in zip(group.candidates, tags, strict=True))
    return group._replace(candidates=tuple(candidates))


def _drawn(group: QueryGroup, mode: str) -> Sequence[int]:
    """The candidates' places in a random order, which does not depend on the order that they stand in."""
    keys = [fingerprint(mode, group.query.query_id, one.candidate.passage_id) for one in group.candidates]
    return sorted(range(len(keys)), key=lambda n: keys[n])


def _perfect(tags: Tags | None) -> Tags:
    assert tags is not None, "only tags that are there can be forged"
    return tags._replace(**{name: tag.ideal for name, tag in all_tags().items() if tag.ideal is not None})
