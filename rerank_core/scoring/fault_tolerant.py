"""Calls a scorer: the only module that does.

A backend has two members: `fingerprint` and `score`. Everything around them (order, chunks, duplicates, checks, the
search for a bad pair) is here, so that backends stay small and none can lose a pair silently.
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
"""Pairs per call, if the scorer prefers no other number."""

BROKEN_FROM = 8
"""The smallest chunk whose complete failure means that the model is broken."""

PROBES = 32
"""Pairs tried singly before a failing chunk counts as failing completely."""


class PairError(NamedTuple):
    """Why one pair has no logit."""

    reason: str  # a stable slug: model_error | nan_logit
    detail: str  # for people


class Outcome(NamedTuple):
    """The result of a list of pairs: each has a logit or an error."""

    logits: list[float | None]  # in the pairs' order
    errors: dict[int, PairError]  # by index into the pairs


class _Raised(NamedTuple):
    error: Exception


def chunk_of(scorer: Scorer) -> int:
    """Pairs per call of a scorer, if nothing else is said."""
    return scorer.chunk if isinstance(scorer, WantsChunks) else CHUNK


def score_checked(
    scorer: Scorer,
    pairs: Sequence[tuple[str, str]],
    *,
    chunk: int = 0,
    on_scored: Callable[[int], None] | None = None,
) -> Outcome:
    """Score pairs; one that cannot be scored does not affect the others.

    Equal pairs are scored once. A chunk that raises is bisected down to the pairs that cause it. The result depends on
    the pairs and the scorer alone.

    Args:
        scorer: any backend.
        pairs: (query side, passage side).
        chunk: most pairs per call of the scorer, which makes its own batches of them; pairs of similar length go
            into one chunk. 0: the scorer's own number, or CHUNK.
        on_scored: called after each chunk with its number of pairs, duplicates included; they add up to
            `len(pairs)`.

    Returns:
        Logits and errors by index into `pairs`. Reasons are "model_error" (the scorer raised) and "nan_logit" (it
        returned NaN or infinity).

    Raises:
        ScoringFailed: the scorer returns the wrong number, shape or type of logits, or fails every pair of a chunk of
            at least 8 (of a chunk larger than 32: 32 pairs spread over it, each scored singly).
    """
    if chunk < 0:
        raise ValueError(f"chunk is {chunk}; a call needs at least 1 pair")
    chunk = chunk or chunk_of(scorer)
    indices: dict[Pair, list[int]] = {}
    for i, pair in enumerate(pairs):
        indices.setdefault(pair, []).append(i)
    # Length in characters is close enough to length in tokens here. Longest first, as in plan_batches.
    order = sorted(indices, key=lambda pair: -(len(pair[0]) + len(pair[1])))
    logits: list[float | None] = [None] * len(pairs)
    errors: dict[int, PairError] = {}
    for part in (order[start : start + chunk] for start in range(0, len(order), chunk)):
        for pair, result in zip(part, _score_chunk(scorer, part), strict=True):
            for i in indices[pair]:
                if isinstance(result, PairError):
                    errors[i] = result
                else:
                    logits[i] = result
        if on_scored:
            on_scored(sum(len(indices[pair]) for pair in part))
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
    """Score pairs spread over a failing chunk singly, up to the first that succeeds.

    If all fail, the scorer is broken, and the rest is not tried: with a model that takes a second to fail, bisecting
    512 pairs would take 17 minutes to find out the same.
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
    """Results of `wanted` (indices into `pairs`), given the answer to one call with all of them.

    If it raised, `wanted` is halved until each part succeeds or is a single pair.
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
    """One call of the scorer; its answer is checked."""
    try:
        answer = scorer.score(pairs)
    except ScoringFailed:
        raise
    except Exception as error:  # whatever a backend raises on a bad pair; KeyboardInterrupt is no Exception
        return _Raised(error)
    logits = np.asarray(answer)
    if logits.shape != (len(pairs),):
        raise ScoringFailed(
            f"{type(scorer).__name__}.score returned {logits.size} logits of shape {list(logits.shape)} for "
            f"{len(pairs)} pairs; a scorer returns one logit per pair, shape [{len(pairs)}]"
        )
    if logits.dtype != np.float32:
        raise ScoringFailed(
            f"{type(scorer).__name__}.score returned {logits.dtype}; a scorer returns float32 logits (a "
            "lower precision causes ties)"
        )
    return [
        float(logit) if finite else PairError("nan_logit", f"the model's logit is {logit}")
        for logit, finite in zip(logits, np.isfinite(logits), strict=True)
    ]


def _explain(raised: _Raised) -> PairError:
    return PairError("model_error", f"{type(raised.error).__name__}: {shorten(str(raised.error))}")


def _stop_if_broken(results: Sequence[float | PairError], *, of: int) -> None:
    """Raise if all results are errors and the chunk (`of` pairs) is large enough to blame the model."""
    first = results[0]
    if of < BROKEN_FROM or not isinstance(first, PairError):
        return
    if not all(isinstance(result, PairError) for result in results):
        return
    raise ScoringFailed(
        f"the scorer failed all {len(results)} pairs that were tried of a chunk of {of}; the first: "
        f"{first.reason}: {first.detail}. The model is broken, not the pairs: check scoring.model"
    )


def _spread(n: int, count: int) -> list[int]:
    """At most `count` indices, evenly spread over range(n), each once."""
    return sorted({i * n // count for i in range(count)})
