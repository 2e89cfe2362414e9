"""More candidates for a query: what its parts find, and what it finds with the names of its best passage beside it.

The passage that answers a multi-hop question often shares no word with it: the name that links them stands in
another passage. Measured in benchmarks/decomposition.py: the names are worth far more than the parts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from rerank_core.candidates.decomposition import decompose
from schemas.records import Document, Query, Rejected

Mode = Literal["off", "parts", "names", "both"]
Lists = list[list[Document]]
Key = tuple[int, str]  # place of the query, and which of its searches

RANK_CONSTANT = 10
"""k of the reciprocal rank fusion. The customary 60 favours what is mediocre in every list, and lost."""


def widen(
    queries: Sequence[Query],
    found: Sequence[list[Document] | Rejected],
    *,
    mode: Mode,
    top_k: int,
    search: Callable[[Sequence[str]], Lists],
    names: Callable[[Sequence[Document]], list[list[str]]],
) -> list[list[Document] | Rejected]:
    """Each query's documents, merged with those of more searches; a query without documents stays as it is.

    Args:
        queries: of the night.
        found: what each query found by itself.
        mode: `parts` searches the parts of multi-part questions, `names` the query with the names of its best
            document, `both` also with those of the best document for its first part.
        top_k: most documents a query, before as after.
        search: the documents of each text, [] where there are none.
        names: the names that stand in each document.

    Returns:
        In the queries' order; `bm25_rank` is the place in the merged list, `bm25_score` the document's own in the
        first list that holds it.
    """
    if mode == "off":
        return list(found)
    own = {at: docs for at, docs in enumerate(found) if not isinstance(docs, Rejected) and docs}
    parts = {at: decompose(queries[at].text) if mode != "names" else () for at in own}
    of_parts = _by_key({(at, part): part for at in own for part in parts[at]}, search)
    followed: dict[Key, list[Document]] = {}
    if mode != "parts":
        best = {(at, ""): docs[0] for at, docs in own.items()}
        best |= {(at, "part"): docs[0] for at in own if parts[at] and (docs := of_parts[at, parts[at][0]])}
        told = zip(best, names(list(best.values())), strict=True)
        texts = {key: text for key, held in told if (text := follow_up(queries[key[0]].text, held))}
        followed = _by_key(texts, search)
    widened = list(found)
    for at, docs in own.items():
        more = [of_parts[at, part] for part in parts[at]] if mode == "parts" else []
        again = followed.get((at, ""), [])
        inner = followed.get((at, "part"), again)
        lists = {
            "parts": [docs, docs, *more],
            "names": [docs, again],
            "both": [docs, docs, again, again, inner],
        }[mode]
        widened[at] = merge(lists, top_k=top_k)
    return widened


def merge(lists: Sequence[Sequence[Document]], *, top_k: int) -> list[Document]:
    """The best `top_k` documents by reciprocal rank fusion, ranked anew; a list given twice weighs twice."""
    known: dict[str, Document] = {}
    for ranked in lists:
        for one in ranked:
            known.setdefault(one.doc_id, one)
    order = merge_ranked([[one.doc_id for one in ranked] for ranked in lists], k=RANK_CONSTANT)[:top_k]
    return [known[doc_id]._replace(bm25_rank=rank) for rank, doc_id in enumerate(order, start=1)]


def _by_key(texts: Mapping[Key, str], search: Callable[[Sequence[str]], Lists]) -> dict[Key, list[Document]]:
    """What each text finds; equal ones are searched once."""
    distinct = list(dict.fromkeys(texts.values()))
    found = dict(zip(distinct, search(distinct) if distinct else [], strict=True))
    return {key: found[text] for key, text in texts.items()}


def follow_up(query: str, names: Sequence[str], *, max_names: int = 20) -> str:
    """The query of a second search: `query`, and the names of a passage that it found; "" where none is new.

    Only words that the query lacks are added, in the passage's order: what the query already says found the
    passage, and would find its like again.
    """
    known = set(re.findall(r"\w+", query.casefold()))
    fresh: dict[str, None] = {}
    for name in names:
        unsaid = [word for word in re.findall(r"\w+", name) if word.casefold() not in known]
        if unsaid:
            fresh.setdefault(" ".join(unsaid))
    return " ".join([query, *list(fresh)[:max_names]]) if fresh and max_names > 0 else ""


def merge_ranked(lists: Sequence[Sequence[str]], *, k: int = 60) -> list[str]:
    """Reciprocal rank fusion: ids by the sum of 1 / (k + rank) over the lists, ties by id.

    A list given twice weighs twice. Within a list an id counts at its best rank only. A smaller `k` trusts the
    top of each list more; 60 is the customary one, for lists that answer the same query.
    """
    if k < 0:
        raise ValueError(f"k is {k}; at least 0")
    gains: dict[str, list[float]] = {}
    for ranked in lists:
        for rank, item in enumerate(dict.fromkeys(ranked), start=1):
            gains.setdefault(item, []).append(1 / (k + rank))
    total = {
        item: math.fsum(gain) for item, gain in gains.items()
    }  # exact, so the lists' order does not matter
    return sorted(total, key=lambda item: (-total[item], item))


def merge_max(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The highest score of each id over the mappings, which must be on one scale; keys in the order of ids."""
    best: dict[str, float] = {}
    for scored in scores:
        for item, score in scored.items():
            best[item] = max(score, best.get(item, score))
    return dict(sorted(best.items()))
