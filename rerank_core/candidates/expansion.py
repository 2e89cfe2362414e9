"""Second searches for more candidates: with the parts of a query, and with the names in its best passage.

The passage that answers a multi-hop question often shares no word with it: the name that links them is in another
passage. Names add far more than parts (benchmarks/decomposition.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from rerank_core.candidates.decomposition import decompose
from rerank_core.text import fold, normalise_query
from schemas.records import Document, Query, Rejected

Mode = Literal["off", "parts", "names", "both"]
Lists = list[list[Document]]
Key = tuple[int, str]  # number of the query, and which of its searches

RANK_CONSTANT = 10
"""k of the reciprocal rank fusion. The customary 60 favours documents that are mediocre in every list, and lost."""


def widen(
    queries: Sequence[Query],
    found: Sequence[list[Document] | Rejected],
    *,
    mode: Mode,
    top_k: int,
    search: Callable[[Sequence[str]], Lists],
    names: Callable[[Sequence[Document]], list[list[str]]],
) -> list[list[Document] | Rejected]:
    """Each query's documents, merged with those of second searches; a query without documents stays as it is.

    Args:
        queries: the queries.
        found: the documents of each query's first search.
        mode: `parts` searches the parts of multi-part questions, `names` the query with the names of its best
            document, `both` also with those of the best document for its first part.
        top_k: at most so many documents per query.
        search: gives the documents of each text, [] if there are none.
        names: gives the names in each document.

    Returns:
        In the queries' order; `bm25_rank` is the rank in the merged list, `bm25_score` the score in the first list that
        holds the document.
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
        in_best = zip(best, names(list(best.values())), strict=True)
        texts = {key: text for key, new in in_best if (text := follow_up(queries[key[0]].text, new))}
        followed = _by_key(texts, search)
    widened = list(found)
    for at, docs in own.items():
        again = followed.get((at, ""), [])
        if mode == "parts":
            lists = [docs, docs, *(of_parts[at, part] for part in parts[at])]
        elif mode == "names":
            lists = [docs, again]
        else:
            lists = [docs, docs, again, again, followed.get((at, "part"), again)]
        widened[at] = merge(lists, top_k=top_k)
    return widened


def merge(lists: Sequence[Sequence[Document]], *, top_k: int) -> list[Document]:
    """The best `top_k` documents by reciprocal rank fusion, with new ranks; a list given twice weighs twice."""
    known: dict[str, Document] = {}
    for ranked in lists:
        for document in ranked:
            known.setdefault(document.doc_id, document)
    order = merge_ranked([[document.doc_id for document in ranked] for ranked in lists], k=RANK_CONSTANT)[
        :top_k
    ]
    return [known[doc_id]._replace(bm25_rank=rank) for rank, doc_id in enumerate(order, start=1)]


def _by_key(texts: Mapping[Key, str], search: Callable[[Sequence[str]], Lists]) -> dict[Key, list[Document]]:
    """The documents of each text; equal texts are searched once."""
    distinct = list(dict.fromkeys(texts.values()))
    documents = dict(zip(distinct, search(distinct) if distinct else [], strict=True))
    return {key: documents[text] for key, text in texts.items()}


def follow_up(query: str, names: Sequence[str], *, max_names: int = 20) -> str:
    """The query of a second search: `query` and the names in a passage that it found; "" if no name is new.

    Only words that the query lacks are added, in the passage's order: the others found this passage already, and would
    find similar ones.
    """
    known = {fold(word) for word in re.findall(r"\w+", normalise_query(query))}
    fresh: dict[str, None] = {}
    for name in names:
        new = [word for word in re.findall(r"\w+", normalise_query(name)) if fold(word) not in known]
        if new:
            fresh.setdefault(" ".join(new))
    return " ".join([query, *list(fresh)[:max_names]]) if fresh and max_names > 0 else ""


def merge_ranked(lists: Sequence[Sequence[str]], *, k: int = 60) -> list[str]:
    """Reciprocal rank fusion: ids by the sum of 1 / (k + rank) over the lists, ties by id.

    A list given twice weighs twice. Within a list an id counts at its best rank only. A smaller `k` trusts the
    top of each list more; 60 is the customary one, for lists that answer the same query.
    """
    if k < 0:
        raise ValueError(f"k is {k}; it must be at least 0")
    gains: dict[str, list[float]] = {}
    for ranked in lists:
        for rank, item in enumerate(dict.fromkeys(ranked), start=1):
            gains.setdefault(item, []).append(1 / (k + rank))
    total = {item: math.fsum(gain) for item, gain in gains.items()}  # exact: the lists' order does not matter
    return sorted(total, key=lambda item: (-total[item], item))
