"""What a scorer is, and the one place that calls one.

A backend has two members: `fingerprint` and `score`. Everything around them (order, chunks, duplicates,
checks, the search for a bad pair) is here, so that a backend stays small and none can lose a pair silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rerank_core.errors import ScoringFailed
from rerank_core.inference.batching import Pair
from rerank_core.scoring.protocol import Scorer, WantsChunks
from rerank_core.text import shorten

CHUNK = 512
"""Pairs that a scorer gets at once if it does not say."""

BROKEN_FROM = 8
"""Pairs that a chunk must have before "all of them failed" says something about the model."""

PROBES = 32
"""Pairs tried one by one before a failing chunk counts as failing altogether."""


class PairError(NamedTuple):
    """Why one pair has no logit."""

    reason: str  # a stable slug: model_error | nan_logit
    detail: str  # for a person


class Outcome(NamedTuple):
    """What became of a list of pairs: each has a logit or an error."""

    logits: list[float | None]  # in the pairs' order
    errors: dict[int, PairError]  # by index into the pairs


class _Raised(NamedTuple):
    error: Exception


def score_checked(
    scorer: Scorer,
    pairs: Sequence[tuple[str, str]],
    *,
    chunk: int = 0,
    on_scored: Callable[[int], None] | None = None,
) -> Outcome:
    """Score pairs; a pair that cannot be scored costs only itself.

    Equal pairs are scored once. A chunk that raises is bisected down to the pairs that are to blame. The
    result depends on the pairs and the scorer alone.

    Args:
        scorer: any backend.
        pairs: (query side, passage side).
        chunk: most pairs that one call of the scorer gets; the scorer makes its own batches of them. Pairs of
            like length go into one chunk. 0: as many as the scorer wants, or CHUNK.
        on_scored: called after each chunk with the number of pairs (duplicates included) that it settled;
            over a whole call these add up to `len(pairs)`.

    Returns:
        Logits and errors by the pairs' places. Reasons are "model_error" (the scorer raised) and "nan_logit"
        (it answered NaN or infinity).

    Raises:
        ScoringFailed: the scorer answers the wrong number, shape or type of logits, or fails every pair of a
            chunk of at least 8 (of a chunk larger than 32: 32 pairs spread over it, each by itself).
    """
    if chunk < 0:
        raise ValueError(f"chunk is {chunk}; a call needs at least 1 pair")
    chunk = chunk or (scorer.chunk if isinstance(scorer, WantsChunks) else CHUNK)
    places: dict[Pair, list[int]] = {}
    for i, pair in enumerate(pairs):
        places.setdefault(pair, []).append(i)
    # Characters stand in for tokens: cheap, and near enough for chunks. Longest first, as in plan_batches.
    order = sorted(places, key=lambda pair: -(len(pair[0]) + len(pair[1])))
    logits: list[float | None] = [None] * len(pairs)
    errors: dict[int, PairError] = {}
    for part in (order[start : start + chunk] for start in range(0, len(order), chunk)):
        for pair, result in zip(part, _score_chunk(scorer, part), strict=True):
            for i in places[pair]:
                if isinstance(result, PairError):
                    errors[i] = result
                else:
                    logits[i] = result
        if on_scored:
            on_scored(sum(len(places[pair]) for pair in part))
    return Outcome(logits, dict(sorted(errors.items())))


def _score_chunk(scorer: Scorer, pairs: Sequence[Pair]) -> list[float | PairError]:
    """A logit or an error for each pair of one chunk."""
    answer = _call(scorer, pairs)
    results: dict[int, float | PairError] = {}
    if isinstance(answer, _Raised) and len(pairs) >= BROKEN_FROM:
        results = _probe(scorer, pairs)
        rest = [i for i in range(len(pairs)) if i not in results]
        if rest:
            results.update(_settle(scorer, pairs, rest, answer=_call(scorer, [pairs[i] for i in rest])))
    else:
        results.update(_settle(scorer, pairs, range(len(pairs)), answer=answer))
    ordered = [results[i] for i in range(len(pairs))]
    _stop_if_broken(ordered, of=len(pairs))
    return ordered


def _probe(scorer: Scorer, pairs: Sequence[Pair]) -> dict[int, float | PairError]:
    """Try pairs spread over a failing chunk one by one, up to the first that scores.

    A scorer that fails them all is broken, and is not asked for the rest: with a model that takes a second to
    fail, bisecting 512 pairs would take 17 minutes to say the same.
    """
    results: dict[int, float | PairError] = {}
    for i in _spread(len(pairs), PROBES):
        answer = _call(scorer, [pairs[i]])
        results[i] = _explain(answer) if isinstance(answer, _Raised) else answer[0]
        if not isinstance(results[i], PairError):
            return results
    _stop_if_broken(list(results.values()), of=len(pairs))
    return results


def _settle(
    scorer: Scorer, pairs: Sequence[Pair], wanted: Sequence[int], *, answer: list[float | PairError] | _Raised
) -> Iterator[tuple[int, float | PairError]]:
    """Results of `wanted` (indices into `pairs`), given what one call with all of them answered.

    Where it raised, `wanted` is halved until each part scores or is a single pair.
    """
    if not isinstance(answer, _Raised):
        yield from zip(wanted, answer, strict=True)
    elif len(wanted) == 1:
        yield wanted[0], _explain(answer)
    else:
        middle = len(wanted) // 2
        for half in (wanted[:middle], wanted[middle:]):
            yield from _settle(scorer, pairs, half, answer=_call(scorer, [pairs[i] for i in half]))


def _call(scorer: Scorer, pairs: Sequence[Pair]) -> list[float | PairError] | _Raised:
    """One call of the scorer, its answer checked."""
    try:
        answer = scorer.score(pairs)
    except ScoringFailed:
        raise
    except Exception as error:  # whatever a backend raises on a bad pair; KeyboardInterrupt is no Exception
        return _Raised(error)
    logits = np.asarray(answer)
    if logits.shape != (len(pairs),):
        raise ScoringFailed(
            f"{type(scorer).__name__}.score answered {len(pairs)} pairs with {logits.size} logits of shape "
            f"{list(logits.shape)}; a scorer returns one logit a pair, shape [{len(pairs)}]"
        )
    if logits.dtype != np.float32:
        raise ScoringFailed(
            f"{type(scorer).__name__}.score answered with {logits.dtype}; a scorer returns float32 logits "
            "(a lower precision makes ties)"
        )
    return [
        float(logit) if finite else PairError("nan_logit", f"the model's logit is {logit}")
        for logit, finite in zip(logits, np.isfinite(logits), strict=True)
    ]


def _explain(raised: _Raised) -> PairError:
    return PairError("model_error", f"{type(raised.error).__name__}: {shorten(str(raised.error))}")


def _stop_if_broken(results: Sequence[float | PairError], *, of: int) -> None:
    """Raise if every one of the results is an error and the chunk (`of` pairs) is large enough to tell."""
    first = results[0]
    if of < BROKEN_FROM or not isinstance(first, PairError):
        return
    if not all(isinstance(result, PairError) for result in results):
        return
    raise ScoringFailed(
        f"the scorer failed every one of {len(results)} pairs tried of a chunk of {of}; the first: "
        f"{first.reason}: {first.detail}. The model is broken, not the pairs: check scoring.model"
    )


def _spread(n: int, count: int) -> list[int]:
    """At most `count` indices, evenly spread over range(n), each once."""
    return sorted({i * n // count for i in range(count)})
