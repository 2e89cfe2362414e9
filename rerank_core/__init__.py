"""The work of Nightrank as pure functions and small classes, free of Beam and Elasticsearch.

For use without a night's job:

    import rerank_core

    for passage in rerank_core.rank("who wrote Dune?", ["Dune is a novel by Frank Herbert.", "Dunes move."]):
        print(passage.score, passage.passage)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rerank_core.scoring.load import load_scorer
from schemas.tags import Tags

if TYPE_CHECKING:
    from rerank_core.scoring.protocol import Scorer

__all__ = ["RankedPassage", "load_scorer", "rank"]


class RankedPassage(NamedTuple):
    """One passage in its place."""

    index: int  # type: ignore[assignment]  # into the passages as given; hides tuple.index
    passage: str | tuple[str, str]  # as given
    logit: float
    score: float  # sigmoid of the logit, 0 to 1; not a calibrated probability
    tags: Tags | None  # None with tags=False


def rank(
    query: str,
    passages: Sequence[str | tuple[str, str]],
    *,
    model: str | Path | Scorer | None = None,
    tags: bool = True,
    top_n: int | None = None,
) -> list[RankedPassage]:
    """Order passages by their relevance to a query, by the same functions as a night's job.

    The passages are tagged together: how far each is from the query's entities depends on the others. The model
    reads the tags only if it was trained to (its folder's nightrank.json says so), and then the same passage can
    score differently in other company; with `tags=False` it cannot.

    Args:
        query: a question or search.
        passages: texts, or (title, text).
        model: a model's folder, a scorer, or None for the model that ships with Nightrank. A folder is loaded
            once a process.
        tags: tag the passages.
        top_n: how many to return; None for all.

    Returns:
        The passages by falling logit, equal ones in their given order; [] for no passages.

    Raises:
        TypeError: a query that is not a str, a passage that is neither a str nor a (str, str).
        ValueError: an empty query, a top_n below 1; ModelError: a folder that cannot be used.
        ScoringFailed: a passage that the model cannot score; the message gives its index.
    """
    # Imported here so that `import rerank_core.text` on a small machine stays light.
    from rerank_core.config.night import Tagging
    from rerank_core.errors import ScoringFailed
    from rerank_core.features.render import passage_text, render
    from rerank_core.features.tagger import tag
    from rerank_core.ranking.order import sigmoid
    from rerank_core.scoring.fault_tolerant import score_checked
    from rerank_core.scoring.protocol import reads_tags

    asked = _checked_query(query)
    titled = _checked_passages(passages)
    if top_n is not None and top_n < 1:
        raise ValueError(f"top_n is {top_n}; ask for at least 1, or None for all")
    if not titled:
        return []
    scorer = _cached_scorer(str(model or "")) if model is None or isinstance(model, str | Path) else model
    found: Sequence[Tags | None] = tag(asked, titled) if tags else [None] * len(titled)
    tagged = tags and reads_tags(scorer, Tagging())
    rendered = [
        render(asked, passage_text(*p), t if tagged else None) for p, t in zip(titled, found, strict=True)
    ]
    outcome = score_checked(scorer, [(side.query, side.passage) for side in rendered])
    for index, error in outcome.errors.items():
        raise ScoringFailed(f"passage {index} cannot be scored: {error.reason}: {error.detail}")
    logits = [logit for logit in outcome.logits if logit is not None]
    ranked = [
        RankedPassage(index, passages[index], logit, sigmoid(logit), held)
        for index, (logit, held) in enumerate(zip(logits, found, strict=True))
    ]
    return sorted(ranked, key=lambda passage: -passage.logit)[:top_n]


@functools.lru_cache(maxsize=4)
def _cached_scorer(model: str) -> Scorer:
    return load_scorer(model)


def _checked_query(query: str) -> str:
    from rerank_core.text import normalise_query

    if not isinstance(query, str):
        raise TypeError(f"query is a {type(query).__name__}, {query!r:.80}; give a str")
    asked = normalise_query(query)
    if not asked:
        raise ValueError(f"query {query!r:.80} holds no text to rank by")
    return asked


def _checked_passages(passages: Sequence[str | tuple[str, str]]) -> list[tuple[str, str]]:
    if isinstance(passages, str):
        raise TypeError("passages is one str; give a list of passages")
    titled: list[tuple[str, str]] = []
    for index, passage in enumerate(passages):
        match passage:
            case str():
                titled.append(("", passage))
            case (str() as title, str() as text):
                titled.append((title, text))
            case _:
                raise TypeError(f"passage {index} is {passage!r:.80}; give a text, or a (title, text)")
    return titled
